"""A server that lies, or somebody on the way to it: what it learns, and what its answers can do."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from struct import pack

import pytest

from keyvault_lite import app
from keyvault_lite.ledger.storage.postgresql import read_timeout
from keyvault_lite.ledger.storage.postgresql.address import read_address
from keyvault_lite.ledger.storage.postgresql.connection import PostgresConnection
from keyvault_lite.ledger.storage.postgresql.database import PostgresDatabase
from keyvault_lite.model.errors import AuditUnavailable, KeyVaultError, OutcomeUnknown
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt
from keyvault_lite.operator.verify import verify_vault
from tests.suites.postgresql.hostile import (
    DATA_ROW,
    ROW_DESCRIPTION,
    Answer,
    Messages,
    Middle,
    between,
    error,
    with_types,
)
from tests.support.harness import Harness, create_vault, settings_for
from tests.support.postgres import Databases
from tools.postgres_server import Server

CLEARTEXT, MD5 = pack(">I", 3), pack(">I", 5) + b"salt"
REFUSALS = (*app.CANNOT_START, KeyVaultError)


@pytest.fixture
def middle(postgres: Harness) -> Iterator[Middle]:
    with between(postgres.settings.database_url) as made:
        yield made


def by_way_of(harness: Harness, middle: Middle) -> Harness:
    """The same vault, reached through somebody."""
    harness.vault.close()
    harness.settings = harness.settings.model_copy(update={"database_url": f"{middle.url}?connect_timeout=2"})
    return harness


@pytest.mark.parametrize("asks", [CLEARTEXT, MD5], ids=["cleartext", "md5"])
def test_a_server_that_nothing_identifies_is_given_no_password(postgres: Harness, middle: Middle, asks: bytes) -> None:
    """Whoever listens on the server's port while it is down would have it."""
    harness = by_way_of(postgres, middle)
    middle.asks = asks
    with pytest.raises(app.CANNOT_START, match="authentication method"):
        harness.open()
    assert middle.passwords == []
    middle.asks = None
    harness.open()


def test_scram_is_what_a_password_is_used_with(tmp_path: Path) -> None:
    server = Server()
    try:
        rules = server.folder / "data" / "pg_hba.conf"
        server.start()
        databases = Databases(server.url)
        databases.run("CREATE ROLE vault LOGIN SUPERUSER PASSWORD 'hush'")
        rules.write_text("local all vault scram-sha-256\nlocal all postgres trust\n")
        databases.run("SELECT pg_reload_conf()")
        url = databases.of("postgres", user="vault", password="hush")
        master, token = create_vault(tmp_path, url)
        Harness(settings_for(tmp_path, master, url), token).close()
        with pytest.raises(app.CANNOT_START) as refused:
            app.open_vault(settings_for(tmp_path, master, databases.of("postgres", user="vault", password="wrong")))
        assert "wrong" not in str(refused.value)
    finally:
        server.remove()


@pytest.mark.parametrize("begins", [5, 40])
@pytest.mark.parametrize("oid", [17, 20, 114, 10**6])
def test_a_value_of_a_type_that_was_not_asked_for_is_no_crash(
    postgres: Harness, middle: Middle, oid: int, begins: int
) -> None:
    """From the beginning of a session, or once it is in use."""
    harness = by_way_of(postgres, middle)
    count = 0

    def answer(kind: bytes, body: bytes) -> Messages:
        nonlocal count
        count += kind == ROW_DESCRIPTION
        lies = kind == ROW_DESCRIPTION and count > begins
        yield kind, with_types(body, oid) if lies else body

    middle.answer = answer
    with suppress(*REFUSALS):
        assert not verify_vault(harness.settings).valid
    middle.answer = None
    harness.open()


@pytest.mark.parametrize("lie", ["none", "twice", "garbage"])
def test_rows_that_are_missing_doubled_or_garbled_are_no_crash(postgres: Harness, middle: Middle, lie: str) -> None:
    postgres.key("orders")
    harness = by_way_of(postgres, middle)
    for number in (1, 4, 12, 30):
        rows = 0

        def answer(kind: bytes, body: bytes, number: int = number) -> Messages:
            nonlocal rows
            rows += kind == DATA_ROW
            if kind != DATA_ROW or rows != number:
                yield kind, body
            elif lie == "twice":
                yield kind, body
                yield kind, body
            elif lie == "garbage":
                yield kind, body[:-1] + b"\xff"

        middle.answer = answer
        with suppress(*REFUSALS):
            verify_vault(harness.settings)
    middle.answer = None
    harness.open()
    harness.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))


def test_the_servers_words_do_not_drive_a_terminal(postgres: Harness, middle: Middle) -> None:
    harness = by_way_of(postgres, middle)

    def answer(kind: bytes, body: bytes) -> Messages:
        yield (b"E", error("\x1b]0;owned\x07\x1b[2J\u202eok\nclean")) if kind == ROW_DESCRIPTION else (kind, body)

    middle.answer = answer
    master = harness.settings.master_key
    assert master is not None
    environment = {
        **os.environ,
        "KEYVAULT_MASTER_KEY": master.get_secret_value(),
        "KEYVAULT_DATABASE_URL": middle.url,
        "KEYVAULT_ANCHOR": str(harness.settings.anchor),
    }
    for command in ("verify", "serve"):
        done = subprocess.run(
            [sys.executable, "-m", "keyvault_lite", command],
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        told = done.stdout + done.stderr
        assert done.returncode == 2, told
        assert b"owned" in told or b"clean" in told
        assert not {*told.decode()} & {"\x1b", "\x07", "\u202e"}
        assert b"hush" not in told
    middle.answer = None
    harness.open()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_timeout, "SILENCE_SECONDS", 0.5)


def falls_silent(after: int) -> Answer:
    """A server that says nothing more after so many messages, and keeps the connection."""
    left = after

    def answer(kind: bytes, body: bytes) -> Messages:
        nonlocal left
        left -= 1
        if left >= 0:
            yield kind, body

    return answer


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("after", [0, 25, 200, 500])
def test_a_server_that_falls_silent_ends_a_check_and_a_start_with_the_next_step(
    postgres: Harness, middle: Middle, after: int
) -> None:
    """Before it has answered a login, or at any later point: the connection stays open, and nothing comes."""
    harness = by_way_of(postgres, middle)
    middle.answer = falls_silent(after)
    attempt = app.open_vault if after in {25, 200} else verify_vault
    with pytest.raises(app.CANNOT_START, match=r"connection timeout|no answer.*accepts connections") as refused:
        attempt(harness.settings)
    assert "connection pooler" in str(refused.value)
    middle.answer = None
    harness.open()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_falls_silent_keeps_no_caller_waiting(postgres: Harness, middle: Middle) -> None:
    harness = by_way_of(postgres, middle)
    harness.open()
    harness.key("orders")
    middle.answer = falls_silent(5)
    with pytest.raises((AuditUnavailable, OutcomeUnknown)):
        harness.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
    middle.answer = None
    harness.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))


@pytest.mark.usefixtures("impatient")
def test_a_server_that_works_for_long_on_the_owners_statement_is_waited_for(postgres: Harness) -> None:
    database = PostgresDatabase(read_address(postgres.settings.database_url, allow_plain=False))
    with closing(database.writer()) as connection:
        assert isinstance(connection, PostgresConnection)
        with connection.raw.unhurried():
            connection.execute("SELECT pg_catalog.pg_sleep(1)")
        with pytest.raises(AuditUnavailable):
            connection.execute("SELECT pg_catalog.pg_sleep(1)")
        assert connection.raw.closed


@pytest.mark.parametrize(("workers", "way"), [(1, "URL"), (2, "URL"), (2, "PGPASSWORD")])
def test_a_password_is_in_no_environment_of_a_server(tmp_path: Path, workers: int, way: str) -> None:
    """Not in that of a worker either, which needs it for each new connection."""
    server = Server()
    serving = None
    try:
        rules = server.folder / "data" / "pg_hba.conf"
        server.start()
        databases = Databases(server.url)
        databases.run("CREATE ROLE vault LOGIN SUPERUSER PASSWORD 'hush-%:/'")
        rules.write_text("local all vault scram-sha-256\nlocal all postgres trust\n")
        databases.run("SELECT pg_reload_conf()")
        full, bare = databases.of("postgres", user="vault", password="hush-%:/"), databases.of("postgres", user="vault")
        master, _ = create_vault(tmp_path, full)
        environment = {
            **os.environ,
            "KEYVAULT_MASTER_KEY": master,
            "KEYVAULT_ANCHOR": str(tmp_path / "keyvault.anchor"),
            "KEYVAULT_PORT": "0",
            "KEYVAULT_DATABASE_URL": full if way == "URL" else bare,
            "PGPASSWORD": "" if way == "URL" else "hush-%:/",
        }
        command = [sys.executable, "-P", "-m", "keyvault_lite", "serve", "--workers", str(workers)]
        with (tmp_path / "log").open("wb") as log:
            serving = subprocess.Popen(command, env=environment, stderr=log, stdout=log, cwd=tmp_path)
        until = time.monotonic() + 60
        while (tmp_path / "log").read_text().count("requests are answered") < workers:
            assert serving.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        children = Path(f"/proc/{serving.pid}/task/{serving.pid}/children").read_text().split()
        for pid in (str(serving.pid), *children):
            held = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"hush" not in held
            assert b"hush" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    finally:
        if serving is not None:
            serving.terminate()
            serving.wait(30)
        server.remove()

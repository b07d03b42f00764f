"""The vault as a whole: begun once, opened with the right key only, recovered, its master key replaced."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyvault_lite import app, settings
from keyvault_lite.crypto.root import InvalidMasterKey, MasterKey
from keyvault_lite.engine.jobs import Jobs
from keyvault_lite.model.errors import Conflict, IntegrityViolation, KeyVaultError, Unauthenticated
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import SYSTEM, KeyRef
from keyvault_lite.model.requests import Decrypt, Encrypt, ListKeys, VerifyAudit
from keyvault_lite.operator.initialise import initialise_vault, recover_admin
from keyvault_lite.operator.rotate_master_key import rotate_master_key
from keyvault_lite.operator.verify import verify_vault
from keyvault_lite.server import serve as serving
from keyvault_lite.server.connection import serve as server_config
from keyvault_lite.server.lifecycle import Server
from keyvault_lite.server.listeners import check_address
from keyvault_lite.settings import InvalidSettings
from tests.support.harness import Harness, create_vault, settings_for
from tests.support.paths import ROOT, SOURCE


def text_of(harness: Harness) -> str:
    assert harness.settings.master_key is not None
    return harness.settings.master_key.get_secret_value()


def test_a_vault_is_begun_once(tmp_path: Path) -> None:
    master, token = create_vault(tmp_path)
    with pytest.raises(Conflict, match="recover-admin"):
        initialise_vault(settings_for(tmp_path, master))
    harness = Harness(settings_for(tmp_path, master), token)
    first, *_ = harness.log()
    assert (first.id, first.draft.action, first.draft.service_id) == (1, Action.INITIALISE, SYSTEM)
    harness.ask(ListKeys())
    harness.close()


def test_many_begin_at_once_and_one_does(tmp_path: Path) -> None:
    _, master = MasterKey.generate()
    mine = settings_for(tmp_path, master)

    def begin(_: int) -> str | None:
        try:
            return initialise_vault(mine).token
        except Conflict:
            return None

    with ThreadPoolExecutor(6) as pool:
        tokens = [token for token in pool.map(begin, range(6)) if token is not None]
    assert len(tokens) == 1
    harness = Harness(mine, tokens[0])
    assert [one.draft.action for one in harness.log()] == [Action.INITIALISE]
    harness.close()


START = """
import asyncio, main
from tests.support.paths import ROOT, SOURCE
async def live():
    events = asyncio.Queue()
    started = asyncio.Event()
    async def receive():
        if not started.is_set():
            started.set()
            return {"type": "lifespan.startup"}
        await asyncio.sleep(0.5)
        return {"type": "lifespan.shutdown"}
    async def send(message):
        print(message["type"], message.get("message", ""), flush=True)
    await main.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
asyncio.run(live())
"""


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    """A process that does what `uvicorn main:app` does to start and to stop."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
    return subprocess.Popen(
        [sys.executable, "-c", START],
        cwd=folder,
        env={
            **clean,
            "PYTHONPATH": os.pathsep.join((str(SOURCE), str(ROOT))),
            "KEYVAULT_DATABASE_URL": f"sqlite:///{folder}/vault.db",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(60)
def test_several_servers_started_at_once_begin_one_vault(tmp_path: Path) -> None:
    _, master = MasterKey.generate()
    running = [start(tmp_path, KEYVAULT_MASTER_KEY=master) for _ in range(3)]
    told = [one.communicate(timeout=50) for one in running]
    assert [one.returncode for one in running] == [0, 0, 0], told
    assert all(out.split() == ["lifespan.startup.complete", "lifespan.shutdown.complete"] for out, _ in told)
    lines = [json.loads(line) for _, errors in told for line in errors.splitlines()]
    tokens = [line["token"] for line in lines if "token" in line]
    assert len(tokens) == 1
    harness = Harness(settings_for(tmp_path, master), tokens[0])
    harness.ask(ListKeys())
    assert sum(entry.draft.action is Action.INITIALISE for entry in harness.log()) == 1
    harness.close()


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "No master key: neither of KEYVAULT_MASTER_KEY and KEYVAULT_MASTER_KEY_FILE is set; make one with"),
        (
            {"KEYVAULT_ALLOW_PLAIN_HTTP": "maybe"},
            "These settings are not valid: KEYVAULT_ALLOW_PLAIN_HTTP: input should be",
        ),
    ],
)
def test_what_keeps_uvicorn_from_starting_is_told_in_a_sentence(
    tmp_path: Path, environment: dict[str, str], sentence: str
) -> None:
    process = start(tmp_path, **environment)
    out, errors = process.communicate(timeout=50)
    assert process.returncode != 0
    told = [line for line in (out + errors).splitlines() if sentence in line and "Traceback" not in line]
    assert f"KeyVault Lite does not start: {sentence}" in told[0]
    assert "Traceback" not in out
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_master_key_is_told_in_a_sentence(harness: Harness) -> None:
    _, other = MasterKey.generate()
    with pytest.raises(InvalidMasterKey) as refused:
        app.open_vault(settings_for(harness.path.parent, other))
    assert str(refused.value).count(".") == 1
    assert other not in str(refused.value)
    for text in ("", "short", "A" * 44):
        with pytest.raises(InvalidMasterKey):
            app.open_vault(settings_for(harness.path.parent, text))


def test_a_lost_token_is_recovered(harness: Harness) -> None:
    made = recover_admin(harness.settings)
    # The server that runs meanwhile knows it at once.
    harness.refusal(ListKeys(), Unauthenticated)
    harness.ask(ListKeys(), made.token)
    entry = next(one.draft for one in harness.log() if one.draft.action is Action.TOKEN_RENEW)
    assert (entry.service_id, entry.subject) == (SYSTEM, made.service_id)
    assert made.token not in repr(made) or made.token


def test_a_master_key_is_replaced_while_the_server_runs(harness: Harness) -> None:
    name = KeyRef(harness.key("orders").id)
    made = harness.ask(Encrypt(name, plaintext=b"x"))
    old = text_of(harness)
    _, new = MasterKey.generate()
    rotate_master_key(harness.settings, new_key=new, keep_old=True)
    with pytest.raises(Conflict, match="that is the key the vault has"):
        rotate_master_key(harness.settings, new_key=new, keep_old=True)
    for text in (old, new):
        vault = app.open_vault(settings_for(harness.path.parent, text))
        vault.close()
    rotate_master_key(harness.settings, new_key=new)
    with pytest.raises(InvalidMasterKey):
        app.open_vault(harness.settings)
    # The running server goes on; nothing of the keys has changed.
    assert harness.ask(Decrypt(name, None, made.ciphertext, made.encrypted_dek)).plaintext == b"x"
    assert harness.ask(VerifyAudit()).valid
    harness.vault.close()
    harness.settings = settings_for(harness.path.parent, new)
    harness.open()
    assert harness.ask(Decrypt(name, None, made.ciphertext, made.encrypted_dek)).plaintext == b"x"
    with pytest.raises(Conflict, match="that is the key the vault has"):
        rotate_master_key(harness.settings, new_key=new)
    assert sum(one.draft.action is Action.MASTER_KEY_ROTATE for one in harness.log()) == 2
    with pytest.raises(InvalidMasterKey):
        rotate_master_key(harness.settings, new_key="not a key")


def test_the_check_beside_the_server(harness: Harness) -> None:
    harness.key()
    found = verify_vault(harness.settings)
    assert (found.valid, found.findings) == (True, ())
    assert found.entries == harness.size


def test_the_vault_is_closed_even_if_its_jobs_have_died(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.vault.close()

    async def die(_: Jobs) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Jobs, "run", die)

    async def serve() -> None:
        async with app._serving(harness.settings, None) as engine:
            await asyncio.sleep(0)
            assert engine.health().serving

    asyncio.run(serve())
    assert not harness.path.with_name("vault.db-wal").exists(), "it was closed"
    harness.open()


def test_an_emptied_database_beside_an_anchor_does_not_begin_anew(harness: Harness) -> None:
    harness.vault.close()
    saved = harness.path.read_bytes()
    harness.path.unlink()
    for opening in (app.open_vault, initialise_vault):
        with pytest.raises(IntegrityViolation, match="anchor"):
            opening(harness.settings)
    harness.path.write_bytes(saved)
    harness.open()


# Addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_plain_http_on_loopback(host: str) -> None:
    check_address(settings.load(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "vault.example", ""])
def test_plain_http_elsewhere_is_refused(host: str) -> None:
    with pytest.raises(InvalidSettings, match="KEYVAULT_ALLOW_PLAIN_HTTP"):
        check_address(settings.load(host=host))
    check_address(settings.load(host=host, allow_plain_http=True))


def test_tls_needs_both_files(tmp_path: Path) -> None:
    for half in ("tls_cert", "tls_key"):
        with pytest.raises(InvalidSettings, match="go together"):
            check_address(settings.load(**{half: tmp_path / "x"}))
    with pytest.raises(InvalidSettings, match="TLS"):
        check_address(settings.load(host="0.0.0.0", tls_cert=tmp_path / "x", tls_key=tmp_path / "y"))


def test_what_keeps_a_server_from_starting_is_told_before(harness: Harness, tmp_path: Path) -> None:
    _, other = MasterKey.generate()
    with pytest.raises(app.CANNOT_START):
        serving.serve(settings_for(harness.path.parent, other))
    with pytest.raises(app.CANNOT_START):
        serving.serve(settings.load(host="0.0.0.0"))
    assert issubclass(KeyVaultError, app.CANNOT_START)


def test_an_end_that_waits_for_what_does_not_come_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    serving._give_up()
    assert ended == [serving.STUCK]


def test_the_server_tells_once_that_it_was_told_to_end() -> None:
    told: list[str] = []

    def tell() -> None:
        told.append("end")
        server.handle_exit(signal.SIGTERM, None)  # as where another comes while this one is handled

    server = Server(server_config(lambda: None, host="127.0.0.1", port=0), on_stop=tell)
    for _ in range(2):
        server.handle_exit(signal.SIGTERM, None)
    assert told == ["end"]
    assert server.should_exit

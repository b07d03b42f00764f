"""Several processes behind one address are one vault: one truth, one log, and none of them is missed when it dies."""

import base64
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.model.evidence import Action
from keyvault_lite.server.supervisor import Supervisor
from tests.suites.overload.server import Client, Load, Vault, answers, gone, wait_until

WORKERS = 2


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    vault = Vault.make(tmp_path_factory.mktemp("vault"))
    vault.start("--workers", str(WORKERS))
    vault.key()
    yield vault
    vault.kill()


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault.make(tmp_path)
    yield made
    made.kill()


def clients(vault: Vault, token: str) -> list[Client]:
    """Connections enough to be with every worker."""
    return [vault.client(token) for _ in range(16)]


def service(vault: Vault, name: str) -> str:
    grants = [{"key": "orders", "actions": ["encrypt", "decrypt"]}]
    made = vault.client().ask("POST", "/services", {"name": name, "role": "SERVICE", "grants": grants})
    assert made.status == 201, made.body
    token: str = made.json["token"]
    return token


def by_worker(vault: Vault) -> dict[str, float]:
    """Requests on record by worker."""
    found: dict[str, float] = {}
    for line in vault.client().ask("GET", "/metrics").body.decode().splitlines():
        if line.startswith("keyvault_requests_total{"):
            worker = line.partition('worker="')[2].partition('"')[0]
            found[worker] = found.get(worker, 0) + float(line.split()[-1])
    return found


def test_all_of_them_answer_and_their_numbers_are_told_side_by_side(served: Vault) -> None:
    def all_have_worked() -> bool:
        for client in clients(served, served.admin):
            assert client.encrypt().status == 200
            client.close()
        return len(by_worker(served)) == WORKERS

    wait_until(all_have_worked, 20)


def test_a_new_token_works_everywhere_at_once_and_an_old_one_nowhere(served: Vault) -> None:
    for turn in range(5):
        token = service(served, f"caller-{turn}")
        callers = clients(served, token)
        assert {one.encrypt().status for one in callers} == {200}
        assert served.client().ask("PATCH", f"/services/caller-{turn}", {"active": False}).status == 200
        assert {one.encrypt().status for one in callers} == {401}


def test_a_revoked_key_is_revoked_everywhere_once_that_was_answered(served: Vault) -> None:
    for turn in range(5):
        name = f"short-{turn}"
        served.key(name)
        callers = clients(served, served.admin)
        sealed = callers[0].ask("POST", f"/keys/{name}/encrypt", {"plaintext": "aGk="}).json
        opened = {part: sealed[part] for part in ("ciphertext", "encrypted_dek")}
        late: list[int] = []
        revoked = threading.Event()

        def decrypt(one: Client, path: str, body: object, revoked: threading.Event, late: list[int]) -> None:
            for _ in range(40):
                after = revoked.is_set()
                status = one.ask("POST", path, body).status
                if after:
                    late.append(status)

        threads = [
            threading.Thread(target=decrypt, args=(one, f"/keys/{name}/decrypt", opened, revoked, late))
            for one in callers[1:]
        ]
        for one in threads:
            one.start()
        assert callers[0].ask("POST", f"/keys/{name}/revoke", {}).status == 200
        revoked.set()
        for one in threads:
            one.join()
        assert late
        assert set(late) == {409}


def test_a_worker_that_dies_is_replaced_and_the_log_goes_on(vault: Vault) -> None:
    vault.start("--workers", str(WORKERS))
    # All of them serve: one that is killed before it does, says nothing of it.
    wait_until(lambda: vault.log.count("requests are answered") == WORKERS, 20)
    vault.key()
    load = Load(vault, 6)
    with load:
        wait_until(lambda: len(load.recorded) > 50, 20)
        [first, *_] = vault.workers()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(vault.workers()) == WORKERS and first not in vault.workers(), 20)
        wait_until(lambda: vault.log.count("requests are answered") == WORKERS + 1, 30)
    assert load.others == []
    assert vault.client().encrypt().status == 200
    assert vault.stop() == 0
    assert len(set(load.recorded)) == len(load.recorded), "no number was given twice"
    assert max(load.recorded) <= vault.entries()


def test_a_worker_that_was_replaced_is_given_connections_again(vault: Vault) -> None:
    """Each dies once, and at the end each has work: none is left beside a socket that gets no connection."""
    vault.start("--workers", str(WORKERS))

    def serving(count: int) -> bool:
        return vault.log.count("requests are answered") == count

    wait_until(partial(serving, WORKERS), 20)
    for died, pid in enumerate(vault.workers(), 1):
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(serving, WORKERS + died), 30)
    before = by_worker(vault)

    def all_have_worked() -> bool:
        for client in clients(vault, vault.admin):
            assert client.ask("GET", "/keys").status == 200
        after = by_worker(vault)
        return sum(after[one] > before.get(one, 0) for one in after) == WORKERS

    wait_until(all_have_worked, 10)


@pytest.mark.slow
def test_they_are_renewed_one_by_one_without_a_gap_in_service(vault: Vault) -> None:
    vault.start("--workers", str(WORKERS))
    vault.key()
    wait_until(lambda: vault.log.count("requests are answered") == WORKERS, 20)
    old = vault.workers()
    vault.signal(signal.SIGHUP)
    seen: set[bool] = set()

    def renewed() -> bool:
        seen.add(answers(vault.port))
        return not set(old) & set(vault.workers()) and len(vault.workers()) == WORKERS

    wait_until(renewed, 40)
    assert seen == {True}
    assert vault.client().encrypt().status == 200
    assert vault.stop() == 0


@pytest.mark.slow
def test_they_end_when_nobody_watches_over_them(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    vault.settings["TMPDIR"] = str(tmp_path / "temporary")
    vault.start("--workers", str(WORKERS))
    wait_until(lambda: vault.log.count("requests are answered") == WORKERS, 20)
    assert list((tmp_path / "temporary").iterdir())
    workers = vault.workers()
    assert vault.process is not None
    vault.process.kill()
    vault.process.wait()
    wait_until(lambda: all(map(gone, workers)), 20)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert vault.entries()


@pytest.mark.slow
def test_what_keeps_the_vault_from_serving_is_one_sentence_and_an_exit_code(vault: Vault) -> None:
    def run(**settings: str) -> subprocess.CompletedProcess[bytes]:
        environment = {**vault.environment, **settings}
        command = vault.command("--workers", "2", "--no-init")
        return subprocess.run(command, cwd=vault.folder, env=environment, capture_output=True, timeout=60, check=False)

    empty = run(KEYVAULT_DATABASE_URL="sqlite:///empty.db")
    assert (empty.returncode, empty.stderr.count(b"\n")) == (2, 1)
    assert b"kvl init" in empty.stderr
    (vault.folder / "other.key").write_text(base64.b64encode(os.urandom(32)).decode())
    (vault.folder / "other.key").chmod(0o600)
    wrong = run(KEYVAULT_MASTER_KEY_FILE="other.key")
    assert (wrong.returncode, wrong.stderr.count(b"\n")) == (2, 1)
    vault.start()
    taken = run(KEYVAULT_PORT=str(vault.port))
    assert (taken.returncode, taken.stderr.count(b"\n")) == (2, 1)
    assert b"Cannot listen" in taken.stderr
    vault.stop()
    # Workers share their address with each other, and with no other server.
    vault.start("--workers", "2")
    shared = run(KEYVAULT_PORT=str(vault.port))
    assert (shared.returncode, shared.stderr.count(b"\n")) == (2, 1)
    assert b"Cannot listen" in shared.stderr


@pytest.mark.slow
def test_when_no_worker_comes_to_serve_the_server_ends(vault: Vault) -> None:
    vault.start("--workers", str(WORKERS))
    wait_until(lambda: vault.log.count("requests are answered") == WORKERS, 20)
    (vault.folder / "master.key").write_text(base64.b64encode(os.urandom(32)).decode())
    for pid in vault.workers():
        os.kill(pid, signal.SIGKILL)
    assert vault.process is not None
    assert vault.process.wait(60) == 3
    assert "no worker can be started" in vault.log
    assert "opens no slot" in vault.log


@pytest.mark.slow
@pytest.mark.parametrize("way", ["environment", "descriptor"])
def test_the_master_key_reaches_them_and_is_in_no_environment(vault: Vault, way: str) -> None:
    text = (vault.folder / "master.key").read_text()
    reading, writing = os.pipe()
    del vault.settings["KEYVAULT_MASTER_KEY_FILE"]
    if way == "environment":
        vault.settings["KEYVAULT_MASTER_KEY"] = text
    else:
        vault.settings["KEYVAULT_MASTER_KEY_FILE"] = f"/dev/fd/{reading}"
        os.write(writing, text.encode())
    os.close(writing)
    vault.start("--workers", str(WORKERS), files=[reading])
    os.close(reading)
    vault.key()
    wait_until(lambda: vault.log.count("requests are answered") == WORKERS, 20)
    assert vault.process is not None
    for pid in (vault.process.pid, *vault.workers()):
        assert text.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert text.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(vault.workers()[0], signal.SIGKILL)
    wait_until(lambda: vault.log.count("requests are answered") == WORKERS + 1, 30)
    assert {one.encrypt().status for one in clients(vault, vault.admin)} == {200}
    assert vault.stop() == 0


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_a_start_warns_once_of_a_key_that_others_can_read(vault: Vault, workers: int) -> None:
    (vault.folder / "master.key").chmod(0o644)
    vault.start("--workers", str(workers))
    wait_until(lambda: workers == 1 or vault.log.count("requests are answered") == workers, 20)
    assert vault.stop() == 0
    assert vault.log.count("is open to other users") == 1


def test_timed_work_is_done_once(vault: Vault) -> None:
    first, second = app.open_vault(vault.chosen), app.open_vault(vault.chosen)
    try:
        assert (first.ledger.is_leader, second.ledger.is_leader, first.ledger.is_leader) == (True, False, True)
    finally:
        first.close()
    assert second.ledger.is_leader, "whoever is left does it"
    second.close()


def test_one_log_of_all_that_they_did(served: Vault) -> None:
    load = Load(served, 8)
    with load:
        wait_until(lambda: len(load.recorded) > 300, 20)
    assert len(set(load.recorded)) == len(load.recorded)
    assert served.stop() == 0
    entries = served.entries()
    opened = app.open_vault(served.chosen)
    page = opened.ledger.evidence.entries(Filter(limit=1000))
    opened.close()
    assert [entry.id for entry in page.items] == list(range(entries, max(0, entries - 1000), -1))
    told = {entry.id for entry in page.items if entry.draft.action is Action.ENCRYPT}
    assert {one for one in load.recorded if one > entries - 1000} <= told


def test_who_is_told_to_end_starts_no_more_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def start(_self: Supervisor, number: int) -> None:
        started.append(number)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Supervisor, "_start", start)
    assert Supervisor(lambda _: None, [[]] * 64, list).run() == 0  # type: ignore[arg-type,return-value]  # nothing is made
    assert started == [0]


def test_each_worker_tells_that_the_database_is_gone_and_that_it_is_back(vault: Vault) -> None:
    vault.start("--workers", str(WORKERS))
    database = next(one for one in vault.folder.iterdir() if one.suffix == ".db")
    aside = database.with_name("aside.db")

    def all_say(status: int) -> bool:
        asked = [client.ask("GET", "/health").status for client in clients(vault, vault.admin)]
        return set(asked) == {status}

    # All of them serve: one that is still being started would end, and with it the connections that wait for it.
    wait_until(lambda: vault.log.count("requests are answered") == WORKERS, 20)
    wait_until(lambda: all_say(200), 20)
    database.rename(aside)
    wait_until(lambda: all_say(503), 20)
    aside.rename(database)
    wait_until(lambda: all_say(200), 20)

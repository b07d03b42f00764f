"""Readers that wait for the log to grow, at a server as it is run: what they cost, and how they end."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from keyvault_lite.engine.reading import MAX_WAITING_EACH
from tests.suites.overload.server import Reply, Vault, raw, wait_until

FOREVER = "/audit?action=destroy&wait=60"
"""Asks for what does not come."""


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    made = Vault.make(tmp_path_factory.mktemp("followed"))
    made.start()
    made.key()
    yield made
    made.kill()


def waiting(vault: Vault) -> int:
    page = vault.client().ask("GET", "/metrics").body.decode()
    return next(int(line.split()[1]) for line in page.splitlines() if line.startswith("keyvault_audit_readers_waiting"))


def head(vault: Vault, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {vault.admin}\r\n\r\n".encode()


def test_readers_that_wait_hold_nobody_up_and_leave_their_places(vault: Vault) -> None:
    with ExitStack() as readers:
        for _ in range(MAX_WAITING_EACH):
            readers.enter_context(raw(vault.port, head(vault, FOREVER)))
        wait_until(lambda: waiting(vault) == MAX_WAITING_EACH, 10)
        refused = vault.client().ask("GET", FOREVER)
        assert (refused.status, refused.json["code"]) == (429, "limit_exceeded")
        began = time.monotonic()
        client = vault.client()
        assert {client.encrypt().status for _ in range(20)} == {200}
        assert client.ask("GET", "/audit?limit=1").status == 200, "lists have their lane for themselves"
        assert time.monotonic() - began < 10
    wait_until(lambda: waiting(vault) == 0, 10)


def test_following_adds_nothing_to_what_it_follows(vault: Vault) -> None:
    client, other = vault.client(), vault.client()
    first = client.ask("GET", "/audit?wait=0&limit=1000&action=encrypt")
    session, cursor = first.headers["audit-id"], first.json["next"]
    before = int(other.encrypt().headers["audit-id"])
    for number in range(3):
        reply = client.ask("GET", f"/audit?wait=30&after={cursor}&action=encrypt")
        assert reply.headers["audit-id"] == session
        assert [one["id"] for one in reply.json["items"]] == [before + number]
        assert reply.json["items"][0]["display"] == {
            "service_name": "admin",
            "key_name": "orders",
            "subject_name": None,
        }
        cursor = reply.json["next"]
        assert int(other.encrypt().headers["audit-id"]) == before + number + 1, "no entry between"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_end_of_the_server_answers_who_waits(tmp_path: Path, workers: str) -> None:
    vault = Vault.make(tmp_path)
    vault.start("--workers", workers)
    try:
        answered: list[Reply] = []
        reader = threading.Thread(target=lambda: answered.append(vault.client().ask("GET", FOREVER)))
        reader.start()
        wait_until(lambda: vault.client().ask("GET", "/audit?limit=1&action=audit_read").json["items"], 10)
        time.sleep(0.5)
        began = time.monotonic()
        assert vault.stop() == 0
        assert time.monotonic() - began < 7
        reader.join(10)
        assert (answered[0].status, json.loads(answered[0].body)["items"]) == (200, [])
    finally:
        vault.kill()

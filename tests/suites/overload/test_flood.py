"""A flood over real connections: good callers go on, each attempt is on record, and no line of the log has a secret."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.model.evidence import Action
from tests.suites.overload.server import Client, Load, Vault, raw, wait_until

BAD = "kvl_" + "A" * 16 + "_" + "canary7f21" * 4 + "abc"


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault.make(tmp_path)
    made.settings["KEYVAULT_LOG_LEVEL"] = "debug"
    yield made
    made.kill()


def flood(vault: Vault, stop: threading.Event, statuses: list[int]) -> None:
    client = Client(vault.port, BAD)
    try:
        while not stop.is_set():
            statuses.append(client.ask("POST", "/keys/orders/encrypt", {"plaintext": "canary-9b02"}).status)
    except (OSError, http.client.HTTPException):
        statuses.append(0)
    client.close()


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def test_bad_tokens_do_not_starve_good_ones(vault: Vault) -> None:
    vault.start()
    vault.key()
    with Load(vault, 4) as alone:
        wait_until(lambda: len(alone.seconds) > 400, 20)
    stop, statuses = threading.Event(), list[int]()
    attackers = [threading.Thread(target=flood, args=(vault, stop, statuses)) for _ in range(40)]
    for one in attackers:
        one.start()
    wait_until(lambda: len(statuses) > 10, 10)
    with Load(vault, 4) as beside:
        wait_until(lambda: len(beside.seconds) > 400 and len(statuses) > 60, 30)
    stop.set()
    for one in attackers:
        one.join(20)
    assert beside.others == alone.others == []
    assert set(statuses) == {401}
    # Not a measurement (that is benchmarks/overload.py): threads of this process are the callers on both sides.
    assert median(beside.seconds) < 4 * median(alone.seconds) + 0.02
    assert vault.stop() == 0
    opened = app.open_vault(vault.chosen)
    entries = opened.ledger.evidence.entries(Filter(limit=1000, action=Action.AUTHENTICATE)).items
    opened.close()
    assert sum(entry.draft.count for entry in entries) == len(statuses)
    assert len(entries) < len(statuses), "beyond ten a second they share an entry"


def test_no_line_of_the_log_tells_a_secret(vault: Vault) -> None:
    vault.start()
    vault.key()
    good = vault.client()
    context = {"who": "canary-context"}
    sealed = good.ask("POST", "/keys/orders/encrypt", {"plaintext": "canary-plain", "context": context}).json
    opened = {name: sealed[name] for name in ("ciphertext", "encrypted_dek")}
    assert good.ask("POST", "/keys/orders/decrypt", opened | {"context": context}).json["plaintext"] == "canary-plain"
    Client(vault.port, BAD).ask("GET", "/keys")
    good.ask("POST", "/keys/orders/encrypt", {"plaintext": "canary-plain", "canary-field": 1})
    good.ask("GET", "/metrics")
    with raw(vault.port, b"canary-garbage \x00\xff\r\n\r\n") as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert vault.stop() == 0
    said = vault.log
    for secret in ("canary", vault.admin, vault.admin.rpartition("_")[2], (vault.folder / "master.key").read_text()):
        assert secret not in said
    assert '"message": "stopped"' in said
    assert '"message": "Invalid HTTP request received."' in said

"""Told to end, a server finishes what it has taken in, records it, and refuses what comes after."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.suites.overload.server import Load, Vault, raw, wait_until


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault.make(tmp_path)
    yield made
    made.kill()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_under_load_nothing_acknowledged_is_lost_and_nobody_is_cut_off(vault: Vault, workers: str) -> None:
    vault.start("--workers", workers)
    vault.key()
    load = Load(vault, 8)
    with load:
        wait_until(lambda: len(load.recorded) > 200, 20)
        code = vault.stop()
    assert code == 0, vault.log
    assert load.others == [], "whoever was taken in was answered"
    assert len(set(load.recorded)) == len(load.recorded)
    assert max(load.recorded) <= vault.entries()
    with pytest.raises(ConnectionRefusedError), raw(vault.port):
        pass


def test_a_request_under_way_is_finished(vault: Vault) -> None:
    vault.start()
    client = vault.client()
    body = b'{"name": "orders", "type": "AES", "purpose": "ENCRYPT"}'
    head = (
        b"POST /keys HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer "
        + vault.admin.encode()
        + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert client.ask("GET", "/health").status == 200
    with raw(vault.port, head, body[:10]) as connection:
        time.sleep(0.2)
        vault.signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(body[10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 201 ")
    assert vault.process is not None
    assert vault.process.wait(20) == 0


@pytest.mark.slow
def test_whoever_does_not_finish_holds_nobody_up(vault: Vault) -> None:
    vault.start()
    with raw(vault.port, b"POST /keys HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"):
        time.sleep(0.2)
        began = time.monotonic()
        assert vault.stop() == 0
        assert 5 < time.monotonic() - began < 20


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 0)])
def test_other_signals(vault: Vault, number: signal.Signals, code: int) -> None:
    vault.start()
    vault.signal(number)
    assert vault.process is not None
    assert vault.process.wait(20) == code

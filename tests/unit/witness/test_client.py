"""How a vault talks to a witness: what it takes for an answer, and what it makes of the others."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

import pytest

from keyvault_lite.audit.checkpoint import InvalidNote, verify_cosignature
from keyvault_lite.crypto.witness import WitnessKey, verify_ed25519
from keyvault_lite.model.errors import AuditUnavailable, InvalidRequest
from keyvault_lite.witness import client as client_module
from keyvault_lite.witness.client import Confirmed, Forked, WitnessAhead, WitnessClient
from tests.support.witness import KEY, LATER, ORIGIN, VKEY, Tree, client, register, served, vkey

TREE = Tree(40)
FORK = Tree(40, other_from=10)
STRANGER = WitnessKey.create("witness.example/1")


def refused(url: str) -> str:
    """What a submission to this address is told instead of a confirmation."""
    witness = client(url)
    try:
        with pytest.raises(AuditUnavailable) as raised:
            submit(witness, 7)
    finally:
        witness.close()
    return raised.value.detail


def submit(witness: WitnessClient, new: int, *, old: int = 0, tree: Tree = TREE) -> Confirmed:
    return witness.submit(tree.note(new), size=new, old=old, prove=lambda known: tree.prove(known, new))


@contextmanager
def answering(*answers: bytes, close: bool = False) -> Iterator[str]:
    """Something on a socket that gives these answers, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    request = connection.makefile("rb")
                    head = b"".join(iter(request.readline, b"\r\n"))
                    request.read(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0))
                    connection.sendall(answer)
                    if close:
                        return
                connection.recv(65536)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def answer(status: int, body: str = "") -> bytes:
    raw = body.encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(raw), raw)


def test_confirmed_from_whatever_it_knows(tmp_path: Path) -> None:
    with served(register(tmp_path)) as url:
        witness = client(url)
        assert witness.newest(ORIGIN) is None
        for new, old in ((7, 0), (23, 0), (24, 23), (40, 3), (40, 40)):
            confirmed = submit(witness, new, old=old)
            assert (confirmed.note, confirmed.size) == (TREE.note(new), new)
            verify_cosignature(confirmed.note + confirmed.lines, vkey(KEY), verify_ed25519)
        read = witness.newest(ORIGIN)
        assert read is not None
        assert read.note == TREE.note(40)
        assert not witness.was_put_back
        witness.close()


def test_a_fork_and_a_rollback_are_told_apart(tmp_path: Path) -> None:
    with served(register(tmp_path)) as url:
        witness = client(url)
        submit(witness, 20)
        with pytest.raises(Forked, match="another history of this log"):
            submit(witness, 20, tree=FORK)
        with pytest.raises(Forked):
            submit(witness, 30, tree=FORK)
        with pytest.raises(WitnessAhead):
            submit(witness, 12)
        with pytest.raises(WitnessAhead):
            submit(witness, 12, tree=FORK)
        witness.close()


def test_a_witness_put_back_is_noticed_and_brought_forward(tmp_path: Path) -> None:
    old = register(tmp_path / "old")
    with served(register(tmp_path / "new")) as url:
        witness = client(url)
        submit(witness, 20)
        assert not witness.was_put_back
        witness.close()
    old.add(TREE.submission(0, 12))
    with served(old) as url:
        witness = client(url)
        assert submit(witness, 30, old=20).size == 30
        assert witness.was_put_back
        witness.close()


def test_it_waits_for_a_connection_that_was_closed_meanwhile(tmp_path: Path) -> None:
    made = register(tmp_path)
    with served(made) as url:
        witness = client(url)
        submit(witness, 7)
    with served(made, port=int(url.rsplit(":", 1)[1])):
        assert submit(witness, 8, old=7).size == 8
        witness.close()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("refused", "does not answer"),
        (b"", "does not answer"),
        (b"SSH-2.0-OpenSSH\r\n", "does not answer"),
        (answer(200), "not signed by its key"),
        (answer(200, "— witness.example/1 AAAAAAAA\n"), "not signed by its key"),
        (answer(200, "x" * (client_module.MAX_ANSWER + 1)), "status 502"),
        (answer(400), "does not understand"),
        (answer(403), "does not trust the key"),
        (answer(404), "not told to trust"),
        (answer(409, "many\n"), "makes no sense"),
        (answer(409, "-1\n"), "makes no sense"),
        (answer(302), "status 302"),
        (answer(500), "status 500"),
    ],
)
def test_answers_that_confirm_nothing(made: bytes | str, words: str) -> None:
    if isinstance(made, str):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert words in refused(url)
    else:
        with answering(made, close=True) as url:
            assert words in refused(url)


def test_an_answer_that_is_not_text_is_none() -> None:
    with answering(b"HTTP/1.1 200 X\r\nContent-Length: 1\r\n\r\n\xff", close=True) as url:
        assert "does not answer" in refused(url)


def test_a_witness_that_keeps_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "TIMEOUT_SECONDS", 0.2)
    with answering() as url:
        assert "does not answer" in refused(url)


def test_a_witness_that_changes_its_mind_for_ever() -> None:
    with answering(*(answer(409, f"{size}\n") for size in (1, 2, 3, 4))) as url:
        assert "moved by somebody else" in refused(url)


def test_another_key_under_the_same_name_confirms_nothing(tmp_path: Path) -> None:
    with served(register(tmp_path, key=STRANGER)) as url:
        witness = client(url)
        with pytest.raises(AuditUnavailable, match="not signed by its key"):
            submit(witness, 7)
        witness.close()
        both = client(url, vkey(KEY), vkey(STRANGER))
        assert submit(both, 8).size == 8
        both.close()


@pytest.mark.parametrize(
    "url",
    [
        "witness.example",
        "ftp://witness.example",
        "https://",
        "https://user@witness.example",
        "https://witness.example/?x",
        "http://witness.example:8001",
        "http://192.0.2.1:8001",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        client(url)


@pytest.mark.parametrize("keys", [[], [VKEY], ["nonsense"]])
def test_keys_that_are_refused(keys: list[str]) -> None:
    with pytest.raises((InvalidRequest, InvalidNote)):
        WitnessClient("https://witness.example", keys, verify=verify_ed25519)


def test_an_address_may_have_a_path(tmp_path: Path) -> None:
    with served(register(tmp_path, VKEY, LATER)) as url:
        witness = client(f"{url}/witness/")
        with pytest.raises(AuditUnavailable, match="not told to trust"):
            submit(witness, 7)
        witness.close()
    assert client("http://localhost:1").url == "http://localhost:1"


def test_whether_a_log_is_trusted_can_be_asked(tmp_path: Path) -> None:
    with served(register(tmp_path, VKEY)) as url:
        witness = client(url)
        assert witness.trusts(ORIGIN)
        assert not witness.trusts(f"{ORIGIN}/1")
        assert witness.newest(ORIGIN) is None
        witness.close()
    with answering(answer(500), close=True) as url:
        witness = client(url)
        with pytest.raises(AuditUnavailable, match="status 500"):
            witness.trusts(ORIGIN)
        witness.close()


def test_threads_share_the_connection(tmp_path: Path) -> None:
    with served(register(tmp_path)) as url:
        witness = client(url)
        submit(witness, 20)
        failed: list[Exception] = []

        def work(ask: Callable[[], object]) -> None:
            try:
                for _ in range(20):
                    ask()
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        asks: list[Callable[[], object]] = [lambda: witness.newest(ORIGIN), lambda: submit(witness, 20, old=20)]
        threads = [threading.Thread(target=work, args=(ask,)) for ask in asks * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        witness.close()


@pytest.mark.parametrize(
    "drips",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 90, answer(200, "x" * 500)],
    ids=["interim answers", "headers", "body"],
)
def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, drips: bytes) -> None:
    """The caller holds the lock of the writers meanwhile."""
    monkeypatch.setattr(client_module, "TIMEOUT_SECONDS", 0.3)
    stop = threading.Event()

    def run(listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for byte in cycle(drips):
                    if stop.wait(0.02):
                        return
                    connection.sendall(bytes([byte]))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=run, args=(listener,), daemon=True).start()
        began = time.monotonic()
        assert "does not answer" in refused(f"http://127.0.0.1:{listener.getsockname()[1]}")
        stop.set()
        assert time.monotonic() - began < 5

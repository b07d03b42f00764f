"""C2SP tlog-witness as it goes over the wire."""

import asyncio
import base64
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from keyvault_lite import __version__
from keyvault_lite.audit.checkpoint import verify_cosignature
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.wire import refusal_limit
from keyvault_lite.wire.asgi import Message
from keyvault_lite.wire.refusal_limit import RefusalLimit
from keyvault_lite.wire.witness import MAX_SUBMISSION, STATUS, WitnessApplication
from keyvault_lite.witness.register import Register, Submission, SubmissionRefused
from tests.support.witness import KEY, LATER, ORIGIN, VKEY, Tree, body, register, served, vkey
from tests.vectors.make_receipts import INSTANCE

TREE = Tree(40)
FORK = Tree(40, other_from=10)


class Wire:
    def __init__(self, url: str) -> None:
        self.port = urlsplit(url).port

    def ask(self, method: str, path: str, sent: bytes | None = None) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, sent)
            reply = connection.getresponse()
            return reply.status, reply.getheader("content-type") or "", reply.read()
        finally:
            connection.close()

    def add(self, old: int, new: int, tree: Tree = TREE, *, proof: list[str] | None = None) -> tuple[int, str, bytes]:
        lines = [base64.b64encode(one).decode() for one in tree.prove(old, new)] if proof is None else proof
        return self.ask("POST", "/add-checkpoint", body(old, lines, tree.note(new)))


class Replaceable:
    """A witness that begins anew for each test, behind one server."""

    made: Register

    def add(self, submission: Submission) -> str:
        return self.made.add(submission)

    def newest(self, origin: str) -> str | None:
        return self.made.newest(origin)

    @property
    def trusted(self) -> int:
        return self.made.trusted


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Replaceable, Wire]]:
    witness = Replaceable()
    with served(witness) as url:
        yield witness, Wire(url)


@pytest.fixture
def wire(server: tuple[Replaceable, Wire], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wire:
    witness, wire = server
    witness.made = register(tmp_path / "w", VKEY, LATER)
    monkeypatch.setattr(refusal_limit, "REFUSALS", 10_000)
    return wire


def test_a_log_is_confirmed_step_by_step(wire: Wire) -> None:
    for old, new in ((0, 1), (1, 2), (2, 7), (7, 8), (8, 23), (23, 40)):
        status, kind, line = wire.add(old, new)
        assert (status, kind) == (200, "text/plain; charset=utf-8")
        head, _ = verify_cosignature(TREE.note(new) + line.decode(), vkey(KEY), verify_ed25519)
        assert (head.origin, head.size) == (ORIGIN, new)


def test_the_same_checkpoint_is_confirmed_again(wire: Wire) -> None:
    assert wire.add(0, 7)[0] == 200
    assert wire.add(7, 7)[0] == 200
    assert wire.add(7, 7, proof=[base64.b64encode(bytes(32)).decode()])[0] == 422


def test_the_empty_log(wire: Wire) -> None:
    assert wire.add(0, 0)[0] == 200
    assert wire.add(0, 3)[0] == 200


def test_another_start_is_told_the_size(wire: Wire) -> None:
    assert wire.add(3, 7) == (409, "text/x.tlog.size", b"0\n")
    wire.add(0, 7)
    for old, new in ((0, 7), (0, 12), (3, 12), (3, 3), (12, 12)):
        assert wire.add(old, new) == (409, "text/x.tlog.size", b"7\n")


def test_a_rollback_is_refused_for_ever(wire: Wire) -> None:
    wire.add(0, 23)
    assert [wire.add(0, size)[0] for size in (1, 7, 22)] == [409, 409, 409]
    assert wire.add(23, 22)[0] == 400, "the old size is above the new one"


def test_a_fork_is_refused_and_kept_as_evidence(wire: Wire, tmp_path: Path) -> None:
    wire.add(0, 12)
    assert wire.add(12, 12, FORK) == (409, "text/x.tlog.size", b"12\n")
    assert wire.add(12, 30, FORK)[0] == 422
    assert wire.add(12, 30)[0] == 200
    for place, note in (("evidence", FORK.note(12)), ("unproven", FORK.note(30))):
        assert {file.read_text() for file in (tmp_path / "w" / place).iterdir()} == {note}


def test_a_wrong_proof(wire: Wire) -> None:
    hash = base64.b64encode(bytes(32)).decode()
    assert wire.add(0, 7, proof=[hash])[0] == 422
    assert wire.add(0, 7)[0] == 200
    for proof in ([], [hash], [hash] * 63):
        assert wire.add(7, 12, proof=proof)[0] == 422
    assert wire.add(7, 12)[0] == 200


def test_refused_submissions_are_bounded_and_confirmed_ones_are_not(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_limit, "REFUSALS", 10)
    unknown = body(0, [], TREE.note(3, epoch=2))
    assert wire.add(0, 1)[0] == 200
    answers = [wire.ask("POST", "/add-checkpoint", one)[0] for one in [unknown, b"x", unknown] * 20]
    assert set(answers) == {400, 404, 429}
    deadline = time.monotonic() + 10
    while wire.add(1, 2)[0] == 429:
        assert time.monotonic() < deadline
    assert {wire.add(2, 2)[0] for _ in range(40)} == {200}
    assert {wire.add(1, 2)[0] for _ in range(40)} == {409}, "the log has signed it"


def test_a_network_of_ipv6_is_one_address() -> None:
    limit = RefusalLimit()
    for number in range(10):
        limit.count(f"2001:db8::{number}")
    assert limit.is_reached("2001:db8::ffff")
    assert not limit.is_reached("2001:db8:0:1::1")


def test_addresses_that_are_counted_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_limit, "MAX_ADDRESSES", 5)
    limit = RefusalLimit()
    for number in range(100):
        limit.count(f"192.0.2.{number}")
    assert len(limit._counts) <= 6
    assert limit.is_reached("192.0.2.200")


def test_an_unknown_log(wire: Wire) -> None:
    assert wire.ask("POST", "/add-checkpoint", body(0, [], TREE.note(3, epoch=2)))[0] == 404
    assert wire.ask("GET", "/checkpoint/keyvault-lite/" + "00" * 16)[0] == 404


def test_a_signature_that_is_not_the_logs(wire: Wire) -> None:
    note = TREE.note(7)
    assert wire.ask("POST", "/add-checkpoint", body(0, [], TREE.note(7, key=bytes(32))))[0] == 403
    assert wire.ask("POST", "/add-checkpoint", body(0, [], note.replace("\n7\n", "\n8\n")))[0] == 403
    assert wire.ask("POST", "/add-checkpoint", body(0, [], f"{note}— other.example {'A' * 96}\n"))[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"old 0\n",
        b"old 0\n\n",
        b"\xff",
        TREE.note(3).encode(),
        body(0, [], TREE.note(3)).replace(b"old 0", b"old 00"),
        body(0, [], TREE.note(3)).replace(b"old 0", b"old -1"),
        body(0, [], TREE.note(3)).replace(b"old 0", b"OLD 0"),
        body(0, [], TREE.note(3)).replace(b"old 0\n", b"old 0\r\n"),
        body(0, ["AAAA"[:3]], TREE.note(3)),
        body(0, ["A" * 44] * 64, TREE.note(3)),
        body(0, [], TREE.note(3))[:-1],
        body(0, [], "one\n\n— a b\n"),
        body(4, [], TREE.note(3)),
    ],
)
def test_a_malformed_submission(wire: Wire, sent: bytes) -> None:
    assert wire.ask("POST", "/add-checkpoint", sent)[0] == 400
    assert wire.add(0, 3)[0] == 200


def test_bounds_methods_and_paths(wire: Wire) -> None:
    assert wire.ask("POST", "/add-checkpoint", b"x" * (MAX_SUBMISSION + 1))[0] == 413
    assert wire.ask("GET", "/add-checkpoint")[0] == 405
    assert wire.ask("POST", f"/checkpoint/{ORIGIN}", b"")[0] == 405
    assert wire.ask("GET", "/checkpoint/%ff")[0] == 404
    assert wire.ask("GET", "/")[0] == 404


def test_the_newest_is_confirmed_anew_when_it_is_read(wire: Wire) -> None:
    assert wire.ask("GET", f"/checkpoint/{ORIGIN}")[0] == 204
    wire.add(0, 7)
    status, _, text = wire.ask("GET", f"/checkpoint/{ORIGIN}")
    assert status == 200
    assert text.decode().startswith(TREE.note(7))
    assert verify_cosignature(text.decode(), vkey(KEY), verify_ed25519)[0].size == 7


def test_a_new_epoch_closes_the_older(wire: Wire) -> None:
    wire.add(0, 30)
    assert wire.ask("POST", "/add-checkpoint", body(0, [], TREE.note(12, epoch=1)))[0] == 200
    assert wire.add(30, 40)[0] == 403
    assert wire.ask("GET", f"/checkpoint/{ORIGIN}")[2].decode().startswith(f"keyvault-lite/{INSTANCE.hex()}/1\n12\n")


def numbers(wire: Wire) -> dict[str, float]:
    page = wire.ask("GET", "/metrics")[2].decode()
    lines = (line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("keyvault_witness_"))
    return {name: float(value) for name, value in lines}


def test_anybody_may_ask_whether_it_works_and_learns_of_no_log(
    server: tuple[Replaceable, Wire], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = numbers(wire)
    assert before["keyvault_witness_logs"] == 2
    assert wire.add(0, 7)[0] == 200
    assert wire.add(0, 9)[0] == 409
    after = numbers(wire)
    grown = {name: after[name] - before.get(name, 0) for name in after if "submissions" in name}
    assert grown == {
        'keyvault_witness_submissions{outcome="confirmed"}': 1,
        'keyvault_witness_submissions{outcome="refused"}': 1,
    }
    assert after["keyvault_witness_confirmed_seconds_ago"] < 60
    status, kind, text = wire.ask("GET", "/health")
    assert (status, kind, json.loads(text)) == (
        200,
        "application/json",
        {"status": "ok", "version": __version__, "logs": 2},
    )

    def full(_: Submission) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server[0].made, "add", full)
    assert wire.add(7, 9)[0] == 500
    status, _, text = wire.ask("GET", "/health")
    assert (status, json.loads(text)["status"], numbers(wire)["keyvault_witness_failing"]) == (503, "cannot_record", 1)
    told = text + wire.ask("GET", "/metrics")[2]
    for secret in (ORIGIN, INSTANCE.hex(), "/state", "No space"):
        assert secret.encode() not in told
    monkeypatch.delattr(server[0].made, "add")
    assert wire.add(7, 9)[0] == 200
    assert wire.ask("GET", "/health")[0] == 200
    assert wire.ask("HEAD", "/health")[0] == 200
    for path in ("/health", "/metrics"):
        assert wire.ask("POST", path, b"{}")[0] == 405
        assert wire.ask("GET", f"{path}/")[0] == 404


def test_a_defect_is_told_without_its_message(wire: Wire, server: tuple[Replaceable, Wire]) -> None:
    del server[0].made
    status, kind, text = wire.ask("GET", f"/checkpoint/{ORIGIN}")
    assert (status, kind) == (500, "application/problem+json")
    assert b"made" not in text


def test_there_are_no_websockets() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    asyncio.run(WitnessApplication(Replaceable())({"type": "websocket"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_every_refusal_has_a_status() -> None:
    assert set(SubmissionRefused.__subclasses__()) == STATUS.keys()

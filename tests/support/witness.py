"""What the tests of the witness share: trees whose checkpoints are signed, and a witness on a socket."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import uvicorn

from keyvault_lite.audit.checkpoint import checkpoint_body, fact_lines, origin, sign_note, verifier_key
from keyvault_lite.audit.merkle import CompactRange, TileReader, consistency_proof
from keyvault_lite.crypto.witness import WitnessKey, verify_ed25519
from keyvault_lite.server.connection import serve
from keyvault_lite.wire import witness as wire
from keyvault_lite.wire.witness import WitnessApplication
from keyvault_lite.witness.client import WitnessClient
from keyvault_lite.witness.register import Register, Submission, format_submission
from tests.vectors.make_receipts import INSTANCE, PUBLIC_KEY, sign

ORIGIN = origin(INSTANCE, 0)
VKEY = verifier_key(ORIGIN, PUBLIC_KEY)
LATER = verifier_key(origin(INSTANCE, 1), PUBLIC_KEY)
KEY = WitnessKey.create("witness.example/1")


class Tree:
    """A log reduced to its leaves; `other_from` is where it leaves the common history."""

    def __init__(self, size: int, *, other_from: int | None = None) -> None:
        self.leaves = [
            sha256(b"%d%s" % (i, b"" if other_from is None or i < other_from else b" other")).digest()
            for i in range(size)
        ]

    def note(self, size: int, *, epoch: int = 0, key: bytes = PUBLIC_KEY) -> str:
        edge = CompactRange()
        edge.extend(self.leaves[:size])
        lines = fact_lines(size, self.leaves[size - 1]) if size else ()
        name = origin(INSTANCE, epoch)
        return sign_note(checkpoint_body(name, size, edge.root(), lines), name, key, sign)

    def prove(self, old: int, new: int) -> tuple[bytes, ...]:
        reader = TileReader(size=new, tile=lambda _l, _i: None, leaves=lambda start, end: self.leaves[start:end])
        return tuple(consistency_proof(reader.node, old, new)) if 0 < old < new else ()

    def submission(self, old: int, new: int) -> Submission:
        return Submission(old, self.prove(old, new), self.note(new))


def body(old: int, proof: Sequence[str], note: str) -> bytes:
    return format_submission(old, proof, note).encode()


def register(folder: Path, *logs: str, key: WitnessKey = KEY) -> Register:
    folder.mkdir(exist_ok=True)
    return Register(folder, key, logs or (VKEY,), verify=verify_ed25519)


def client(url: str, *keys: str) -> WitnessClient:
    return WitnessClient(url, keys or (vkey(KEY),), verify=verify_ed25519)


def vkey(key: WitnessKey) -> str:
    return verifier_key(key.name, key.public_key, 4)


@contextmanager
def served(made: wire.Register, *, port: int = 0) -> Iterator[str]:
    """A witness on a loopback port, in this process."""
    server = uvicorn.Server(serve(WitnessApplication(made), host="127.0.0.1", port=port))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(10)

"""Write tests/vectors/receipts.json: a small log with fixed keys, its checkpoints, receipts and proofs, and forgeries.

Run as `python -m tests.vectors.make_receipts` from the top of the repository. All of it follows from SEED and the code
(Ed25519 is deterministic), so a change of any byte is a change of the format and needs a new label beside the old one.
`status` is what tools/verify_receipt.py has to answer.
"""

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyvault_lite.audit.chain import genesis
from keyvault_lite.audit.checkpoint import checkpoint_body, cosign, fact_lines, origin, sign_note, verifier_key
from keyvault_lite.audit.entry import DRAFT_FIELDS, encode_draft, encode_entry, entry_hash
from keyvault_lite.audit.merkle import CompactRange, TileReader, consistency_proof, inclusion_proof
from keyvault_lite.audit.receipt import format_receipt
from keyvault_lite.model.evidence import Action, Draft, Entry, Result
from keyvault_lite.model.names import SYSTEM, KeyId, ServiceId

FILE: Final = Path(__file__).parent / "receipts.json"
SEED: Final = bytes(range(32))
INSTANCE: Final = bytes.fromhex("00112233445566778899aabbccddeeff")
START: Final = 1_795_526_398_000_000
"""2026-11-24T13:19:58Z"""

_log_key = Ed25519PrivateKey.from_private_bytes(SEED)
_witness_key = Ed25519PrivateKey.from_private_bytes(SEED[::-1])
PUBLIC_KEY: Final = _log_key.public_key().public_bytes_raw()
WITNESS_PUBLIC_KEY: Final = _witness_key.public_key().public_bytes_raw()
ORIGIN: Final = origin(INSTANCE, 0)
VKEY: Final = verifier_key(ORIGIN, PUBLIC_KEY)
WITNESS: Final = "witness.example/w1"
sign = _log_key.sign
witness_sign = _witness_key.sign


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """The check of a signature that the package is handed."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def digest(text: str) -> bytes:
    """Fixed bytes in place of random ones."""
    return hashlib.sha256(text.encode()).digest()


def draft(id: int) -> Draft:
    """The draft of entry `id`: every field is used by one of them at least."""
    request_id = digest(f"request {id}")[:16]
    service = ServiceId("7f3c2a10-5b1e-4c7d-9a54-0d2f6b8e1c33")
    key = KeyId("b2d9e4f6-1c3a-4f5e-8d7b-6a9c0e1f2d34")
    if id == 1:
        return Draft(action=Action.INITIALISE, result=Result.SUCCESS, request_id=request_id, service_id=SYSTEM)
    if id == 2:
        return Draft(
            action=Action.GENERATE,
            result=Result.SUCCESS,
            request_id=request_id,
            service_id=service,
            key_id=key,
            key_version=1,
        )
    if id % 5 == 0:
        return Draft(
            action=Action.DECRYPT,
            result=Result.DENIED,
            request_id=request_id,
            service_id=service,
            reason="not_found",
            source="192.0.2.7",
            key_ref="no-such-key",
            operation="TrentService.Decrypt",
        )
    if id % 7 == 0:
        return Draft(
            action=Action.AUTHENTICATE,
            result=Result.DENIED,
            request_id=request_id,
            reason="unauthenticated",
            source="::1",
            count=41,
        )
    if id % 11 == 0:
        return Draft(
            action=Action.REVOKE,
            result=Result.SUCCESS,
            request_id=request_id,
            service_id=service,
            key_id=key,
            comment="Schlüssel verloren",
        )
    return Draft(
        action=Action.ENCRYPT,
        result=Result.SUCCESS,
        request_id=request_id,
        service_id=service,
        key_id=key,
        key_version=1,
        client_request_id=f"order-{id}" if id % 2 else None,
        source="192.0.2.7",
        context_digest=digest("context"),
        bytes_in=100 + id,
        bytes_out=300 + id,
        subject="billing" if id == 13 else None,
    )


class Log:
    """A log of `size` entries, with what a server keeps of it."""

    def __init__(self, size: int) -> None:
        self.entries: list[Entry] = []
        self.leaves: list[bytes] = []
        head, state_seq = genesis(INSTANCE, PUBLIC_KEY), 0
        for id in range(1, size + 1):
            made = draft(id)
            management = made.action in {Action.INITIALISE, Action.GENERATE, Action.REVOKE}
            state_seq = id if management else state_seq
            root = digest(f"state {id}") if management else None
            time = START + 1_000 * id
            hash = entry_hash(id, 0, time, state_seq, root, encode_draft(made), head)
            self.entries.append(Entry(id, 0, time, state_seq, root, made, head, hash))
            self.leaves.append(hash)
            head = hash

    def reader(self, size: int) -> TileReader:
        """Without tiles: small logs need none."""
        return TileReader(size=size, tile=lambda _level, _index: None, leaves=lambda start, end: self.leaves[start:end])

    def checkpoint(self, size: int, origin: str = ORIGIN) -> str:
        """The signed checkpoint of the first `size` entries."""
        edge = CompactRange()
        edge.extend(self.leaves[:size])
        last = self.entries[size - 1]
        body = checkpoint_body(origin, size, edge.root(), fact_lines(last.state_seq, last.hash))
        return sign_note(body, origin, PUBLIC_KEY, sign)

    def receipt(self, id: int, size: int, *, extra: bool = False) -> str:
        """The receipt of entry `id` under that checkpoint."""
        proof = inclusion_proof(self.reader(size).node, id - 1, size)
        entry = encode_entry(self.entries[id - 1]) if extra else None
        return format_receipt(id - 1, proof, self.checkpoint(size), entry)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof between two sizes."""
        return consistency_proof(self.reader(new).node, old, new)


def item(entry: Entry) -> dict[str, Any]:
    """The entry as GET /audit shows it."""
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=entry.timestamp)
    shown: dict[str, Any] = {
        "id": entry.id,
        "epoch": entry.epoch,
        "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "state_seq": entry.state_seq,
        "state_root": entry.state_root,
        **{name: getattr(entry.draft, name) for name in DRAFT_FIELDS},
        "prev_hash": entry.prev_hash,
        "hash": entry.hash,
    }
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in shown.items()}


def consistency_json(old: int, new: int, hashes: Sequence[bytes]) -> dict[str, Any]:
    """The answer of GET /audit/consistency."""
    return {"from": old, "to": new, "hashes": [base64.b64encode(hash).decode() for hash in hashes]}


def document() -> dict[str, Any]:
    """The whole file."""
    log = Log(23)
    ids = [(1, 1), (1, 2), (2, 2), (3, 7), (7, 7), (8, 23), (16, 23), (22, 23), (23, 23)]
    receipts: list[dict[str, Any]] = [
        {
            "what": f"entry {id} of {size}",
            "receipt": log.receipt(id, size),
            "hash": log.leaves[id - 1].hex(),
            "status": 0,
        }
        for id, size in ids
    ]
    receipts += [
        {"what": f"entry {id} of 23, by its fields", "receipt": log.receipt(id, 23), "entry": id, "status": 0}
        for id in range(1, 24)
    ]
    receipts.append({"what": "a receipt that holds its entry", "receipt": log.receipt(13, 23, extra=True), "status": 0})
    whole = log.receipt(8, 23)
    witnessed = log.checkpoint(23)
    witnessed += cosign(
        witnessed, name=WITNESS, public_key=WITNESS_PUBLIC_KEY, timestamp=START // 10**6, sign=witness_sign
    )
    foreign = log.checkpoint(23, origin(INSTANCE, 1))
    receipts += [
        {"what": what, "receipt": text, "hash": log.leaves[id - 1].hex(), "status": status}
        for what, text, id, status in [
            ("with a witness's signature beside the log's", whole.replace(log.checkpoint(23), witnessed), 8, 0),
            ("the hash of another entry", whole, 9, 1),
            ("another index", whole.replace("index 7\n", "index 8\n"), 8, 1),
            ("an index beyond the log", whole.replace("index 7\n", "index 23\n"), 8, 1),
            ("an index of another spelling", whole.replace("index 7\n", "index 07\n"), 8, 1),
            ("the checkpoint of another size", whole.replace(log.checkpoint(23), log.checkpoint(22)), 8, 1),
            ("the checkpoint of a later epoch", whole.replace(log.checkpoint(23), foreign), 8, 1),
            ("a size that was not signed", whole.replace("\n23\n", "\n24\n"), 8, 1),
            ("no signature", whole[: whole.rindex("—")], 8, 1),
            ("a hash of the proof left out", "\n".join(whole.split("\n")[:2] + whole.split("\n")[3:]), 8, 1),
            ("line ends of another system", whole.replace("\n", "\r\n"), 8, 1),
            ("holding another entry", log.receipt(13, 23, extra=True), 8, 1),
        ]
    ]
    receipts.append({"what": "nothing to compare with", "receipt": whole, "status": 2})
    pairs = [(1, 1), (1, 2), (1, 23), (2, 7), (7, 7), (7, 22), (8, 23), (16, 23), (22, 23)]
    consistency: list[dict[str, Any]] = [
        {"what": f"{old} to {new}", "proof": consistency_json(old, new, log.consistency(old, new)), "status": 0}
        for old, new in pairs
    ]
    proof = log.consistency(7, 22)
    consistency += [
        {"what": what, "proof": {**consistency_json(7, 22, hashes), **sizes}, "status": 1}
        for what, hashes, sizes in [
            ("a hash left out", proof[:-1], {}),
            ("a hash too many", [*proof, proof[0]], {}),
            ("another hash", [digest("forged"), *proof[1:]], {}),
            ("sizes that are not those of the checkpoints", proof, {"from": 8}),
        ]
    ]
    for case in consistency:
        case["old"], case["new"] = (7, 22) if case["status"] else (case["proof"]["from"], case["proof"]["to"])
    return {
        "seed": SEED.hex(),
        "instance_id": INSTANCE.hex(),
        "public_key": PUBLIC_KEY.hex(),
        "genesis": genesis(INSTANCE, PUBLIC_KEY).hex(),
        "verifier_key": VKEY,
        "witness_verifier_key": verifier_key(WITNESS, WITNESS_PUBLIC_KEY, 4),
        "entries": [{"item": item(entry), "bytes": encode_entry(entry).hex()} for entry in log.entries],
        "checkpoints": {str(size): log.checkpoint(size) for size in (1, 2, 7, 8, 16, 22, 23)},
        "witnessed_checkpoint": witnessed,
        "receipts": receipts,
        "consistency": consistency,
    }


def text() -> str:
    """The file's text."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")

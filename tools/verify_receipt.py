#!/usr/bin/env python3
"""Check, offline and with nothing but Python, that an entry is in the audit log, or that one log extends another.

    verify_receipt.py --key VKEY receipt.txt [--hash HEX | --entry entry.json]
    verify_receipt.py --key VKEY --consistency proof.json old.txt new.txt

VKEY is the log's verifier key (GET /audit/public-key), obtained once and kept. receipt.txt is GET /audit/{id}/receipt,
old.txt and new.txt are two of GET /audit/checkpoint, proof.json is GET /audit/consistency, entry.json is one item of
GET /audit. Without --hash and --entry the receipt has to hold the entry itself.
It says one sentence. Exit status 0: it is proven; 1: it is not; 2: it cannot be judged (usage, unreadable input).

This file shares no code with the product, on purpose: it is written from docs/formats.md, RFC 8032, RFC 6962 and the
C2SP documents signed-note, tlog-checkpoint and tlog-proof, so that a mistake in one is found by the other.
"""

import argparse
import base64
import calendar
import contextlib
import hashlib
import json
import re
import struct
import sys
import time
from pathlib import Path
from typing import Any

Point = tuple[int, int]
Key = tuple[str, bytes, bytes]
MOST_LINES = 100  # of signatures, as in the product


class Refused(Exception):
    """The evidence does not prove what it should: exit status 1."""


class Unusable(Exception):
    """There is nothing to judge: exit status 2."""


# Ed25519: RFC 8032, section 5.1. Neither fast nor in constant time, which does not matter: all inputs are public.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def add(p: Point, q: Point) -> Point:
    """The sum of two points; the formula is complete, so it doubles as well."""
    t = D * p[0] * q[0] * p[1] * q[1] % P
    return (p[0] * q[1] + q[0] * p[1]) * pow(1 + t, -1, P) % P, (p[1] * q[1] + p[0] * q[0]) * pow(1 - t, -1, P) % P


def multiply(scalar: int, point: Point) -> Point:
    """The point, `scalar` times."""
    total = (0, 1)
    for bit in f"{scalar:b}":
        total = add(add(total, total), point if bit == "1" else (0, 1))
    return total


def read_point(data: bytes) -> Point | None:
    """The point that 32 bytes spell; None if there is none, or if another spelling is the right one."""
    number = int.from_bytes(data, "little")
    y, odd = number & (2**255 - 1), number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or x * x % P != square or (x == 0 and odd):
        return None
    return (P - x if x & 1 != odd else x), y


def ed25519_verifies(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether R = [s]B - [k]A, compared as bytes."""
    base, point = read_point((4 * pow(5, -1, P) % P).to_bytes(32, "little")), read_point(public_key)
    s = int.from_bytes(signature[32:], "little")
    if base is None or point is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % ORDER
    x, y = add(multiply(s, base), multiply(k, (P - point[0], point[1])))
    return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]


# Signed notes and checkpoints: C2SP.
def from_base64(text: object, length: int | None = None) -> bytes:
    """Standard base64 in its one spelling, of `length` bytes if given."""
    raw = b""
    with contextlib.suppress(ValueError):
        raw = base64.b64decode(str(text), validate=True)
    if base64.b64encode(raw).decode() != text or len(raw) != (len(raw) if length is None else length):
        raise Refused("a line is not canonical base64 of the right length")
    return raw


def from_decimal(text: str) -> int:
    """A decimal number in its one spelling, small enough that the number of an entry fits 64 bits."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text) or int(text) >= 2**63 - 1:
        raise Refused("a size or index is not a plain decimal number")
    return int(text)


def read_key(text: str) -> Key:
    """(name, key hash, public key) of a verifier key `name+hash+base64`."""
    name, hint, encoded = [*text.split("+", 2), "", ""][:3]
    try:
        raw = from_base64(encoded, 33)
    except Refused:
        raw = b"?"
    key_hash = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if not name or raw[0] != 1 or key_hash.hex() != hint:
        raise Unusable("the verifier key is not that of an Ed25519 log key, or is mistyped")
    return name, key_hash, raw[1:]


def verify_checkpoint(text: str, key: Key) -> tuple[int, bytes]:
    """(size, root) of a checkpoint of the key's log. Signatures of other keys are ignored, as specified."""
    head, gap, tail = text.rpartition("\n\n")
    if not gap or not tail.endswith("\n") or tail.count("\n") > MOST_LINES or re.search(r"[\x00-\x09\x0b-\x1f]", text):
        raise Refused("the checkpoint is not a signed note")
    signatures = []
    for line in tail[:-1].split("\n"):
        match = re.fullmatch("— ([^\\s+]+) (\\S+)", line)
        if match is None:
            raise Refused("a signature line of the checkpoint is malformed")
        if (match[1], from_base64(match[2])[:4]) == key[:2]:
            signatures.append(from_base64(match[2], 68)[4:])
    if not signatures:
        raise Refused("the checkpoint is not signed by this key")
    if not all(ed25519_verifies(key[2], f"{head}\n".encode(), signature) for signature in signatures):
        raise Refused("the signature of the checkpoint does not verify")
    lines = re.fullmatch("(.+)\n(.+)\n(.+)((?:\n.+)*)", head)
    if lines is None or lines[1] != key[0]:
        raise Refused("the checkpoint is malformed, or of another log or epoch than the key")
    return from_decimal(lines[2]), from_base64(lines[3], 32)


# Merkle proofs: by recursion over the definitions of RFC 6962, section 2.1.
def node(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_by_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """The root that an inclusion proof leads to."""
    if (size == 1) != (not proof):
        raise Refused("the inclusion proof has not the right length")
    if size == 1:
        return leaf
    left = 1 << (size - 1).bit_length() - 1
    if index < left:
        return node(root_by_inclusion(leaf, index, left, proof[:-1]), proof[-1])
    return node(proof[-1], root_by_inclusion(leaf, index - left, size - left, proof[:-1]))


def roots_by_consistency(old: int, new: int, proof: list[bytes], known: bytes | None) -> tuple[bytes, bytes]:
    """The two roots that a proof leads to. `known` is the old root while the old tree begins where this one does."""
    if len(proof) != (known is None) if old == new else not proof:
        raise Refused("the consistency proof has not the right length")
    if old == new:
        return (proof[0], proof[0]) if known is None else (known, known)
    left = 1 << (new - 1).bit_length() - 1
    if old <= left:
        old_hash, new_hash = roots_by_consistency(old, left, proof[:-1], known)
        return old_hash, node(new_hash, proof[-1])
    old_hash, new_hash = roots_by_consistency(old - left, new - left, proof[:-1], None)
    return node(proof[-1], old_hash), node(proof[-1], new_hash)


# Entries: docs/formats.md.
FIELDS = {
    "id": "int", "epoch": "int", "timestamp": "time", "state_seq": "int", "state_root": "hex",
    "service_id": "text", "action": "text", "key_id": "text", "key_version": "int", "result": "text", "reason": "text",
    "request_id": "hex", "client_request_id": "text", "source": "text", "context_digest": "hex", "bytes_in": "int",
    "bytes_out": "int", "key_ref": "text", "subject": "text", "operation": "text", "comment": "text", "count": "int",
    "prev_hash": "hex",
}  # fmt: skip
HEAD = b"\x04" + struct.pack(">I", 1 + len(FIELDS)) + b"\x02" + struct.pack(">I", 12) + b"kvl/v1/entry"


def encode(kind: str, value: Any) -> bytes:  # noqa: ANN401  (what JSON gives)
    """The canonical encoding of a field, from the form in which JSON shows it. Raises ValueError."""
    if value is None:
        return b"\x00"
    if kind == "int" and type(value) is int:
        return b"\x01" + struct.pack(">q", value)
    if kind == "time" and re.fullmatch(r"[-0-9]{10}T[:0-9]{8}\.[0-9]{6}Z", value):
        seconds = calendar.timegm(time.strptime(value[:19], "%Y-%m-%dT%H:%M:%S"))
        return b"\x01" + struct.pack(">q", seconds * 1_000_000 + int(value[20:26]))
    if kind == "text" and type(value) is str:
        return b"\x02" + struct.pack(">I", len(value.encode())) + value.encode()
    if kind == "hex" and re.fullmatch("([0-9a-f]{2})*", value):
        return b"\x03" + struct.pack(">I", len(value) // 2) + bytes.fromhex(value)
    raise ValueError(f"a field is not of type {kind}")


def bytes_of_entry(item: dict[str, Any]) -> bytes:
    """The bytes of one item of GET /audit, whose hash has to be theirs."""
    try:
        fields = [encode(kind, item[name]) for name, kind in FIELDS.items()]
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise Unusable(f"the entry is not an item of GET /audit ({error})") from None
    entry = HEAD + b"".join(fields)
    if item.get("hash") != leaf_of(entry).hex():
        raise Refused("the entry's hash is not that of its fields")
    return entry


def leaf_of(entry: bytes) -> bytes:
    """The hash of an entry: link of the chain and leaf of the tree."""
    return hashlib.sha256(b"\x00" + entry).digest()


def read(path: str) -> str:
    """A file's text, its line ends untouched; of a file that is longer than any of these, the beginning."""
    try:
        with Path(path).open("rb") as file:
            return file.read(1 << 24).decode()
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} cannot be read ({error})") from None


def read_json(path: str) -> dict[str, Any]:
    """A file's JSON object. A name that occurs twice is refused: two readers would see two objects."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    try:
        value = json.loads(read(path), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{path} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise Unusable(f"{path} is not a JSON object")
    return value


def check_receipt(key: Key, path: str, entry: bytes | None, leaf: bytes | None) -> str:
    """What the receipt proves of an entry, given by its bytes, by its hash alone, or held by the receipt."""
    head, _, checkpoint = read(path).partition("\n\n")
    match = re.fullmatch(r"c2sp\.org/tlog-proof@v1\n(?:extra (.*)\n)?index (.*)((?:\n.+)*)", head)
    if match is None:
        raise Refused("this is not a receipt")
    index, proof = from_decimal(match[2]), [from_base64(line, 32) for line in match[3].split("\n")[1:]]
    for known in (entry, None if match[1] is None else from_base64(match[1])):
        if known is not None:
            if leaf not in {None, leaf_of(known)} or not known.startswith(HEAD + encode("int", index + 1)):
                raise Refused("the receipt is of another entry")
            leaf = leaf_of(known)
    if leaf is None or len(leaf) != hashlib.sha256().digest_size:
        raise Unusable("the receipt does not hold its entry: give --entry, or --hash with 64 hex digits")
    size, root = verify_checkpoint(checkpoint, key)
    if index >= size or root_by_inclusion(leaf, index, size, proof) != root:
        raise Refused("the inclusion proof does not lead to the signed root")
    return f"the entry with the hash {leaf.hex()} is number {index + 1} of the {size} in {key[0]}"


def check_consistency(key: Key, proof: dict[str, Any], old_path: str, new_path: str) -> str:
    """What the consistency proof proves."""
    (old, old_root), (new, new_root) = (verify_checkpoint(read(path), key) for path in (old_path, new_path))
    sizes = (proof.get("from"), proof.get("to"))
    if not 0 < old <= new or sizes != (old, new) or not isinstance(proof.get("hashes"), list):
        raise Refused("the proof does not lead from the older checkpoint, which has entries, to a newer one")
    hashes = [from_base64(text, 32) for text in proof["hashes"]]
    if roots_by_consistency(old, new, hashes, old_root) != (old_root, new_root):
        raise Refused("the second log does not extend the first: entries were changed or removed")
    return f"the {new} entries of {key[0]} begin with the {old} of the older checkpoint, unchanged"


def main() -> int:
    """Judge, say so in one sentence, and return the exit status."""
    parser = argparse.ArgumentParser(description="Check a receipt, or that one signed log extends another.")
    parser.add_argument("--key", required=True, metavar="VKEY", help="the log's verifier key")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--hash", metavar="HEX", type=bytes.fromhex, help="the entry's hash")
    what.add_argument("--entry", metavar="JSON", help="file with the entry, one item of GET /audit")
    what.add_argument("--consistency", metavar="JSON", help="file with the proof; FILE FILE are then two checkpoints")
    parser.add_argument("files", nargs="+", metavar="FILE", help="the receipt, or the older and the newer checkpoint")
    args = parser.parse_args()
    if len(args.files) != (1 if args.consistency is None else 2):
        parser.error("it takes one receipt, or --consistency and two checkpoints")
    try:
        key = read_key(args.key)
        if args.consistency is not None:
            proven = check_consistency(key, read_json(args.consistency), *args.files)
        else:
            entry = None if args.entry is None else bytes_of_entry(read_json(args.entry))
            proven = check_receipt(key, args.files[0], entry, args.hash)
    except (Refused, Unusable) as error:
        print(f"{'NOT VALID' if isinstance(error, Refused) else 'cannot be judged'}: {error}.", file=sys.stderr)
        return 1 if isinstance(error, Refused) else 2
    print(f"valid: {proven}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

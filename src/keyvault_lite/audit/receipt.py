"""The receipt of one entry: C2SP tlog-proof, which anyone that knows the log's verifier key can verify offline.

    c2sp.org/tlog-proof@v1
    extra <base64>              optional, here: the entry's bytes (`encode_entry`)
    index 4710                  the entry's id less one
    <base64 of a hash>          inclusion proof, from the leaf's sibling up to the root's child

    <checkpoint, verbatim, with all its signatures>

The extra line is for callers that may have a receipt but not read the log. It is believed only if it hashes to the
leaf.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from keyvault_lite.audit.checkpoint import Checkpoint, Verify, parse_number, verify_note
from keyvault_lite.audit.entry import LEAF_PREFIX
from keyvault_lite.audit.merkle import HASH_BYTES, InvalidProof, verify_inclusion
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import InvalidRequest

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_PROOF: Final = 63
"""No tree of fewer than 2⁶³ leaves is higher."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A parsed receipt; nothing in it is verified."""

    index: int
    proof: tuple[bytes, ...]
    checkpoint: str
    """The signed note."""
    extra: bytes | None
    """The entry's bytes, or None."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry from its bytes (`encode_entry`)."""
    return sha256(LEAF_PREFIX + entry).digest()


def format_receipt(index: int, proof: Sequence[bytes], checkpoint: str, extra: bytes | None = None) -> str:
    """The receipt's text. `checkpoint` is a signed note, `extra` the entry's bytes if the receipt is to hold them."""
    lines = [HEADER, f"index {index}", *map(encode_base64, proof), "", checkpoint]
    if extra is not None:
        lines.insert(1, f"extra {encode_base64(extra)}")
    return "\n".join(lines)


def parse_receipt(text: str) -> Receipt:
    """Split a receipt into its parts, strictly. Raises InvalidProof (InvalidNote for a misspelt index)."""
    head, gap, checkpoint = text.partition("\n\n")
    header, *lines = head.split("\n")
    if not gap or header != HEADER:
        raise InvalidProof("not a receipt: it does not begin with c2sp.org/tlog-proof@v1 or has no checkpoint")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = _decode(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise InvalidProof("the receipt names no index")
    index = parse_number(lines.pop(0).removeprefix("index "))
    if len(lines) > MAX_PROOF:
        raise InvalidProof("the inclusion proof is too long")
    proof = tuple(map(_decode, lines))
    if any(len(hash) != HASH_BYTES for hash in proof):
        raise InvalidProof("a hash is not 32 bytes long")
    return Receipt(index, proof, checkpoint, extra)


def verify_receipt(text: str, leaf: bytes, *, vkey: str, verify: Verify) -> Checkpoint:
    """The signed tree head under which the entry with the hash `leaf` is in the log, at the receipt's index.

    Raises InvalidProof or InvalidNote (both IntegrityViolation) if anything in the text is not as it must be.
    """
    receipt = parse_receipt(text)
    if receipt.extra is not None and leaf_hash(receipt.extra) != leaf:
        raise InvalidProof("the receipt is of another entry")
    checkpoint = verify_note(receipt.checkpoint, vkey, verify)
    verify_inclusion(leaf, receipt.proof, index=receipt.index, size=checkpoint.size, root=checkpoint.root)
    return checkpoint


def _decode(text: str) -> bytes:
    try:
        return decode_base64(text)
    except InvalidRequest:
        raise InvalidProof("a line of the receipt is not canonical base64") from None

"""A record of the anchor: a head of the log, and its bytes in one of the two slots of a file.

slot   = "KVLANCH1" | counter u64 | epoch u32 | size u64 | state_seq u64 | scrubbed u64 | hash[32] | root[32]
| u16 length, checkpoint (signed note, UTF-8) | u16 length, verifier key | SHA-256 of all before
"""

import hashlib
from dataclasses import dataclass
from struct import Struct, error
from typing import Final

from keyvault_lite.model.errors import IntegrityViolation, OutcomeUnknown

BLOCK: Final = 4096
SIZE: Final = 2 * BLOCK + 1
"""Bytes of the file at the most: two slots, and which of them is flushed."""
DAMAGED: Final = "the anchor is damaged: neither of its two records can be read"
FOREIGN_FILE: Final = "the anchor is another kind of file"
_MAGIC: Final = b"KVLANCH1"
FIXED: Final = Struct(">8sQIQQQ32s32s")
_LENGTH: Final = Struct(">H")
_DIGEST: Final = 32


@dataclass(frozen=True, slots=True)
class AnchorRecord:
    """A head of the log as the anchor remembers it."""

    epoch: int
    size: int
    state_seq: int
    """The newest management entry under this head."""
    hash: bytes
    """Of the newest entry."""
    root: bytes
    """Of the Merkle tree."""
    checkpoint: str
    """The signed note that says so."""
    verifier_key: str
    """With which the note verifies: what an offline check needs from outside the database."""
    scrubbed: int = 0
    """How many entries a background check had read and proven."""


class DamagedAnchor(IntegrityViolation):
    """Neither slot of the anchor can be read."""

    way_out = "put a copy that is whole back, or accept the database as the newest with `kvl anchor trust`"


class NotAnAnchor(DamagedAnchor):
    """The file never was an anchor: it is somebody's, and nothing is written to it."""

    way_out = "let KEYVAULT_ANCHOR name the anchor's own file, or move this one away if it should be that"


Records = list[tuple[int, int, tuple[int, bytes, AnchorRecord]]]


def records(blocks: bytes) -> Records:
    """Counter, slot and record of each slot that is whole."""
    return [(record[0], slot, record) for slot in (0, 1) if (record := unpack_record(blocks[slot * BLOCK :][:BLOCK]))]


def is_blank(blocks: bytes) -> bool:
    """Whether it is an anchor that never had a record."""
    return len(blocks) <= SIZE and not blocks[: 2 * BLOCK].strip(b"\x00")


def unreadable(blocks: bytes) -> DamagedAnchor:
    """Why there is no record in a file: one that is longer, or begins no record anywhere, is somebody else's.

    A first sector that was lost is zeros, and a file may end within its first bytes.
    """
    heads = [blocks[slot * BLOCK :][: len(_MAGIC)] for slot in (0, 1)]
    ours = len(blocks) <= SIZE and any(one and (_MAGIC.startswith(one) or not one.strip(b"\x00")) for one in heads)
    return DamagedAnchor(DAMAGED) if ours else NotAnAnchor(FOREIGN_FILE)


def newest_of(records: Records) -> AnchorRecord:
    """The mark of the record with the highest counter."""
    return max(records, key=lambda one: one[:2])[2][2]


def counter_of(record: bytes) -> int:
    """The counter of a record, verified by its beginning; 0 if it is none."""
    whole = len(record) >= FIXED.size and record.startswith(_MAGIC)
    return int(FIXED.unpack_from(record)[1]) if whole else 0


def pack_record(counter: int, mark: AnchorRecord) -> bytes:
    """A slot's bytes, the digest at their end."""
    texts = [text.encode() for text in (mark.checkpoint, mark.verifier_key)]
    raw = FIXED.pack(
        _MAGIC, counter, mark.epoch, mark.size, mark.state_seq, mark.scrubbed, mark.hash, mark.root
    ) + b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    raw += hashlib.sha256(raw).digest()
    if len(raw) > BLOCK:
        raise OutcomeUnknown("the checkpoint does not fit the anchor")
    return raw


def unpack_record(block: bytes) -> tuple[int, bytes, AnchorRecord] | None:
    """Counter, raw record and mark of a block; None for one that is empty or torn."""
    try:
        magic, counter, epoch, size, state_seq, scrubbed, entry_hash, root = FIXED.unpack_from(block)
        if magic != _MAGIC:
            return None
        end, texts = FIXED.size, []
        for _ in range(2):
            (length,) = _LENGTH.unpack_from(block, end)
            end += _LENGTH.size
            texts.append(block[end : end + length].decode())
            end += length
    except (error, UnicodeDecodeError):
        return None
    raw = block[: end + _DIGEST]
    if hashlib.sha256(raw[:-_DIGEST]).digest() != raw[-_DIGEST:]:
        return None
    return counter, raw, AnchorRecord(epoch, size, state_seq, entry_hash, root, texts[0], texts[1], scrubbed)

"""A segment of the log that was archived: what the vault keeps on record of it after its entries are gone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from keyvault_lite.model.identity import Setting

PREFIX: Final = "audit/archive/"
"""Settings under this name are the segments, in the order of the log: the digits have leading zeros."""
HASH_CHARS: Final = 64
_DIGITS: Final = 19
_HEX: Final = re.compile(f"[0-9a-f]{{{HASH_CHARS}}}")
_MAX: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Segment:
    """Entries `first` to `last`, the file that has them, and where the log is behind them.

    The last five are all that is needed to verify the next entry, so the log can be verified from here on.
    """

    first: int
    last: int
    file_hash: str
    """SHA-256 of the file, in hexadecimal."""
    head: bytes
    """The hash of entry `last`."""
    epoch: int
    timestamp: int
    state_seq: int

    @property
    def file(self) -> str:
        """The name of the file. It says which entries and which bytes, so nothing is ever overwritten by another."""
        return f"{file_prefix(self.first, self.last)}{self.file_hash[:16]}{SUFFIX}"

    @property
    def comment(self) -> str:
        """How the entry that records the archiving names it."""
        return f"entries {self.first} to {self.last} archived as sha256 {self.file_hash}"

    def as_setting(self) -> Setting:
        """The record, as the vault keeps it under its state root."""
        value = {
            "first": self.first,
            "last": self.last,
            "file_hash": self.file_hash,
            "head": self.head.hex(),
            "epoch": self.epoch,
            "timestamp": self.timestamp,
            "state_seq": self.state_seq,
        }
        return Setting(f"{PREFIX}{self.last:0{_DIGITS}}", value)


SUFFIX: Final = ".kvlseg"
_COMMENT: Final = re.compile(r"entries (\d{1,19}) to (\d{1,19}) archived as sha256 ([0-9a-f]{64})", re.ASCII)


def file_prefix(first: int, last: int) -> str:
    """How the names of files with these entries begin."""
    return f"audit-{first:012}-{last:012}-"


def named_in(comment: str) -> tuple[int, str] | None:
    """The last entry and the file's hash that `Segment.comment` names; None if it names none."""
    found = _COMMENT.match(comment)
    return None if found is None else (int(found[2]), found[3])


def read_segment_setting(name: str, value: Mapping[str, Any]) -> Segment:
    """The segment of a setting. Raises ValueError for anything that `as_setting` does not write."""
    try:
        found = Segment(
            first=value["first"],
            last=value["last"],
            file_hash=value["file_hash"],
            head=bytes.fromhex(value["head"]),
            epoch=value["epoch"],
            timestamp=value["timestamp"],
            state_seq=value["state_seq"],
        )
        numbers = (found.first, found.last, found.epoch, found.timestamp, found.state_seq)
        sound = (
            all(type(number) is int and 0 <= number <= _MAX for number in numbers)
            and 0 < found.first <= found.last
            and _HEX.fullmatch(found.file_hash) is not None
            and (found.as_setting().name, found.as_setting().value) == (name, dict(value))
            and len(found.head) * 2 == HASH_CHARS
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        sound, found = False, None
    if not sound or found is None:
        raise ValueError("not the record of an archived segment")
    return found


def newest_of(settings: Sequence[Setting]) -> Segment | None:
    """The last segment of verified settings under PREFIX, which are in order of name."""
    return None if not settings else read_segment_setting(settings[-1].name, settings[-1].value or {})

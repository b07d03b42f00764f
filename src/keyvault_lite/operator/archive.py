"""`kvl audit archive`: the oldest entries become files, and are read from them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from keyvault_lite.app import Vault, open_vault, perform
from keyvault_lite.audit.entry import row_entry
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.archive.archiver import SEGMENT
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.verify.inspection import Progress
from keyvault_lite.ledger.verify.offline_check import identity_of
from keyvault_lite.model.archive import Segment
from keyvault_lite.model.errors import NotFound
from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.requests import ArchiveEntries
from keyvault_lite.operator.anchor import show_anchor
from keyvault_lite.settings import Settings


@dataclass(frozen=True, slots=True)
class Archiving:
    """What an archiving did."""

    segments: tuple[Segment, ...]
    """The new files, oldest entries first."""
    archived: int
    """Up to which entry the log is archived now."""


def archive_entries(
    chosen: Settings,
    folder: Path,
    *,
    before: int | None = None,
    keep: int = 0,
    vacuum: bool = False,
    progress: Progress | None = None,
) -> Archiving:
    """Put the oldest entries into files, and then out of the database, segment by segment, each on record.

    Those from before `before` (microseconds), and never the last `keep`. Works beside servers. Whenever it ends, every
    entry is in the database or in a file that was checked; to go on, call it again. Raises one of CANNOT_START.
    """
    with closing(open_vault(chosen)) as vault:
        folder.mkdir(mode=0o700, exist_ok=True)
        archived, until = vault.ledger.archivable(before=before, keep=keep)
        segments = asyncio.run(_archive(vault, folder.resolve(), archived, until, progress))
        if vacuum:
            vault.ledger.give_space_back()
        return Archiving(segments, until)


async def _archive(
    vault: Vault, folder: Path, archived: int, until: int, progress: Progress | None
) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    first = archived
    while archived < until:
        archived = min(archived + SEGMENT, until)
        # The file first: what is deleted is in it, flushed and checked.
        segment = vault.ledger.make_segment(folder, verify_ed25519, last=archived)
        await perform(vault, ArchiveEntries(segment))
        segments.append(segment)
        if progress is not None:
            progress(archived - first, until - first)
    return tuple(segments)


def read_archive(
    chosen: Settings,
    folder: Path,
    *,
    key: str | None = None,
    first: int = 1,
    last: int | None = None,
    note: Callable[[str], None],
) -> Iterator[Entry]:
    """The entries in files of archived segments, which prove themselves with the log's verifier key.

    Needs neither database nor master key. The key is `key`, or the anchor's. See SegmentStore.read.
    """
    if key is None:
        mark = show_anchor(chosen).mark
        if mark is None:
            raise NotFound("there is no anchor that knows the log's verifier key: name it (--key)")
        key = mark.verifier_key
    for row in SegmentStore(folder, identity_of(key), verify_ed25519).read(first=first, last=last, note=note):
        yield row_entry(row)

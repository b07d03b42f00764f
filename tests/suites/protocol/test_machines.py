"""The two small machines beside the protocol: the two slots of the anchor's file, and a reader beside a live server."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite.ledger.anchor import files as anchor_module
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.record import BLOCK, AnchorRecord, DamagedAnchor
from keyvault_lite.ledger.verify import inspection
from keyvault_lite.ledger.verify import offline_check as check_module
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import RotateKey
from keyvault_lite.operator.verify import verify_vault as verify
from tests.suites.protocol.removal import Removal
from tests.support.harness import Harness


def mark(size: int) -> AnchorRecord:
    """Of a log whose one management entry is its first."""
    return AnchorRecord(0, size, 1, bytes([size]) * 32, bytes(32), f"note {size}", "key")


def counted(size: int, _: int | None) -> AnchorRecord:
    return mark(size)


class Disk:
    """What may stand in each of the two blocks after a power loss: what was flushed, and what was written since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: list[list[bytes]] = [[bytes(BLOCK)], [bytes(BLOCK)]]
        self.flushed = 0
        """The size in the newest mark that is sure to be there."""

    def note(self, *, flushed: bool, size: int) -> None:
        raw = self.path.read_bytes()[: 2 * BLOCK].ljust(2 * BLOCK, b"\x00")
        for slot in (0, 1):
            now = raw[slot * BLOCK :][:BLOCK]
            self.blocks[slot] = (
                [now] if flushed else [*self.blocks[slot], now] if now not in self.blocks[slot] else self.blocks[slot]
            )
        self.flushed = size if flushed else self.flushed

    def after_power_loss(self) -> Iterator[bytes]:
        """Every content that the file can have then. A block that is not flushed may be torn."""
        fates = []
        for candidates in self.blocks:
            torn = [new[:100] + old[100:] for old, new in pairwise(candidates)]
            fates.append([*candidates, *torn])
        for first, second in product(*fates):
            for said in (b"", b"\x00", b"\x01"):  # which slot is flushed, is itself not flushed
                yield first + second + said


@contextmanager
def opened(path: Path) -> Iterator[FileAnchor]:
    anchor = FileAnchor(path)
    try:
        yield anchor
    finally:
        anchor.close()


def lost_after(folder: Path, steps: tuple[bool, ...]) -> str | None:
    """What a power loss can do after writes, each of them followed by a flush or not. None: nothing."""
    path = folder / "anchor"
    path.unlink(missing_ok=True)
    with opened(path) as anchor:
        disk, before = Disk(path), None
        for number, flush in enumerate(steps, start=1):
            before = anchor.write(partial(counted, number), before=before, prove=lambda _: ())
            disk.note(flushed=number == 1, size=number)
            if flush:
                anchor.flush()
                disk.note(flushed=True, size=number)
            torn = folder / "torn"
            for content in disk.after_power_loss():
                torn.write_bytes(content)
                try:
                    found = FileAnchor(torn).peek()
                except DamagedAnchor:
                    return "both slots are torn"
                if found is None or found.size < disk.flushed:
                    return "a flushed mark is lost"
    return None


@pytest.mark.parametrize("length", range(1, 6))
def test_a_power_loss_loses_no_flushed_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr(anchor_module, "PEEKS", 1)
    for steps in product((False, True), repeat=length):
        assert lost_after(tmp_path, steps) is None, steps


def test_slots_that_change_at_every_write_are_both_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor_module, "PEEKS", 1)
    text = "newest ^ 1 if self._flushed_slot(descriptor) == newest else newest"
    Removal(FileAnchor, "write", text, "newest ^ 1").apply(monkeypatch.setattr)
    assert lost_after(tmp_path, (False, False, False)) == "both slots are torn"


# A check beside a server that commits between any two of its reads


def commits_before(monkeypatch: pytest.MonkeyPatch, harness: Harness, owner: Any, name: str) -> None:  # noqa: ANN401
    """Have the server commit a management entry whenever the check is about to do this."""
    wrapped, name_of_key = getattr(owner, name), KeyRef(harness.key().id)

    def committing(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        monkeypatch.setattr(owner, name, wrapped)
        harness.ask(RotateKey(name_of_key))
        return wrapped(*arguments, **more)

    monkeypatch.setattr(owner, name, committing)


READS: dict[str, tuple[Any, str]] = {
    "the anchor": (FileAnchor, "peek"),
    "rows": (inspection, "read_rows"),
    "the log": (inspection._Log, "read"),
    "what the anchor says of it": (inspection, "check_anchor"),
}


@pytest.mark.parametrize("read", READS)
def test_a_check_beside_a_server_finds_nothing(harness: Harness, monkeypatch: pytest.MonkeyPatch, read: str) -> None:
    commits_before(monkeypatch, harness, *READS[read])
    found = verify(harness.settings)
    assert (found.valid, found.findings) == (True, ())


def test_without_one_snapshot_it_finds_what_is_not_there(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    for statement in ("BEGIN", "ROLLBACK"):
        Removal(inspection, "inspect", f'connection.execute("{statement}")', "pass").apply(monkeypatch.setattr)
    monkeypatch.setattr(check_module, "inspect", inspection.inspect)
    commits_before(monkeypatch, harness, *READS["rows"])
    assert not verify(harness.settings).valid

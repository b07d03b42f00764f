"""`kvl verify`: everything that can be checked of a vault offline, beside a running server, without writing a byte.

With the keyring all of it; without, what anyone with the log's public key can check: log, order, tree,
signatures, and that no row was put back or removed. The anchor is read before the database, so that a server may go on.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from keyvault_lite.audit.checkpoint import (
    Checkpoint,
    Verify,
    origin,
    parse_verifier_key,
    split_origin,
    verifier_key,
    verify_note,
)
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.interface import Remembered
from keyvault_lite.ledger.anchor.record import AnchorRecord, DamagedAnchor
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.opening import stored_slots
from keyvault_lite.ledger.state.outcome import Authority, PublicAuthority
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.ledger.verify.expected_heads import ExpectedHead
from keyvault_lite.ledger.verify.inspection import Inspection, Progress, inspect, verification
from keyvault_lite.ledger.verify.review import Reviewer, review
from keyvault_lite.ledger.verify.startup import finding_of
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.replies import Finding, Verification

Identity = Authority | PublicAuthority
_INSTANCE: Final = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class CheckInputs:
    """What a check has at hand beside the database."""

    anchor: Callable[[Identity | None], Remembered | None]
    """The anchor; a file needs no identity of the log to be found, a shared one does."""
    verify: Verify
    unlock: Callable[[Sequence[Slot]], Authority | None] | None = None
    """Opens the keyring: None if the master key opens no slot. Without it, only what is public is checked."""
    key: str | None = None
    """The log's verifier key, kept elsewhere."""
    against: str | None = None
    """A checkpoint that somebody has kept: the log has to extend it."""
    progress: Progress | None = None
    archive: Path | None = None
    """The folder with what was archived."""
    reviewer: Reviewer | None = None
    """Is shown what verifies, and may say something of it."""


class NothingOpens(IntegrityViolation):
    """No slot of the keyring opens, and nothing in the database says that it was tampered with."""


def check(database: Database, means: CheckInputs) -> Verification:
    """Check a database. Raises NothingOpens, InvalidRequest, AuditUnavailable if it cannot be verified."""
    try:
        return database.read_offline(lambda connection: _Check(connection, database, means).run())
    except DamagedVault as error:
        return verification_of(error.findings)
    except driver.Damaged as error:
        finding = Finding("database", database.name, f"is damaged, or no database: {error}")
        return verification_of([finding])


def identity_of(key: str) -> PublicAuthority:
    """Which log a verifier key is of. Raises IntegrityViolation for a malformed key, InvalidRequest for another's."""
    parsed = parse_verifier_key(key)
    product, _, instance = split_origin(parsed.name)[0].partition("/")
    if product != "keyvault-lite" or not _INSTANCE.fullmatch(instance):
        raise InvalidRequest("the key is not that of a log of KeyVault Lite")
    return PublicAuthority(bytes.fromhex(instance), parsed.public_key)


class _Check:
    """One check on one connection."""

    def __init__(self, connection: driver.Connection, database: Database, means: CheckInputs) -> None:
        self._connection = connection
        self._database = database
        self._means = means
        self._findings: list[Finding] = []

    def run(self) -> Verification:
        # Before the snapshot is opened: whatever an anchor says is in what is read after it.
        mark = self._mark(self._means.anchor(None))
        slots = _slots(self._database, self._connection)
        authority = self._authority(slots)
        if authority is None:
            return self._public(mark, locked=self._means.unlock is not None)
        found = self._judge(authority, mark)
        if found.valid and self._means.reviewer is not None:
            found = replace(found, notes=found.notes + review(self._connection, self._means.reviewer))
        return found

    def _authority(self, slots: Sequence[Slot]) -> Authority | None:
        if self._means.unlock is None:
            return None
        try:
            return self._means.unlock(slots) if slots else None
        except IntegrityViolation as error:
            self._findings.append(Finding("keyring_slots", ", ".join(slot.id for slot in slots), error.detail))
            return None

    def _public(self, mark: AnchorRecord | None, *, locked: bool) -> Verification:
        """Without the keyring. If it should have opened, what is public tells whether it was tampered with."""
        if self._means.key is not None:
            identity = identity_of(self._means.key)
        elif mark is not None:
            identity = identity_of(mark.verifier_key)
        elif self._findings:
            return verification_of(self._findings)
        elif locked:
            raise NothingOpens("the master key opens no slot of this keyring, and there is no anchor to tell why")
        else:
            raise InvalidRequest("without an anchor the log's verifier key has to be given (--key)")
        found = self._judge(identity, mark)
        if locked and found.valid:
            raise NothingOpens(
                "the master key opens no slot of this keyring, which is the one on record: "
                "it is another vault's, or was replaced"
            )
        return found

    def _mark(self, anchor: Remembered | None) -> AnchorRecord | None:
        if anchor is None:
            return None
        try:
            return anchor.peek() if isinstance(anchor, FileAnchor) else anchor.read()
        except DamagedAnchor as error:
            self._findings.append(finding_of(anchor, error))
            return None

    def _judge(self, identity: Identity, mark: AnchorRecord | None) -> Verification:
        anchor = self._means.anchor(identity)
        if mark is None and not self._findings and not isinstance(anchor, FileAnchor):
            mark = self._mark(anchor)
        claims: list[ExpectedHead] = []
        ours = verifier_key(origin(identity.instance_id, 0 if mark is None else mark.epoch), identity.log_public_key)
        if mark is not None and anchor is not None and mark.verifier_key == ours:
            self._check_note(mark.checkpoint, identity, Finding("anchor", anchor.place, "its checkpoint is not signed"))
        if self._means.against is not None:
            kept = Finding("checkpoint", "", "is not one that the key of this log has signed")
            found = self._check_note(self._means.against, identity, kept)
            if found is not None:
                problem = f"is of {found.size} entries which this log does not extend"
                claims.append(ExpectedHead(found.size, found.root, Finding("checkpoint", "", problem)))
        seen = inspect(
            self._connection,
            identity,
            self._database,
            anchor=None if self._findings else anchor,
            mark=mark,
            log_from=0,
            progress=self._means.progress,
            claims=claims,
            pages=True,
            segment_store=None
            if self._means.archive is None
            else SegmentStore(self._means.archive, identity, self._means.verify),
        )
        self._after(seen, identity, mark)
        seen.findings[:0] = self._findings
        return verification(seen)

    def _after(self, seen: Inspection, identity: Identity, mark: AnchorRecord | None) -> None:
        signed = 0 if mark is None else mark.size
        if seen.head is not None and seen.head.checkpoint:
            stored = Finding("ledger_head", "1", "its checkpoint is not signed by the key of this log")
            found = self._check_note(seen.head.checkpoint, identity, stored)
            signed = max(signed, 0 if found is None else found.size)
        if isinstance(identity, PublicAuthority) and seen.entries > signed:
            seen.notes.append(f"no signature covers the newest {seen.entries - signed} entries yet")

    def _check_note(self, note: str, identity: Identity, otherwise: Finding) -> Checkpoint | None:
        """The tree head of a checkpoint that this log's key has signed, in whichever epoch."""
        epoch = split_origin(note.partition("\n")[0])[1]
        key = verifier_key(origin(identity.instance_id, epoch), identity.log_public_key)
        try:
            return verify_note(note, key, self._means.verify)
        except IntegrityViolation:
            self._findings.append(otherwise)
            return None


def verification_of(findings: Sequence[Finding]) -> Verification:
    """The reply of a check that got no further than these."""
    return Verification(valid=False, entries=0, head=bytes(32), reason=findings[0].problem, findings=tuple(findings))


def _slots(database: Database, connection: driver.Connection) -> tuple[Slot, ...]:
    try:
        return stored_slots(database, connection)
    except driver.Error as error:
        if "no such" in str(error):
            return ()  # the missing table or column is a finding of its own
        raise

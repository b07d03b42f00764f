"""The anchor of several hosts: a witness, asked under the head lock before anything is written and before each reply.

A file says what this host has seen; the witness says what any host has. It verifies itself whether a checkpoint extends
the one before, so of two copies of a database that go on apart only one is ever answered from. The facts of a mark
that are not the tree's (`state-seq`, `entry-hash`) are lines of the checkpoint, under the log's own signature.
"""

import threading
from collections.abc import Mapping
from typing import Final

from keyvault_lite.audit.checkpoint import (
    InvalidNote,
    Verify,
    origin,
    read_facts,
    split_origin,
    verifier_key,
    verify_note,
)
from keyvault_lite.ledger.anchor.confirmation import Confirmation
from keyvault_lite.ledger.anchor.counter import CounterUse
from keyvault_lite.ledger.anchor.interface import Prove, Sign
from keyvault_lite.ledger.anchor.record import AnchorRecord, DamagedAnchor
from keyvault_lite.model.errors import AuditUnavailable, Conflict, IntegrityViolation, KeyVaultError, OutcomeUnknown
from keyvault_lite.witness.client import Confirmed, WitnessAhead, WitnessClient


class SharedAnchor:
    """See ledger.anchor.Anchor. Every write is durable at the witness before it returns."""

    is_local: Final = False
    waits: Final = True

    def __init__(self, client: WitnessClient, *, instance_id: bytes, public_key: bytes, verify: Verify) -> None:
        self._client = client
        self._instance_id = instance_id
        self._public_key = public_key
        self._verify = verify
        self._origin: Final = origin(instance_id, 0)
        self._seen: tuple[AnchorRecord, Confirmed] | None = None
        """The newest mark, and what the witness said to it."""
        self._proven = False
        """Whether the witness has taken a write of this process: an answer to a read alone might be an old one."""
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        """The witness's address."""
        return self._client.url

    def exists(self) -> bool:
        """Whether the witness remembers this vault."""
        return self.read() is not None

    def prove(self) -> None:
        """See Anchor: the witness answers."""
        self.read()

    def read(self, *, blocking: bool = True) -> AnchorRecord | None:
        """See Anchor. It always blocks: a witness is another host.

        Raises AuditUnavailable if the witness does not answer: nothing was done then.
        """
        with self._lock:
            seen = self._seen
            confirmed = self._client.newest(self._origin, None if seen is None else seen[1])
            if confirmed is not None and seen is not None and confirmed is seen[1]:
                return seen[0]
            mark = None if confirmed is None else self._mark(confirmed.note)
            if seen is not None and (mark is None or (mark.epoch, mark.size) < (seen[0].epoch, seen[0].size)):
                # The witness was put back. It has confirmed what we hold, with its signature: that stays the truth, and
                # the next write brings it back there.
                self._client.remember_loss(seen[0].size, 0 if mark is None else mark.size)
                return seen[0]
            if mark is not None and confirmed is not None:
                self._seen = (mark, confirmed)
            return mark

    def write(
        self,
        sign: Sign,
        *,
        before: AnchorRecord | None,
        prove: Prove,
        use: CounterUse = CounterUse.NONE,
        blocking: bool = True,
    ) -> AnchorRecord:
        """See Anchor. It always blocks: a witness is another host.

        Raises IntegrityViolation if the witness knows another history than this mark's.

        A witness verifies what is signed: of a log that was forked it may see two heads of one size, and keeps them.
        """
        with self._lock:
            mark = sign(None)
            old = before.size if before is not None and before.epoch == mark.epoch else 0
            self._submit(mark, old, prove)
            return mark

    def _submit(self, mark: AnchorRecord, old: int, prove: Prove) -> None:
        try:
            confirmed = self._client.submit(mark.checkpoint, size=mark.size, old=old, prove=prove)
        except WitnessAhead as other:
            raise IntegrityViolation(
                f"the shared anchor {self.place} knows {other.size} entries, this database has {mark.size}: it was put "
                "back, or another copy of it is served elsewhere",
                shown="the shared anchor knows more of the log than the database has",
            ) from None
        except AuditUnavailable as error:
            raise OutcomeUnknown(
                f"the shared anchor did not confirm: {error.detail}", shown="the shared anchor did not confirm"
            ) from error
        self._seen = (mark, confirmed)
        self._proven = True

    def flush(self) -> None:
        """Have the newest mark confirmed once by a write, which an answer that is played back cannot be."""
        with self._lock:
            if self._seen is not None and not self._proven:
                mark = self._seen[0]
                self._submit(mark, mark.size, lambda _: ())

    def check_trusted(self, epoch: int) -> None:
        """Raise Conflict, which names the key to be trusted, unless the witness would take a mark of that epoch."""
        name = origin(self._instance_id, epoch)
        if not self._client.trusts(name):
            raise Conflict(
                f"the witness {self.place} does not trust this log yet; give it the key "
                f"{verifier_key(name, self._public_key)} first"
            )

    def replace(self, mark: AnchorRecord) -> None:
        """Put the first record of a log, or of a new epoch of it, into a witness that trusts it.

        Raises IntegrityViolation if the witness has one already: it takes none back.
        """
        with self._lock:
            known = self._client.newest(self._origin)
            if known is not None and self._mark(known.note).epoch >= mark.epoch:
                raise IntegrityViolation(
                    f"the shared anchor {self.place} remembers {known.size} entries in this epoch; it takes none back",
                    shown="the shared anchor knows another state of the log",
                )
            self._submit(mark, 0, lambda _: ())

    @property
    def is_due(self) -> bool:
        """See Anchor."""
        return False

    def check_counter(self, mark: AnchorRecord) -> None:
        """See Anchor. It is another host's business what that remembers."""

    def close(self) -> None:
        """See Anchor."""
        self._client.close()

    def _mark(self, note: str) -> AnchorRecord:
        """The mark that a checkpoint of this vault states. Raises DamagedAnchor for anything else."""
        try:
            epoch = split_origin(note.split("\n", 1)[0])[1]
            vkey = verifier_key(origin(self._instance_id, epoch), self._public_key)
            head = verify_note(note, vkey, self._verify)
            state_seq, entry_hash = read_facts(head.extensions)
        except InvalidNote as error:
            raise DamagedAnchor(f"the shared anchor's checkpoint is not one of this vault: {error.detail}") from None
        return AnchorRecord(epoch, head.size, state_seq, entry_hash, head.root, note, vkey)

    # What the ledger asks of a witness (ledger.witnessed)

    @property
    def fault(self) -> KeyVaultError | None:
        """None: each commit finds out whether the anchor can be reached."""
        return None

    @property
    def newest(self) -> Confirmation | None:
        """The newest checkpoint, with the witness's signature."""
        seen = self._seen
        if seen is None:
            return None
        mark, confirmed = seen
        return Confirmation(confirmed.note, confirmed.lines, mark.epoch, mark.size)

    def facts(self) -> Mapping[str, object]:
        """For `/health`; the age of the newest confirmation would say nothing: there is one before each reply."""
        return {}

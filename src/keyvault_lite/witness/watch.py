"""What a vault does with its witness: it has the newest checkpoint confirmed, again and again, and tells how old it is.

A witness that is not heard of for too long stops service; one that knows another history stops it until a restart.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from keyvault_lite.audit.checkpoint import parse_checkpoint, parse_note, split_origin
from keyvault_lite.audit.merkle import InvalidProof
from keyvault_lite.ledger.anchor.confirmation import Confirmation
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, OutcomeUnknown
from keyvault_lite.model.replies import Consistency
from keyvault_lite.observe import logger
from keyvault_lite.observe.metrics import METRICS
from keyvault_lite.witness.client import Confirmed, WitnessAhead, WitnessClient

PERIOD_SECONDS: Final = 1.0
"""How often the log is looked at; if it grew it is submitted."""
KEEPALIVE_SECONDS: Final = 15.0
"""How often a log that does not grow is submitted, at least."""

log: Final = logger("witness")


class Log(Protocol):
    """The witnessed log (ledger.evidence.Evidence)."""

    def signed_head(self) -> str:
        """The newest signed checkpoint of this process, without a witness's lines; empty before the first entry."""

    def consistency(self, old: int, new: int) -> Consistency:
        """The proof that the log of `new` entries extends that of `old`."""

    def refresh(self) -> None:
        """Adopt what other processes have committed."""


class Watch:
    """A witness and the thread that asks it. See ledger.witnessed.Witness for what it answers."""

    def __init__(
        self,
        ledger: Log,
        client: WitnessClient,
        *,
        max_age: float,
        period: float = PERIOD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_age`: after how many seconds without confirmation nothing may be done; 0 for never."""
        self._ledger = ledger
        self._client = client
        self._max_age = max_age
        self._keepalive = min(KEEPALIVE_SECONDS, max_age / 4) if max_age else KEEPALIVE_SECONDS
        self._period = period
        self._clock = clock
        self._newest: tuple[float, Confirmed, int] | None = None
        """When it was asked, what it answered, of which epoch."""
        self._empty_at: float | None = None
        """When the log was last seen empty: there is nothing to confirm."""
        self._problem = "the witness was not asked yet: the first check follows within seconds"
        self._violation: IntegrityViolation | None = None
        self._turn = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._measure()

    def _measure(self) -> None:
        about = (
            "Seconds since the newest checkpoint that the witness has confirmed was submitted; none before the first."
        )
        METRICS.gauge("keyvault_witness_age_seconds", about, lambda: _known(self.age))
        about = "Entries of the log that the witness has confirmed; none before the first."
        METRICS.gauge("keyvault_witness_size", about, lambda: _known(None if self.newest is None else self.newest.size))

    def start(self) -> None:
        """Ask for the first time, then go on in a thread. Raises IntegrityViolation if the witness knows better."""
        self.round()
        if self._violation is not None:
            raise self._violation
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._closing.wait(self._period):
            try:
                self.round()
            except Exception:
                # A defect in one round must not end all later ones: the witness has to be asked on.
                log.exception("the witness could not be asked")

    def round(self) -> None:
        """Submit the newest checkpoint if it is new, or the last answer old."""
        with self._turn:
            self._round()

    def _round(self) -> None:
        now = self._clock()
        note = self._ledger.signed_head()
        if not note:
            self._empty_at = now
            return
        last = self._newest
        if last is not None and last[1].note == note and now - last[0] < self._keepalive:
            return
        try:
            self._submit(now, note)
        except IntegrityViolation as error:
            self._violation = error
            log.critical("service stopped: %s", error.detail)
        except (AuditUnavailable, OutcomeUnknown) as error:
            self._problem = error.detail
            log.warning("not confirmed: %s", error.detail)

    def _submit(self, now: float, note: str) -> None:
        last = self._newest
        epoch, size = _place(note)
        old = last[1].size if last is not None and last[2] == epoch else 0
        try:
            confirmed = self._ask(note, size, old)
        except WitnessAhead as ahead:
            # Another process of this vault may have written since. Whatever the witness knows was committed before it
            # knew it, so it is in the database now, or the database has lost it.
            self._ledger.refresh()
            note = self._ledger.signed_head()
            epoch, size = _place(note)
            if size < ahead.size:
                raise IntegrityViolation(
                    f"the witness {self._client.url} has confirmed {ahead.size} entries, the database has {size}: "
                    "it was put back, or another copy of it is served elsewhere",
                    shown="the witness knows more of the log than the database has",
                ) from None
            try:
                confirmed = self._ask(note, size, ahead.size)
            except WitnessAhead:
                return  # the others are quicker; the next round sees what they wrote
        if last is not None and confirmed.time < last[1].time:
            raise AuditUnavailable("the witness's clock runs backwards, or its answer is an old one")
        self._newest = (now, confirmed, epoch)

    def _ask(self, note: str, size: int, old: int) -> Confirmed:
        return self._client.submit(note, size=size, old=old, prove=lambda known: self._prove(known, size))

    def _prove(self, old: int, new: int) -> Sequence[bytes]:
        try:
            return self._ledger.consistency(old, new).hashes
        except InvalidProof as error:
            raise IntegrityViolation("the tree of the log is damaged: that it only grew cannot be shown") from error

    # What the ledger asks (ledger.witnessed.Witness)

    @property
    def age(self) -> float | None:
        """Seconds since the newest confirmed checkpoint was submitted; None if there is none yet."""
        return None if self._newest is None else self._clock() - self._newest[0]

    @property
    def fault(self) -> KeyVaultError | None:
        """See Witness."""
        if self._violation is not None:
            return IntegrityViolation(self._violation.detail, shown=self._violation.shown)
        if not self._max_age:
            return None
        since = self._empty_at if self._newest is None else self._newest[0]
        if since is not None and self._clock() - since <= self._max_age:
            return None
        return AuditUnavailable(
            f"the witness has not confirmed the log in {self._max_age:g} s: {self._problem}",
            shown=f"the witness has not confirmed the log in {self._max_age:g} s",
        )

    @property
    def newest(self) -> Confirmation | None:
        """See Witness."""
        last = self._newest
        return None if last is None else Confirmation(last[1].note, last[1].lines, last[2], last[1].size)

    def facts(self) -> Mapping[str, object]:
        """See Witness."""
        age = self.age
        # Not the size: anybody may ask for these, and a stranger learns nothing of the log, its length neither.
        facts: dict[str, object] = {"age_seconds": None if age is None else round(age, 1)}
        if self._client.was_put_back:
            facts["put_back"] = True
        return {"witness": facts}


def _known(value: float | None) -> float | dict[str, float]:
    return {} if value is None else value


def _place(note: str) -> tuple[int, int]:
    """Epoch and size of a checkpoint."""
    head = parse_checkpoint(parse_note(note).body)
    return split_origin(head.origin)[1], head.size

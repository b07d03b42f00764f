"""What a witness knows and does: it confirms a checkpoint only if it extends the last one that it confirmed.

The protocol is C2SP tlog-witness. For each log one file holds the newest checkpoint; it is durable before the
cosignature leaves, so that nothing a witness has confirmed is ever forgotten: not by a kill, not by a power loss. A
newer epoch of a log closes the older ones.
"""

import fcntl
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple, Protocol, Self

from keyvault_lite.audit.checkpoint import (
    COSIGNATURE,
    ED25519,
    Checkpoint,
    InvalidNote,
    VerifierKey,
    Verify,
    cosign,
    parse_checkpoint,
    parse_note,
    parse_number,
    parse_verifier_key,
    signed_by,
    split_origin,
    verifier_key,
    verify_note,
)
from keyvault_lite.audit.merkle import ROOT_OF_EMPTY, InvalidProof, verify_consistency
from keyvault_lite.ledger.storage.own_files import open_own
from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest
from keyvault_lite.observe import logger
from keyvault_lite.witness.record import MAX_TEXT, Record, sync_folder

MAX_PROOF: Final = 63
MAX_EVIDENCE: Final = 100
"""How many refused checkpoints are kept; they are signed by the log, so nobody else can fill the folder with more."""

log: Final = logger("witness")


class SubmissionRefused(Exception):
    """Base of what a witness answers instead of a cosignature. `detail` gives the submitter the reason."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class MalformedSubmission(SubmissionRefused):
    """The request is not what the protocol asks for."""


class UnknownLog(SubmissionRefused):
    """The origin is that of no log that this witness trusts."""


class Untrusted(SubmissionRefused):
    """No signature of the log's key verifies, or a newer epoch has closed this one."""


class SizeConflict(SubmissionRefused):
    """The submission does not start from the newest checkpoint confirmed; `size` is that one's."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the newest checkpoint confirmed is of {size} entries")
        self.size = size


class Inconsistent(SubmissionRefused):
    """The proof does not lead from the newest checkpoint confirmed to this one."""


class Key(Protocol):
    """The key of a witness (crypto.witness.WitnessKey)."""

    @property
    def name(self) -> str:
        """Under which it signs."""

    @property
    def public_key(self) -> bytes:
        """Raw Ed25519."""

    def sign(self, message: bytes) -> bytes:
        """Sign."""


class Submission(NamedTuple):
    """A parsed request; nothing in it is verified."""

    old: int
    proof: tuple[bytes, ...]
    note: str


class _Confirmed(NamedTuple):
    note: str
    head: Checkpoint


def parse_submission(text: str) -> Submission:
    """Split the body of `add-checkpoint`, strictly. Raises MalformedSubmission."""
    head, gap, note = text.partition("\n\n")
    first, *lines = head.split("\n")
    if not gap or not first.startswith("old ") or len(lines) > MAX_PROOF:
        raise MalformedSubmission("not an old size, at most 63 hashes, a blank line and a checkpoint")
    try:
        proof = tuple(map(decode_base64, lines))
        return Submission(parse_number(first.removeprefix("old ")), proof, note)
    except (InvalidNote, InvalidRequest) as error:
        raise MalformedSubmission(error.detail) from None


def format_submission(old: int, proof: Sequence[str], note: str) -> str:
    """The body of `add-checkpoint`; the hashes of the proof in base64."""
    return "\n".join((f"old {old}", *proof, "", note))


class Register:
    """All that one witness has confirmed. One process at a time; its methods may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        key: Key,
        logs: Sequence[str],
        *,
        verify: Verify,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the folder, whose lock must be held (`locked`). `logs`: the verifier keys of the logs to be trusted.

        Raises InvalidNote for a malformed key, IntegrityViolation for a state file that does not verify.
        """
        self._folder = folder
        self._key = key
        self._verify = verify
        self._clock = clock
        self._guard = Lock()
        self._trusted: Mapping[str, str] = {_log_key(text): text for text in logs}
        if len(self._trusted) != len(set(logs)):
            raise IntegrityViolation("a log is named twice, with different keys")
        _check_epochs(logs)
        self.verifier_key: Final = verifier_key(key.name, key.public_key, COSIGNATURE)
        for made in (folder / "state", folder / "evidence", folder / "unproven"):
            made.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder)
        self._known: dict[str, _Confirmed] = {}
        self._records = {origin: self._open(origin, vkey) for origin, vkey in self._trusted.items()}

    @property
    def trusted(self) -> int:
        """How many logs it confirms."""
        return len(self._trusted)

    def add(self, submission: Submission) -> str:
        """Confirm a checkpoint: the cosignature line, once it can no more be forgotten. Raises a SubmissionRefused."""
        try:
            head = parse_checkpoint(parse_note(submission.note).body)
        except InvalidNote as error:
            raise MalformedSubmission(error.detail) from None
        vkey = self._trusted.get(head.origin)
        if vkey is None:
            raise UnknownLog("this witness was not told to trust that log")
        try:
            verify_note(submission.note, vkey, self._verify)
        except InvalidNote as error:
            raise Untrusted(error.detail) from None
        if submission.old > head.size:
            raise MalformedSubmission("the old size is above the new one")
        note = signed_by(submission.note, vkey)
        if len(note.encode()) > MAX_TEXT:
            raise MalformedSubmission(f"a checkpoint is at most {MAX_TEXT} bytes here")
        with self._guard:
            self._judge(submission, head, note)
            line = self._cosign(note)
            known = self._known.get(head.origin)
            if known is None or known.note != note:
                self._records[head.origin].write(note)
                self._known[head.origin] = _Confirmed(note, head)
        return line

    def _judge(self, submission: Submission, head: Checkpoint, note: str) -> None:
        family, epoch = split_origin(head.origin)
        if any(split_origin(other) > (family, epoch) and split_origin(other)[0] == family for other in self._known):
            raise Untrusted("a newer epoch of this log has begun, which closed this one")
        known = self._known.get(head.origin)
        size, root = (0, ROOT_OF_EMPTY) if known is None else (known.head.size, known.head.root)
        if submission.old != size:
            raise SizeConflict(size)
        if head.size == size:
            if head.root != root:
                # Together with the state file it proves a fork to anybody: the log has signed both.
                log.error("refused a checkpoint of %s, size %d: its tree is another", head.origin, head.size)
                self._keep("evidence", note)
                raise SizeConflict(size)
            if submission.proof:
                raise Inconsistent("between equal sizes nothing is proven")
        elif size == 0:
            if submission.proof:
                raise Inconsistent("a submission that extends the empty log carries no consistency proof")
        else:
            try:
                verify_consistency(submission.proof, old=size, new=head.size, old_root=root, new_root=head.root)
            except InvalidProof as error:
                # A fork has no proof; but anyone can send a genuine checkpoint with a wrong proof.
                log.warning("no proof that a checkpoint of %s, size %d, extends the last", head.origin, head.size)
                self._keep("unproven", note, replace=True)
                raise Inconsistent(error.detail) from None

    def newest(self, origin: str) -> str | None:
        """The newest checkpoint of a log in its newest epoch, confirmed again as of now; None before the first.

        Raises UnknownLog if no epoch of it is trusted.
        """
        family = split_origin(origin)[0]
        if not any(split_origin(known)[0] == family for known in self._trusted):
            raise UnknownLog("this witness was not told to trust that log")
        # Without the guard, which may be held for as long as a disk takes: what is in `_known` is durable.
        epochs = [known for known in tuple(self._known) if split_origin(known)[0] == family]
        if not epochs:
            return None
        note = self._known[max(epochs, key=split_origin)].note
        return note + self._cosign(note)

    def _cosign(self, note: str) -> str:
        key, now = self._key, int(self._clock())
        return cosign(note, name=key.name, public_key=key.public_key, timestamp=now, sign=key.sign)

    # The files

    def _open(self, origin: str, vkey: str) -> Record:
        record = Record(self._folder / "state" / sha256(origin.encode()).hexdigest())
        if record.text is not None:
            try:
                self._known[origin] = _Confirmed(record.text, verify_note(record.text, vkey, self._verify))
            except InvalidNote:
                raise IntegrityViolation(f"the witness's record of {origin} does not verify: it was changed") from None
        return record

    def close(self) -> None:
        """Let go of the files."""
        for record in self._records.values():
            record.close()

    def _keep(self, place: str, note: str, *, replace: bool = False) -> None:
        """Keep what the log has signed. With `replace` the oldest makes room: nothing new is lost."""
        folder = self._folder / place
        path = folder / f"{sha256(note.encode()).hexdigest()[:32]}.txt"
        with suppress(OSError):  # a full disk must not turn a refusal into anything else
            if path.exists():
                return
            kept = sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime)
            if len(kept) >= MAX_EVIDENCE and replace:
                kept.pop(0).unlink()
            if len(kept) < MAX_EVIDENCE:
                with os.fdopen(open_own(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="utf-8") as file:
                    file.write(note)


def _check_epochs(logs: Sequence[str]) -> None:
    """Raise IntegrityViolation unless all epochs of a log have one key.

    A newer epoch closes the older ones. Under another key it would let one log close another, by a name that it chose.
    """
    keys: dict[str, VerifierKey] = {}
    for key in map(parse_verifier_key, logs):
        first = keys.setdefault(split_origin(key.name)[0], key)
        if first.public_key != key.public_key:
            raise IntegrityViolation(
                f"{key.name} and {first.name} are epochs of one log and have different keys: trust the key alone that "
                "`kvl anchor show` prints on the host of that vault"
            )


def _log_key(text: str) -> str:
    key = parse_verifier_key(text)
    if key.algorithm != ED25519:
        raise InvalidNote("this is the key of a witness, not that of a log")
    return key.name


class FolderLock:
    """Held by the one process that is the witness of a folder: two would confirm forks without knowing."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = open_own(folder / "lock", os.O_RDWR | os.O_CREAT)

    def __enter__(self) -> Self:
        """Take the lock. Raises IntegrityViolation if another process has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise IntegrityViolation("another process is the witness of this folder") from None
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        os.close(self._descriptor)

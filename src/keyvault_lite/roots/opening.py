"""Opening the keyring by its roots: one attempt, in which devices are asked and people hand in their shares.

Slots are unverified: a writer of the database chose them. Whatever they say, the commitment of a slot's container
decides whether a key is right, a device is asked once whatever the number of slots, and what people typed is compared
with digests that only the right share has.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from keyvault_lite.crypto.container import ContainerLayout, KeySealer, Rng, id_bytes
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import RootError, SlotKey, WrongMasterKey
from keyvault_lite.crypto.shamir import combine
from keyvault_lite.crypto.shares import NotAShare, Share, is_share, new_shares, share_check
from keyvault_lite.crypto.slot_parameters import SlotParameters, SlotPlace, UnusableSlot, kind_of, parameters
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import InvalidCiphertext
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import is_id
from keyvault_lite.model.unseal import SealStatus
from keyvault_lite.roots.people import MOST_SHARES, Ask, ShamirRoot
from keyvault_lite.roots.root import MAX_SLOTS, Enrolled, NeedsPeople, Root, RootUnavailable, Wanted

SHAMIR: Final = "shamir"
SHARES: Final = "shares"
HOLDER: Final = "holder"
MOST_MEMBERS: Final = 8
MAX_HEX: Final = 512


@dataclass(frozen=True, slots=True)
class Opened:
    """An open keyring, and what opened it."""

    keyring: Keyring
    slot: Slot
    key: SlotKey
    root: str
    """The kind of root, with the numbers of the shares where people were asked."""


@dataclass(frozen=True, slots=True)
class KnownSlot:
    """A slot that was opened, and its key: opens the keyring again without its root."""

    slot_id: str
    key: SlotKey
    root: str

    @classmethod
    def of(cls, opened: Opened) -> Self:
        """The slot by which it was opened."""
        return cls(opened.slot.id, opened.key, opened.root)

    def open(self, slots: Sequence[Slot]) -> Opened:
        """Raises WrongMasterKey if the slot was removed since."""
        for slot in slots:
            keyring = Keyring.open_slot(slot, self.key) if slot.id == self.slot_id else None
            if keyring is not None:
                return Opened(keyring, slot, self.key, self.root)
        raise WrongMasterKey("The slot that was opened at the start is no longer in the database.")


def status_of(opened: Opened) -> SealStatus:
    """What is told of an open vault: which kind of root has opened it."""
    found = SlotParameters.read(opened.slot.kdf)
    if found is None or found.kind not in {SHAMIR, SHARES}:
        return SealStatus(sealed=False, root=kind_of(opened.slot))
    shared = _share_slot(opened.slot, found)
    count = len(shared.checks) + len(shared.members)
    return SealStatus(sealed=False, root=found.kind, threshold=shared.threshold, shares=count)


@dataclass(slots=True)
class _ShareSlot:
    """A slot that a number of shares opens, and the shares that were handed in or opened so far."""

    slot: Slot
    threshold: int
    set_id: bytes
    checks: dict[int, bytes]
    """By x: the digest of each share that people hold."""
    members: dict[int, tuple[SlotParameters, bytes]] = field(default_factory=dict)
    """By x: the root that has the share, and the share sealed under what that root gives."""
    held: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """What a root is asked for: the keys of slots, and of shares of slots."""

    slots: tuple[tuple[Slot, SlotParameters], ...]
    shares: tuple[tuple[_ShareSlot, int], ...]

    @property
    def wanted(self) -> list[Wanted]:
        """As the root takes it."""
        wanted = [Wanted(found, SlotPlace.of(slot)) for slot, found in self.slots]
        return wanted + [Wanted(shared.members[x][0], SlotPlace.of(shared.slot)) for shared, x in self.shares]


class Attempt:
    """One attempt to open one keyring. Not for several threads."""

    def __init__(self, slots: Sequence[Slot], kinds: Collection[str]) -> None:
        """Of the slots those count whose kind of root is one of `kinds`."""
        newest = sorted((one for one in slots if is_id(one.id)), key=lambda slot: slot.generation, reverse=True)
        self._plain: list[tuple[Slot, SlotParameters]] = []
        self._shared: list[_ShareSlot] = []
        for slot in newest:
            found = SlotParameters.read(slot.kdf)
            if found is None or found.kind not in kinds:
                continue
            try:
                if found.kind in {SHAMIR, SHARES}:
                    self._shared.append(_share_slot(slot, found))
                else:
                    self._plain.append((slot, found))
            except UnusableSlot:
                continue  # planted, or of a later release: it opens nothing, and keeps nothing from opening

    def waits_for(self, kind: str) -> bool:
        """Whether there is a slot for this kind of root, or a share that it has."""
        return bool(self._wanted_slots(kind) or self._wanted_shares(kind))

    def use(self, root: Root) -> Opened | None:
        """Ask a root for its keys. None if it has added shares, or there is no slot for it. Raises RootError."""
        question = self.question(root.kind)
        return self.take(root.kind, question, root.unlock(question.wanted)) if question.wanted else None

    def question(self, kind: str) -> Question:
        """What to ask a root of that kind."""
        return Question(tuple(self._wanted_slots(kind)), tuple(self._wanted_shares(kind)))

    def take(self, kind: str, question: Question, results: Sequence[SlotKey | RootError]) -> Opened | None:
        """Take what a root has answered; as `use`."""
        slots, shares = question.slots, question.shares
        for (slot, _), result in zip(slots, results, strict=False):
            keyring = None if isinstance(result, RootError) else Keyring.open_slot(slot, result)
            if keyring is not None and not isinstance(result, RootError):
                return Opened(keyring, slot, result, kind)
        for (shared, x), result in zip(shares, results[len(slots) :], strict=True):
            if isinstance(result, RootError):
                continue
            y = _open_share(shared.slot, x, result, shared.members[x][1])
            opened = None if y is None else self._add(shared, x, y)
            if opened is not None:
                return opened
        refused = [one for one in results if isinstance(one, RootError)]
        if refused and len(refused) == len(results):
            raise refused[0]
        return None

    def add_share(self, share: Share) -> Opened | None:
        """Take one share of a holder. Raises NotAShare if it is of no slot here; a repeated one changes nothing."""
        return self._add_known(share.x, share.y, share.set_id)

    def add_vault_share(self, y: bytes, x: int) -> Opened | None:
        """As `add_share`, for a share that does not name its set (the form of Vault)."""
        return self._add_known(x, y, None)

    def _add_known(self, x: int, y: bytes, set_id: bytes | None) -> Opened | None:
        for shared in self._shared:
            check = shared.checks.get(x) if set_id in {None, shared.set_id} else None
            if check is not None and is_share(SlotPlace.of(shared.slot), shared.set_id, x, y, check):
                return self._add(shared, x, y)
        raise NotAShare("The share is of another vault or of shares that were replaced, or it is damaged.")

    def progress(self) -> tuple[int, int, int]:
        """Of the slot that is nearest to opening: shares held, threshold, shares in all. Zeros if no slot has any."""
        if not self._shared:
            return 0, 0, 0
        nearest = max(self._shared, key=lambda one: (len(one.held), -one.threshold))
        return len(nearest.held), nearest.threshold, len(nearest.checks) + len(nearest.members)

    @property
    def takes_shares(self) -> bool:
        """Whether holders of shares can add to it."""
        return any(one.checks for one in self._shared)

    def _wanted_slots(self, kind: str) -> list[tuple[Slot, SlotParameters]]:
        return [one for one in self._plain if one[1].kind == kind][:MAX_SLOTS]

    def _wanted_shares(self, kind: str) -> list[tuple[_ShareSlot, int]]:
        found = [
            (shared, x)
            for shared in self._shared
            for x, (member, _) in shared.members.items()
            if member.kind == kind and x not in shared.held
        ]
        return found[:MAX_SLOTS]

    def _add(self, shared: _ShareSlot, x: int, y: bytes) -> Opened | None:
        shared.held[x] = y
        if len(shared.held) < shared.threshold:
            return None
        key = SlotKey(combine(shared.held))
        keyring = Keyring.open_slot(shared.slot, key)
        if keyring is None:
            # Each share fits its digest, and together they do not: the threshold in the slot was changed.
            raise UnusableSlot("The shares are right and do not open their slot: the database was changed.")
        kind = SHARES if shared.members else SHAMIR
        return Opened(keyring, shared.slot, key, f"{kind} {','.join(map(str, sorted(shared.held)))}")


def kinds_of(roots: Iterable[Root]) -> frozenset[str]:
    """The kinds of slots that these roots open."""
    return frozenset(root.kind for root in roots)


def open_by(slots: Sequence[Slot], roots: Sequence[Root], *, ask: Ask | None = None) -> Opened:
    """The keyring, by the first root that opens it; `ask` prompts for shares, where a root has some.

    Raises WrongMasterKey if every root has answered and none opens a slot, else RootError with what each said.
    """
    attempt = Attempt(slots, kinds_of(roots))
    failed: list[tuple[Root, RootError]] = []
    for root in roots:
        try:
            opened = attempt.use(root)
            if ask is None and isinstance(root, ShamirRoot) and attempt.takes_shares:
                raise NeedsPeople("Shares are awaited: run `kvl unseal`.")
        except RootError as error:
            failed.append((root, error))
            continue
        if opened is not None:
            return opened
    if ask is not None and attempt.takes_shares and any(isinstance(root, ShamirRoot) for root in roots):
        return _by_shares(attempt, ask)
    raise reason_of(failed)


def _by_shares(attempt: Attempt, ask: Ask) -> Opened:
    wrong = ""
    while True:
        held, threshold, _ = attempt.progress()
        try:
            opened = attempt.add_share(Share.read(ask(f"{wrong}Share {held + 1} of {threshold}: ")))
            wrong = ""
        except NotAShare as error:
            wrong = f"{error.detail}\n"
            continue
        if opened is not None:
            return opened


def reason_of(failed: Sequence[tuple[Root, RootError]]) -> RootError:
    """Why no root has opened the keyring, in one error."""
    if not failed:
        return WrongMasterKey(
            "The master key opens no slot of this keyring: it belongs to another vault, or was replaced."
        )
    if len(failed) == 1:
        return failed[0][1]
    kind = RootUnavailable if any(isinstance(error, RootUnavailable) for _, error in failed) else RootError
    return kind(" ".join(f"{root.kind}: {error.detail}" for root, error in failed))


def enroll_shares(members: Sequence[Root], holders: int, threshold: int, place: SlotPlace, rng: Rng) -> Enrolled:
    """A slot of which any `threshold` of `members` and `holders` open it together. Raises RootError."""
    count = len(members) + holders
    if not 1 < threshold <= count <= MOST_SHARES or len(members) > MOST_MEMBERS:
        raise RootError(f"A threshold is between 2 and the number of roots and holders, here {count}.")
    secret = rng(32)
    made = new_shares(secret, shares=count, threshold=threshold, rng=rng)
    of: list[object] = []
    for root, share in zip(members, made, strict=False):
        part = root.enroll(place, rng)
        sealed = _share_box(place, share.x, part.key).seal(_context(place, share.x), share.y, rng)
        of.append({**part.parameters.as_object(), "share": sealed.hex()})
    held = made[len(members) :]
    of += [{"kind": HOLDER, "check": share_check(place, share.set_id, share.x, share.y).hex()} for share in held]
    found = parameters(SHARES, set=made[0].set_id, t=threshold, of=of)
    return Enrolled(found, SlotKey(secret), tuple(held))


def _share_slot(slot: Slot, found: SlotParameters) -> _ShareSlot:
    set_id = found.raw("set", 4, 4)
    if found.kind == SHAMIR:
        listed = found.items("checks", MOST_SHARES)
        of_holders = {x: _from_hex(text) for x, text in enumerate(listed, 1)}
        return _ShareSlot(slot, found.integer("t", 2, max(2, len(of_holders))), set_id, of_holders)
    checks: dict[int, bytes] = {}
    members: dict[int, tuple[SlotParameters, bytes]] = {}
    for x, one in enumerate(found.items("of", MOST_SHARES), 1):
        if not isinstance(one, dict):
            raise UnusableSlot("A share of a slot is unusable.")
        if one.get("kind") == HOLDER:
            checks[x] = _from_hex(one.get("check"))
            continue
        member = SlotParameters.of({name: value for name, value in one.items() if name != "share"})
        if member is None or len(members) == MOST_MEMBERS:
            raise UnusableSlot("A share of a slot is unusable.")
        members[x] = member, _from_hex(one.get("share"))
    return _ShareSlot(slot, found.integer("t", 2, max(2, len(checks) + len(members))), set_id, checks, members)


def _from_hex(value: object) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) and len(value) <= MAX_HEX else b""
    except ValueError:
        return b""


def _share_box(place: SlotPlace, x: int, key: SlotKey) -> KeySealer:
    frame = ContainerLayout(
        "share", instance_id=place.instance_id, id=id_bytes(place.slot_id), version=x, purpose="SHARE"
    )
    return key.box(frame)


def _context(place: SlotPlace, x: int) -> bytes:
    return hashlib.sha256(pae("share", place.instance_id, x)).digest()


def _open_share(slot: Slot, x: int, key: SlotKey, sealed: bytes) -> bytes | None:
    place = SlotPlace.of(slot)
    try:
        return _share_box(place, x, key).open(_context(place, x), sealed)
    except InvalidCiphertext:
        return None

"""How a sealed vault is opened by callers that nobody has authenticated: limits, one attempt, and who is kept out."""

import asyncio
import base64
import os
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest

from keyvault_lite.crypto import passphrase
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import MasterKey, RootError, SlotKey
from keyvault_lite.crypto.shares import Share
from keyvault_lite.crypto.slot_parameters import SlotParameters, SlotPlace
from keyvault_lite.engine import unsealing
from keyvault_lite.engine.unsealing import SHARE_SECONDS, WRONG_A_MINUTE, Unsealing
from keyvault_lite.model.errors import Conflict, InvalidRequest, LimitExceeded
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import new_id
from keyvault_lite.model.unseal import Unseal
from keyvault_lite.roots.keyfile import FileRoot
from keyvault_lite.roots.people import PassphraseRoot, ShamirRoot
from keyvault_lite.roots.root import Enrolled, Root, RootUnavailable, Wanted

T = TypeVar("T")
HERE, THERE, FAR = "127.0.0.1", "203.0.113.7", "203.0.113.8"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(work: Awaitable[T]) -> T:
    async def wait() -> T:
        return await work

    return asyncio.run(wait())


def slot_by(root: Root, keyring: Keyring) -> tuple[Slot, Enrolled]:
    place = SlotPlace(keyring.instance_id, new_id())
    made = root.enroll(place, os.urandom)
    return made.seal(keyring, place, created_at=0), made


def is_open(sealed: Unsealing) -> bool:
    return sealed.opened is not None


class People:
    """A vault under two of three shares."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.keyring = Keyring.create()
        self.slot, made = slot_by(ShamirRoot(threshold=2, shares=3), self.keyring)
        self.shares = [one.write() for one in made.shares]
        self.vault_shares = [one.y.hex() + f"{one.x:02x}" for one in made.shares]
        self.slots: Sequence[Slot] = (self.slot,)
        self.sealed = Unsealing(lambda: self.slots, [ShamirRoot()], clock=self.clock)

    def give(self, text: str, source: str = HERE, nonce: str | None = None) -> int:
        return run(self.sealed.hand_in(Unseal(share=text, nonce=nonce), source)).progress

    def wrong(self) -> str:
        share = Share.read(self.shares[0])
        return replace(share, y=bytes(32)).write()


@pytest.fixture
def people() -> People:
    return People()


def test_shares_count_once_each(people: People) -> None:
    assert [people.give(people.shares[at]) for at in (0, 0, 0)] == [1, 1, 1]
    assert not is_open(people.sealed)
    people.give(people.shares[2])
    assert people.sealed.opened is not None
    assert people.sealed.opened.keyring.instance_id == people.keyring.instance_id
    assert people.sealed.opened.root == "shamir 1,3"
    assert people.sealed.ready.is_set()
    assert not people.sealed.status().sealed


@pytest.mark.parametrize("form", ["hex", "base64"])
def test_shares_in_the_form_of_vault(people: People, form: str) -> None:
    for text in people.vault_shares[:2]:
        people.give(text if form == "hex" else base64.b64encode(bytes.fromhex(text)).decode())
    assert people.sealed.opened is not None


def test_a_wrong_share_is_named_by_itself_and_repeats_nothing(people: People) -> None:
    people.give(people.shares[0])
    for wrong in (people.wrong(), People().shares[1], "no share", people.shares[1][:-1]):
        with pytest.raises(InvalidRequest, match="not a share of the vault") as caught:
            people.give(wrong)
        assert wrong not in caught.value.detail
    assert people.sealed.status().progress == 1, "it drops nobody else's share"


def test_wrong_shares_are_limited_and_right_ones_always_taken(people: People) -> None:
    for _ in range(WRONG_A_MINUTE):
        with pytest.raises(InvalidRequest):
            people.give(people.wrong(), THERE)
    for source in (THERE, FAR):
        with pytest.raises(LimitExceeded):
            people.give(people.wrong(), source)
    with pytest.raises(InvalidRequest):
        people.give(people.wrong(), HERE)
    people.clock.now += 60 / WRONG_A_MINUTE + 0.1
    with pytest.raises(InvalidRequest):
        people.give(people.wrong(), FAR)
    people.give(people.shares[0], THERE)
    people.give(people.shares[1], FAR)
    assert people.sealed.opened is not None
    assert people.sealed.history() == f"; wrong attempts before: 11 from {THERE}, 2 from {FAR}, 1 from {HERE}"


def test_sources_are_counted_within_bounds(people: People) -> None:
    for number in range(1000):
        with pytest.raises((InvalidRequest, LimitExceeded)):
            people.give(people.wrong(), f"2001:db8::{number:x}")
    assert len(people.sealed.history()) < 600
    assert "others" in people.sealed.history()


def test_shares_are_dropped_after_a_time(people: People) -> None:
    assert people.give(people.shares[0]) == 1
    people.clock.now += SHARE_SECONDS - 1
    assert people.sealed.status().progress == 1
    people.clock.now += 2
    assert people.sealed.status().progress == 0
    assert people.sealed.status().nonce == ""
    assert people.give(people.shares[1]) == 1


def test_a_share_is_of_one_attempt(people: People) -> None:
    people.give(people.shares[0])
    nonce = people.sealed.status().nonce
    run(people.sealed.hand_in(Unseal(reset=True), HERE))
    assert people.sealed.status().progress == 0
    people.give(people.shares[0])
    assert people.sealed.status().nonce != nonce
    with pytest.raises(Conflict):
        people.give(people.shares[1], nonce=nonce)
    people.give(people.shares[1], nonce=people.sealed.status().nonce)
    assert people.sealed.opened is not None


def test_slots_that_were_planted_open_nothing_and_keep_nothing_from_opening(people: People) -> None:
    other = Keyring.create()
    planted = [
        replace(slot_by(ShamirRoot(threshold=2, shares=2), other)[0], id=new_id(), generation=9),
        replace(people.slot, id=new_id(), generation=8),
        replace(people.slot, id=new_id(), kdf=people.slot.kdf.replace('"t":2', '"t":1')),
        replace(people.slot, id=new_id(), kdf='{"checks":["zz"],"kind":"shamir","n":1,"set":"AAAAAA==","t":2,"v":1}'),
        replace(people.slot, id="../etc", kdf="x" * 5000),
    ]
    people.slots = (*planted, people.slot)
    people.sealed = Unsealing(lambda: people.slots, [ShamirRoot()], clock=people.clock)
    people.give(people.shares[1])
    people.give(people.shares[2])
    assert people.sealed.opened is not None
    assert people.sealed.opened.slot.id == people.slot.id


def test_a_passphrase_is_tried_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "_MEMORY", (1024, 1024, 1024))
    keyring = Keyring.create()
    slot, _ = slot_by(PassphraseRoot(text="a rather long passphrase"), keyring)
    sealed = Unsealing(lambda: (slot,), [PassphraseRoot()], clock=Clock())
    assert sealed.status().passphrase

    async def together() -> list[object]:
        tries = [sealed.hand_in(Unseal(passphrase=f"wrong passphrase {number}"), THERE) for number in range(3)]
        return list(await asyncio.gather(*tries, return_exceptions=True))

    assert [type(one) for one in run(together())] == [InvalidRequest, LimitExceeded, LimitExceeded]
    for _ in range(WRONG_A_MINUTE - 1):
        with pytest.raises(InvalidRequest):
            run(sealed.hand_in(Unseal(passphrase="wrong passphrase too"), THERE))
    with pytest.raises(LimitExceeded):
        run(sealed.hand_in(Unseal(passphrase="a rather long passphrase"), THERE))
    run(sealed.hand_in(Unseal(passphrase="a rather long passphrase"), HERE))
    assert is_open(sealed)


def test_what_is_not_awaited_is_refused(people: People) -> None:
    with pytest.raises(InvalidRequest, match="passphrase"):
        run(people.sealed.hand_in(Unseal(passphrase="a rather long passphrase"), HERE))
    slot, _ = slot_by(FileRoot(lambda: MasterKey.generate()[0]), people.keyring)
    by_file = Unsealing(lambda: (slot,), [])
    with pytest.raises(InvalidRequest, match="share"):
        run(by_file.hand_in(Unseal(share=people.shares[0]), HERE))


class Device(Root):
    """Answers what it is told to, in order, and counts how often it was asked."""

    kind = "tpm2"

    def __init__(self, key: SlotKey, *answers: RootError | None) -> None:
        self._key, self._answers = key, list(answers)
        self.asked = 0

    @property
    def name(self) -> str:
        return "tpm2:/dev/secret-place"

    def unlock_one(self, wanted: Wanted) -> SlotKey:
        self.asked += 1
        answer = self._answers.pop(0) if self._answers else None
        if answer is not None:
            raise answer
        return self._key

    def enroll(self, place: SlotPlace, rng: object) -> Enrolled:
        return Enrolled(SlotParameters("tpm2", {}), self._key)


def asked(device: Device, *, ask_roots: bool = True) -> Unsealing:
    keyring = Keyring.create()
    slot, _ = slot_by(device, keyring)
    return Unsealing(lambda: (slot,), [device], ask_roots=ask_roots)


def test_a_device_that_cannot_be_reached_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealing, "RETRY_SECONDS", (0.01, 0.02))
    away = RootUnavailable("nothing at /dev/secret-place")
    device = Device(SlotKey(os.urandom(32)), away, away, away)
    sealed = asked(device)
    run(sealed.ask_once())
    assert not is_open(sealed)
    assert sealed.may_open
    assert sealed.status().reason == "the root tpm2 cannot be reached", "callers are told no place"
    run(sealed.keep_asking())
    assert is_open(sealed)
    assert device.asked == 4


def test_a_device_that_has_refused_is_not_asked_again() -> None:
    """A second wrong PIN could be a token's last."""
    device = Device(SlotKey(os.urandom(32)), RootError("wrong PIN"))
    sealed = asked(device)
    for _ in range(3):
        run(sealed.ask_once())
    run(sealed.keep_asking())
    assert device.asked == 1
    assert not is_open(sealed)
    assert not sealed.may_open
    assert [error.detail for _, error in sealed.failed] == ["wrong PIN"]
    assert sealed.status().reason == "the root tpm2 refuses"


def test_after_a_seal_no_device_is_asked() -> None:
    device = Device(SlotKey(os.urandom(32)))
    sealed = asked(device, ask_roots=False)
    run(sealed.ask_once())
    run(sealed.keep_asking())
    assert device.asked == 0
    assert not is_open(sealed)

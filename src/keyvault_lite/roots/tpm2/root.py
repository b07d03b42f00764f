"""`tpm2:` — the slot key is sealed by the chip of this machine, if wanted to the state in which it booted.

The policy alone opens the object: a PIN on the chip would let anybody lock out everything that is protected on it.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.root import SIZE, RootError, SlotKey
from keyvault_lite.crypto.slot_parameters import SlotPlace, UnusableSlot, bind_to_place, parameters
from keyvault_lite.roots.root import Enrolled, Root, RootRefused, Wanted
from keyvault_lite.roots.tpm2.commands import (
    HMAC_SESSION,
    POLICY_SESSION,
    Chip,
    Primary,
    TpmError,
    chip_with_primary,
    pcr_policy,
    session_of,
)

PCRS: Final = 24
_BY_POLICY: Final = 0x12
"""fixedTPM, fixedParent: without userWithAuth, so the policy alone opens it."""
_BY_AUTH: Final = 0x452
"""fixedTPM, fixedParent, userWithAuth, noDA: for an object without PCRs."""
_OTHER_STATE: Final = 0x9D
"""TPM_RC_POLICY_FAIL."""


class Tpm2Root(Root):
    """The chip behind one device."""

    kind: ClassVar = "tpm2"
    device: ClassVar = True

    def __init__(self, path: str, pcrs: Sequence[int] = ()) -> None:
        self._path = path
        self._pcrs = tuple(sorted(set(pcrs)))

    @property
    def name(self) -> str:
        """See Root."""
        pcrs = ",".join(map(str, self._pcrs))
        return f"tpm2:{self._path}" + (f"?pcrs={pcrs}" if pcrs else "")

    def unlock(self, wanted: Sequence[Wanted]) -> list[SlotKey | RootError]:
        """See Root."""
        if not wanted:
            return []
        with chip_with_primary(self._path) as (chip, primary):
            return [self._unseal_or_reason(chip, primary, one) for one in wanted]

    def unlock_one(self, wanted: Wanted) -> SlotKey:
        """See Root."""
        with chip_with_primary(self._path) as (chip, primary):
            return self._unseal(chip, primary, wanted)

    def _unseal_or_reason(self, chip: Chip, primary: Primary, wanted: Wanted) -> SlotKey | RootError:
        try:
            return self._unseal(chip, primary, wanted)
        except (RootRefused, UnusableSlot) as error:
            return error

    def _unseal(self, chip: Chip, primary: Primary, wanted: Wanted) -> SlotKey:
        found = wanted.parameters
        pcrs = _pcrs(found.items("pcrs", PCRS))
        private, public = found.raw("private", longest=512), found.raw("public", longest=512)
        try:
            loaded = chip.load(primary, private, public)
        except TpmError:
            raise RootRefused("The slot was sealed by another TPM, or before this one was cleared.") from None
        try:
            with session_of(chip, primary, POLICY_SESSION if pcrs else HMAC_SESSION) as session:
                if pcrs:
                    chip.policy_pcr(session, pcrs)
                raw = chip.unseal(loaded, session)
        except TpmError as error:
            if error.code == _OTHER_STATE:
                listed = ", ".join(map(str, pcrs))
                raise RootRefused(
                    f"This machine has started differently than when the slot was sealed (PCR {listed}): open the "
                    "vault by another slot, and run `kvl root reseal`."
                ) from None
            raise
        finally:
            chip.flush(loaded.handle)
        if len(raw) != SIZE:
            raise UnusableSlot("The sealed object holds something else than a slot key.")
        return bind_to_place(raw, wanted.place, self.kind)

    def enroll(self, place: SlotPlace, rng: Rng) -> Enrolled:
        """See Root."""
        raw = rng(SIZE)
        with chip_with_primary(self._path) as (chip, primary), session_of(chip, primary, HMAC_SESSION) as session:
            policy = pcr_policy(self._pcrs, chip.read_pcrs(self._pcrs)) if self._pcrs else b""
            attributes = _BY_POLICY if self._pcrs else _BY_AUTH
            private, public = chip.seal(primary, session, raw, policy=policy, attributes=attributes)
        found = parameters(self.kind, pcrs=list(self._pcrs), private=private, public=public)
        return Enrolled(found, bind_to_place(raw, place, self.kind))

    def check(self) -> str:
        """See Root."""
        with chip_with_primary(self._path) as (chip, _):
            if self._pcrs:
                chip.read_pcrs(self._pcrs)
        return "the chip answers"


def _pcrs(items: Sequence[object]) -> list[int]:
    found = [one for one in items if type(one) is int and 0 <= one < PCRS]
    if len(found) != len(items):
        raise UnusableSlot("A tpm2 slot has an unusable value of `pcrs`: the database was changed.")
    return found

"""What every root of trust has in common: it gives the keys of slots, and makes the key of a new one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import RootError, SlotKey
from keyvault_lite.crypto.shares import Share
from keyvault_lite.crypto.slot_parameters import SlotParameters, SlotPlace
from keyvault_lite.model.keyring import Slot

MAX_SLOTS: Final = 16
"""Slots that one root is asked for: their rows are unverified, and a device is slow."""


class RootUnavailable(RootError):
    """The device or service does not answer now; the same call may succeed later."""


class RootRefused(RootError):
    """The device or service has answered, and does not open this slot. Asking again does not help."""


class NeedsPeople(RootError):
    """Somebody has to type a share or a passphrase."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One slot key to be had: the parameters of the slot (or of one of its shares), and where it is."""

    parameters: SlotParameters
    place: SlotPlace


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The key of a new slot, and what the slot has to say so that the root gives it again."""

    parameters: SlotParameters
    key: SlotKey
    shares: tuple[Share, ...] = ()
    """What goes to holders, of a root that is people."""

    def seal(self, keyring: Keyring, place: SlotPlace, *, created_at: int) -> Slot:
        """The slot. `created_at` in microseconds; it is no part of what is sealed."""
        return keyring.seal(self.key, slot_id=place.slot_id, created_at=created_at, kdf=self.parameters.write())


class Root(ABC):
    """One root of trust. Its methods block: devices and networks answer when they do."""

    kind: ClassVar[str]
    """As in a slot and in the URI."""
    automatic: bool = True
    """Whether it opens without people."""
    device: ClassVar[bool] = False
    """Whether it is hardware or a service that can be lost without a copy."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the operator calls it; without a secret."""

    def unlock(self, wanted: Sequence[Wanted]) -> list[SlotKey | RootError]:
        """The keys, or why there is none, in order. Raises RootError where that is the same for all."""
        return [self._unlock_or_reason(one) for one in wanted]

    def _unlock_or_reason(self, wanted: Wanted) -> SlotKey | RootError:
        try:
            return self.unlock_one(wanted)
        except RootUnavailable:
            raise
        except RootError as error:
            return error

    @abstractmethod
    def unlock_one(self, wanted: Wanted) -> SlotKey:
        """The key of one slot. Raises RootError."""

    @abstractmethod
    def enroll(self, place: SlotPlace, rng: Rng) -> Enrolled:
        """A new key for the slot at `place`. Raises RootError."""

    def create(self) -> str:
        """Make the key on the device or at the service, and say what was made. Raises RootError."""
        raise RootRefused(f"There is nothing to create for a root of kind {self.kind}.")

    def check(self) -> str:
        """A sentence about a root that is reachable. Raises RootError. Never costs a PIN its tries."""
        return "nothing to be asked before it is used"

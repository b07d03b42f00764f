"""What roots that are services have in common: a random key is wrapped there, and the slot key follows from it."""

from abc import abstractmethod
from typing import ClassVar, Final

from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.root import SIZE, SlotKey
from keyvault_lite.crypto.slot_parameters import SlotPlace, bind_to_place, parameters
from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.roots.root import Enrolled, Root, RootRefused, RootUnavailable, Wanted

_MAX_NAME: Final = 512


class WrappingRoot(Root):
    """A key of a service, which wraps and unwraps 32 bytes with associated data."""

    device: ClassVar = True

    def __init__(self, key: str) -> None:
        """`key` names the key at the service; it is compared with the slot's, and with what the service answers."""
        self._key = key

    @abstractmethod
    def wrap(self, raw: bytes, associated: bytes) -> str:
        """Have it wrapped; printable text. Raises RootError."""

    @abstractmethod
    def unwrap(self, wrapped: str, associated: bytes) -> bytes:
        """Have it unwrapped. Raises RootError."""

    def unlock_one(self, wanted: Wanted) -> SlotKey:
        """See Root."""
        found, place = wanted.parameters, wanted.place
        if found.text("key", _MAX_NAME) != self._key:
            raise RootRefused(f"The slot was made for another key than {self.name}.")
        raw = self.unwrap(found.text("wrapped"), place.label(self.kind))
        if len(raw) != SIZE:
            raise RootRefused("The service unwraps something else than 32 bytes.")
        return bind_to_place(raw, place, self.kind)

    def enroll(self, place: SlotPlace, rng: Rng) -> Enrolled:
        """See Root. What was wrapped is unwrapped once before anything rests on it."""
        raw = rng(SIZE)
        made = parameters(self.kind, key=self._key, wrapped=self.wrap(raw, place.label(self.kind)))
        key = bind_to_place(raw, place, self.kind)
        if self.unlock_one(Wanted(made, place)).reveal() != key.reveal():
            raise RootRefused("The service does not give back what it has wrapped.")
        return Enrolled(made, key)


def bytes_of(text: str) -> bytes:
    """Base64 in an answer. Raises RootUnavailable for anything else."""
    try:
        return decode_base64(text)
    except InvalidRequest:
        raise RootUnavailable("The service answers with something that is not base64.") from None

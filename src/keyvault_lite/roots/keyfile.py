"""`file:` — a master key file, the root that every vault had until there were others."""

from collections.abc import Callable
from functools import cache
from typing import ClassVar

from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.root import MasterKey, SlotKey
from keyvault_lite.crypto.slot_parameters import SlotParameters, SlotPlace
from keyvault_lite.roots.root import Enrolled, Root, Wanted


class FileRoot(Root):
    """A master key, read when it is wanted: another root may open the vault while the file's medium is away."""

    kind: ClassVar = "file"

    def __init__(self, read: Callable[[], MasterKey], path: str | None = None) -> None:
        """`read` raises InvalidMasterKey; once it has returned it is not called again, as a descriptor ends."""
        self._read = cache(read)
        self._path = path

    @property
    def name(self) -> str:
        """See Root."""
        return "file:" if self._path is None else f"file:{self._path}"

    def unlock_one(self, wanted: Wanted) -> SlotKey:
        """The master key itself, for every slot."""
        return self._read()

    def enroll(self, place: SlotPlace, rng: Rng) -> Enrolled:
        """See Root."""
        return Enrolled(SlotParameters(self.kind, {}), self._read())

"""A slot: the sealed keyring as it is stored, one for each master key that may open it."""

import hashlib
from dataclasses import dataclass, field

from keyvault_lite.model.encoding import pae


@dataclass(frozen=True, slots=True)
class Slot:
    """The keyring's secrets in a container under one master key."""

    id: str
    """UUID, lower case, dashed."""
    generation: int
    """Counts the keyring's own changes: a slot of an older generation is not the current keyring."""
    instance_id: bytes
    """16 bytes, in the clear; compared with the keyring's own after opening."""
    kdf: str
    """How the master key becomes the wrapping key: `none` for 32 uniform bytes."""
    sealed: bytes = field(repr=False)
    created_at: int = 0
    removed_at: int | None = None
    """When its master key was retired; a removed slot is a tombstone without `sealed`."""

    @property
    def on_record(self) -> str:
        """How the log names it: a slot is read before any MAC can be checked, its digest in the log stands for it."""
        fields = self.id, self.generation, self.instance_id, self.kdf, self.sealed, self.created_at, self.removed_at
        return f"slot {self.id} {hashlib.sha256(pae('slot-record', *fields)).hexdigest()}"

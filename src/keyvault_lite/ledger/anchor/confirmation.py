"""What the ledger wants to know of a witness, and what it does with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from keyvault_lite.model.errors import KeyVaultError


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A checkpoint of this log with the signature of a witness."""

    note: str
    """The signed note, as the log has signed it."""
    lines: str
    """The witness's signature lines, each with its newline."""
    epoch: int
    size: int

    @property
    def text(self) -> str:
        """The note with the witness's lines."""
        return self.note + self.lines

    def lines_for(self, note: str) -> str:
        """The lines if it is of exactly this checkpoint, which may have others already; else nothing."""
        return self.lines if note.startswith(self.note) else ""


class Witness(Protocol):
    """A witness of this log, as the process that is witnessed sees it. Answers at once, from any thread."""

    @property
    def fault(self) -> KeyVaultError | None:
        """Why nothing may be done at present: it has not confirmed the log for too long, or knows another history."""

    @property
    def newest(self) -> Confirmation | None:
        """The newest checkpoint that it confirmed."""

    def facts(self) -> Mapping[str, object]:
        """What anyone may know of it, for `/health`."""

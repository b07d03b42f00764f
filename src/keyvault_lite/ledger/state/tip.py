"""The newest committed state of the log, as this process knows it."""

from dataclasses import dataclass, field
from typing import Self

from keyvault_lite.audit.chain import genesis
from keyvault_lite.audit.merkle import Tiles
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority


@dataclass(frozen=True, slots=True)
class LogTip:
    """The log as this process knows it. Replaced as a whole, so that a reader never sees parts of two."""

    head: Head
    mac: bytes
    """Of the head as stored in the database; empty while there is none."""
    tiles: Tiles = field(repr=False)
    """The Merkle tree's edge over the same entries, and the tiles that are not full yet."""
    checkpoint: str
    """The newest signed checkpoint; it may be of a smaller size than the head's, never of a larger."""

    @classmethod
    def before_any_entry(cls, authority: Authority, root: bytes) -> Self:
        """A log that has not begun, over the state of that root."""
        start, tiles = genesis(authority.instance_id, authority.log_public_key), Tiles()
        head = Head(
            epoch=0,
            size=0,
            hash=start,
            timestamp=0,
            state_seq=0,
            state_root=root,
            edge=tiles.edge.to_bytes(),
            checkpoint="",
        )
        return cls(head, b"", tiles, "")

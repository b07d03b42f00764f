"""The Merkle tree of the log as it is stored: full tiles in a table, leaves in the entries."""

from keyvault_lite.audit.merkle import InvalidProof, TileReader
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements


def tile_reader(connection: driver.Connection, known: LogTip) -> TileReader:
    """The Merkle tree of a known log, from stored tiles, tiles in memory and leaves. Nothing read here is trusted."""
    size = known.tiles.edge.size

    def tile(level: int, index: int) -> bytes | None:
        filling = known.tiles.tile(level, index)
        if filling is not None:
            return filling
        row = connection.execute(statements.TILE, (level, index)).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes):
            raise InvalidProof("a stored tile is damaged")
        return row[0]

    def leaves(start: int, end: int) -> list[bytes]:
        return [row[0] for row in connection.execute(statements.LEAVES, (start, end))]

    return TileReader(size=size, tile=tile, leaves=leaves)

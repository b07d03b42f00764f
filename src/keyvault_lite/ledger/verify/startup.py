"""What a start asks: whether the database extends what the anchor knows of it, and from where on the log is checked."""

from typing import Final

from keyvault_lite.audit.checkpoint import origin, verifier_key
from keyvault_lite.audit.merkle import CompactRange, InvalidProof, Tiles
from keyvault_lite.ledger.anchor.interface import Remembered
from keyvault_lite.ledger.anchor.record import AnchorRecord, DamagedAnchor
from keyvault_lite.ledger.log.retention import leaf_of
from keyvault_lite.ledger.log.tiles import tile_reader
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority, PublicAuthority
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.replies import Finding

TABLE = "anchor"
COUNTER: Final = "counter"
FOREIGN = "belongs to another vault"
CHECKED_AT_START: Final = 200_000
"""A log of so many entries is checked whole at each start, a longer one from where a background check has got to."""
_MARKED = "SELECT hash, epoch, state_seq FROM audit_logs WHERE id = ?"


def read_mark(anchor: Remembered | None, findings: list[Finding]) -> AnchorRecord | None:
    """The anchor's mark; a damaged anchor is a finding. To be read before the database."""
    if anchor is None:
        return None
    try:
        return anchor.read()
    except DamagedAnchor as error:
        findings.append(finding_of(anchor, error))
        return None


def finding_of(anchor: Remembered, error: DamagedAnchor) -> Finding:
    """What is said of an anchor that cannot be read."""
    return Finding(TABLE, anchor.place, f"{error.detail.removeprefix('the anchor ')}; {error.way_out}")


def check_anchor(
    connection: driver.Connection,
    authority: Authority | PublicAuthority,
    anchor: Remembered,
    mark: AnchorRecord | None,
    head: Head | None,
    *,
    archived: int = 0,
) -> list[Finding]:
    """What is wrong between an anchor and a database read after it; each says what was seen and what to do.

    `archived` is up to which entry the log was archived.
    """
    size = _size(connection)
    if mark is None:
        problem = (
            f"is missing beside a vault of {size} entries: put it back, "
            "or, if it is lost and this is the newest database, accept it with `kvl anchor trust`"
        )
        return [Finding(TABLE, anchor.place, problem)] if size else []
    if mark.size == size == 0:
        return []  # neither has anything: the process that was to begin this log has died
    if mark.verifier_key != verifier_key(origin(authority.instance_id, mark.epoch), authority.log_public_key):
        problem = f"{FOREIGN}: let KEYVAULT_ANCHOR and KEYVAULT_DATABASE_URL name what belongs together"
        return [Finding(TABLE, anchor.place, problem)]
    seen = _contradiction(connection, mark, size, 0 if head is None else head.epoch, archived)
    if seen is not None:
        return [Finding(TABLE, anchor.place, f"{seen}; {_way_out(head)}")]
    return [] if isinstance(authority, PublicAuthority) else _check_counter(anchor, mark)


def _check_counter(anchor: Remembered, mark: AnchorRecord) -> list[Finding]:
    try:
        problem = anchor.check_counter(mark)
    except IntegrityViolation as error:
        return [Finding(COUNTER, anchor.place, error.detail)]
    return [] if problem is None else [Finding(COUNTER, *problem)]


def _size(connection: driver.Connection) -> int:
    try:
        number = (connection.execute(statements.LAST_ENTRY).fetchone() or (0,))[0]
    except driver.Damaged:
        number = None
    return number if isinstance(number, int) else 0  # there is no log that could be read


def _contradiction(
    connection: driver.Connection, mark: AnchorRecord, size: int, epoch: int, archived: int
) -> str | None:
    if size < mark.size or 0 < epoch < mark.epoch:
        return f"remembers {mark.size} entries, the database has {size}: it was put back or replaced"
    if mark.size == 0:
        return None  # every log of this name and key extends the empty one
    if mark.size <= archived:
        # An anchor from before the archiving: what else it says of that entry is in the archive, its root is checked.
        same = leaf_of(connection, mark.size) == mark.hash and mark.scrubbed <= mark.size
        return None if same else f"remembers another entry {mark.size} than the log has: it was forked or changed"
    entry_hash, entry_epoch, state_seq = connection.execute(_MARKED, (mark.size,)).fetchone() or (b"", 0, 0)
    if entry_hash != mark.hash:
        return f"remembers another entry {mark.size} than the database has: its log was forked or changed"
    if (entry_epoch, state_seq) != (mark.epoch, mark.state_seq) or mark.scrubbed > mark.size:
        return f"tells of entry {mark.size} what the log does not: the anchor was changed"
    return None


def _way_out(head: Head | None) -> str:
    restore = "restore the newest database"
    try:
        root = b"" if head is None else CompactRange.from_bytes(head.edge).root()
    except InvalidProof:
        root = b""
    if head is None or not root:
        return restore
    return (
        "perhaps the vault was moved by `kvl migrate`: then let KEYVAULT_DATABASE_URL name the new database; "
        f"else {restore}; or, if this restore is meant and the loss acknowledged, run "
        f"`kvl anchor trust --acknowledge-rollback --size {head.size} --root {encode_base64(root)}`"
    )


def unproven(connection: driver.Connection, scrubbed: int) -> int:
    """From behind which entry the log has to be checked before it is served."""
    size = _size(connection)
    if size <= CHECKED_AT_START:
        return 0
    return min(scrubbed or size - CHECKED_AT_START, size)


def resumed_tiles(connection: driver.Connection, head: Head) -> Tiles:
    """The writer's state of the Merkle tree, from what is stored; it has to be that of the head's edge."""
    edge = CompactRange.from_bytes(head.edge)
    reader = tile_reader(connection, LogTip(head, b"", Tiles(edge), ""))
    try:
        return Tiles.resume(edge, reader)
    except InvalidProof as error:
        raise DamagedVault([Finding("tiles", "", error.detail)]) from error

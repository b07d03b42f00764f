"""What others have written, taken in: their entries by hashes, their changes of state by rows."""

from dataclasses import replace

from keyvault_lite.audit.merkle import Tiles
from keyvault_lite.ledger.log.retention import hashes_between
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.state.root import StateTree, row_key
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.state.verified_rows import read_rows
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation
from keyvault_lite.model.names import TokenId


def new_entries(
    connection: driver.Connection, authority: Authority, known: LogTip, head: Head
) -> tuple[Tiles, list[bytes], bool]:
    """The tree under a head that others have written, the hashes of the entries that are new in it, and an alarm.

    The alarm is whether any of them seems to tell of rows that were edited; no more than a reason to look.

    The head is authenticated, and the tree over the new hashes has to be its tree: so they are those of the entries
    that were written. What stands in their columns is the background check's, as it is for entries of our own.
    """
    tiles = known.tiles.copy()
    hashes = hashes_between(connection, authority, known.head.size, head.size)
    alarms = driver.fetch(connection, statements.ALARMS, (known.head.size, head.size))
    tiles.extend(hashes)
    if (tiles.edge.size, tiles.edge.to_bytes()) != (head.size, head.edge):
        raise IntegrityViolation("the log does not extend the one this process knows")
    return tiles, hashes, bool(alarms)


def take_in(
    connection: driver.Connection, authority: Authority, state: State, tree: StateTree, head: Head, *, at_once: bool
) -> None:
    """Make state and tree those under a head that others have written, if the stored rows are; else nothing."""
    macs: dict[bytes, bytes] = {}
    news = read_rows(connection, authority, newer_than=state.sequence, known=state.key_record, note=macs.__setitem__)
    for key, mac in macs.items():
        tree.put(key, mac)
    gone: list[TokenId] = []
    if tree.root() != head.state_root:
        for lost in _deleted(connection, state, head.timestamp, at_once=at_once):
            tree.remove(row_key("tokens", (one,)) for one in lost)
            gone += lost
            if tree.root() == head.state_root:
                break
    # The root decides: an old row put back, or a new one left out, is not the state the log commits to.
    if news.findings or tree.root() != head.state_root:
        tree.rollback()
        raise IntegrityViolation("the stored state is not the one the log commits to")
    tree.accept()
    state.apply(replace(news.change, gone_tokens=tuple(gone)))
    state.sequence = head.state_seq


def _deleted(
    connection: driver.Connection, state: State, now: int, *, at_once: bool
) -> tuple[list[TokenId], list[TokenId]]:
    """The tokens whose rows are there no more: those that this process knows to be over, and the others.

    It may have missed that a token was ended, or a lease shortened. Any other row that is missing stays missed.
    """
    if at_once:
        raise AuditUnavailable("all tokens have to be compared first")
    stored = {row[0] for row in connection.execute(statements.TOKEN_IDS)}
    missing = [one for one in state.tokens() if one.id not in stored]
    ended = [one.id for one in missing if one.ended_at is not None or one.is_past_lease(now)]
    return ended, [one.id for one in missing if one.id not in set(ended)]

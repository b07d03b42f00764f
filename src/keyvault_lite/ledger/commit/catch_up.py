"""The catch-up with other processes: their entries by hashes, their changes of state by rows."""

from dataclasses import replace

from keyvault_lite.audit.merkle import Tiles
from keyvault_lite.ledger.commit.write_set import WouldBlock
from keyvault_lite.ledger.log.retention import hashes_between
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.state.root import StateTree, row_key
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.state.verified_rows import read_rows
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.names import TokenId


def new_entries(
    connection: driver.Connection, authority: Authority, tip: LogTip, head: Head
) -> tuple[Tiles, list[bytes], bool]:
    """The tree under a head that another process has written, the hashes of the new entries, and an alarm.

    The alarm is whether any of them seems to report edited rows; it is no more than a reason to compare.

    The head is authenticated, and the tree over the new hashes has to be its tree: so they are those of the entries
    that were written. The background check reads their columns, as it does for entries of this process.
    """
    tiles = tip.tiles.copy()
    hashes = hashes_between(connection, authority, tip.head.size, head.size)
    alarms = driver.fetch(connection, statements.ALARMS, (tip.head.size, head.size))
    tiles.extend(hashes)
    if (tiles.edge.size, tiles.edge.to_bytes()) != (head.size, head.edge):
        raise IntegrityViolation("the log does not extend the one this process knows")
    return tiles, hashes, bool(alarms)


def apply_changes(
    connection: driver.Connection, authority: Authority, state: State, tree: StateTree, head: Head, *, blocking: bool
) -> None:
    """Make state and tree those under a head that another process has written, if the stored rows are; else nothing.

    Raises IntegrityViolation if they are not. Raises WouldBlock before all tokens are read, unless `blocking`.
    """
    macs: dict[bytes, bytes] = {}
    news = read_rows(connection, authority, newer_than=state.sequence, known=state.key_record, note=macs.__setitem__)
    for key, mac in macs.items():
        tree.put(key, mac)
    gone: list[TokenId] = []
    if tree.root() != head.state_root:
        for lost in _deleted(connection, state, head.timestamp, blocking=blocking):
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
    connection: driver.Connection, state: State, now: int, *, blocking: bool
) -> tuple[list[TokenId], list[TokenId]]:
    """The tokens whose rows are gone: those that this process knows to have ended, and the others.

    It may not have seen that a token ended, or that a lease was shortened. Any other missing row stays missing.
    """
    if not blocking:
        raise WouldBlock
    stored = {row[0] for row in connection.execute(statements.TOKEN_IDS)}
    missing = [one for one in state.tokens() if one.id not in stored]
    ended = [one.id for one in missing if one.ended_at is not None or one.is_past_lease(now)]
    return ended, [one.id for one in missing if one.id not in set(ended)]

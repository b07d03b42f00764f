"""Writes of the timed work that belong to no entry."""

from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.storage import statements
from keyvault_lite.ledger.storage.log_index import CLEAR, FILL, PART


def forget_replies(writer: Writer, now: int) -> None:
    """Delete the kept replies that have expired by then, in microseconds."""
    writer.write_apart(statements.FORGET_REPLIES, values=(now,))


def rebuild_index(writer: Writer, first: int) -> None:
    """Write the index of the log again from entry `first` on, a part at a time: no commit waits long for the lock."""
    writer.write_apart(CLEAR)
    for low in range(first, writer.head.size + 1, PART):
        writer.write_apart(FILL, values=(low, low + PART - 1) * 2)

"""Connections that read, each used by one at a time and kept for the next."""

from collections.abc import Iterator
from contextlib import contextmanager

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.model.errors import AuditUnavailable


class Readers:
    """As many connections as ever read at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._idle: list[driver.Connection] = []
        self._closing = False

    @contextmanager
    def one(self) -> Iterator[driver.Connection]:
        """A connection for as long as it is read from. Raises AuditUnavailable if the database cannot be read."""
        try:
            connection = self._take()
            try:
                yield connection
            except BaseException:
                # An error may hold a statement that is not at its end, and with it a snapshot.
                connection.close()
                raise
            if self._closing:
                connection.close()
            else:
                self._idle.append(connection)
        except driver.Damaged as error:
            raise AuditUnavailable("the database cannot be read") from error

    def _take(self) -> driver.Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._database.reader()
            if self._database.is_alive(connection):
                return connection
            connection.close()

    def keep_no_more(self) -> None:
        """From now on a connection is closed once it is not read from."""
        self._closing = True

    def close(self) -> None:
        """Close those that nobody reads from."""
        while self._idle:
            self._idle.pop().close()

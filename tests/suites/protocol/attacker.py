"""The attacker of the protocol's tests: writes the database at will, and has all copies of it.

It has neither the keyring nor the memory of a node nor an anchor. Whole databases are exchanged through SQLite's own
backup, in one transaction, so that it can be done under running nodes.
"""

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from keyvault_lite.audit.entry import ENTRY_COLUMNS, encode_draft, entry_hash, entry_row
from keyvault_lite.audit.merkle import CompactRange
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.schema import HEAD_COLUMNS
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import KeyId

FORGED: Final = b"forged by nobody"
KEY_TABLES: Final = ("keys", "key_versions")


def connect(path: Path) -> Any:  # noqa: ANN401  (what the driver gives, its backup included)
    return driver.connect(str(path), isolation_level=None, timeout=5)


def copy_database(source: Path, target: Path) -> None:
    """Make one database what another is; a whole rollback, if the source is an older copy of the target."""
    with closing(connect(source)) as here, closing(connect(target)) as there:
        there.execute("PRAGMA synchronous = OFF")  # no test depends on it, and there are many copies
        here.backup(there)


def put_back_rows(older: Path, path: Path, tables: tuple[str, ...] = KEY_TABLES) -> None:
    """Put the rows of an older copy in the place of today's, each with the MAC that it had: all are genuine."""
    with closing(connect(path)) as there:
        there.execute("ATTACH ? AS older", (str(older),))
        there.execute("BEGIN IMMEDIATE")
        for table in tables:
            there.execute(f"REPLACE INTO {table} SELECT * FROM older.{table}")
        there.execute("COMMIT")


def forge(path: Path, *, state_root: bytes, with_head: bool) -> None:
    """Append an entry whose hash is right, since nothing secret is in it; with_head, also the row that names it.

    Of the head everything is right but its MAC.
    """
    said = Draft(action=Action.ENABLE, result=Result.SUCCESS, request_id=FORGED, key_id=KeyId("0" * 32))
    with closing(connect(path)) as there:
        there.execute("BEGIN IMMEDIATE")
        *values, mac = there.execute(statements.READ_HEAD).fetchone()
        head = Head(*values)
        last, previous = there.execute(statements.LAST_ENTRY).fetchone()
        number, moment = last + 1, max(time.time_ns() // 1000, head.timestamp)
        digest = entry_hash(number, head.epoch, moment, number, state_root, encode_draft(said), previous)
        row = entry_row(number, head.epoch, moment, number, state_root, said, previous, digest)
        there.execute(statements.APPEND, row)
        if with_head:
            edge = CompactRange.from_bytes(head.edge)
            edge.extend([digest])
            new = Head(head.epoch, number, digest, moment, number, state_root, edge.to_bytes(), head.checkpoint)
            there.execute(statements.WRITE_HEAD, (*new.values(), os.urandom(len(mac))))
        there.execute("COMMIT")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries as they stand there."""
    with closing(connect(path)) as there:
        rows = there.execute(f"{statements.ENTRIES} ORDER BY id").fetchall()
    return [dict(zip(ENTRY_COLUMNS, row, strict=True)) for row in rows]


def read_stored_head(path: Path) -> dict[str, Any]:
    with closing(connect(path)) as there:
        row = there.execute(statements.READ_HEAD).fetchone()
    return dict(zip((*HEAD_COLUMNS, "mac"), row, strict=True))

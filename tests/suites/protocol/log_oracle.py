"""Facts that every log has to satisfy, whatever was done to the database: read from outside, without the keyring.

The order in the log is the order of effects. Each entry is judged on what the entries before it say, and the newest
state root is compared with the stored rows.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from keyvault_lite.ledger.state.root import RowMacs, row_key
from keyvault_lite.ledger.storage import statements
from keyvault_lite.ledger.storage.schema import FORMATS, IN_ROOT
from keyvault_lite.model.encoding import Value
from tests.suites.protocol import attacker


@dataclass
class Facts:
    """What the stored rows, or the entries of a log, say of the few objects that there are."""

    active: dict[str, bool]
    """Keys by id: whether they can be used."""
    versions: dict[str, int]
    """Keys by id: which version is the active one."""
    admins: dict[str, bool]
    """ADMINs by id: whether they act."""

    @classmethod
    def read(cls, path: Path) -> Self:
        with closing(attacker.connect(path)) as there:
            keys = dict(there.execute("SELECT id, status = 'ACTIVE' FROM keys").fetchall())
            newest = dict(there.execute("SELECT key_id, max(version) FROM key_versions GROUP BY key_id").fetchall())
            services = there.execute("SELECT id, active FROM services WHERE role = 'ADMIN'").fetchall()
        return cls({key: bool(on) for key, on in keys.items()}, newest, {one: bool(on) for one, on in services})


def stored_root(path: Path) -> bytes:
    """The root that the stored rows give."""
    macs = RowMacs()
    with closing(attacker.connect(path)) as there:
        for table in IN_ROOT:
            for row in there.execute(statements.SELECT[table]).fetchall():
                key: tuple[Value, ...] = FORMATS[table].key_of(row)
                macs.add(row_key(table, key), row[-1])
    return macs.root()


def judge(path: Path, size: int, *, attacked: bool) -> Iterator[str]:
    """What is wrong with a log right after an honest node has committed. The first `size` entries made the vault."""
    log = attacker.read_log(path)
    told = told_by(log[:size])
    forged = False
    for entry in log[size:]:
        forged |= entry["request_id"] == attacker.FORGED
        if entry["result"] == "success" and not forged:
            yield from _after(told, entry)
    if log[-1]["request_id"] != attacker.FORGED and forged:
        yield "FORGED ENTRY signed by an honest node"
    if not any(told.admins.values()):
        yield "NO ADMIN LEFT"
    roots = [entry["state_root"] for entry in log if entry["state_root"] is not None]
    matches = roots[-1] == stored_root(path)
    if not attacked and not matches:
        yield "HONEST ROOT DOES NOT MATCH ROWS"
    if attacked and not forged and matches and Facts.read(path) != told:
        yield "REPLAYED ROW LAUNDERED INTO A SIGNED ROOT"


def told_by(log: list[dict[str, Any]]) -> Facts:
    told = Facts({}, {}, {})
    for entry in log:
        if entry["result"] == "success":
            list(_after(told, entry))
    return told


def _after(told: Facts, entry: dict[str, Any]) -> Iterator[str]:
    """Take in one successful entry, and tell what it contradicts."""
    action, key, version, subject = (entry[name] for name in ("action", "key_id", "key_version", "subject"))
    if action == "generate":
        told.active[key], told.versions[key] = True, 1
    elif action in {"initialise", "service_create"}:
        told.admins[subject] = True
    elif action == "service_update":
        told.admins[subject] = False  # all that is done here to an ADMIN
    elif action == "revoke":
        told.active[key] = False
    elif action == "encrypt":
        if not told.active[key]:
            yield "LOG SHOWS SUCCESS AFTER REVOKE"
        elif version != told.versions[key]:
            yield "LOG SHOWS ENCRYPT WITH A VERSION THAT WAS NOT ACTIVE"
    elif action == "rotate":
        if not told.active[key] or version != told.versions[key] + 1:
            yield "TWO ROTATES MADE ONE VERSION"
        told.versions[key] = version

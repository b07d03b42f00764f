"""The named points at which a process of the campaign kills itself: where in the product, and on which ways.

The product knows nothing of them: `dying.py` wraps the function that a point names, in the process that is to die.
"""

from dataclasses import dataclass
from typing import Final

BEFORE: Final = "before"
AFTER: Final = "after"

LOOP: Final = "loop"
"""Filled, or settled, on the event loop: the short way."""
HANDED: Final = "handed"
"""Committed by the thread, of what the loop has filled; a change is settled there as well."""
THREAD: Final = "thread"
"""All of it by the thread: where the loop would have to wait."""
ANY: Final = "any"
"""Not within a transaction."""


@dataclass(frozen=True, slots=True)
class Point:
    """A call of one of the product's functions."""

    target: str
    """`module:function` or `module:class.method`, with `keyvault_lite.` left out."""
    when: str
    ways: tuple[str, ...] = (ANY,)


_COMMIT: Final = "ledger.commit.writer:Writer._commit"
_ANCHOR: Final = "ledger.anchor.files:FileAnchor.write"
_FLUSH: Final = "ledger.anchor.files:FileAnchor._flush"
_STORE: Final = "ledger.commit.write_set:WriteSet.store"
_REFRESH: Final = "ledger.commit.writer:Writer.refresh"

LOAD: Final = {
    "after crypto, encrypted": Point("crypto.keyring:Keyring.encrypt", AFTER),
    "after crypto, decrypted": Point("crypto.keyring:Keyring.decrypt", AFTER),
    "after crypto, signed": Point("crypto.keyring:Keyring.sign", AFTER),
    "after crypto, the reply to keep is sealed": Point("crypto.keyring:Keyring.seal_reply", AFTER),
    "in rotation, material made": Point("crypto.keyring:Keyring.generate", AFTER),
    "in rotation, material wrapped": Point("engine.keys:_rotated", AFTER),
    "in the transaction, nothing written": Point(_STORE, BEFORE, (LOOP, THREAD)),
    "in the transaction, all written": Point(_STORE, AFTER, (LOOP, THREAD)),
    "before COMMIT": Point(_COMMIT, BEFORE, (HANDED, THREAD)),
    "after COMMIT": Point(_COMMIT, AFTER, (HANDED, THREAD)),
    "before the anchor": Point(_ANCHOR, BEFORE, (LOOP, HANDED, THREAD)),
    "after the anchor": Point(_ANCHOR, AFTER, (LOOP, HANDED, THREAD)),
    "anchor written, not flushed": Point(_FLUSH, BEFORE, (HANDED, THREAD)),
    "anchor flushed, which is not noted": Point("ledger.anchor.files:os.fdatasync", AFTER, (HANDED, THREAD)),
    "before the answers": Point("ledger.commit.group_commit:GroupCommit._answer", BEFORE),
}
"""Under mixed load."""
OPENING: Final = {
    "nothing loaded": Point("ledger.ledger:Ledger._load", BEFORE),
    "loaded, not signed": Point(_REFRESH, BEFORE),
    "signed, anchor not flushed": Point("ledger.anchor.files:FileAnchor.flush", BEFORE),
    "opened": Point("ledger.commit.group_commit:GroupCommit.start", BEFORE),
}
"""At the start after another crash."""
CLOSING: Final = {
    "checkpoint not committed": Point(_STORE, AFTER),
    "checkpoint committed": Point("ledger.commit.writer:Writer._store_checkpoint", AFTER),
    "anchor not flushed": Point("ledger.anchor.files:FileAnchor.close", BEFORE),
    "closed": Point("ledger.commit.writer:Writer.close", AFTER),
}
"""When it is stopped in good order."""
BEGINNING: Final = {
    "schema made": Point("app:prepare", AFTER),
    "before the anchor knows of it": Point("ledger.commit.writer:Writer.begin", BEFORE),
    "after the anchor knows of it": Point("ledger.commit.writer:Writer.begin", AFTER),
    "keyring sealed": Point("crypto.keyring:Keyring.seal", AFTER),
    "before COMMIT": Point(_COMMIT, BEFORE, (HANDED, THREAD)),
    "after COMMIT": Point(_COMMIT, AFTER, (HANDED, THREAD)),
    "anchor written, not flushed": Point(_FLUSH, BEFORE, (HANDED, THREAD)),
    "after the anchor": Point(_ANCHOR, AFTER, (HANDED, THREAD)),
}
"""When a vault begins."""


@dataclass(frozen=True, slots=True)
class Step:
    """A point of a master key's replacement: the call of that number, and which master keys open the vault then."""

    point: Point
    call: int
    """From 1."""
    old: bool
    new: bool


MASTER_KEY: Final = {
    "slot sealed": Step(Point("crypto.keyring:Keyring.seal", AFTER), 1, old=True, new=False),
    "before COMMIT of the new slot": Step(Point(_COMMIT, BEFORE, (HANDED, THREAD)), 1, old=True, new=False),
    "after COMMIT of the new slot": Step(Point(_COMMIT, AFTER, (HANDED, THREAD)), 1, old=True, new=True),
    "new slot in the anchor": Step(Point(_ANCHOR, AFTER, (HANDED, THREAD)), 1, old=True, new=True),
    "before COMMIT of the removal": Step(Point(_COMMIT, BEFORE, (HANDED, THREAD)), 2, old=True, new=True),
    "after COMMIT of the removal": Step(Point(_COMMIT, AFTER, (HANDED, THREAD)), 2, old=False, new=True),
    "removal in the anchor": Step(Point(_ANCHOR, AFTER, (HANDED, THREAD)), 2, old=False, new=True),
    "write-ahead log not emptied": Step(
        Point("ledger.storage.sqlite.database:SqliteDatabase.forget_overwritten", BEFORE), 1, old=False, new=True
    ),
    "write-ahead log emptied": Step(
        Point("ledger.storage.sqlite.database:SqliteDatabase.forget_overwritten", AFTER), 1, old=False, new=True
    ),
    "closed": Step(Point("app:Vault.close", AFTER), 1, old=False, new=True),
}

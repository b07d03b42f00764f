"""What a handler is given and gives back. A handler is load, check, act, return: no logging, no HTTP, no try."""

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.engine.log_reader import LogReader
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.identity import Principal
from keyvault_lite.model.keys import Key
from keyvault_lite.model.names import KeyId
from keyvault_lite.model.opaque import Opaque

T = TypeVar("T")


class HandlerResult(Opaque, frozen=True):
    """What a handler did, not yet committed: the reply, the change, and fields of the entry."""

    result: object
    change: Change | None = None
    key_id: KeyId | None = None
    key_version: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    subject: str | None = None
    comment: str | None = None


Memo = dict[tuple[int, str], tuple[tuple[object, ...], object]]
"""Costly results of an attempt, kept for the case that it has to be made again on a newer state: by item and name, the
records they were made from and the result."""


class HandlerContext(Struct, frozen=True):
    """The verified state at one moment and the caller on it, already authorised for the request and its key."""

    principal: Principal
    state: State
    keyring: Keyring
    log: LogReader
    now: int
    """Microseconds; never before the newest entry."""
    memo: Memo
    place: int = 0
    """Which item of a batch this is."""
    named_key: Key | None = None
    source: str | None = None
    """The peer's address, as the entry records it."""

    @property
    def key(self) -> Key:
        """The key the request names."""
        if self.named_key is None:
            raise LookupError("the request names no key")
        return self.named_key

    def once(self, name: str, records: tuple[object, ...], compute: Callable[[], T]) -> T:
        """`compute()`, or its earlier result if it was made from the very same records (the same objects).

        Safe because records are immutable: the same object says that nothing it was computed from has changed. The name
        is of this item.
        """
        known = self.memo.get((self.place, name))
        if known is not None and len(known[0]) == len(records) and all(a is b for a, b in zip(known[0], records)):  # noqa: B905
            return known[1]  # type: ignore[return-value]
        result = compute()
        self.memo[self.place, name] = (records, result)
        return result


Handler = Callable[[Any, HandlerContext], HandlerResult]
"""One operation: computes its outcome on the ctx's state, and raises KeyVaultError for every refusal."""

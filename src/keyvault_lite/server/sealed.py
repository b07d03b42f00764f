"""A server before its vault is open: it is sealed, on the sockets of the open one, until a root opens the vault.

Two servers, one after the other, and not one that changes under open connections: each start of an open vault is the
same, with the same checks. In between the listening sockets stay open, and the kernel holds new connections. A server
that was sealed by an operator becomes a new process image: a runtime that copies bytes cannot forget a key.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Final

from keyvault_lite.app import build_sealed, find_vault, roots_of
from keyvault_lite.crypto.hygiene import protect_process
from keyvault_lite.crypto.root import SlotKey
from keyvault_lite.engine.unsealing import Unsealing
from keyvault_lite.model.errors import NotFound
from keyvault_lite.model.requests import RecordUnseal
from keyvault_lite.roots.opening import KnownSlot, reason_of
from keyvault_lite.roots.root import Root
from keyvault_lite.settings import Settings
from keyvault_lite.wire.application import Application

SEALED: Final = "--sealed"
"""The option of `kvl serve` with which a server that was sealed starts again."""
_BY_OPERATOR: Final = "sealed by an operator"
_RESTART: Final = f"{_BY_OPERATOR}: restart the server to open it"
Serve = Callable[[Application], None]
"""Serve an application until it ends its server. Raises Stopped."""


class Stopped(Exception):
    """The server was told to end while it was sealed."""

    def __init__(self, *, interrupted: bool) -> None:
        super().__init__()
        self.interrupted = interrupted
        """From the keyboard."""


class Unsealed:
    """What has opened the vault, for this process and its workers, and what goes on record about it."""

    def __init__(self, known: KnownSlot, history: str) -> None:
        self.known = known
        self._history = history

    @property
    def record(self) -> RecordUnseal:
        """The first entry of the open server."""
        return RecordUnseal(f"slot {self.known.slot_id} by {self.known.root}{self._history}")

    def hand_on(self) -> "HandedKey":
        """The key for a worker, which is another process."""
        return HandedKey(self.known)


class HandedKey:
    """A slot key on its way to a worker, through the pipe that starts it. Its text shows nothing."""

    def __init__(self, known: KnownSlot) -> None:
        self._slot_id, self._root = known.slot_id, known.root
        self._key = known.key.reveal()

    @property
    def known(self) -> KnownSlot:
        """The slot, in the worker."""
        return KnownSlot(self._slot_id, SlotKey(self._key), self._root)


def unseal(chosen: Settings, serve: Serve, *, by_operator: bool) -> Unsealed | None:
    """Have the roots open the vault; `serve` serves it sealed until they do. None where a vault has to begin first.

    `by_operator` says that it was sealed by one: then people alone open it. Raises one of CANNOT_START, also if no
    root is left that could open it, and Stopped.
    """
    try:
        find_vault(chosen)
    except NotFound:
        if by_operator:
            raise
        return None
    roots = _roots_of_people(chosen) if by_operator else roots_of(chosen)
    reason = None if not by_operator else _BY_OPERATOR if roots else _RESTART
    unsealing = Unsealing(lambda: find_vault(chosen).slots, roots, ask_roots=not by_operator, reason=reason)
    asyncio.run(unsealing.ask_once())
    if unsealing.opened is None:
        if not unsealing.may_open and not by_operator:
            raise reason_of(unsealing.failed)
        protect_process()  # shares and passphrases come into its memory
        serve(build_sealed(chosen, unsealing))
    if unsealing.opened is None:
        raise TypeError("a sealed server has ended without a key")
    return Unsealed(KnownSlot.of(unsealing.opened), unsealing.history())


def _roots_of_people(chosen: Settings) -> list[Root]:
    """Those that people open: no file of the host is read, and no device asked."""
    uris = [one for one in (chosen.root or "").split() if not one.startswith("file:")]
    if not uris:
        return []
    found = roots_of(chosen.model_copy(update={"root": " ".join(uris), "master_key": None, "master_key_file": None}))
    return [root for root in found if not root.automatic]


def start_sealed(chosen: Settings, port: int) -> None:
    """Become a new process image that serves the vault sealed, at the same address. Does not return."""
    arguments = sys.orig_argv[1:]
    if SEALED not in arguments:
        arguments = [*arguments, SEALED, "--port", str(port)]
    sys.stdout.flush()
    sys.stderr.flush()
    # The database's URL was taken out of the environment, because it may hold a password. The master key stays away.
    os.execve(  # noqa: S606  (the very command that started this process)
        sys.executable, [sys.executable, *arguments], {**os.environ, "KEYVAULT_DATABASE_URL": chosen.database_url}
    )

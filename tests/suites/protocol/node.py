"""A node of the protocol's tests: a process with a real vault, that its parent takes through the steps.

The steps are those of the protocol: computed on a snapshot, committed, anchored, replied. The product knows nothing of
it: its functions are wrapped here, in this process alone. What the parent says is read by a thread of its own, because
both the event loop and the committer's thread stand still between two steps.
"""

import asyncio
import json
import logging
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from keyvault_lite import app
from keyvault_lite.app import CANNOT_START, Vault
from keyvault_lite.audit import checkpoint
from keyvault_lite.ledger.anchor import flusher
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.record import BLOCK
from keyvault_lite.ledger.commit import group_commit as committer_module
from keyvault_lite.ledger.commit import queue
from keyvault_lite.ledger.commit.batch import Batch, Phase
from keyvault_lite.ledger.state.outcome import Committed
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.storage.sqlite.schema_check import expected_schema
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.identity import BearerCredential
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import Origin, Request
from keyvault_lite.settings import Settings
from tests.suites.protocol.attacker import copy_database
from tests.suites.protocol.removal import REMOVALS
from tests.support.faults import FaultyConnection, failing

NEVER: Final = 3600.0
expected_schema()  # worked out once, by the process that all nodes are forked from


@dataclass(frozen=True)
class Ask:
    """One operation, and who asks for it."""

    request: Request
    token: str
    request_id: bytes


@dataclass(frozen=True)
class Reply:
    """What became of one operation: `code` of its refusal, empty if it was done; `entry` if it was recorded."""

    code: str
    entry: int | None
    detail: str = ""


def main(pipe: Connection, chosen: Settings, notes: Path, removed: Sequence[str]) -> None:
    """The process. `notes` is where it writes down every head that it signs; `removed` are the rules it lacks."""
    try:
        logging.disable()
        for rule in removed:
            for removal in REMOVALS[rule]:
                removal.apply()
        _remember_flushes()
        _only_when_told()
        signing = _remember_signatures(notes)
        try:
            vault = app.open_vault(chosen)
        except CANNOT_START as error:
            pipe.send(("refused", str(error)))
            return
        signing.append(vault)
        _Node(pipe, vault).run()
    except BaseException:
        pipe.send(("defect", traceback.format_exc()))
        raise


def _only_when_told() -> None:
    """Nothing happens by the clock."""
    flusher.FLUSH_SECONDS = NEVER  # type: ignore[misc]
    committer_module.RETRY_SECONDS = NEVER  # type: ignore[misc]
    queue.LOCK_SECONDS = queue.COMMIT_SECONDS = NEVER  # type: ignore[misc]


def durable(anchor: Path) -> Path:
    """Where it is kept what of an anchor file is sure to survive a power loss."""
    return anchor.with_name(anchor.name + ".durable")


def _remember_flushes() -> None:
    flush = FileAnchor._flush

    def remembered(self: FileAnchor, descriptor: int, slot: int) -> None:
        said = self.path.read_bytes()[2 * BLOCK :]
        flush(self, descriptor, slot)
        # Which slot is flushed is itself not flushed.
        durable(self.path).write_bytes(self.path.read_bytes()[: 2 * BLOCK].ljust(2 * BLOCK, b"\x00") + said)

    FileAnchor._flush = remembered  # type: ignore[method-assign]


def _remember_signatures(notes: Path) -> list[Vault]:
    """Write down the log under every head that is signed, as the hashes of its entries."""
    sign_note = checkpoint.sign_note
    opened: list[Vault] = []

    def remembered(body: str, *how: Any) -> str:  # noqa: ANN401
        if opened:
            size = int(body.split("\n", 2)[1])
            connection = opened[0].ledger._writer.connection
            rows = connection.execute("SELECT hash FROM audit_logs WHERE id <= ? ORDER BY id", (size,)).fetchall()
            with notes.open("a") as file:
                file.write(json.dumps([row[0].hex() for row in rows]) + "\n")
        return sign_note(body, *how)

    checkpoint.sign_note = remembered  # type: ignore[assignment]
    return opened


class _Node:
    def __init__(self, pipe: Connection, vault: Vault) -> None:
        self._pipe = pipe
        self._vault = vault
        self._go: SimpleQueue[None] = SimpleQueue()
        self._tasks: list[asyncio.Task[Reply]] = []
        self._parked: dict[object, asyncio.Event] = {}
        self._came: set[object] = set()
        self._loop = asyncio.new_event_loop()
        self._wrap()

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        self._pipe.send(("up",))
        self._loop.run_forever()

    def _listen(self) -> None:
        while True:
            try:
                name, *values = self._pipe.recv()
            except EOFError:
                return
            if name == "go":
                self._go.put(None)
            elif name == "flush":
                assert self._vault.anchor is not None
                self._vault.anchor.flush()
                self._pipe.send(("flushed",))
            else:
                self._loop.call_soon_threadsafe(getattr(self, name), *values)

    # The steps

    def _wrap(self) -> None:
        ledger = self._vault.ledger
        commit = ledger.commit

        async def computed(*how: Any) -> Committed:  # noqa: ANN401
            go = asyncio.Event()
            self._parked[asyncio.current_task()] = go
            self._arrived()
            await go.wait()
            return await commit(*how)

        def observe(batch: Batch) -> None:
            if batch.phase is Phase.COMMITTED:
                self._stop("committed")
            elif batch.phase is Phase.PUBLISHED:
                self._stop("anchored")

        ledger.commit = computed  # type: ignore[assignment,method-assign]
        ledger._group_commit.observer = observe

    def _stop(self, step: str) -> None:
        self._pipe.send((step,))
        self._go.get()

    def _arrived(self) -> None:
        before = len(self._came)
        self._came.add(asyncio.current_task())
        if before < len(self._came) == len(self._tasks):
            self._pipe.send(("computed",))

    def compute(self, *asks: Ask) -> None:
        """Have every operation judged on the snapshot, and wait before the ledger is asked to commit."""
        self._came.clear()
        self._tasks = [self._loop.create_task(self._one(ask)) for ask in asks]
        self._all = self._loop.create_task(self._answer())

    async def _answer(self) -> None:
        try:
            self._pipe.send(("replied", await asyncio.gather(*self._tasks)))
        except BaseException:
            self._pipe.send(("defect", traceback.format_exc()))
            raise

    async def _one(self, ask: Ask) -> Reply:
        try:
            answer: Answer = await self._vault.engine.perform(
                ask.request, BearerCredential(ask.token), Origin(ask.request_id)
            )
        except KeyVaultError as error:
            self._arrived()  # one that is refused before anything is recorded comes no further
            return Reply(error.code, error.audit_id, error.detail)
        return Reply("", answer.audit_id)

    def commit(self) -> None:
        """Let them go on, in their order and as one transaction."""
        for task in self._tasks:
            if task in self._parked:
                self._parked.pop(task).set()

    # Faults

    def fail_commit(self, fault: str, leaked: Path) -> None:
        """Have the next COMMIT fail, in spite of it (`applied`) or instead of it (`aborted`).

        What was aborted is kept as `leaked`: whoever reads the disk or the wire has seen it.
        """
        writer = self._vault.ledger._writer
        path = self._path
        faulty = FaultyConnection(writer.connection)
        writer.connection = faulty

        def aborted(sql: str) -> Exception | None:
            if sql != "COMMIT":
                return None
            before = leaked.with_suffix(".before")
            copy_database(path, before)
            faulty.real.execute("COMMIT")
            copy_database(path, leaked)
            copy_database(before, path)
            return failing()

        if fault == "aborted":
            faulty.before = aborted
        else:
            faulty.after = lambda sql: failing() if sql == "COMMIT" else None

    @property
    def _path(self) -> Path:
        database = self._vault.database
        assert isinstance(database, SqliteDatabase)
        return database.path

    def move(self, path: Path) -> None:
        """From now on the storage shows this process another file in the place of its database."""
        ledger = self._vault.ledger
        vars(self._vault.database).update(vars(SqliteDatabase(path)))
        ledger._readers.close()
        writer = ledger._writer
        writer.connection.close()
        writer.connection = self._vault.database.writer(patient=False)
        # As if it were the same: nothing tells the process but what it reads.
        writer.replica._others = self._vault.database.count_of_others(writer.connection)
        self._pipe.send(("moved",))

"""The processes that die. `python -m tests.suites.crash.child` forks one for each line, and tells how it ended.

It has imported everything before: a death then costs a tenth of a second instead of one, and there can be hundreds.
"""

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyvault_lite import app
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable, OutcomeUnknown
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.operator.rotate_master_key import rotate_master_key
from tests.suites.crash.killed import arm, follow_ways, say
from tests.suites.crash.load import Load
from tests.support.failpoints import ANY, Point
from tests.support.harness import settings_for


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to do, and when to die."""

    job: str
    folder: str
    master: str
    token: str = ""
    seed: int = 0
    most: int = 400
    """Requests a caller."""
    point: tuple[str, str] | None = None
    """Target and moment."""
    way: str = ANY
    call: int = 1
    seconds: float | None = None
    """After how long it is killed from outside, at whatever it is doing then."""
    new_master: str = ""
    pages: int | None = None
    """After how many pages of the write-ahead log they are brought into the database: few, so that it happens often."""


def work(order: Order) -> None:
    """Do it; whoever comes to the end has not died."""
    settings = settings_for(Path(order.folder), order.master)
    follow_ways(order.way)
    if order.pages is not None:
        checkpoint_often(order.pages)
    if order.job in {"begin", "rotate master key", "open"}:
        _arm(order)
    if order.job == "begin":
        initialise_vault(settings)
        return
    if order.job == "rotate master key":
        rotate_master_key(settings, new_key=order.new_master)
        return
    vault = app.open_vault(settings)
    if order.job == "open":
        return
    if order.job == "load":
        _arm(order)
    asyncio.run(Load(vault, order.token, order.seed, order.most).run())
    if order.job == "close":
        _arm(order)
    vault.close()


def _arm(order: Order) -> None:
    if order.point is not None:
        arm(Point(*order.point), order.way, order.call)


def checkpoint_often(pages: int) -> None:
    """Have SQLite copy the write-ahead log every few transactions."""
    writer = SqliteDatabase.writer

    def made(self: SqliteDatabase, **how: Any) -> Any:  # noqa: ANN401
        connection = writer(self, **how)
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        return connection

    SqliteDatabase.writer = made  # type: ignore[method-assign]


def spawn(order: Order) -> int:
    """Fork a process that does it, wait for its end; returns its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            work(order)
            os._exit(0)
        except (AuditUnavailable, OutcomeUnknown) as error:
            say(not_opened=error.code)  # where calls are made to fail, which is no alarm
            os._exit(0)
        except BaseException:  # noqa: BLE001  (the parent is told, and fails)
            say(failed=traceback.format_exc())
            os._exit(1)
    if order.seconds is not None:
        time.sleep(order.seconds)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    for line in sys.stdin:
        given = json.loads(line)
        if given.get("point"):
            given["point"] = tuple(given["point"])
        say(ended=spawn(Order(**given)))


if __name__ == "__main__":
    main()

"""In the process that is to die: the way that a transaction takes, and the death at a named point."""

import functools
import importlib
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from keyvault_lite.ledger.commit.batch import Batch, Phase
from keyvault_lite.ledger.commit.group_commit import GroupCommit
from keyvault_lite.ledger.commit.writer import Writer
from tests.support.failpoints import ANY, BEFORE, HANDED, LOOP, THREAD, Point

_way = threading.local()


def say(**told: object) -> None:
    """One line to the parent, in the pipe before this returns: what is in it survives the process."""
    line = json.dumps(told).encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]


def die(**told: object) -> None:
    """As whoever is killed by the system: no handler, no cleaning up."""
    say(dies=True, **told)
    os.kill(os.getpid(), signal.SIGKILL)


def follow_ways(wanted: str) -> None:
    """Let each thread know which way its transaction takes; with THREAD, all of them take that one."""
    for name in ("try_prepare", "try_publish"):
        _wrap(Writer, name, functools.partial(_on_the_way, LOOP))
    _wrap(GroupCommit, "_commit", _in_the_thread)
    if wanted == THREAD:
        Writer.try_prepare = lambda self, _: self.release()  # type: ignore[assignment,method-assign]


def _in_the_thread(function: Callable[..., Any], scheduler: GroupCommit, batch: Batch) -> Any:  # noqa: ANN401
    return _on_the_way(HANDED if batch.phase is Phase.PREPARED else THREAD, function, scheduler, batch)


def _on_the_way(way: str, function: Callable[..., Any], *given: Any, **more: Any) -> Any:  # noqa: ANN401
    before = getattr(_way, "name", ANY)
    _way.name = way
    try:
        return function(*given, **more)
    finally:
        _way.name = before


def arm(point: Point, way: str, call: int) -> None:
    """Die at the call of that number, from 1, that takes the way."""
    calls = itertools.count(1)

    def pass_by() -> None:
        passing = getattr(_way, "name", ANY)
        if way in {ANY, passing} and next(calls) == call:
            die(way=passing)

    def around(function: Callable[..., Any], *given: Any, **more: Any) -> Any:  # noqa: ANN401
        if point.when == BEFORE:
            pass_by()
        done = function(*given, **more)
        if point.when != BEFORE:
            pass_by()
        return done

    module, _, path = point.target.partition(":")
    owner: Any = importlib.import_module(f"keyvault_lite.{module}")
    *owners, name = path.split(".")
    for one in owners:
        owner = getattr(owner, one)
    _wrap(owner, name, around)


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:  # noqa: ANN401
    function = getattr(owner, name)

    @functools.wraps(function)
    def wrapped(*given: Any, **more: Any) -> Any:  # noqa: ANN401
        return around(function, *given, **more)

    setattr(owner, name, wrapped)

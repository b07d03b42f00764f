"""Structured logs that hold no secret.

A log line names what happened and where, never with which data: formatted exceptions lose their messages, because a
library may put into a message what a caller has sent. A line that repeats too often is counted instead: a caller that
floods the server with nonsense does not fill the disk with its logs.
"""

import json
import logging
import os
import sys
import time
import traceback
from typing import Final

ROOT: Final = "keyvault_lite"
BURST: Final = 20
"""How often one line of code may speak in a window; what it says beyond is counted and told with the next."""
WINDOW_SECONDS: Final = 10.0
_EXTRA: Final = ("operation", "request_id", "status", "version", "worker", "suppressed")


def logger(name: str) -> logging.Logger:
    """The logger of a part of the product."""
    return logging.getLogger(f"{ROOT}.{name}")


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record without the messages of exceptions: type and places only."""
        line: dict[str, object] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": os.getpid(),
            "message": record.getMessage(),
        }
        for name in _EXTRA:
            if (value := getattr(record, name, None)) is not None:
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["at"] = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(record.exc_info[2])]
        return json.dumps(line, ensure_ascii=True)


class LogRateLimit(logging.Filter):
    """Lets each line of code speak BURST times in a window."""

    def __init__(self) -> None:
        super().__init__()
        self._spoken: dict[tuple[str, int], tuple[float, int]] = {}
        """By place in the code (of which there are finitely many): when its window began, how often it spoke."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; the first one of a new window says how many were not."""
        place = (record.pathname, record.lineno)
        now = time.monotonic()
        began, spoken = self._spoken.get(place, (now, 0))
        if now - began >= WINDOW_SECONDS:
            if spoken > BURST:
                record.suppressed = spoken - BURST
            began, spoken = now, 0
        self._spoken[place] = began, spoken + 1
        return spoken < BURST


def announce(message: str, *, level: str = "info", structured: bool = True, **more: str) -> None:
    """Tell the operator that starts a server, at every log level: a sentence on a terminal, else a line of JSON.

    `more` are members of that line; a terminal shows their values below the sentence. What is not `structured` is a
    sentence everywhere, as commands speak.
    """
    if sys.stderr.isatty() or not structured:
        text = "\n".join((f"KeyVault Lite: {message}", *more.values()))
    else:
        now = time.time()
        line = {"time": _utc(now), "level": level, "logger": f"{ROOT}.start", "pid": os.getpid(), "message": message}
        text = json.dumps({**line, **more}, ensure_ascii=True)
    print(text, file=sys.stderr, flush=True)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def configure_logs(level: str) -> None:
    """Send the product's logs to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(LogRateLimit())
    for name in (ROOT, "uvicorn.error"):
        target = logging.getLogger(name)
        target.handlers[:] = [handler]
        target.setLevel(level.upper())
        target.propagate = False
    # Of starting and stopping the server tells itself.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.getLogger(ROOT).level))

"""Structured logs that hold no secret, and the counters of the metrics page. Imports no other layer.

A log line names what happened and where, never with which data: formatted exceptions lose their messages, because a
library may put into a message what a caller has sent.
"""

import json
import logging
import sys
import time
import traceback
from typing import Final

ROOT: Final = "keyvault_lite"
_EXTRA: Final = ("operation", "request_id", "status")


def logger(name: str) -> logging.Logger:
    """The logger of a part of the product."""
    return logging.getLogger(f"{ROOT}.{name}")


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record without the messages of exceptions: type and places only."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in _EXTRA:
            if (value := getattr(record, name, None)) is not None:
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["at"] = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(record.exc_info[2])]
        return json.dumps(line, ensure_ascii=True)


def configure_logs(level: str) -> None:
    """Send the product's logs to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (ROOT, "uvicorn.error"):
        target = logging.getLogger(name)
        target.handlers[:] = [handler]
        target.setLevel(level.upper())
        target.propagate = False

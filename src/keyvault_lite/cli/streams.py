"""The three standard streams, whatever state they were handed over in: closed, full, a broken pipe, of any encoding."""

import codecs
import errno
import fcntl
import io
import json
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal, TextIO

from keyvault_lite.cli.failure import CannotRun

ESCAPED: Final = "kvl-escaped"
"""How text is written that the stream's encoding does not have: as in JSON, so that JSON stays what it is."""


def prepare() -> None:
    """Have all three streams be there. What was closed fails when it is read or written; nothing else gets its number.

    Without this the next file to be opened, a database perhaps, would be standard output to a program that we start.
    """
    codecs.register_error(ESCAPED, _escape)
    sys.stdin = sys.stdin or _instead(0, os.O_WRONLY, "r")
    sys.stdout = sys.stdout or _instead(1, os.O_RDONLY, "w")
    sys.stderr = sys.stderr or _instead(2, os.O_WRONLY, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ESCAPED)


def check_output() -> None:
    """Raise CannotRun if standard output takes nothing: before something is made that can be shown only once."""
    with suppress(io.UnsupportedOperation):  # it is no file of the system's
        descriptor = sys.stdout.fileno()
        asked = select.poll()
        asked.register(descriptor, select.POLLOUT)
        broken = any(event & (select.POLLERR | select.POLLNVAL) for _, event in asked.poll(0))
        if broken or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise CannotRun("standard output is closed, and what is made could be shown to nobody")


@contextmanager
def broken_pipes() -> Iterator[None]:
    """Raise BrokenPipeError also where rich makes a silent exit of it."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        raise


def explain(error: OSError) -> str:
    """What went wrong with a file or a stream, in words."""
    if error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    if error.errno == errno.EBADF:
        return "standard input or output is closed"
    return f"input or output: {error.strerror or error}"


def finish() -> str | None:
    """Write out what is left of the output. What went wrong with that, if anything but a reader that has gone did.

    Afterwards the interpreter finds nothing to write any more, and so nothing to complain of.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard()
    except OSError as error:
        _discard()
        return explain(error)
    return None


def _discard() -> None:
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _instead(number: int, flags: int, mode: Literal["r", "w"]) -> TextIO:
    descriptor = os.open(os.devnull, flags)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    return open(number, mode, encoding="utf-8", closefd=False)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end

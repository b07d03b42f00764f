"""System calls made without letting go of the interpreter fail as Python's own do."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from keyvault_lite.ledger.storage import nonblocking


@pytest.mark.parametrize(
    "call",
    [lambda: nonblocking.pwrite(-1, b"x", 0), lambda: nonblocking.pread(-1, 1, 0), lambda: nonblocking.unlock(-1)],
)
def test_a_call_that_fails_is_an_error_with_its_number(call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as failed:
        call()
    assert failed.value.errno == errno.EBADF


def test_nothing_is_no_failure(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert nonblocking.pwrite(descriptor, b"", 0) == 0
    assert nonblocking.pread(descriptor, 5, 0) == b""
    assert nonblocking.pwrite(descriptor, b"abc", 1) == 3
    assert nonblocking.pread(descriptor, 9, 0) == b"\x00abc"
    os.close(descriptor)

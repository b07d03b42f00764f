"""`kvl`, also as `python -m keyvault_lite`. Interrupted while the program is still loaded it ends without a word."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Load the command line and run it; exits."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else the parent process ignores it
        signal.signal(signal.SIGINT, _end)
    from keyvault_lite.cli import main as commands  # noqa: PLC0415  (it takes a moment)

    try:
        signal.signal(signal.SIGINT, before)
        commands.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()

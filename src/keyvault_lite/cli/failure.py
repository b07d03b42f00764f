"""How a command ends when it does not succeed: one sentence on standard error and an exit code.

| code | meaning |
| --- | --- |
| 0 | done; a check found everything in order |
| 1 | the vault refused, or something does not verify |
| 2 | could not run: usage, settings, files, no answer from the vault, or an output that takes nothing |
| 130 | interrupted |
"""

from typing import ClassVar


class Failure(Exception):
    """Base of both. The message is one sentence for a person; it never holds a token, a plaintext or a key."""

    exit_code: ClassVar[int]


class Refused(Failure):
    """The vault answered no, or data does not verify. `code` is the API's error code, if it was the vault."""

    exit_code = 1

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class CannotRun(Failure):
    """The command did not get as far as an answer."""

    exit_code = 2

"""How a command ends when it does not succeed: one sentence on standard error and an exit code.

| code | meaning |
| --- | --- |
| 0 | done; a check found everything in order |
| 1 | the vault refused, or something does not verify |
| 2 | could not run: usage, settings, files, no answer from the vault, or an output that takes nothing |
| 130 | interrupted |
"""

from typing import ClassVar, Final

from keyvault_lite.client.errors import ClientError, Refused


class Failure(Exception):
    """A command's own failure. The message is one sentence for a person; it never holds a token, a plaintext or a key.

    What the client of the API raises (`client/errors.py`) has its exit code and its sentence below.
    """

    exit_code: ClassVar[int]


class CheckFailed(Failure):
    """Something does not verify, or is not as the command requires it to be."""

    exit_code = 1


class CannotRun(Failure):
    """The command did not get as far as an answer."""

    exit_code = 2


_LISTED_BY: Final = {"keys": "kvl key ls", "services": "kvl service ls", "audit": "kvl audit ls"}
"""The command that lists the objects of a collection, for a call that named one which does not exist."""


def exit_code(error: Failure | ClientError) -> int:
    """How the process ends after it."""
    return error.exit_code if isinstance(error, Failure) else 1 if isinstance(error, Refused) else 2


def sentence(error: Failure | ClientError) -> str:
    """What is printed of it: the vault's own words, and the next step where there is one."""
    if not isinstance(error, Refused):
        return str(error)
    hint = ""
    if error.code == "unauthenticated":
        hint = "; is the token right, current and not expired?"
    elif error.code == "not_found" and error.collection in _LISTED_BY:
        hint = f"; `{_LISTED_BY[error.collection]}` lists them"
    return f"{error.detail}{hint}{error.reference}"

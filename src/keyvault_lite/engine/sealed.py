"""The engine of a sealed vault: it performs nothing, and says why. A front end does not tell it from an open one.

`wire.application.Application.serve` replaces it by the engine of the open vault, without a restart of the listeners.
"""

from collections.abc import Callable
from typing import NoReturn, TypeVar

from keyvault_lite import __version__
from keyvault_lite.engine.cooperative import Steps, run_to_end
from keyvault_lite.model.errors import Sealed
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.intake import Intake, RequestConnection, Upload
from keyvault_lite.model.replies import Health
from keyvault_lite.model.requests import Origin, Request

T = TypeVar("T")


class SealedEngine:
    """Refuses every operation with Sealed. Nothing is recorded: there is no key that could authenticate an entry."""

    def __init__(self, reason: str) -> None:
        """`reason` is shown to anyone in `/health`: no path, no address, no secret."""
        self._reason = reason

    async def perform(self, request: Request, credential: Credential, origin: Origin) -> NoReturn:
        """Raise Sealed."""
        raise Sealed(f"the vault is sealed: {self._reason}")

    async def intake(self, credential: Credential, upload: Upload, conn: RequestConnection) -> Intake:
        """A stranger's: no body is read beyond what an unauthenticated caller may send."""
        return Intake()

    async def in_steps(self, begin: Callable[[], Steps[T]]) -> T:
        """Take all steps of reading a body, which is a small one."""
        return run_to_end(begin())

    async def stop_waiting(self) -> None:
        """Nothing waits."""

    def health(self) -> Health:
        """That the vault is sealed, and why."""
        return Health("sealed", sealed=True, version=__version__, serving=False, details={"reason": self._reason})

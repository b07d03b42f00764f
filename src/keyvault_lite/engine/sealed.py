"""The engine of a sealed vault: it takes what opens the vault, and refuses all else. A front end sees an engine."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

from keyvault_lite import __version__
from keyvault_lite.engine.cooperative import Steps, run_to_end
from keyvault_lite.engine.unsealing import Unsealing
from keyvault_lite.model.errors import Sealed
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.intake import Intake, RequestConnection, Upload
from keyvault_lite.model.replies import Health
from keyvault_lite.model.requests import Origin, Request
from keyvault_lite.model.unseal import SealStatus, Unseal

T = TypeVar("T")


class SealedEngine:
    """Refuses every operation with Sealed. Nothing is recorded: there is no key that could authenticate an entry."""

    def __init__(self, unsealing: Unsealing) -> None:
        self._unsealing = unsealing

    async def perform(self, request: Request, credential: Credential, origin: Origin) -> NoReturn:
        """Raise Sealed."""
        raise Sealed("the vault is sealed")

    async def intake(self, credential: Credential, upload: Upload, conn: RequestConnection) -> Intake:
        """A stranger's: no body is read beyond what an unauthenticated caller may send."""
        return Intake()

    async def in_steps(self, begin: Callable[[], Steps[T]]) -> T:
        """Take all steps of reading a body, which is a small one."""
        return run_to_end(begin())

    async def stop_waiting(self) -> None:
        """Nothing waits."""

    def has_ended(self) -> bool:
        """Whether it has served its purpose: the vault is open."""
        return self._unsealing.opened is not None

    def seal_status(self) -> SealStatus:
        """What is missing."""
        return self._unsealing.status()

    async def unseal(self, given: Unseal, source: str | None) -> SealStatus:
        """See Unsealing.hand_in."""
        return await self._unsealing.hand_in(given, source)

    def health(self) -> Health:
        """That the vault is sealed, and what it waits for."""
        found = self.seal_status()
        details: dict[str, object] = {"root": found.root}
        if found.threshold > 1:
            details["progress"] = f"{found.progress} of {found.threshold}"
        if found.reason is not None:
            details["reason"] = found.reason
        return Health("sealed", sealed=True, version=__version__, serving=False, details=details)

"""The engine as the wire sees it: the only way from a request to the vault."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from keyvault_lite.engine.cooperative import Steps
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.intake import Intake, RequestConnection, Upload
from keyvault_lite.model.replies import Answer, Health
from keyvault_lite.model.requests import Origin, Request
from keyvault_lite.model.unseal import SealStatus, Unseal

T = TypeVar("T")


class Engine(Protocol):
    """What every protocol asks of the engine. A protocol is given its engine when it is constructed."""

    async def stop_waiting(self) -> None:
        """Answer the requests that wait: the server is about to end."""
        ...

    async def perform(self, request: Request, credential: Credential, origin: Origin) -> Answer:
        """Authenticate, authorise, act and record; an error carries the number of the entry that recorded it."""
        ...

    async def intake(self, credential: Credential, upload: Upload, conn: RequestConnection) -> Intake:
        """The owner of a body, and whether it may be large. Only the number of bytes that are read depends on it."""
        ...

    async def in_steps(self, begin: Callable[[], Steps[T]]) -> T:
        """Take the steps of reading a large body, and let other requests have turns in between."""
        ...

    def health(self) -> Health:
        """Whether the vault can serve."""
        ...

    def has_ended(self) -> bool:
        """Whether the server has to end: the vault was sealed, or opened where this is the engine of a sealed one."""
        ...

    def seal_status(self) -> SealStatus:
        """Whether the vault is open, and what is missing."""
        ...

    async def unseal(self, given: Unseal, source: str | None) -> SealStatus:
        """Hand in a share or a passphrase. Raises InvalidRequest, Conflict and LimitExceeded."""
        ...

"""The one way of every request, whatever its protocol: read, build, perform, render, refuse."""

from abc import ABC, abstractmethod
from typing import ClassVar

from keyvault_lite.model.errors import InternalError, KeyVaultError
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import FollowAudit, Idempotency, Rejected, Request
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.http import EARLY, Exchange, Response


class Invocation(ABC):
    """One request to an operation, in the terms of its protocol. A protocol implements `build`, `render` and `refuse`.

    Belongs to one request, and is used once.
    """

    early: ClassVar[tuple[type[KeyVaultError], ...]] = EARLY
    """Refusals that are recorded before the caller's authority is checked."""
    __slots__ = ("action", "credential", "engine", "exchange", "idempotency", "operation")

    def __init__(
        self, engine: Engine, exchange: Exchange, credential: Credential, action: Action, operation: str | None
    ) -> None:
        self.engine = engine
        self.exchange = exchange
        self.credential = credential
        """Unverified. `build` may replace it, where the body names the caller."""
        self.action = action
        self.operation = operation
        self.idempotency: Idempotency | None = None

    @property
    def key(self) -> KeyRef | None:
        """The key that the path names, for the entry of a request that could not be built."""
        return None

    @abstractmethod
    async def build(self) -> Request:
        """Read the request and build what is to be performed. Every KeyVaultError is recorded and refused."""

    @abstractmethod
    def render(self, request: Request, answer: Answer) -> Response:
        """The response of success."""

    @abstractmethod
    def refuse(self, request: Request, error: KeyVaultError) -> Response:
        """The response of a refusal."""


async def handle(invocation: Invocation) -> Response:
    """Answer a request. What cannot be built passes the same door, to be authenticated and recorded."""
    exchange = invocation.exchange
    request: Request
    try:
        request = await invocation.build()
    except KeyVaultError as error:
        request = _rejected(invocation, error)
    except Exception as error:  # noqa: BLE001  (a defect is answered too, and its message never shown)
        request = _rejected(invocation, exchange.defect(error))
    try:
        origin = exchange.origin(operation=invocation.operation, idempotency=invocation.idempotency)
        work = invocation.engine.perform(request, invocation.credential, origin)
        waits = isinstance(request, FollowAudit) and request.wait
        answer = await (exchange.while_connected(work) if waits else work)
        return invocation.render(request, answer)
    except KeyVaultError as error:
        await exchange.hold(error)
        return invocation.refuse(request, error)
    except Exception as error:  # noqa: BLE001  (as above)
        return invocation.refuse(request, exchange.defect(error))


def _rejected(invocation: Invocation, error: KeyVaultError) -> Rejected:
    early = isinstance(error, (*invocation.early, InternalError))
    return Rejected(of=invocation.action, error=error, early=early, key=invocation.key)

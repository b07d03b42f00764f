"""The AWS dialect as an ASGI application: read, verify what is signed, build, perform, render."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import msgspec
from starlette.types import Scope

from keyvault_lite.dialects.aws.errors import AliasNotFound, DestinationNotFound, UnknownOperation, Unserializable
from keyvault_lite.dialects.aws.model import DEFAULT_ACCOUNT, Place
from keyvault_lite.model.errors import InternalError, KeyVaultError, MalformedRequest, TooLarge, Unauthenticated
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import AwsCredential
from keyvault_lite.model.intake import Upload
from keyvault_lite.model.requests import Rejected, Request
from keyvault_lite.wire.aws.errors import write_error
from keyvault_lite.wire.aws.operations import OPERATIONS, Operation
from keyvault_lite.wire.aws.render import write_result
from keyvault_lite.wire.aws.shapes import TABLE
from keyvault_lite.wire.aws.sigv4 import ALGORITHM, INCOMPLETE, read_credential
from keyvault_lite.wire.http import SMALL_BODY, Engine, Exchange, Reply
from keyvault_lite.wire.reader import is_quick, read_json

JSON: Final = b"application/x-amz-json-1.1"
MAX_BODY: Final = 256 * 1024
"""A key policy, the largest there is, has 128 KiB at most; who signed is known with the whole body only."""
_TARGET: Final = TABLE["target"].encode() + b"."
_TYPES: Final = (b"application/x-amz-json-1.1", b"application/x-amz-json-1.0", b"application/json")
_MISSING: Final[Mapping[type[KeyVaultError], str]] = {
    # Which member named what is not there; for all others it is the key.
    AliasNotFound: "alias_name",
    DestinationNotFound: "destination_key_id",
}
_encode: Final = msgspec.json.Encoder().encode


def belongs(path: bytes, scope: Scope) -> bool:
    """Whether a request is one of this dialect: on /, and either named or signed as one."""
    if path != b"/" or scope["method"] != "POST":
        return False
    for name, value in scope["headers"]:
        if (name == b"x-amz-target") or (name == b"authorization" and value.startswith(ALGORITHM)):
            return True
    return b"X-Amz-Algorithm=" in scope["query_string"]


class Aws:
    """Answers the operations of the service through an engine."""

    engine: Engine
    """Set before the first request."""

    def __init__(self, account: str = DEFAULT_ACCOUNT) -> None:
        self._account: Final = account

    async def answer(self, exchange: Exchange) -> Reply:
        """Read, build, perform, render. What cannot be built passes the same door, to be authenticated and recorded."""
        target = exchange.headers.get(b"x-amz-target", b"")
        name = target.removeprefix(_TARGET).decode("latin-1") if target.startswith(_TARGET) else ""
        operation = OPERATIONS.get(name)
        credential, place = INCOMPLETE, Place(self._account, "")
        request: Request
        try:
            # It takes no room yet, which slow senders without a credential would keep from everybody. The number of
            # connections bounds what is on its way.
            body = await exchange.body(MAX_BODY)
            credential = read_credential(exchange, body)
            place = Place(self._account, credential.region)
            if not exchange.is_short():
                await self._check_size(exchange, body, credential, operation)
            request = await self._build(operation, exchange, body, place)
        except KeyVaultError as error:
            request = _rejected(operation, error)
        except Exception as error:  # noqa: BLE001  (a defect is answered too, and its message never shown)
            request = _rejected(operation, exchange.defect(error))
        try:
            origin = exchange.origin(operation=None if operation is None else name)
            answer = await self.engine.perform(request, credential, origin)
            members = write_result(request, answer.result)
        except KeyVaultError as error:
            await exchange.hold(error)
            return self._refusal(exchange, request, error, name, place)
        except Exception as error:  # noqa: BLE001  (as above)
            return self._refusal(exchange, request, exchange.defect(error), name, place)
        return _reply(exchange, 200, b"" if members is None else _encode(members), answer.audit_id)

    async def _check_size(
        self, exchange: Exchange, body: bytes, credential: AwsCredential, operation: Operation | None
    ) -> None:
        """Raise TooLarge for a body beyond what is parsed of that caller. Who signed is known with the whole body."""
        intake = await self.engine.intake(credential, Upload(_action(operation)))
        exchange.may_be_large = intake.may_be_large
        if intake.owner is None:
            raise TooLarge("the body is not read: its signature is not good")
        if len(body) > SMALL_BODY and not intake.may_be_large:
            raise TooLarge(f"a body is at most {SMALL_BODY} bytes, of a caller whose role does not allow this")
        await exchange.make_room(intake.owner, MAX_BODY)

    async def _build(self, operation: Operation | None, exchange: Exchange, body: bytes, place: Place) -> Request:
        if operation is None:
            raise UnknownOperation
        media, _, _ = exchange.headers.get(b"content-type", b"").partition(b";")
        if media.strip().lower() not in _TYPES:
            raise Unserializable("a body is application/x-amz-json-1.1")
        if is_quick(body):
            return operation.build(read_json(body) if body else {}, place)
        return operation.build(await exchange.large_json(body, self.engine), place)

    def _refusal(self, exchange: Exchange, request: Request, error: KeyVaultError, name: str, place: Place) -> Reply:
        if isinstance(error, Unauthenticated) and isinstance(request, Rejected) and isinstance(request.error, TooLarge):
            error = request.error  # its signature could not be read: the body that it covers was not
        named = getattr(request, _MISSING.get(type(error), "key"), None) or ""
        status, body = write_error(error, name, place, named)
        # Who is not authenticated learns nothing of the log, not even its length.
        audit_id = None if isinstance(error, Unauthenticated) else error.audit_id
        return _reply(exchange, status, _encode(body), audit_id)


def _action(operation: Operation | None) -> Action:
    return Action.KEY_READ if operation is None else operation.action


def _rejected(operation: Operation | None, error: KeyVaultError) -> Rejected:
    early = isinstance(error, (MalformedRequest, TooLarge, InternalError))
    return Rejected(of=_action(operation), error=error, early=early)


def _reply(exchange: Exchange, status: int, body: bytes, audit_id: int | None) -> Reply:
    reply = exchange.reply(status, body, content_type=JSON, audit_id=audit_id)
    reply.headers.append((b"x-amzn-requestid", str(UUID(bytes=exchange.request_id)).encode()))
    return reply

"""The protocol of AWS KMS over HTTP: one path, an operation in a header, a signature over the whole request."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import msgspec

from keyvault_lite.dialects.aws.credentials import AwsCredential
from keyvault_lite.dialects.aws.errors import AliasNotFound, DestinationNotFound, UnknownOperation, Unserializable
from keyvault_lite.dialects.aws.model import DEFAULT_ACCOUNT, AccountRegion
from keyvault_lite.model.errors import KeyVaultError, MalformedRequest, TooLarge, Unauthenticated
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.intake import Upload
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import Rejected, Request
from keyvault_lite.wire.asgi import Scope
from keyvault_lite.wire.aws.errors import write_error
from keyvault_lite.wire.aws.operations import MAX_BODY, OPERATIONS
from keyvault_lite.wire.aws.render import write_result
from keyvault_lite.wire.aws.shapes import TABLE
from keyvault_lite.wire.aws.sigv4 import ALGORITHM, INCOMPLETE, read_credential
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.http import UNAUTHENTICATED_BODY_LIMIT, Exchange, Response
from keyvault_lite.wire.pipeline import Invocation, handle
from keyvault_lite.wire.reader import is_quick, read_json

JSON: Final = b"application/x-amz-json-1.1"
_TARGET: Final = TABLE["target"].encode() + b"."
_TYPES: Final = (b"application/x-amz-json-1.1", b"application/x-amz-json-1.0", b"application/json")
_MISSING: Final[Mapping[type[KeyVaultError], str]] = {
    # Which member named what is not there; for all others it is the key.
    AliasNotFound: "alias_name",
    DestinationNotFound: "destination_key_id",
}
_encode: Final = msgspec.json.Encoder().encode


class AwsApi:
    """Answers the operations of the service, on the path /."""

    def __init__(self, engine: Engine, account: str = DEFAULT_ACCOUNT) -> None:
        self._engine = engine
        self._account = account

    def matches(self, path: bytes, scope: Scope) -> bool:
        """Whether a request is on / and either names an operation or is signed."""
        if path != b"/" or scope["method"] != "POST":
            return False
        for name, value in scope["headers"]:
            if (name == b"x-amz-target") or (name == b"authorization" and value.startswith(ALGORITHM)):
                return True
        return b"X-Amz-Algorithm=" in scope["query_string"]

    async def answer(self, exchange: Exchange) -> Response:
        """Answer one request. The header `X-Amz-Target` names the operation."""
        target = exchange.headers.get(b"x-amz-target", b"")
        name = target.removeprefix(_TARGET).decode("latin-1") if target.startswith(_TARGET) else ""
        return await handle(AwsInvocation(self._engine, exchange, name, self._account))


class AwsInvocation(Invocation):
    """A request to an operation of the service."""

    early = (MalformedRequest, TooLarge)
    __slots__ = ("_name", "_place", "_route")

    def __init__(self, engine: Engine, exchange: Exchange, name: str, account: str) -> None:
        """`name` is the operation as the caller wrote it."""
        route = OPERATIONS.get(name)
        action = Action.KEY_READ if route is None else route.action
        operation = None if route is None else route.operation
        super().__init__(engine, exchange, INCOMPLETE, action, operation)
        self._name = name
        self._route = route
        self._place = AccountRegion(account, "")

    async def build(self) -> Request:
        """See Invocation. The body is read first: the signature, by which the caller is known, covers it."""
        # It takes no room yet, which slow senders without a credential would keep from everybody. The number of
        # connections bounds what is on its way.
        exchange = self.exchange
        body = await exchange.body(MAX_BODY)
        credential = read_credential(exchange, body)
        self.credential, self._place = credential, AccountRegion(self._place.account, credential.region)
        if not exchange.is_short():
            await self._check_size(body, credential)
        if self._route is None:
            raise UnknownOperation
        media, _, _ = exchange.headers.get(b"content-type", b"").partition(b";")
        if media.strip().lower() not in _TYPES:
            raise Unserializable("a body is application/x-amz-json-1.1")
        if is_quick(body):
            return self._route.build(read_json(body) if body else {}, self._place)
        return self._route.build(await exchange.large_json(body, self.engine), self._place)

    async def _check_size(self, body: bytes, credential: AwsCredential) -> None:
        """Raise TooLarge for a body beyond the limit of that caller, which is known with the whole body only."""
        exchange = self.exchange
        intake = await self.engine.intake(credential, Upload(self.action), exchange.conn)
        exchange.may_be_large = intake.may_be_large
        if intake.owner is None:
            raise TooLarge("the body is not read: its signature is not good")
        if len(body) > UNAUTHENTICATED_BODY_LIMIT and not intake.may_be_large:
            raise TooLarge(
                f"a body is at most {UNAUTHENTICATED_BODY_LIMIT} bytes, of a caller whose role does not allow this"
            )
        await exchange.make_room(intake.owner, MAX_BODY)

    def render(self, request: Request, answer: Answer) -> Response:
        """See Invocation."""
        members = write_result(request, answer.result)
        return _response(self.exchange, 200, b"" if members is None else _encode(members), answer.audit_id)

    def refuse(self, request: Request, error: KeyVaultError) -> Response:
        """See Invocation."""
        if isinstance(error, Unauthenticated) and isinstance(request, Rejected) and isinstance(request.error, TooLarge):
            error = request.error  # its signature could not be read: the body that it covers was not
        named = getattr(request, _MISSING.get(type(error), "key"), None) or ""
        status, body = write_error(error, self._name, self._place, named)
        # An unauthenticated caller learns nothing of the log, not even its length.
        audit_id = None if isinstance(error, Unauthenticated) else error.audit_id
        return _response(self.exchange, status, _encode(body), audit_id)


def _response(exchange: Exchange, status: int, body: bytes, audit_id: int | None) -> Response:
    response = exchange.reply(status, body, content_type=JSON, audit_id=audit_id)
    response.headers.append((b"x-amzn-requestid", str(UUID(bytes=exchange.request_id)).encode()))
    return response

"""An engine that decides nothing real: enough of perform's contract to test the edge without a vault."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from keyvault_lite.engine.cooperative import Steps, run_to_end
from keyvault_lite.model.errors import Conflict, Forbidden, InvalidCiphertext, KeyVaultError, NotFound, Unauthenticated
from keyvault_lite.model.evidence import Action, Draft, Entry, Result
from keyvault_lite.model.identity import (
    BearerCredential,
    Credential,
    Grant,
    Permission,
    Role,
    Service,
    Token,
    TokenKind,
)
from keyvault_lite.model.intake import Intake, RequestConnection, Upload
from keyvault_lite.model.keys import Algorithm, Key, KeySpec, KeyStatus, KeyType, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId, ServiceId, TokenId, is_id, is_name
from keyvault_lite.model.replies import (
    Answer,
    BatchReply,
    Caller,
    Consistency,
    DataKey,
    Decrypted,
    Encrypted,
    EntryReceipt,
    Health,
    LogKey,
    LogPage,
    NewAccessKey,
    NewService,
    Page,
    PublicKey,
    Replayed,
    Rewrapped,
    Signed,
    Verification,
    Verified,
)
from keyvault_lite.model.requests import (
    Batch,
    CreateAccessKey,
    CreateKey,
    CreateService,
    Decrypt,
    DestroyKey,
    DisableKey,
    EnableKey,
    Encrypt,
    FollowAudit,
    GenerateDataKey,
    GenerateRandom,
    ListAccessKeys,
    ListAudit,
    ListKeys,
    ListReceipts,
    ListServices,
    ListVersions,
    OpenDataKey,
    Origin,
    ReadCheckpoint,
    ReadConsistency,
    ReadKey,
    ReadLogKey,
    ReadMetrics,
    ReadPublicKey,
    ReadReceipt,
    ReadSelf,
    ReadService,
    Rejected,
    RenewToken,
    Request,
    RestoreKey,
    RevokeAccessKey,
    RevokeKey,
    Rewrap,
    RotateKey,
    SealVault,
    Sign,
    UpdateKey,
    UpdateService,
    Verify,
    VerifyAudit,
)
from keyvault_lite.model.unseal import SealStatus, Unseal
from keyvault_lite.wire.application import Api, Application
from keyvault_lite.wire.asgi import ASGIApp, Message
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.native import NativeApi

T = TypeVar("T")
TOKEN = "kvl_AAAAAAAAAAAAAAAA_0123456789abcdefghijklmnopqrstuvwxyz0123456"
AUDITOR = "kvl_BBBBBBBBBBBBBBBB_0123456789abcdefghijklmnopqrstuvwxyz0123456"
KEY_ID = KeyId("6f1c9a52-7f6e-4a38-9d1e-0c7d5f0a4b11")
SERVICE_ID = ServiceId("0b0e8f1e-30b0-4a52-8f3e-5d2a8f5c7a10")
NOW = 1_790_000_000_123_456

VERSION = KeyVersion(
    key_id=KEY_ID, version=1, status=VersionStatus.ACTIVE, created_at=NOW, encrypted_key=b"never shown"
)
KEY = Key(
    id=KEY_ID,
    name="orders",
    spec=KeySpec(type=KeyType.AES, size=256, purpose=Purpose.ENCRYPT),
    status=KeyStatus.ACTIVE,
    created_at=NOW,
    tags={"team": "payments"},
    versions=(VERSION,),
)
SERVICE = Service(
    id=SERVICE_ID,
    name="shop",
    role=Role.SERVICE,
    active=True,
    created_at=NOW,
    grants=(Grant("orders-*", frozenset({Permission.ENCRYPT, Permission.DECRYPT})),),
)
ACCESS_KEY = Token(TokenId("AKIAQWERTZUIOPASDFGH"), SERVICE.id, TokenKind.ACCESS_KEY, b"sealed", 1_700_000_000_000_000)
ENTRY = Entry(
    id=7,
    epoch=0,
    timestamp=NOW,
    state_seq=3,
    state_root=None,
    draft=Draft(action=Action.ENCRYPT, result=Result.SUCCESS, request_id=b"\x01" * 16, key_id=KEY_ID, key_version=1),
    prev_hash=b"\x02" * 32,
    hash=b"\x03" * 32,
)


def _encrypted(request: Any) -> Encrypted:  # noqa: ANN401
    # Not encryption: what was sent, reversed, so that the round trip is visible.
    return Encrypted(ciphertext=request.plaintext[::-1], encrypted_dek=b"dek", key_version=1)


def _decrypted(request: Any) -> Decrypted:  # noqa: ANN401
    if request.encrypted_dek != b"dek":
        raise InvalidCiphertext
    return Decrypted(plaintext=request.ciphertext[::-1], key_version=1)


_SINGLES: dict[type, Callable[[Any], object]] = {
    Encrypt: _encrypted,
    Decrypt: _decrypted,
    Rewrap: lambda _: Rewrapped(encrypted_dek=b"dek", key_version=2),
    Sign: lambda request: Signed(request.message[::-1], request.algorithm or Algorithm.ED25519, 1),
    Verify: lambda request: Verified(request.signature == request.message[::-1], 1),
}


def _batch(request: Any) -> BatchReply:  # noqa: ANN401
    return BatchReply(
        items=tuple(item if isinstance(item, KeyVaultError) else _try(item) for item in request.items),
        audit_ids=tuple(range(100, 100 + len(request.items))),
    )


def _try(item: Any) -> object:  # noqa: ANN401
    try:
        return _SINGLES[type(item)](item)
    except KeyVaultError as error:
        return error


def _rejected(request: Any) -> object:  # noqa: ANN401
    raise request.error


HANDLERS: dict[type, Callable[[Any], object]] = {
    Rejected: _rejected,
    **_SINGLES,
    Batch: _batch,
    **dict.fromkeys(
        (ReadKey, RotateKey, RevokeKey, DisableKey, EnableKey, DestroyKey, RestoreKey, UpdateKey, CreateKey),
        lambda _: KEY,
    ),
    ListKeys: lambda _: Page((KEY,), "cursor"),
    ListVersions: lambda _: Page((VERSION,), None),
    ReadPublicKey: lambda request: PublicKey(1, Algorithm.ED25519, request.format, b"\x01\x02"),
    GenerateDataKey: lambda request: DataKey(b"k" * 32 if request.reveal else None, b"wrapped", 1),
    OpenDataKey: lambda _: DataKey(b"k" * 32, None, 1),
    GenerateRandom: lambda request: b"\x04" * request.count,
    CreateService: lambda _: NewService(SERVICE, TOKEN),
    RenewToken: lambda _: NewService(SERVICE, TOKEN),
    CreateAccessKey: lambda _: NewAccessKey(ACCESS_KEY.id, "x" * 40),
    ListAccessKeys: lambda _: Page((ACCESS_KEY,), None),
    RevokeAccessKey: lambda _: Page((ACCESS_KEY,), None),
    ListServices: lambda _: Page((SERVICE,), None),
    ReadSelf: lambda _: Caller(SERVICE, replace(ACCESS_KEY, kind=TokenKind.NATIVE), None, None),
    ReadService: lambda _: SERVICE,
    UpdateService: lambda _: SERVICE,
    ListAudit: lambda _: LogPage((ENTRY,), None, names={KEY_ID: "orders"}),
    FollowAudit: lambda _: LogPage((ENTRY,), "17", names={}),
    ListReceipts: lambda _: Page((EntryReceipt(17, "c2sp.org/tlog-proof@v1\n"),), None),
    VerifyAudit: lambda _: Verification(valid=True, entries=7, head=b"\x03" * 32),
    ReadCheckpoint: lambda _: "example.org/log\n7\nAAAA\n",
    SealVault: lambda _: None,
    ReadMetrics: lambda _: "# TYPE up gauge\nup 1\n",
    ReadReceipt: lambda _: "c2sp.org/tlog-proof@v1\n",
    ReadConsistency: lambda request: Consistency(request.old, request.new, (b"\x05" * 32,)),
    ReadLogKey: lambda _: LogKey("log+0+A", b"\x06" * 32),
}


@dataclass
class FakeEngine:
    """Authenticates two tokens, lets AUDITOR read only, knows any key but `absent`, counts entries."""

    seen: list[tuple[Request, Credential, Origin]] = field(default_factory=list)
    entries: int = 0
    stopped: bool = False
    fault: Exception | None = None
    state: Health = field(default_factory=lambda: Health(status="ok", sealed=False, version="0.1.0", serving=True))
    kept: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def has_ended(self) -> bool:
        return False

    def seal_status(self) -> SealStatus:
        return SealStatus(sealed=False, root="file")

    async def unseal(self, given: Unseal, source: str | None) -> SealStatus:
        return self.seal_status()

    @property
    def request(self) -> Any:  # noqa: ANN401
        return self.seen[-1][0]

    @property
    def origin(self) -> Origin:
        return self.seen[-1][2]

    def health(self) -> Health:
        return self.state

    async def stop_waiting(self) -> None:
        self.stopped = True

    async def intake(self, credential: Credential, upload: Upload, conn: RequestConnection) -> Intake:
        if not isinstance(credential, BearerCredential) or credential.token not in {TOKEN, AUDITOR}:
            return Intake()
        return Intake(SERVICE_ID, may_be_large=credential.token == TOKEN)

    async def in_steps(self, begin: Callable[[], Steps[T]]) -> T:
        return run_to_end(begin())

    async def perform(self, request: Request, credential: Credential, origin: Origin) -> Answer:
        self.seen.append((request, credential, origin))
        self.entries += 1
        try:
            return Answer(self._decide(request, credential, origin), self.entries)
        except KeyVaultError as error:
            error.audit_id = self.entries
            raise

    def _decide(self, request: Request, credential: Credential, origin: Origin) -> object:
        if not isinstance(credential, BearerCredential) or credential.token not in {TOKEN, AUDITOR}:
            raise Unauthenticated
        if self.fault is not None:
            raise self.fault
        if isinstance(request, Rejected) and request.early:
            raise request.error
        if credential.token == AUDITOR and not type(request).__name__.startswith(
            ("Read", "List", "FollowAudit", "VerifyAudit")
        ):
            raise Forbidden
        if isinstance(request, Rejected):
            raise request.error
        for named in (getattr(request, "key", "orders"), getattr(request, "service", "shop")):
            if named == "absent" or not (is_name(named) or is_id(named)):
                raise NotFound
        return self._once(request, origin)

    def _once(self, request: Request, origin: Origin) -> object:
        repeat = origin.idempotency
        if repeat is not None and repeat.key in self.kept:
            digest, body = self.kept[repeat.key]
            if digest != repeat.body_digest:
                raise Conflict
            return Replayed(body)
        result = HANDLERS[type(request)](request)
        if repeat is not None:
            self.kept[repeat.key] = repeat.body_digest, repeat.render(result)
        return result


@dataclass(frozen=True)
class Response:
    """A reply as it left the application."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body)


async def call(
    app: ASGIApp,
    method: str,
    path: str | bytes,
    body: object = None,
    *,
    token: str | None = TOKEN,
    headers: Sequence[tuple[bytes, bytes]] = (),
    query: bytes = b"",
    content_type: bytes | None = b"application/json",
    parts: list[bytes] | None = None,
    scope: dict[str, object] | None = None,
) -> Response:
    """One request straight into the ASGI application, with nothing between that could tidy it up."""
    raw = path if isinstance(path, bytes) else path.encode()
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    chunks = [data] if parts is None else parts
    sent = [(b"host", b"127.0.0.1")]
    if token is not None:
        sent.append((b"authorization", b"Bearer " + token.encode()))
    if content_type is not None and (data or parts):
        sent.append((b"content-type", content_type))
    if parts is None:
        sent.append((b"content-length", str(len(data)).encode()))
    base = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw.decode("latin-1"),
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "headers": [*sent, *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    messages: list[Message] = []

    async def receive() -> Message:
        if not chunks:
            return {"type": "http.disconnect"}
        part = chunks.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        messages.append(message)

    await app({**base, **(scope or {})}, receive, send)
    start, *rest = messages
    pairs = [(name.decode(), value.decode()) for name, value in start["headers"]]
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), "a header stands twice"
    return Response(start["status"], dict(pairs), b"".join(message.get("body", b"") for message in rest))


def ask(app: ASGIApp, method: str, path: str | bytes, body: object = None, **more: Any) -> Response:  # noqa: ANN401
    """`call`, for tests that are not coroutines."""
    return asyncio.run(call(app, method, path, body, **more))


def build(engine: Engine, *apis: Api, loopback_only: bool = False) -> Application:
    """The native API of an engine behind other protocols, without a server that would open the engine."""

    @asynccontextmanager
    async def opening() -> AsyncIterator[Engine]:
        yield engine

    app = Application(opening, lambda engine: (*apis, NativeApi(engine)), loopback_only=loopback_only)
    app.serve(engine)
    return app

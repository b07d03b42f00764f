"""Bodies and queries of all other operations as pydantic models, and how each becomes a request."""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue, Strict, WithJsonSchema

from keyvault_lite.model.encoding import MAX_CONTEXT_PAIRS
from keyvault_lite.model.errors import InvalidRequest, NotFound
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Permission, Role
from keyvault_lite.model.keys import (
    MAX_DESCRIPTION,
    MAX_DESTROY_DAYS,
    MAX_ROTATION_DAYS,
    MAX_TAGS,
    MIN_DESTROY_DAYS,
    PURPOSES,
    SIZES,
    KeySpec,
    KeyType,
    PublicKeyFormat,
    Purpose,
)
from keyvault_lite.model.names import KeyId, KeyRef, is_id, is_name
from keyvault_lite.model.requests import (
    MAX_COMMENT,
    MAX_INT,
    MAX_PAGE,
    MAX_RANDOM,
    MAX_TAG_NAME,
    MAX_TAG_VALUE,
    MAX_WAIT,
    CreateKey,
    DestroyKey,
    FollowAudit,
    GenerateDataKey,
    GenerateRandom,
    ListAudit,
    ListKeys,
    ListReceipts,
    ListServices,
    ListVersions,
    OpenDataKey,
    ReadConsistency,
    ReadPublicKey,
    ReadReceipt,
    RevokeKey,
    UpdateKey,
)
from keyvault_lite.wire.fields import Body, Text, field_bytes
from keyvault_lite.wire.times import parse_time

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
GRANT_PATTERN: Final = r"^[A-Za-z0-9._/:*+@=, -]{1,256}$"
MAX_CURSOR: Final = 512
_MAX_DIGITS: Final = 19


def _number(value: object) -> object:
    # A query holds text only: digits become an integer in their one spelling, all else stays text and is refused.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return int(value) if value == "0" or not value.startswith("0") else value
    return value


def schema(**words: JsonValue) -> Any:  # noqa: ANN401  (pydantic's own type for annotations)
    """Add words to the schema of a field that do not validate it."""
    return Field(json_schema_extra=words)


Name = Annotated[str, schema(pattern=NAME_PATTERN)]
Tags = Annotated[
    dict[
        Annotated[Text, Field(min_length=1, max_length=MAX_TAG_NAME)], Annotated[Text, Field(max_length=MAX_TAG_VALUE)]
    ],
    Field(max_length=MAX_TAGS),
]
Description = Annotated[Text, Field(max_length=MAX_DESCRIPTION)]
Context = Annotated[dict[str, str], schema(maxProperties=MAX_CONTEXT_PAIRS)]
Base64 = Annotated[str, schema(contentEncoding="base64")]
Time = Annotated[str, schema(format="date-time", description="RFC 3339, UTC, at most microseconds.")]
Expiry = Annotated[str, WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"const": "never"}]})]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]
Cursor = Annotated[Text, Field(max_length=MAX_CURSOR, description="`next` of the page before.")]
# Enumerations come as their value: pydantic's strictness would demand the member itself.
_BY_VALUE: Final = Strict(strict=False)
# Dialects make other kinds too; this API makes these.
_TYPES: Final = WithJsonSchema({"type": "string", "enum": [kind.value for kind in PURPOSES]})
_PURPOSES: Final = WithJsonSchema(
    {"type": "string", "enum": sorted({fit for fits in PURPOSES.values() for fit in fits})}
)
KeyTypeField = Annotated[KeyType, _BY_VALUE, _TYPES]
PurposeField = Annotated[Purpose, _BY_VALUE, _PURPOSES]
RoleField = Annotated[Role, _BY_VALUE]
PermissionField = Annotated[Permission, _BY_VALUE]


class NewKey(Body):
    """The key to make."""

    name: Name | None = Field(None, description="Unique; a key without one is called by its id.")
    type: KeyTypeField
    size: int | None = Field(
        None,
        description="By type: AES 256, 128; RSA 3072, 4096; EC 256, 384, 521; HMAC 256, "
        "384, 512; ML-DSA 65, 44, 87; ED25519 has none. The first is the default.",
    )
    purpose: PurposeField
    description: Description | None = None
    tags: Tags | None = None


def create_key(_: str, body: NewKey) -> CreateKey:
    """Build CreateKey."""
    size = SIZES.get(body.type, (None,))[0] if body.size is None else body.size
    spec = KeySpec(type=body.type, size=size, purpose=body.purpose)
    return CreateKey(spec=spec, name=body.name, description=body.description or "", tags=body.tags or {})


class KeyChange(Body):
    """What to change; what is absent stays."""

    description: Description | None = None
    tags: Tags | None = Field(None, description="Replaces all tags.")
    rotation_period_days: int | None = Field(
        None, ge=0, le=MAX_ROTATION_DAYS, description="Rotate by itself after so many days; 0 ends that."
    )


def update_key(key: str, body: KeyChange) -> UpdateKey:
    """Build UpdateKey."""
    return UpdateKey(
        key=KeyRef(key), description=body.description, tags=body.tags, rotation_days=body.rotation_period_days
    )


class Revocation(Body):
    """What to revoke, and why."""

    version: Version | None = Field(None, description="One version that is not ACTIVE; absent: the whole key.")
    reason: Annotated[Text, Field(max_length=MAX_COMMENT)] | None = Field(None, description="Kept in the audit log.")


def revoke_key(key: str, body: Revocation) -> RevokeKey:
    """Build RevokeKey."""
    return RevokeKey(key=KeyRef(key), version=body.version, reason=body.reason)


class Destruction(Body):
    """When to destroy."""

    days: int | None = Field(
        None, ge=MIN_DESTROY_DAYS, le=MAX_DESTROY_DAYS, description=f"Waiting period, {MAX_DESTROY_DAYS} by default."
    )


def destroy_key(key: str, body: Destruction) -> DestroyKey:
    """Build DestroyKey."""
    return DestroyKey(key=KeyRef(key), days=MAX_DESTROY_DAYS if body.days is None else body.days)


class NewDataKey(Body):
    """The data key to make."""

    context: Context | None = None
    bits: int | None = Field(None, json_schema_extra={"enum": [128, 256, 512, None]})
    plaintext: bool | None = Field(None, description="`false` leaves `plaintext_key` out of the reply.")


def generate_data_key(key: str, body: NewDataKey) -> GenerateDataKey:
    """Build GenerateDataKey."""
    bits = 256 if body.bits is None else body.bits
    return GenerateDataKey(key=KeyRef(key), context=body.context, bits=bits, reveal=body.plaintext is not False)


class WrappedDataKey(Body):
    """A data key as it was handed out."""

    encrypted_key: Base64
    context: Context | None = None


def open_data_key(key: str, body: WrappedDataKey) -> OpenDataKey:
    """Build OpenDataKey."""
    wrapped = field_bytes("encrypted_key", body.encrypted_key)
    return OpenDataKey(key=KeyRef(key), context=body.context, encrypted_key=wrapped)


class RandomBody(Body):
    """How much randomness."""

    bytes: int = Field(ge=1, le=MAX_RANDOM)


def generate_random(_: str, body: RandomBody) -> GenerateRandom:
    """Build GenerateRandom."""
    return GenerateRandom(count=body.bytes)


# Queries


class PageQuery(Body):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE), BeforeValidator(_number)] = 100
    after: Cursor | None = None


def list_keys(_: str, query: PageQuery) -> ListKeys:
    """Build ListKeys."""
    return ListKeys(limit=query.limit, after=query.after)


def list_versions(key: str, query: PageQuery) -> ListVersions:
    """Build ListVersions."""
    return ListVersions(key=KeyRef(key), limit=query.limit, after=query.after)


def list_services(_: str, query: PageQuery) -> ListServices:
    """Build ListServices."""
    return ListServices(limit=query.limit, after=query.after)


class PublicKeyQuery(Body):
    """Which version, and how it is written."""

    version: Annotated[Version, BeforeValidator(_number)] | None = Field(None, description="By default the newest.")
    format: Annotated[PublicKeyFormat, _BY_VALUE] = PublicKeyFormat.PEM


def read_public_key(key: str, query: PublicKeyQuery) -> ReadPublicKey:
    """Build ReadPublicKey."""
    return ReadPublicKey(key=KeyRef(key), format=query.format, version=query.version)


class AuditQuery(PageQuery):
    """Which entries."""

    service_id: Name | None = Field(None, description="Id or name of a service.")
    key_id: Name | None = Field(None, description="Id or name of a key.")
    action: Annotated[Action, _BY_VALUE] | None = None
    result: Annotated[Result, _BY_VALUE] | None = None
    since: Time | None = Field(None, description="Inclusive.")
    until: Time | None = Field(None, description="Exclusive.")
    order: Literal["asc", "desc"] | None = Field(None, description="By default desc; with wait, asc.")
    wait: Annotated[int, Field(ge=0, le=MAX_WAIT), BeforeValidator(_number)] | None = Field(
        None,
        description="Read in a session: the whole session has one entry when it begins and one when it ends. If there "
        "is nothing behind `after`, wait so many seconds for it. `next` is always there.",
    )


def _named(field: str, text: str | None) -> str | None:
    if text is not None and not is_id(text) and not is_name(text):
        raise InvalidRequest(f"{field} is neither an id nor a name")
    return text


def list_audit(_: str, query: AuditQuery) -> ListAudit | FollowAudit:
    """Build ListAudit, or with `wait` FollowAudit."""
    follows = query.wait is not None and query.order is None
    wanted = ListAudit(
        limit=query.limit,
        after=query.after,
        **_entries(query),
        since=None if query.since is None else parse_time(query.since),
        until=None if query.until is None else parse_time(query.until),
        ascending=follows or query.order == "asc",
    )
    return wanted if query.wait is None else FollowAudit(wanted, query.wait)


class ReceiptsQuery(PageQuery):
    """Of which entries."""

    first: Annotated[int, Field(alias="from", ge=1, le=MAX_INT), BeforeValidator(_number)]
    last: Annotated[int, Field(alias="to", ge=1, le=MAX_INT), BeforeValidator(_number)]
    service_id: Name | None = Field(None, description="Id or name of a service.")
    key_id: Name | None = Field(None, description="Id or name of a key.")
    action: Annotated[Action, _BY_VALUE] | None = None
    result: Annotated[Result, _BY_VALUE] | None = None


def list_receipts(_: str, query: ReceiptsQuery) -> ListReceipts:
    """Build ListReceipts."""
    if query.first > query.last:
        raise InvalidRequest("`from` is not above `to`")
    after = str(query.first - 1) if query.after is None else query.after
    wanted = ListAudit(limit=query.limit, after=after, ascending=True, **_entries(query))
    return ListReceipts(wanted, query.last)


def _entries(query: AuditQuery | ReceiptsQuery) -> dict[str, Any]:
    """Which entries a query is about."""
    key = _named("key_id", query.key_id)
    return {
        "service_id": _named("service_id", query.service_id),
        "key_id": None if key is None else KeyId(key),
        "of": query.action,
        "result": query.result,
    }


class ConsistencyQuery(Body):
    """Two sizes of the log, from 1 to the number of its entries."""

    old: Annotated[int, Field(alias="from", ge=1, le=MAX_INT), BeforeValidator(_number)]
    new: Annotated[int, Field(alias="to", ge=1, le=MAX_INT), BeforeValidator(_number)]


def read_consistency(_: str, query: ConsistencyQuery) -> ReadConsistency:
    """Build ReadConsistency."""
    return ReadConsistency(old=query.old, new=query.new)


def read_receipt(entry: str, _: Body) -> ReadReceipt:
    """Build ReadReceipt; an entry is called by its number in one spelling only."""
    number = _number(entry)
    if not isinstance(number, int) or not 1 <= number <= MAX_INT:
        raise NotFound("there is no such entry")
    return ReadReceipt(entry=number)

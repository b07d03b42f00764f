"""The bodies of requests about services and their tokens, and how each becomes a request."""

from typing import Annotated

from pydantic import Field

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.identity import Grant, Permission
from keyvault_lite.model.native_tokens import MAX_GRACE, MAX_TTL
from keyvault_lite.model.requests import MAX_GRANTS, NEVER, CreateService, RenewToken, RevokeAccessKey, UpdateService
from keyvault_lite.wire.fields import Body, Text
from keyvault_lite.wire.native.models import GRANT_PATTERN, Expiry, Name, PermissionField, RoleField, Time, schema
from keyvault_lite.wire.times import parse_time

Seconds = Annotated[int, Field(ge=0, le=MAX_TTL)]


class GrantBody(Body):
    """Permission to use the keys that `key` covers."""

    key: Annotated[str, schema(pattern=GRANT_PATTERN)] = Field(description="A name, an id, or a glob over names.")
    actions: list[PermissionField] = Field(min_length=1, max_length=len(Permission))


Grants = Annotated[list[GrantBody], Field(max_length=MAX_GRANTS)]


def _grants(bodies: list[GrantBody]) -> tuple[Grant, ...]:
    return tuple(Grant(key=body.key, actions=frozenset(body.actions)) for body in bodies)


class NewServiceBody(Body):
    """The service to make."""

    name: Name
    role: RoleField
    grants: Grants | None = None
    expires_at: Time | None = Field(None, description="When the service ends, whatever its token's lifetime.")
    token_ttl: Seconds | None = Field(None, description="Seconds that its token is valid after each renewal.")
    token_max_ttl: Seconds | None = Field(None, description="Seconds from now beyond which no renewal extends it.")


def _expiry(text: str) -> int:
    moment = parse_time(text)
    if moment <= 0:  # 0 stands for never
        raise InvalidRequest("expires_at lies before the year 1970")
    return moment


def create_service(_: str, body: NewServiceBody) -> CreateService:
    """Build CreateService."""
    expires_at = None if body.expires_at is None else _expiry(body.expires_at)
    return CreateService(
        name=body.name,
        role=body.role,
        grants=_grants(body.grants or []),
        expires_at=expires_at,
        token_ttl=body.token_ttl,
        token_max_ttl=body.token_max_ttl,
    )


class ServiceChange(Body):
    """What to change; what is absent stays."""

    role: RoleField | None = None
    grants: Grants | None = Field(None, description="Replaces all grants.")
    expected_grants: Grants | None = Field(None, description="Refused with 409 unless it has these grants.")
    active: bool | None = None
    expires_at: Expiry | None = Field(None, description="A time, or `never`.")


def update_service(service: str, body: ServiceChange) -> UpdateService:
    """Build UpdateService."""
    expires_at = None
    if body.expires_at is not None:
        expires_at = NEVER if body.expires_at == "never" else _expiry(body.expires_at)
    return UpdateService(
        service=service,
        role=body.role,
        grants=None if body.grants is None else _grants(body.grants),
        expected_grants=None if body.expected_grants is None else _grants(body.expected_grants),
        active=body.active,
        expires_at=expires_at,
    )


class RenewalBody(Body):
    """The lifetime of the new token, and what becomes of the old one."""

    ttl: Seconds | None = Field(
        None,
        description="Seconds that the new token is valid. An ADMIN sets what later renewals give, 0 for no limit; "
        "the service itself can only ask for less.",
    )
    max_ttl: Seconds | None = Field(
        None, description="Seconds from now beyond which no renewal extends the token, 0 for no limit. For ADMIN alone."
    )
    grace: int = Field(
        0,
        ge=0,
        le=MAX_GRACE,
        description="Seconds that the token which asks (else the newest of the service) stays valid. "
        "0: every other token ends at once.",
    )


def renew_token(service: str, body: RenewalBody) -> RenewToken:
    """Build RenewToken."""
    return RenewToken(service=service, ttl=body.ttl, max_ttl=body.max_ttl, grace=body.grace)


class AccessKeyRevocation(Body):
    """Which access key."""

    access_key_id: Annotated[Text, Field(min_length=16, max_length=128)]


def revoke_access_key(service: str, body: AccessKeyRevocation) -> RevokeAccessKey:
    """Build RevokeAccessKey."""
    return RevokeAccessKey(service=service, access_key_id=body.access_key_id)

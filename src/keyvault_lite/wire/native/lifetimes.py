"""The lifetime of a service's token as bodies of the native API give it."""

from typing import Annotated

from pydantic import Field

from keyvault_lite.model.native_tokens import MAX_GRACE, MAX_TTL
from keyvault_lite.model.requests import RenewToken
from keyvault_lite.wire.fields import Body

Seconds = Annotated[int, Field(ge=0, le=MAX_TTL)]


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

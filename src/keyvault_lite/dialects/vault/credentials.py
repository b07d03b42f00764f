"""What an AppRole login presents."""

from typing import Final

from keyvault_lite.model.identity import Credential

APPROLE: Final = "approle"
"""The path at which AppRole is enabled from the beginning."""


class AppRoleCredential(Credential, frozen=True):
    """What an AppRole login presents, not yet verified. It authenticates that one request."""

    role_id: str
    secret_id: str
    mount: str = APPROLE
    """The path of the auth method."""

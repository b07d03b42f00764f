"""The Vault dialect as the engine takes it."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.access.authenticate import Scheme
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.dialects.vault import (
    approle,
    auth_methods,
    cipher,
    import_keys,
    keys,
    mounts,
    policies,
    signing,
    tokens,
)
from keyvault_lite.dialects.vault.authority import AppRoleScheme, authority
from keyvault_lite.dialects.vault.credentials import AppRoleCredential
from keyvault_lite.dialects.vault.requests import (
    RotateDueTransitKey,
    Rules,
    TransitBatch,
    TransitEncrypt,
    UpsertTransitKey,
    mount_and_name,
)
from keyvault_lite.engine.dialect import Dialect
from keyvault_lite.engine.handler import Handler
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.keys import Key, Purpose
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import KeyRequest, Request

HANDLERS: Final[Mapping[type[Request], Handler]] = {
    **approle.HANDLERS,
    **cipher.HANDLERS,
    **import_keys.HANDLERS,
    **keys.HANDLERS,
    **auth_methods.HANDLERS,
    **mounts.HANDLERS,
    **policies.HANDLERS,
    **signing.HANDLERS,
    **tokens.HANDLERS,
}


def key_to_make(request: Request) -> UpsertTransitKey | None:
    """What to make for a request whose key is missing, if that is how the dialect has it: derived for a context."""
    if isinstance(request, TransitBatch):
        return next((key_to_make(item) for item in request.items if isinstance(item, KeyRequest)), None)
    if not isinstance(request, TransitEncrypt):
        return None
    mount, name = mount_and_name(request.key)
    rules = Rules(derived=bool(request.context), convergent=request.convergent)
    return UpsertTransitKey(mount=mount, name=name, kind=request.kind, rules=rules)


def _rotation(key: Key) -> Request | None:
    return RotateDueTransitKey(KeyRef(key.id)) if key.spec.purpose is Purpose.TRANSIT else None


def _schemes(keyring: Keyring) -> Mapping[type[Credential], Scheme]:
    return {AppRoleCredential: AppRoleScheme(keyring)}


VAULT: Final = Dialect(
    name="vault",
    handlers=HANDLERS,
    prerequisite=key_to_make,
    rotation=_rotation,
    schemes=_schemes,
    authority=authority,
)

"""The Vault dialect as the engine's other parts see it: its handlers, and what they cost."""

from collections.abc import Mapping
from typing import Final

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
from keyvault_lite.dialects.vault.requests import (
    ListTransitKeys,
    ReadTransitKey,
    Rules,
    TransitBatch,
    TransitDataKey,
    TransitDecrypt,
    TransitEncrypt,
    TransitHash,
    TransitHmac,
    TransitRandom,
    TransitRewrap,
    TransitSign,
    TransitVerify,
    TransitVerifyHmac,
    UpsertTransitKey,
    mount_and_name,
)
from keyvault_lite.engine.scene import Handler
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
CIPHERS: Final[frozenset[type[Request]]] = frozenset(
    {TransitDataKey, TransitDecrypt, TransitEncrypt, TransitRewrap, TransitSign, TransitVerify}
)
"""Requests whose cost is that of their key's primitive."""
QUICK: Final[frozenset[type[Request]]] = frozenset(
    {ListTransitKeys, ReadTransitKey, TransitHash, TransitHmac, TransitRandom, TransitVerifyHmac}
)
"""Requests that never do costly work."""


def key_to_make(request: Request) -> UpsertTransitKey | None:
    """What to make for a request whose key is missing, if that is how the dialect has it: derived for a context."""
    if isinstance(request, TransitBatch):
        return next((key_to_make(item) for item in request.items if isinstance(item, KeyRequest)), None)
    if not isinstance(request, TransitEncrypt):
        return None
    mount, name = mount_and_name(request.key)
    rules = Rules(derived=bool(request.context), convergent=request.convergent)
    return UpsertTransitKey(mount=mount, name=name, kind=request.kind, rules=rules)

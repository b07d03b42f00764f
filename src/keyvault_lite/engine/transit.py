"""The Vault dialect as the engine's other parts see it: its handlers, and what they cost."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.engine import (
    transit_approle,
    transit_cipher,
    transit_import,
    transit_keys,
    transit_logins,
    transit_mounts,
    transit_policies,
    transit_signing,
    transit_tokens,
)
from keyvault_lite.engine.scene import Handler
from keyvault_lite.model.requests import KeyRequest, Request
from keyvault_lite.model.transit import (
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

HANDLERS: Final[Mapping[type[Request], Handler]] = {
    **transit_approle.HANDLERS,
    **transit_cipher.HANDLERS,
    **transit_import.HANDLERS,
    **transit_keys.HANDLERS,
    **transit_logins.HANDLERS,
    **transit_mounts.HANDLERS,
    **transit_policies.HANDLERS,
    **transit_signing.HANDLERS,
    **transit_tokens.HANDLERS,
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

"""All handlers of the AWS dialect, and what its operations cost."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.dialects.aws import aliases, cipher, grants, import_material, keys, regions, rotation, signing
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.engine.scene import Handler
from keyvault_lite.model.requests import Request

HANDLERS: Final[Mapping[type[Request], Handler]] = {
    **aliases.HANDLERS,
    **cipher.HANDLERS,
    **grants.HANDLERS,
    **import_material.HANDLERS,
    **keys.HANDLERS,
    **regions.HANDLERS,
    **rotation.HANDLERS,
    **signing.HANDLERS,
}
QUICK: Final[frozenset[type[Request]]] = frozenset(
    {words.DescribeKey, words.GenerateRandom, words.GetKeyPolicy, words.GetPublicKey, words.ListResourceTags}
)
"""Requests that never do costly work."""
CIPHERS: Final[frozenset[type[Request]]] = frozenset(
    {
        words.Decrypt,
        words.Encrypt,
        words.GenerateDataKey,
        words.GenerateDataKeyWithoutPlaintext,
        words.GenerateMac,
        words.Sign,
        words.Verify,
        words.VerifyMac,
    }
)
"""Requests whose cost is that of their key's primitive."""
MAKING: Final[frozenset[type[Request]]] = frozenset(
    {
        words.CreateKey,
        words.GenerateDataKeyPair,
        words.GenerateDataKeyPairWithoutPlaintext,
        words.GetParametersForImport,
    }
)
"""Requests that make key material."""


def makes_rsa(request: Request) -> bool:
    """Whether one of MAKING makes an RSA pair, which is what takes long."""
    if isinstance(request, words.CreateKey):
        return request.key_spec.startswith("RSA")
    if isinstance(request, (words.GenerateDataKeyPair, words.GenerateDataKeyPairWithoutPlaintext)):
        return request.key_pair_spec.startswith("RSA")
    return isinstance(request, words.GetParametersForImport)

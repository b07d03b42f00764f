"""All handlers of the AWS dialect, and which of its operations are as quick as their key's primitive."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.engine import (
    aws_aliases,
    aws_cipher,
    aws_grants,
    aws_import,
    aws_keys,
    aws_regions,
    aws_rotation,
    aws_signing,
)
from keyvault_lite.engine.scene import Handler
from keyvault_lite.model import aws_requests as words
from keyvault_lite.model.requests import Request

HANDLERS: Final[Mapping[type[Request], Handler]] = {
    **aws_aliases.HANDLERS,
    **aws_cipher.HANDLERS,
    **aws_grants.HANDLERS,
    **aws_import.HANDLERS,
    **aws_keys.HANDLERS,
    **aws_regions.HANDLERS,
    **aws_rotation.HANDLERS,
    **aws_signing.HANDLERS,
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

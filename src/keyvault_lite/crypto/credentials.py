"""Tokens: `kvl_<id>_<secret>`, what they are made of. Their keyed digests are the keyring's work.

The id (16 base62 characters) is public and finds the row; the secret (43 base62 characters, 256 bits) is shown once and
stored nowhere.
"""

import os
import re
import string
from typing import Final

from keyvault_lite.crypto.container import Rng
from keyvault_lite.model.names import TokenId

_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_UNBIASED: Final = 256 - 256 % len(_BASE62)
_ID: Final = 16
_SECRET: Final = 43
_TOKEN: Final = re.compile(rf"kvl_([0-9A-Za-z]{{{_ID}}})_([0-9A-Za-z]{{{_SECRET}}})", re.ASCII)


def new_token(rng: Rng = os.urandom) -> tuple[TokenId, str]:
    """A fresh token id and secret."""
    text = _base62(_ID + _SECRET, rng)
    return TokenId(text[:_ID]), text[_ID:]


def format_token(token_id: TokenId, secret: str) -> str:
    """The token as the caller carries it."""
    return f"kvl_{token_id}_{secret}"


def parse_token(text: str) -> tuple[TokenId, str] | None:
    """Id and secret of a well-formed token; None for anything else."""
    match = _TOKEN.fullmatch(text)
    return (TokenId(match[1]), match[2]) if match else None


def _base62(count: int, rng: Rng) -> str:
    digits = ""
    while len(digits) < count:
        # Bytes of 248 and above are dropped: their remainders would favour the first eight digits.
        digits += "".join(_BASE62[byte % 62] for byte in rng(count) if byte < _UNBIASED)
    return digits[:count]

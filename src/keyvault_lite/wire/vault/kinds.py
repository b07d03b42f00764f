"""The types of keys as callers name them."""

from typing import Final

from keyvault_lite.dialects.vault.requests import DEFAULT_TYPE, SPECS, hmac_spec
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import HMAC_WORD, KeySpec
from keyvault_lite.wire.vault.values import Fields, number, text

_SETS: Final = frozenset({"44", "65", "87"})
DEFAULT_HMAC: Final = 32
"""Bytes."""


def read_spec(fields: Fields) -> KeySpec:
    """The kind from `type`, with `key_size` for hmac and `parameter_set` for ml-dsa."""
    kind = text(fields, "type") or DEFAULT_TYPE
    size = number(fields, "key_size")
    if kind == HMAC_WORD:
        return hmac_spec(size or DEFAULT_HMAC)
    if size:
        raise InvalidRequest("key_size is for keys of type hmac")
    if kind == "ml-dsa":
        chosen = text(fields, "parameter_set")
        if chosen not in _SETS:
            raise InvalidRequest("parameter_set is 44, 65 or 87")
        kind = f"mldsa-{chosen}"
    spec = SPECS.get(kind)
    if spec is None:
        raise InvalidRequest(f"unknown key type; the types are {', '.join(sorted(SPECS))} and hmac")
    return spec

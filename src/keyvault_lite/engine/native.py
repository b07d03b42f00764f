"""The operations of the native API and of the vault itself, as the first of its dialects."""

from typing import Final

from keyvault_lite.engine import access_keys, audit, cipher, keys, repair, services, signing, tokens
from keyvault_lite.engine.dialect import Dialect
from keyvault_lite.model.keys import Key, Purpose
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Request, RotateDueKey


def _rotation(key: Key) -> Request | None:
    return None if key.spec.purpose is Purpose.TRANSIT else RotateDueKey(KeyRef(key.id))


NATIVE: Final = Dialect(
    name="native",
    handlers={
        **access_keys.HANDLERS,
        **audit.HANDLERS,
        **cipher.HANDLERS,
        **keys.HANDLERS,
        **repair.HANDLERS,
        **services.HANDLERS,
        **signing.HANDLERS,
        **tokens.HANDLERS,
    },
    rotation=_rotation,
)

"""The operations of the native API and of the vault itself, as the first of its dialects."""

from typing import Final

from keyvault_lite.engine import access_keys, audit, cipher, keys, repair, services, signing, tokens
from keyvault_lite.engine.dialect import Dialect

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
)

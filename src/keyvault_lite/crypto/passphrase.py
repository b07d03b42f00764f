"""A slot key from a passphrase, by Argon2id (RFC 9106).

It is the weakest root: an attacker with the database can guess offline, at the price of one derivation a guess. The
costs are parameters of the slot and unverified when they are read: they are capped before anything is computed, and
below the floor nothing is derived, so that a writer of the database cannot have a cheap hash of it computed.
"""

import unicodedata
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.root import SIZE, RootError, SlotKey
from keyvault_lite.crypto.slot_parameters import SlotParameters, SlotPlace, parameters

KIND: Final = "passphrase"
SHORTEST: Final = 14
"""Characters of a passphrase that somebody chose."""
LONGEST: Final = 1024
_SALT: Final = 16
_MEMORY: Final = (64 * 1024, 256 * 1024, 1024 * 1024)
"""KiB: floor, default, cap."""
_PASSES: Final = (3, 3, 10)
_LANES: Final = (1, 4, 16)


class UnfitPassphrase(RootError):
    """A passphrase that nothing is sealed under."""


def normal_form(text: str) -> str:
    """NFC: the same letters typed on another keyboard are the same passphrase. Raises UnfitPassphrase."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnfitPassphrase("The passphrase is not Unicode.") from None
    if len(text) > LONGEST:
        raise UnfitPassphrase(f"A passphrase has at most {LONGEST} characters.")
    return unicodedata.normalize("NFC", text)


def new_parameters(rng: Rng) -> SlotParameters:
    """Parameters with the default costs and a fresh salt."""
    return parameters(KIND, m=_MEMORY[1], t=_PASSES[1], p=_LANES[1], salt=rng(_SALT))


def check_new(text: str) -> str:
    """A passphrase that a slot may be sealed under. Raises UnfitPassphrase."""
    chosen = normal_form(text)
    if len(chosen) < SHORTEST or len(set(chosen)) < SHORTEST // 2:
        raise UnfitPassphrase(
            f"A passphrase has at least {SHORTEST} characters, not of one kind; `kvl root passphrase` makes one."
        )
    return chosen


def derive(text: str, found: SlotParameters, place: SlotPlace) -> SlotKey:
    """The slot key; takes about a second and 256 MiB. Raises UnusableSlot for costs beyond the caps."""
    memory = found.integer("m", _MEMORY[0], _MEMORY[2])
    passes = found.integer("t", _PASSES[0], _PASSES[2])
    lanes = found.integer("p", _LANES[0], _LANES[2])
    salt = found.raw("salt", _SALT, _SALT)
    kdf = Argon2id(salt=salt, length=SIZE, iterations=passes, lanes=lanes, memory_cost=memory, ad=place.label(KIND))
    return SlotKey(kdf.derive(normal_form(text).encode()))

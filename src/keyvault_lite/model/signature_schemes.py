"""How a signature is made: digest, padding, salt and encoding, apart from the type of the key."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keyvault_lite.model.errors import InvalidRequest

NO_HASH: Final = "none"

DIGESTS: Final = frozenset({"sha1", *(f"sha{kind}-{bits}" for kind in (2, 3) for bits in (224, 256, 384, 512))})

DEFAULT_DIGEST: Final = "sha2-256"

SALT_AUTO: Final = 0
"""As long as fits when signing, any when verifying; the products read the number 0 so too."""

SALT_HASH: Final = -1
"""As long as the digest."""


class Marshaling(StrEnum):
    """How a signature is written."""

    ASN1 = "asn1"
    JWS = "jws"


class Padding(StrEnum):
    """How an RSA signature is padded."""

    PSS = "pss"
    PKCS1V15 = "pkcs1v15"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How to sign: everything that does not depend on the key's type, checked."""

    digest: str = DEFAULT_DIGEST
    prehashed: bool = False
    padding: Padding = Padding.PSS
    salt: int = SALT_AUTO
    marshaling: Marshaling = Marshaling.ASN1

    def __post_init__(self) -> None:
        if self.digest == NO_HASH:
            if not self.prehashed or self.padding is not Padding.PKCS1V15:
                raise InvalidRequest(
                    "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15"
                )
        elif self.digest not in DIGESTS:
            raise InvalidRequest("invalid hash algorithm")

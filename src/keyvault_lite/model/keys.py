"""Keys, their versions and the rules of their states: facts and tables, no behaviour that does anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.names import KeyId
from keyvault_lite.model.opaque import Opaque


class KeyType(StrEnum):
    """The family of a key's algorithm."""

    AES = "AES"
    RSA = "RSA"
    EC = "EC"
    ED25519 = "ED25519"
    HMAC = "HMAC"
    ML_DSA = "ML-DSA"
    ML_KEM = "ML-KEM"
    SECP256K1 = "SECP256K1"
    CHACHA20 = "CHACHA20-POLY1305"
    XCHACHA20 = "XCHACHA20-POLY1305"


class Purpose(StrEnum):
    """What a key is for. One purpose a key (NIST SP 800-57 part 1, section 5.2)."""

    ENCRYPT = "ENCRYPT"
    SIGN = "SIGN"
    MAC = "MAC"
    AGREE = "AGREE"
    """Derive a secret with another's public key."""
    ENCAPSULATE = "ENCAPSULATE"
    """Wrap a fresh secret to the public key, and unwrap it."""
    TRANSIT = "TRANSIT"
    """Encrypts, signs, derives and exports as the rules in its attributes say (ADR 0005): the one exception."""


class KeyStatus(StrEnum):
    """The state of a logical key."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"
    PENDING_DESTRUCTION = "PENDING_DESTRUCTION"
    REVOKED = "REVOKED"
    DESTROYED = "DESTROYED"


class VersionStatus(StrEnum):
    """The state of one version of a key."""

    ACTIVE = "ACTIVE"
    DEPRECATED = "DEPRECATED"
    REVOKED = "REVOKED"
    DESTROYED = "DESTROYED"


class Algorithm(StrEnum):
    """Every algorithm the native API names."""

    AES_256_GCM = "AES_256_GCM"
    RSA_OAEP_SHA256 = "RSA_OAEP_SHA256"
    RSA_PSS_SHA256 = "RSA_PSS_SHA256"
    RSA_PSS_SHA384 = "RSA_PSS_SHA384"
    RSA_PSS_SHA512 = "RSA_PSS_SHA512"
    RSA_PKCS1_SHA256 = "RSA_PKCS1_SHA256"
    RSA_PKCS1_SHA384 = "RSA_PKCS1_SHA384"
    RSA_PKCS1_SHA512 = "RSA_PKCS1_SHA512"
    ECDSA_SHA256 = "ECDSA_SHA256"
    ECDSA_SHA384 = "ECDSA_SHA384"
    ECDSA_SHA512 = "ECDSA_SHA512"
    ED25519 = "ED25519"
    ML_DSA_44 = "ML_DSA_44"
    ML_DSA_65 = "ML_DSA_65"
    ML_DSA_87 = "ML_DSA_87"
    HMAC_SHA256 = "HMAC_SHA256"
    HMAC_SHA384 = "HMAC_SHA384"
    HMAC_SHA512 = "HMAC_SHA512"


class DialectAlgorithm(StrEnum):
    """Algorithms that only dialects name; the native API offers none of them."""

    ECDH = "ECDH"
    ECDSA_SECP256K1_SHA256 = "ECDSA_SECP256K1_SHA256"
    ED25519PH = "ED25519PH"
    """The given bytes are hashed with SHA-512 once more (FIPS 186-5, section 7.8.1)."""
    HMAC_SHA224 = "HMAC_SHA224"
    ML_DSA_MU = "ML_DSA_MU"
    """The given bytes are the message representative mu (FIPS 204, section 6.2)."""
    ML_KEM = "ML_KEM"
    RSA_OAEP_SHA1 = "RSA_OAEP_SHA1"


AnyAlgorithm = Algorithm | DialectAlgorithm


class PublicKeyFormat(StrEnum):
    """How a public key is written out."""

    PEM = "pem"
    DER = "der"
    JWK = "jwk"
    RAW = "raw"


SIZES: Final[Mapping[KeyType, tuple[int | None, ...]]] = {
    # The first is the default.
    KeyType.AES: (256, 128),
    KeyType.RSA: (3072, 4096),
    KeyType.EC: (256, 384, 521),
    KeyType.ED25519: (None,),
    KeyType.HMAC: (256, 384, 512),
    KeyType.ML_DSA: (65, 44, 87),
}
PURPOSES: Final[Mapping[KeyType, tuple[Purpose, ...]]] = {
    KeyType.AES: (Purpose.ENCRYPT,),
    KeyType.RSA: (Purpose.ENCRYPT, Purpose.SIGN),
    KeyType.EC: (Purpose.SIGN,),
    KeyType.ED25519: (Purpose.SIGN,),
    KeyType.HMAC: (Purpose.MAC,),
    KeyType.ML_DSA: (Purpose.SIGN,),
}
_RSA_SIGNATURES: Final = tuple(
    Algorithm(f"RSA_{scheme}_SHA{bits}") for scheme in ("PSS", "PKCS1") for bits in (256, 384, 512)
)
# (type, size, purpose) -> what the key can do; the first algorithm is the default.
ALGORITHMS: Final[Mapping[tuple[KeyType, int | None, Purpose], tuple[Algorithm, ...]]] = {
    (KeyType.AES, 128, Purpose.ENCRYPT): (Algorithm.AES_256_GCM,),
    (KeyType.AES, 256, Purpose.ENCRYPT): (Algorithm.AES_256_GCM,),
    **{(KeyType.RSA, size, Purpose.ENCRYPT): (Algorithm.RSA_OAEP_SHA256,) for size in (3072, 4096)},
    **{(KeyType.RSA, size, Purpose.SIGN): _RSA_SIGNATURES for size in (3072, 4096)},
    (KeyType.EC, 256, Purpose.SIGN): (Algorithm.ECDSA_SHA256,),
    (KeyType.EC, 384, Purpose.SIGN): (Algorithm.ECDSA_SHA384,),
    (KeyType.EC, 521, Purpose.SIGN): (Algorithm.ECDSA_SHA512,),
    (KeyType.ED25519, None, Purpose.SIGN): (Algorithm.ED25519,),
    **{(KeyType.ML_DSA, size, Purpose.SIGN): (Algorithm(f"ML_DSA_{size}"),) for size in (44, 65, 87)},
    **{(KeyType.HMAC, size, Purpose.MAC): (Algorithm(f"HMAC_SHA{size}"),) for size in (256, 384, 512)},
}
_TRANSIT_SPECS: Final[Mapping[str, tuple[KeyType, int | None]]] = {
    "aes256-gcm96": (KeyType.AES, 256),
    "aes128-gcm96": (KeyType.AES, 128),
    "chacha20-poly1305": (KeyType.CHACHA20, 256),
    "xchacha20-poly1305": (KeyType.XCHACHA20, 256),
    "ed25519": (KeyType.ED25519, None),
    "ecdsa-p256": (KeyType.EC, 256),
    "ecdsa-p384": (KeyType.EC, 384),
    "ecdsa-p521": (KeyType.EC, 521),
    "rsa-2048": (KeyType.RSA, 2048),
    "rsa-3072": (KeyType.RSA, 3072),
    "rsa-4096": (KeyType.RSA, 4096),
    "mldsa-44": (KeyType.ML_DSA, 44),
    "mldsa-65": (KeyType.ML_DSA, 65),
    "mldsa-87": (KeyType.ML_DSA, 87),
}
HMAC_WORD: Final = "hmac"
MIN_TRANSIT_HMAC: Final = 32
MAX_TRANSIT_HMAC: Final = 512
"""Bytes."""
WORDS: Final[Mapping[tuple[KeyType, int | None, Purpose], str]] = {
    # What only a dialect makes, and how its product calls it. The native API lists these keys and makes none.
    **{(*kind, Purpose.TRANSIT): word for word, kind in _TRANSIT_SPECS.items()},
    **{(KeyType.HMAC, 8 * size, Purpose.TRANSIT): HMAC_WORD for size in range(MIN_TRANSIT_HMAC, MAX_TRANSIT_HMAC + 1)},
    **{(KeyType.RSA, 2048, purpose): "RSA_2048" for purpose in (Purpose.ENCRYPT, Purpose.SIGN)},
    (KeyType.SECP256K1, None, Purpose.SIGN): "ECC_SECG_P256K1",
    **{(KeyType.EC, size, Purpose.AGREE): f"ECC_NIST_P{size}" for size in (256, 384, 521)},
    (KeyType.HMAC, 224, Purpose.MAC): "HMAC_224",
    **{(KeyType.ML_KEM, size, Purpose.ENCAPSULATE): f"ML_KEM_{size}" for size in (512, 768, 1024)},
}
DIGEST_SIZES: Final[Mapping[AnyAlgorithm, int]] = {
    # Length in bytes of a prehashed message; an algorithm that is absent takes none.
    algorithm: int(algorithm[-3:]) // 8
    for algorithm in (*Algorithm, DialectAlgorithm.ECDSA_SECP256K1_SHA256)
    if algorithm.startswith(("RSA_P", "ECDSA_"))
}

MAY_PROTECT: Final = frozenset({VersionStatus.ACTIVE})
"""Version states in which material encrypts and signs."""
MAY_PROCESS: Final = frozenset({VersionStatus.ACTIVE, VersionStatus.DEPRECATED})
"""Version states in which material decrypts and verifies."""
MAY_PUBLISH: Final = frozenset({VersionStatus.ACTIVE, VersionStatus.DEPRECATED, VersionStatus.REVOKED})
"""Version states in which the public key stays readable."""
MAY_DESTROY: Final = frozenset({KeyStatus.ACTIVE, KeyStatus.DISABLED, KeyStatus.REVOKED})
"""Key states from which destruction may be scheduled."""

MIN_DESTROY_DAYS: Final = 7
MAX_DESTROY_DAYS: Final = 30
MAX_ROTATION_DAYS: Final = 3650
MAX_DESCRIPTION: Final = 8192
MAX_TAGS: Final = 50
MAX_PLAINTEXT: Final = 64 * 1024


SYMMETRIC: Final = frozenset({KeyType.AES, KeyType.HMAC, KeyType.CHACHA20, KeyType.XCHACHA20})
"""Types without a public key."""


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What kind of key to make: a combination that ALGORITHMS knows, or WORDS for a dialect's own."""

    type: KeyType
    size: int | None
    purpose: Purpose

    def __post_init__(self) -> None:
        kind = (self.type, self.size, self.purpose)
        if kind not in ALGORITHMS and kind not in WORDS:
            raise InvalidRequest(_explain(*kind))

    def check_native(self) -> None:
        """Raise InvalidRequest for a kind that only a dialect makes."""
        if (self.type, self.size, self.purpose) not in ALGORITHMS:
            raise InvalidRequest(_explain(self.type, self.size, self.purpose))

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """What a key of this kind can do in the native API, default first; nothing, for a dialect's own."""
        return ALGORITHMS.get((self.type, self.size, self.purpose), ())

    @property
    def word(self) -> str | None:
        """What the dialect calls its own kind; None for a native one."""
        return WORDS.get((self.type, self.size, self.purpose))

    @property
    def asymmetric(self) -> bool:
        """Whether there is a public key."""
        return self.type not in SYMMETRIC


def _explain(key_type: KeyType, size: int | None, purpose: Purpose) -> str:
    if key_type not in PURPOSES:
        return f"keys of type {key_type} are made by a dialect only"
    if purpose not in PURPOSES[key_type]:
        fits = " or ".join(PURPOSES[key_type])
        return f"a key of type {key_type} has purpose {fits}, not {purpose}"
    sizes = ", ".join(
        "none" if known is None else str(known) for known in sorted(SIZES[key_type], key=lambda s: s or 0)
    )
    return f"a key of type {key_type} has size {sizes}" + ("" if size is None else ", not the one given")


Attributes = Mapping[str, Any]
"""What a dialect keeps with a record: JSON values under names that begin with the dialect's."""


@dataclass(frozen=True, slots=True)
class KeyName:
    """A name in a dialect's namespace: an alias of the key in all dialects and grants, written `namespace` + `name`."""

    namespace: str
    """With its separator: `vault:transit/`, `aws:eu-central-1/`, `gcp:`."""
    name: str
    created_at: int
    updated_at: int

    @property
    def text(self) -> str:
        """As grants and `kvl` write it."""
        return self.namespace + self.name


class KeyVersion(Opaque, frozen=True, gc=False):
    """One version of a key: its state and its wrapped material.

    A struct, like its key: there may be a million of each to make at a start, and a dataclass takes ten times as long.
    """

    key_id: KeyId
    version: int
    status: VersionStatus
    created_at: int
    """Microseconds since 1970-01-01 UTC."""
    encrypted_key: bytes
    """The KEK container of the material; empty once DESTROYED."""
    public_key: bytes | None = None
    """SubjectPublicKeyInfo, DER; None for symmetric material."""
    generation: int = 1
    """The generation of the keyring's wrapping key under which `encrypted_key` stands."""
    attributes: Attributes = msgspec.field(default_factory=dict)
    """What a dialect keeps of this version."""


class Key(Opaque, frozen=True, gc=False):
    """A logical key and all its versions, oldest first: version n is at index n - 1."""

    id: KeyId
    name: str | None
    spec: KeySpec
    status: KeyStatus
    created_at: int
    description: str = ""
    tags: Mapping[str, str] = msgspec.field(default_factory=dict)
    rotation_days: int | None = None
    rotate_at: int | None = None
    destroy_at: int | None = None
    was_revoked: bool = False
    """Whether a restore returns to REVOKED instead of DISABLED."""
    versions: tuple[KeyVersion, ...] = ()
    names: tuple[KeyName, ...] = ()
    """Names that dialects know the key by; none of them occupies the native name."""
    attributes: Attributes = msgspec.field(default_factory=dict)
    """What a dialect keeps of this key."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """The dialects' names as text."""
        return tuple(name.text for name in self.names)

    @property
    def revoked(self) -> bool:
        """Whether the whole key is revoked, waiting for its destruction or not."""
        return self.status is KeyStatus.REVOKED or self.was_revoked

    @property
    def active(self) -> KeyVersion | None:
        """The one ACTIVE version: always the newest, or none once the whole key is revoked or destroyed."""
        newest = self.versions[-1]
        return newest if newest.status is VersionStatus.ACTIVE else None

    def version(self, number: int) -> KeyVersion | None:
        """The version of that number, if there is one."""
        return self.versions[number - 1] if 1 <= number <= len(self.versions) else None

"""The words of the AWS dialect: Regions and ARNs, kinds of key, algorithms, and how callers name keys.

Facts and tables only. Names of specs, usages and algorithms are the service's own (API version 2014-11-01).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from keyvault_lite.dialects.aws.errors import InvalidArn, KeyNotFound, UnsupportedOperation, Validation
from keyvault_lite.model.keys import (
    Algorithm,
    AnyAlgorithm,
    DialectAlgorithm,
    Key,
    KeySpec,
    KeyType,
    KeyVersion,
    Purpose,
)
from keyvault_lite.model.names import KeyId, is_id

ATTRIBUTE: Final = "aws"
"""Under which the dialect's own facts are in the attributes of keys and versions."""
ALIAS: Final = "alias/"
RESERVED_ALIAS: Final = "alias/aws/"
MULTI_REGION: Final = "mrk-"
DEFAULT_ACCOUNT: Final = "000000000000"
_MULTI_REGION_ID: Final = re.compile(r"mrk-[0-9a-f]{32}", re.ASCII)
_PARTITIONS: Final[Mapping[str, str]] = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
"""Of Regions that begin so; all others are in `aws`."""
_ANY_PLACE: Final = "*"
_FIELDS_BEHIND_THE_PARTITION: Final = 3
"""Colons behind the partition of an ARN, at least."""
_ARN: Final = re.compile(r"arn:(aws[a-z0-9-]*):([a-z0-9-]+):([a-z0-9-]*):([0-9]*):(.+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class AccountRegion:
    """Where a request is at home: the account of this installation and the Region it was signed for."""

    account: str
    region: str

    @property
    def partition(self) -> str:
        """Of the ARNs here."""
        return next((name for start, name in _PARTITIONS.items() if self.region.startswith(start)), "aws")

    @property
    def namespace(self) -> str:
        """Of the aliases of this Region, with its separator."""
        return f"aws:{self.region}/"

    def arn(self, resource: str) -> str:
        """The ARN of a key or alias here."""
        return f"arn:{self.partition}:kms:{self.region}:{self.account}:{resource}"

    def key_arn(self, key: Key) -> str:
        """The ARN of a key here."""
        return self.arn(f"key/{aws_id(key)}")

    def principal_arn(self, service: str) -> str:
        """The ARN of one of the vault's services."""
        return f"arn:{self.partition}:iam::{self.account}:user/{service}"

    @property
    def root_arn(self) -> str:
        """The ARN of the account itself: in a policy it means that the vault's own authorisation decides."""
        return f"arn:{self.partition}:iam::{self.account}:root"


def comparable(principal: str) -> str:
    """The ARN of a principal, or a pattern over such ARNs, with its partition left out of any comparison.

    A service is the same caller in every partition: which one is in its ARN depends on the Region that a request
    was signed for, so the caller would choose it.
    """
    prefix, colon, rest = principal.partition(":")
    partition, _, behind = rest.partition(":")
    if prefix.lower() != "arn" or not colon or partition == rest:
        return principal
    # A wildcard may stand for more than the partition, unless all fields of an ARN follow it.
    literal = "*" not in partition and "?" not in partition
    return f"{prefix}:aws:{behind}" if literal or behind.count(":") >= _FIELDS_BEHIND_THE_PARTITION else principal


def judged_arn(key: Key, place: AccountRegion) -> str:
    """The ARN under which policies match a key; `*` where it has every partition and every Region.

    A key that another dialect or the native API made is in all Regions with one policy, so that no Region may lift it.
    """
    if "region" in facts(key):
        return place.key_arn(key)
    return f"arn:{_ANY_PLACE}:kms:{_ANY_PLACE}:{place.account}:key/{aws_id(key)}"


def alias_names(key: Key, place: AccountRegion) -> tuple[str, ...]:
    """The aliases of a key as policies match them: those of this Region, or of all for a key that is in all."""
    here = place.namespace if "region" in facts(key) else "aws:"
    return tuple(dict.fromkeys(one.name for one in key.names if one.namespace.startswith(here)))


def facts(key: Key) -> Mapping[str, Any]:
    """What the dialect keeps of a key; empty for a key that another dialect or the native API made."""
    found: Mapping[str, Any] = key.attributes.get(ATTRIBUTE, {})
    return found


def material(version: KeyVersion) -> Mapping[str, Any]:
    """What the dialect keeps of a version."""
    found: Mapping[str, Any] = version.attributes.get(ATTRIBUTE, {})
    return found


def aws_id(key: Key) -> str:
    """The id of a key as this dialect writes it."""
    return MULTI_REGION + key.id.replace("-", "") if facts(key).get("multi_region") else key.id


def is_here(key: Key, place: AccountRegion) -> bool:
    """Whether a key is one of this Region: made or replicated here, or made by other means than this dialect."""
    region = facts(key).get("region")
    return key.spec.purpose in USAGE_OF and (
        region is None or region == place.region or place.region in facts(key).get("replicas", {})
    )


@dataclass(frozen=True, slots=True)
class KeyReference:
    """What a caller's KeyId names: a key's id, or an alias in the vault's own spelling."""

    ref: str
    """A UUID, or `aws:` Region `/alias/` name: what the state finds and grants match."""
    multi_region: bool = False
    alias: bool = False


@lru_cache(maxsize=4096)
def parse_name(text: str, place: AccountRegion) -> KeyReference:
    """Read a key id, key ARN, alias name or alias ARN. Raises KeyNotFound or InvalidArn for anything else."""
    found = _ARN.fullmatch(text)
    if found is not None:
        partition, service, region, account, text = found.groups()
        if service != "kms" or partition != place.partition:
            raise InvalidArn("the ARN is of another service or partition: it begins with arn:PARTITION:kms")
        if region != place.region or account != place.account:
            raise KeyNotFound("the ARN is one of another Region or account")
        if not text.startswith(ALIAS):
            kind, _, text = text.partition("/")
            if kind != "key":
                raise InvalidArn(
                    "the ARN is malformed: it is arn:aws:kms:REGION:ACCOUNT:key/ID or …:alias/NAME of a key or alias"
                )
    elif text.startswith("arn:"):
        raise InvalidArn("the ARN is malformed: it is arn:aws:kms:REGION:ACCOUNT:key/ID or …:alias/NAME")
    if text.startswith(ALIAS):
        return KeyReference(place.namespace + text, alias=True)
    if _MULTI_REGION_ID.fullmatch(text):
        digits = text.removeprefix(MULTI_REGION)
        return KeyReference(
            "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])), multi_region=True
        )
    if not is_id(text):
        raise KeyNotFound("the key id is malformed: it is a UUID, or mrk- and 32 hexadecimal digits")
    return KeyReference(KeyId(text))


# Kinds of key

SPECS: Final[Mapping[str, tuple[KeyType, int | None]]] = {
    "SYMMETRIC_DEFAULT": (KeyType.AES, 256),
    "RSA_2048": (KeyType.RSA, 2048),
    "RSA_3072": (KeyType.RSA, 3072),
    "RSA_4096": (KeyType.RSA, 4096),
    "ECC_NIST_P256": (KeyType.EC, 256),
    "ECC_NIST_P384": (KeyType.EC, 384),
    "ECC_NIST_P521": (KeyType.EC, 521),
    "ECC_SECG_P256K1": (KeyType.SECP256K1, None),
    "ECC_NIST_EDWARDS25519": (KeyType.ED25519, None),
    "ML_DSA_44": (KeyType.ML_DSA, 44),
    "ML_DSA_65": (KeyType.ML_DSA, 65),
    "ML_DSA_87": (KeyType.ML_DSA, 87),
    "ML_KEM_512": (KeyType.ML_KEM, 512),
    "ML_KEM_768": (KeyType.ML_KEM, 768),
    "ML_KEM_1024": (KeyType.ML_KEM, 1024),
    "HMAC_224": (KeyType.HMAC, 224),
    "HMAC_256": (KeyType.HMAC, 256),
    "HMAC_384": (KeyType.HMAC, 384),
    "HMAC_512": (KeyType.HMAC, 512),
}
_WORDS: Final[Mapping[tuple[KeyType, int | None], str]] = {
    **{kind: word for word, kind in SPECS.items()},
    (KeyType.AES, 128): "SYMMETRIC_DEFAULT",  # made by the native API; used here like the other
}
USAGES: Final[Mapping[str, Purpose]] = {
    "ENCRYPT_DECRYPT": Purpose.ENCRYPT,
    "SIGN_VERIFY": Purpose.SIGN,
    "GENERATE_VERIFY_MAC": Purpose.MAC,
    "KEY_AGREEMENT": Purpose.AGREE,
    "ENCAPSULATE_DECAPSULATE": Purpose.ENCAPSULATE,
}
USAGE_OF: Final[Mapping[Purpose, str]] = {purpose: usage for usage, purpose in USAGES.items()}
PURPOSES: Final[Mapping[KeyType, tuple[Purpose, ...]]] = {
    KeyType.AES: (Purpose.ENCRYPT,),
    KeyType.RSA: (Purpose.ENCRYPT, Purpose.SIGN),
    KeyType.EC: (Purpose.SIGN, Purpose.AGREE),
    KeyType.SECP256K1: (Purpose.SIGN,),
    KeyType.ED25519: (Purpose.SIGN,),
    KeyType.ML_DSA: (Purpose.SIGN,),
    KeyType.ML_KEM: (Purpose.ENCAPSULATE,),
    KeyType.HMAC: (Purpose.MAC,),
}


def key_spec(spec: str, usage: str | None) -> KeySpec:
    """The kind of key that CreateKey asks for. Raises Validation or UnsupportedOperation."""
    kind = SPECS.get(spec)
    if kind is None:
        raise UnsupportedOperation(f"keys of spec {spec} are not offered in this Region")
    if usage is None:
        if spec != "SYMMETRIC_DEFAULT":
            raise Validation("You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
        usage = "ENCRYPT_DECRYPT"
    if USAGES[usage] not in PURPOSES[kind[0]]:
        raise Validation(f"KeyUsage {usage} is not compatible with KeySpec {spec}")
    return KeySpec(*kind, USAGES[usage])


def spec_word(spec: KeySpec) -> str:
    """What the service calls that kind of key."""
    return _WORDS[spec.type, spec.size]


# Algorithms, each list in the order in which the service gives it

ENCRYPTION: Final[Mapping[str, str]] = {"RSAES_OAEP_SHA_1": "SHA1", "RSAES_OAEP_SHA_256": "SHA256"}
"""The asymmetric ones, with their hash."""
SYMMETRIC: Final = "SYMMETRIC_DEFAULT"
MACS: Final[Mapping[int, tuple[str, AnyAlgorithm]]] = {
    224: ("HMAC_SHA_224", DialectAlgorithm.HMAC_SHA224),
    256: ("HMAC_SHA_256", Algorithm.HMAC_SHA256),
    384: ("HMAC_SHA_384", Algorithm.HMAC_SHA384),
    512: ("HMAC_SHA_512", Algorithm.HMAC_SHA512),
}
_RSA: Final = {
    f"{word}_SHA_{bits}": Algorithm(f"{name}_SHA{bits}")
    for word, name in (("RSASSA_PKCS1_V1_5", "RSA_PKCS1"), ("RSASSA_PSS", "RSA_PSS"))
    for bits in (256, 384, 512)
}
_ED25519: Final[Mapping[str, AnyAlgorithm]] = {
    "ED25519_SHA_512": Algorithm.ED25519,
    "ED25519_PH_SHA_512": DialectAlgorithm.ED25519PH,
}
SIGNING: Final[Mapping[tuple[KeyType, int | None], Mapping[str, AnyAlgorithm]]] = {
    **{(KeyType.RSA, size): _RSA for size in (2048, 3072, 4096)},
    (KeyType.EC, 256): {"ECDSA_SHA_256": Algorithm.ECDSA_SHA256},
    (KeyType.EC, 384): {"ECDSA_SHA_384": Algorithm.ECDSA_SHA384},
    (KeyType.EC, 521): {"ECDSA_SHA_512": Algorithm.ECDSA_SHA512},
    (KeyType.SECP256K1, None): {"ECDSA_SHA_256": DialectAlgorithm.ECDSA_SECP256K1_SHA256},
    (KeyType.ED25519, None): _ED25519,
    **{(KeyType.ML_DSA, size): {"ML_DSA_SHAKE_256": Algorithm(f"ML_DSA_{size}")} for size in (44, 65, 87)},
}
RAW: Final = "RAW"
DIGEST: Final = "DIGEST"
EXTERNAL_MU: Final = "EXTERNAL_MU"
MU_BYTES: Final = 64
ED25519PH_DIGEST: Final = 64


def encryption_algorithms(spec: KeySpec) -> tuple[str, ...]:
    """What a key of that kind encrypts with."""
    if spec.purpose is not Purpose.ENCRYPT:
        return ()
    return tuple(ENCRYPTION) if spec.type is KeyType.RSA else (SYMMETRIC,)


def signing_algorithms(spec: KeySpec) -> Mapping[str, AnyAlgorithm]:
    """What a key of that kind signs with, and what that is in the vault's own words."""
    return SIGNING[spec.type, spec.size] if spec.purpose is Purpose.SIGN else {}


def signing_word(spec: KeySpec, algorithm: Algorithm | None) -> str | None:
    """What the service calls an algorithm of signatures or MACs, by default the one that the native API takes."""
    offered = {**signing_algorithms(spec), **mac_algorithms(spec)}
    wanted = algorithm or next(iter(spec.algorithms), None)
    return next((word for word, known in offered.items() if known is wanted), None)


def mac_algorithms(spec: KeySpec) -> Mapping[str, AnyAlgorithm]:
    """As `signing_algorithms`, for MACs."""
    return dict((MACS[spec.size or 0],)) if spec.purpose is Purpose.MAC else {}

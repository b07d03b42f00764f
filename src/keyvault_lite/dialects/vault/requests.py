"""The words of the Vault dialect: its operations on keys, and what they answer.

A key of this dialect has the purpose TRANSIT and follows that product's rules (ADR 0005). Its name is
`vault:<mount>/<name>` for grants, `kvl` and every other dialect; what the dialect keeps of it is in
`Key.attributes` as Rules.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from keyvault_lite.model.encoding import Context, encode_base64
from keyvault_lite.model.errors import InvalidRequest, NotFound, TooLarge
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.keys import HMAC_WORD, WORDS, Key, KeySpec, KeyType, KeyVersion, Purpose
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.operation import Authority, Cost
from keyvault_lite.model.requests import Batch, KeyRequest, Request
from keyvault_lite.model.signature_schemes import (
    DEFAULT_DIGEST,
    DIGESTS,
    Scheme,
)

DIALECT: Final = "vault:"
"""What the names of this dialect's keys begin with."""
ATTRIBUTE: Final = "vault"
"""Under which Rules are in a key's attributes."""
DEFAULT_TYPE: Final = "aes256-gcm96"
MAX_TRANSIT_BATCH: Final = 10_000
MAX_TRANSIT_RANDOM: Final = 128 * 1024
MIN_ROTATION_SECONDS: Final = 3600
MAX_ROTATION_SECONDS: Final = 3650 * 24 * 3600
MAX_CHAIN: Final = 64 * 1024
MAX_PUBLIC_KEY: Final = 16 * 1024
CERTIFICATES: Final = "vault.certificates"
"""Under which a version's certificate chain is in its attributes."""
IMPORT_DIGESTS: Final = ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512")
SPECS: Final[Mapping[str, KeySpec]] = {
    **{word: KeySpec(*kind) for kind, word in WORDS.items() if kind[2] is Purpose.TRANSIT and word != HMAC_WORD},
    **{f"ml-dsa-{size}": KeySpec(KeyType.ML_DSA, size, Purpose.TRANSIT) for size in (44, 65, 87)},
}
"""The types a caller may name; type `hmac` has a size, see `hmac_spec`. ML-DSA under both products' spellings."""
ENCRYPTING: Final = frozenset({KeyType.AES, KeyType.CHACHA20, KeyType.XCHACHA20, KeyType.RSA})
SIGNING: Final = frozenset({KeyType.RSA, KeyType.EC, KeyType.ED25519, KeyType.ML_DSA})
AEAD: Final = frozenset({KeyType.AES, KeyType.CHACHA20, KeyType.XCHACHA20})
DERIVING: Final = AEAD | {KeyType.ED25519}


def hmac_spec(size: int) -> KeySpec:
    """The kind of an `hmac` key of so many bytes."""
    if (KeyType.HMAC, 8 * size, Purpose.TRANSIT) not in WORDS:
        raise InvalidRequest("invalid key size for HMAC key, must be between 32 and 512 bytes")
    return KeySpec(KeyType.HMAC, 8 * size, Purpose.TRANSIT)


def namespace(mount: str) -> str:
    """Of the names in a mount."""
    return f"{DIALECT}{mount}/"


def key_ref(mount: str, name: str) -> KeyRef:
    """How a key is called by its mount and name."""
    return KeyRef(f"vault:{mount}/{name}")


def mount_and_name(ref: KeyRef) -> tuple[str, str]:
    """What `key_ref` put together."""
    mount, _, name = ref.removeprefix("vault:").rpartition("/")
    return mount, name


class NoMount(NotFound):
    """There is no key space at that path."""


class DeletionKind(StrEnum):
    """How a key whose destruction is scheduled came to it, and so how it shows."""

    NO = ""
    SOFT = "soft"
    """It is there, and refuses all use."""
    HARD = "hard"
    """It answers as absent; until the end of its waiting period it can be restored."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the dialect keeps of a key."""

    derived: bool = False
    convergent: bool = False
    exportable: bool = False
    """Kept and shown for clients that read it back; nothing secret is ever exported."""
    plaintext_backup: bool = False
    """As `exportable`."""
    deletion_allowed: bool = False
    min_decryption: int = 1
    min_encryption: int = 0
    min_available: int = 0
    rotate_seconds: int = 0
    imported: bool = False
    imported_rotation: bool = False
    deleted: DeletionKind = DeletionKind.NO

    @classmethod
    def of(cls, key: Key) -> Self:
        """The rules of a key."""
        kept = key.attributes[ATTRIBUTE]
        known = _READ.get(id(kept))
        if known is not None and known[0] is kept:
            return known[1]  # type: ignore[return-value]
        rules = cls(**{**kept, "deleted": DeletionKind(kept["deleted"])})
        if len(_READ) >= MAX_READ:
            _READ.clear()
        # The map itself is kept beside what was read from it, so that no other can get its id meanwhile.
        _READ[id(kept)] = (kept, rules)
        return rules

    def attributes(self) -> Mapping[str, Any]:
        """As they are in the key."""
        return {ATTRIBUTE: asdict(self)}


MAX_READ: Final = 4096
_READ: Final[dict[int, tuple[Mapping[str, Any], Rules]]] = {}
"""What was read last: attributes are immutable, so the same map is the same rules."""


# Keys


class MountRequest(Request, frozen=True):
    """Base of the requests about a mount and not one key of it."""

    mount: str


class CreateTransitKey(MountRequest, frozen=True):
    """Make a key, or answer the one there is. Answers TransitKey."""

    action = Action.GENERATE
    cost = Cost.KEY_GENERATION
    name: str
    spec: KeySpec = SPECS[DEFAULT_TYPE]
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        check_rules(self.spec, self.rules)

    @property
    def generated_type(self) -> KeyType:
        """As asked for."""
        return self.spec.type


class UpsertTransitKey(MountRequest, frozen=True):
    """Make the key that something is to be encrypted with, or answer the one there is. Answers TransitKey.

    What is asked of a key to make is evaluated only if there is none.
    """

    action = Action.GENERATE
    cost = Cost.SHORT
    name: str
    kind: str = ""
    rules: Rules = Rules()

    def create(self) -> CreateTransitKey:
        """The request for the key. Raises InvalidRequest for one that cannot be: only symmetric ones are made so."""
        spec = SPECS.get(self.kind or DEFAULT_TYPE)
        if spec is None or spec.type not in AEAD:
            raise InvalidRequest("unknown key type; encrypting makes keys of symmetric types only")
        return CreateTransitKey(mount=self.mount, name=self.name, spec=spec, rules=self.rules)


def check_rules(spec: KeySpec, rules: Rules) -> None:
    """Refuse rules that the kind of key cannot follow."""
    if rules.convergent and not rules.derived:
        raise InvalidRequest("convergent encryption requires derivation to be enabled")
    if (rules.derived and spec.type not in DERIVING) or (rules.convergent and spec.type not in AEAD):
        raise InvalidRequest(f"key derivation and convergent encryption not supported for keys of type {spec.word}")
    check_period(rules.rotate_seconds)


def check_period(seconds: int) -> None:
    """Refuse a rotation period outside one hour and ten years; 0 is none."""
    if seconds and seconds < MIN_ROTATION_SECONDS:
        raise InvalidRequest("auto rotate period must be 0 to disable or at least an hour")
    if seconds > MAX_ROTATION_SECONDS:
        raise InvalidRequest("auto rotate period must be at most ten years")


class ListTransitKeys(MountRequest, frozen=True):
    """The names of the keys the caller may know of, sorted. Answers a tuple of names."""

    action = Action.KEY_READ
    cost = Cost.KEY_LIST
    after: str = ""
    limit: int = -1


class ReadTransitKey(KeyRequest, frozen=True):
    """One key. Answers TransitKey."""

    action = Action.KEY_READ
    cost = Cost.QUICK
    context: bytes | None = None
    """For derived Ed25519 keys: whose public keys to show."""


class ConfigureTransitKey(KeyRequest, frozen=True):
    """Change the rules; None leaves as it is. Either all of it is valid or nothing changes. Answers Key."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    min_decryption: int | None = None
    min_encryption: int | None = None
    deletion_allowed: bool | None = None
    exportable: bool | None = None
    plaintext_backup: bool | None = None
    rotate_seconds: int | None = None

    def __post_init__(self) -> None:
        if self.min_decryption is not None and self.min_decryption < 0:
            raise InvalidRequest("min decryption version cannot be negative")
        if self.min_encryption is not None and self.min_encryption < 0:
            raise InvalidRequest("min encryption version cannot be negative")
        if self.rotate_seconds is not None:
            check_period(self.rotate_seconds)


class RotateTransitKey(KeyRequest, frozen=True):
    """Make a new version. Answers Key."""

    action = Action.ROTATE
    cost = Cost.SHORT


class RotateDueTransitKey(KeyRequest, frozen=True):
    """Rotate a key whose period has passed; the vault itself asks. Answers Key."""

    action = Action.ROTATE
    cost = Cost.KEY_GENERATION
    authority = Authority.VAULT


class TrimTransitKey(KeyRequest, frozen=True):
    """Erase the material of all versions below one. Final. Answers Key."""

    action = Action.DESTROY
    cost = Cost.SHORT
    min_available: int = 0


class DeleteTransitKey(KeyRequest, frozen=True):
    """Schedule destruction. Softly, the key stays visible; else it answers as absent. Answers Key."""

    action = Action.DESTROY
    cost = Cost.SHORT
    soft: bool = False


class RestoreTransitKey(KeyRequest, frozen=True):
    """Call the destruction off, and let the key be used again. Answers Key."""

    action = Action.RESTORE
    cost = Cost.SHORT


class ImportTransitKey(MountRequest, frozen=True):
    """Make a key of wrapped material or of a public key alone, or a version of an imported key. Answers TransitKey."""

    action = Action.IMPORT
    cost = Cost.SHORT
    name: str
    wrapped: bytes = b""
    public_key: str = ""
    """In PEM; looked at if nothing is wrapped."""
    digest: str = "SHA256"
    """Of the OAEP padding."""
    spec: KeySpec = SPECS[DEFAULT_TYPE]
    rules: Rules = Rules()
    further: bool = False
    version: int | None = None
    """Of `further`: the version that came as a public key alone and is given its private key."""

    def __post_init__(self) -> None:
        check_rules(self.spec, self.rules)
        if self.wrapped and self.digest not in IMPORT_DIGESTS:
            raise InvalidRequest(f"hash_function is one of {', '.join(IMPORT_DIGESTS)}")
        if self.rules.rotate_seconds and not self.rules.imported_rotation:
            raise InvalidRequest("allow_rotation must be set to true if auto-rotation is enabled")
        if not self.wrapped:
            self._check_public()

    def _check_public(self) -> None:
        if not self.public_key:
            raise InvalidRequest("the ciphertext or the public_key is missing")
        if len(self.public_key) > MAX_PUBLIC_KEY:
            raise TooLarge("a public key is at most 16 KiB")
        if self.rules.derived and self.spec.type is KeyType.ED25519:
            # What a derived key is derived from is the private key.
            raise InvalidRequest("a derived key cannot be imported by its public key")


class ReadWrappingKey(MountRequest, frozen=True):
    """The public key that material to be imported is wrapped with, made when first asked for. Answers PEM text."""

    action = Action.IMPORT
    cost = Cost.SHORT


NO_VERSION: Final = -1


class ExportRequest(KeyRequest, frozen=True):
    """Base of the requests for what is public of the versions that still verify, or of one."""

    action = Action.KEY_READ
    version: int | None = None
    """0 is the newest; None is all; what is below 0 is none that there can be."""


class ExportPublicKeys(ExportRequest, frozen=True):
    """Public keys. Answers TransitKey."""

    cost = Cost.SHORT


class ExportCertificates(ExportRequest, frozen=True):
    """The certificate chains that were set. Answers TransitKey, in the place of public keys."""

    cost = Cost.SHORT


class RefuseExport(KeyRequest, frozen=True):
    """Every export of what is secret: recorded, and refused."""

    action = Action.KEY_READ
    cost = Cost.SHORT
    detail: str = "private key material is not exportable"


class RequestCertificate(KeyRequest, frozen=True):
    """A certificate signing request signed by the key, after a template if one is given. Answers kind and PEM text."""

    action = Action.SIGN
    cost = Cost.SHORT
    template: str | None = None
    version: int = 0


class SetCertificate(KeyRequest, frozen=True):
    """Keep a certificate chain with a version; it is checked against the key. Answers Key."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    chain: str = ""
    version: int = 0

    def __post_init__(self) -> None:
        if len(self.chain) > MAX_CHAIN:
            raise TooLarge("a certificate chain is at most 64 KiB")


class ReadUpsert(MountRequest, frozen=True):
    """Whether encrypting under a missing key makes one. Answers bool."""

    action = Action.SETTING_READ
    cost = Cost.SHORT


class SetUpsert(MountRequest, frozen=True):
    """Say whether encrypting under a missing key makes one. Answers bool."""

    action = Action.SETTING_UPDATE
    cost = Cost.SHORT
    enabled: bool = True


# Use of keys


class TransitUse(KeyRequest, frozen=True):
    """Base of the requests that use a key under a derivation context and associated data."""

    context: bytes | None = None
    associated: bytes | None = None

    @property
    def bound_context(self) -> Context | None:
        """For the log: one digest over both."""
        if not self.context and not self.associated:
            return None
        found = {"context": self.context, "associated_data": self.associated}
        return {name: encode_base64(value) for name, value in found.items() if value}


class TransitEncrypt(TransitUse, frozen=True):
    """Encrypt under the newest version or the one named. Answers CipherResult."""

    action = Action.ENCRYPT
    cost = Cost.PRIMITIVE
    plaintext: bytes = b""
    version: int = 0
    kind: str = ""
    """The type of the key to make if there is none of that name, and the caller may make one: evaluated only then."""
    convergent: bool = False
    """As `kind`."""


class TransitDecrypt(TransitUse, frozen=True):
    """Open a ciphertext under the version it names. Answers bytes."""

    action = Action.DECRYPT
    cost = Cost.PRIMITIVE
    version: int = 0
    body: bytes = b""


class TransitRewrap(TransitUse, frozen=True):
    """Open a ciphertext and encrypt its content again. Answers CipherResult."""

    action = Action.REWRAP
    cost = Cost.PRIMITIVE
    version: int = 0
    body: bytes = b""
    to_version: int = 0


class TransitDataKey(TransitUse, frozen=True):
    """A fresh key for the caller's own use. Answers CipherResult, with the plaintext if `reveal`."""

    action = Action.DATA_KEY
    cost = Cost.PRIMITIVE
    bits: int = 256
    reveal: bool = True
    version: int = 0

    def __post_init__(self) -> None:
        if self.bits not in {128, 256, 512}:
            raise InvalidRequest("invalid bit length")


class TransitSign(TransitUse, frozen=True):
    """Sign. Answers CipherResult, with the public key of a derived one."""

    action = Action.SIGN
    cost = Cost.PRIMITIVE
    input: bytes = b""
    scheme: Scheme = Scheme()
    version: int = 0


class TransitVerify(TransitUse, frozen=True):
    """Check a signature under the version it names. Answers bool."""

    action = Action.VERIFY
    cost = Cost.PRIMITIVE
    input: bytes = b""
    scheme: Scheme = Scheme()
    version: int = 0
    signature: bytes = b""


class TransitHmac(TransitUse, frozen=True):
    """A MAC with the version's own HMAC key. Answers CipherResult."""

    action = Action.SIGN
    cost = Cost.QUICK
    input: bytes = b""
    digest: str = DEFAULT_DIGEST
    version: int = 0

    def __post_init__(self) -> None:
        _check_digest(self.digest)


class TransitVerifyHmac(TransitUse, frozen=True):
    """Check a MAC. Answers bool."""

    action = Action.VERIFY
    cost = Cost.QUICK
    input: bytes = b""
    digest: str = DEFAULT_DIGEST
    version: int = 0
    mac: bytes = b""

    def __post_init__(self) -> None:
        _check_digest(self.digest)


def _check_digest(digest: str) -> None:
    if digest not in DIGESTS:
        raise InvalidRequest("unsupported algorithm")


class TransitBatch(Batch, frozen=True):
    """A batch under this dialect's limits."""

    max_items = MAX_TRANSIT_BATCH


class TransitHash(Request, frozen=True):
    """A plain digest; no key. Answers bytes."""

    action = Action.HASH
    cost = Cost.QUICK
    input: bytes
    digest: str = DEFAULT_DIGEST

    def __post_init__(self) -> None:
        _check_digest(self.digest)


class TransitRandom(Request, frozen=True):
    """Random bytes. Answers bytes."""

    action = Action.RANDOM
    cost = Cost.QUICK
    count: int = 32

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidRequest("'bytes' cannot be less than 1")
        if self.count > MAX_TRANSIT_RANDOM:
            raise InvalidRequest("'bytes' should be less than 131072")


# Replies


@dataclass(frozen=True, slots=True)
class CipherResult:
    """What came of a version: a ciphertext, signature or MAC, and what goes with it."""

    body: bytes = field(repr=False)
    version: int
    plaintext: bytes | None = field(default=None, repr=False)
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class TransitKey:
    """A key with the public keys of the versions that are shown, raw or PEM as the dialect writes them."""

    key: Key
    versions: tuple[KeyVersion, ...]
    public_keys: Mapping[int, str]
    warning: str | None = None

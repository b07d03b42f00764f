"""What the operations of the AWS dialect answer with. A field is the member of that name; None is left out.

Fields that end in `_date`, `timestamp` and `valid_to` are microseconds, which wire/aws writes as seconds.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Encrypted:
    """A ciphertext."""

    ciphertext_blob: bytes
    key_id: str
    encryption_algorithm: str


@dataclass(frozen=True, slots=True)
class Decrypted:
    """An opened ciphertext."""

    key_id: str
    plaintext: bytes = field(repr=False)
    encryption_algorithm: str
    key_material_id: str | None


@dataclass(frozen=True, slots=True)
class ReEncrypted:
    """A ciphertext under another key."""

    ciphertext_blob: bytes
    source_key_id: str
    key_id: str
    source_encryption_algorithm: str
    destination_encryption_algorithm: str
    source_key_material_id: str | None
    destination_key_material_id: str | None


@dataclass(frozen=True, slots=True)
class NewDataKey:
    """A data key, wrapped, and plain if asked for."""

    ciphertext_blob: bytes
    plaintext: bytes | None = field(repr=False)
    key_id: str
    key_material_id: str


@dataclass(frozen=True, slots=True)
class NewPair:
    """A data key pair, its private half wrapped, and plain if asked for."""

    private_key_ciphertext_blob: bytes
    private_key_plaintext: bytes | None = field(repr=False)
    public_key: bytes
    key_id: str
    key_pair_spec: str
    key_material_id: str


@dataclass(frozen=True, slots=True)
class Random:
    """Random bytes."""

    plaintext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature."""

    key_id: str
    signature: bytes
    signing_algorithm: str


@dataclass(frozen=True, slots=True)
class SignatureVerified:
    """A signature that holds."""

    key_id: str
    signing_algorithm: str
    signature_valid: bool = True


@dataclass(frozen=True, slots=True)
class Macced:
    """A MAC."""

    mac: bytes
    mac_algorithm: str
    key_id: str


@dataclass(frozen=True, slots=True)
class MacVerified:
    """A MAC that holds."""

    key_id: str
    mac_algorithm: str
    mac_valid: bool = True


@dataclass(frozen=True, slots=True)
class Derived:
    """A secret shared through ECDH."""

    key_id: str
    shared_secret: bytes = field(repr=False)
    key_agreement_algorithm: str
    key_origin: str


@dataclass(frozen=True, slots=True)
class Encapsulated:
    """A secret shared through ML-KEM; its holder has no use for the ciphertext."""

    key_id: str
    shared_secret: bytes = field(repr=False)
    encapsulation_algorithm: str
    shared_secret_ciphertext_blob: bytes | None = None


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """A key policy."""

    policy: str
    policy_name: str = "default"


@dataclass(frozen=True, slots=True)
class Rotation:
    """One rotation of a key, or one of its materials."""

    key_id: str
    key_material_id: str | None
    key_material_description: str | None = None
    import_state: str | None = None
    key_material_state: str | None = None
    expiration_model: str | None = None
    valid_to: int | None = None
    rotation_date: int | None = None
    rotation_type: str | None = None


@dataclass(frozen=True, slots=True)
class RotationStatus:
    """Whether and when a key is rotated."""

    key_rotation_enabled: bool
    key_id: str
    rotation_period_in_days: int | None
    next_rotation_date: int | None


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A grant, with a token for it."""

    grant_token: str = field(repr=False)
    grant_id: str


@dataclass(frozen=True, slots=True)
class ImportParameters:
    """What material is wrapped with to be imported."""

    key_id: str
    import_token: bytes = field(repr=False)
    public_key: bytes
    parameters_valid_to: int


@dataclass(frozen=True, slots=True)
class ImportedMaterial:
    """Material that came or went."""

    key_id: str
    key_material_id: str | None


@dataclass(frozen=True, slots=True)
class UsageData:
    """The last use of a key."""

    operation: str
    timestamp: int
    cloud_trail_event_id: str
    kms_request_id: str


@dataclass(frozen=True, slots=True)
class LastUsage:
    """When a key was last used."""

    key_id: str
    key_last_usage: UsageData | None
    tracking_start_date: int
    key_creation_date: int

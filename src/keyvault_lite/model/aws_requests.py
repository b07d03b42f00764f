"""All operations of the AWS dialect that the vault performs, one request each, under the service's own names.

A field is the member of that name (`KeyId` is `key`); wire/aws fills it from what the table of the service's model lets
through. What `key` names is read by the engine, because only it may tell the caller that it names nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from keyvault_lite.model.aws import Place
from keyvault_lite.model.encoding import Context
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.requests import KeyRequest, Request

Tags = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class AwsRequest(Request):
    """Base of the requests that name no key, or not always."""

    place: Place


@dataclass(frozen=True, slots=True)
class AwsKeyRequest(KeyRequest):
    """Base of the requests on one key."""

    by_alias: ClassVar[bool] = False
    """Whether an alias may name it."""
    place: Place


@dataclass(frozen=True, slots=True)
class UseRequest(AwsKeyRequest):
    """Base of the requests that use a key's material."""

    by_alias = True
    grant_tokens: tuple[str, ...] = field(default=(), repr=False)
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class BoundRequest(UseRequest):
    """Base of the requests with an encryption context."""

    context: Context | None = field(default=None, repr=False)

    @property
    def bound_context(self) -> Context | None:
        """The encryption context."""
        return self.context


# Keys


@dataclass(frozen=True, slots=True)
class CreateKey(AwsRequest):
    """Answers View."""

    action = Action.GENERATE
    policy: str | None = None
    description: str = ""
    key_usage: str | None = None
    key_spec: str = "SYMMETRIC_DEFAULT"
    origin: str = "AWS_KMS"
    custom_key_store_id: str | None = None
    bypass_policy_lockout_safety_check: bool = False
    tags: Tags = ()
    multi_region: bool = False
    xks_key_id: str | None = None


@dataclass(frozen=True, slots=True)
class DescribeKey(AwsKeyRequest):
    """Answers View."""

    action = Action.KEY_READ
    by_alias = True
    grant_tokens: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ListRequest(AwsRequest):
    """Base of the lists."""

    action = Action.KEY_READ
    limit: int | None = None
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class KeyListRequest(AwsKeyRequest):
    """Base of the lists of one key's things."""

    action = Action.KEY_READ
    limit: int | None = None
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class ListKeys(ListRequest):
    """Answers Page[Key]."""

    resource_owners: tuple[str, ...] = ("SELF",)


@dataclass(frozen=True, slots=True)
class EnableKey(AwsKeyRequest):
    """Answers None."""

    action = Action.ENABLE


@dataclass(frozen=True, slots=True)
class DisableKey(AwsKeyRequest):
    """Answers None."""

    action = Action.DISABLE


@dataclass(frozen=True, slots=True)
class UpdateKeyDescription(AwsKeyRequest):
    """Answers None."""

    action = Action.KEY_UPDATE
    description: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleKeyDeletion(AwsKeyRequest):
    """Answers View."""

    action = Action.DESTROY
    pending_window_in_days: int = 30


@dataclass(frozen=True, slots=True)
class CancelKeyDeletion(AwsKeyRequest):
    """Answers View."""

    action = Action.RESTORE


@dataclass(frozen=True, slots=True)
class GetKeyLastUsage(AwsKeyRequest):
    """Answers LastUsage."""

    action = Action.KEY_READ


# Tags and policies


@dataclass(frozen=True, slots=True)
class TagResource(AwsKeyRequest):
    """Answers None."""

    action = Action.KEY_UPDATE
    tags: Tags = ()


@dataclass(frozen=True, slots=True)
class UntagResource(AwsKeyRequest):
    """Answers None."""

    action = Action.KEY_UPDATE
    tag_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListResourceTags(KeyListRequest):
    """Answers Page of pairs."""


@dataclass(frozen=True, slots=True)
class GetKeyPolicy(AwsKeyRequest):
    """Answers Policy."""

    action = Action.KEY_READ
    policy_name: str = "default"


@dataclass(frozen=True, slots=True)
class PutKeyPolicy(AwsKeyRequest):
    """Answers None."""

    action = Action.KEY_UPDATE
    policy: str = ""
    policy_name: str = "default"
    bypass_policy_lockout_safety_check: bool = False


@dataclass(frozen=True, slots=True)
class ListKeyPolicies(KeyListRequest):
    """Answers Page of names."""


# Aliases


@dataclass(frozen=True, slots=True)
class CreateAlias(AwsKeyRequest):
    """`key` is the target. Answers None."""

    action = Action.KEY_UPDATE
    alias_name: str = ""


@dataclass(frozen=True, slots=True)
class UpdateAlias(AwsKeyRequest):
    """`key` is the new target. Answers None."""

    action = Action.KEY_UPDATE
    alias_name: str = ""


@dataclass(frozen=True, slots=True)
class DeleteAlias(AwsKeyRequest):
    """`key` is the alias. Answers None."""

    action = Action.KEY_UPDATE
    by_alias = True


@dataclass(frozen=True, slots=True)
class ListAliases(ListRequest):
    """Answers Page of pairs of KeyName and Key."""

    key: str | None = None


# Encryption


@dataclass(frozen=True, slots=True)
class Encrypt(BoundRequest):
    """Answers Encrypted."""

    action = Action.ENCRYPT
    plaintext: bytes = field(default=b"", repr=False)
    encryption_algorithm: str = "SYMMETRIC_DEFAULT"


@dataclass(frozen=True, slots=True)
class Decrypt(BoundRequest):
    """`key` is empty where the ciphertext names it. Answers Decrypted."""

    action = Action.DECRYPT
    ciphertext_blob: bytes | None = field(default=None, repr=False)
    encryption_algorithm: str = "SYMMETRIC_DEFAULT"
    recipient: Mapping[str, object] | None = field(default=None, repr=False)
    dry_run_modifiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReEncrypt(BoundRequest):
    """`key` and `context` are of the source; no key where the ciphertext names it. Answers ReEncrypted."""

    action = Action.REWRAP
    destination_key_id: str = ""
    ciphertext_blob: bytes | None = field(default=None, repr=False)
    destination_encryption_context: Context | None = field(default=None, repr=False)
    source_encryption_algorithm: str = "SYMMETRIC_DEFAULT"
    destination_encryption_algorithm: str = "SYMMETRIC_DEFAULT"
    dry_run_modifiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DataKeyRequest(BoundRequest):
    """Base of the requests that make something and wrap it."""

    action = Action.DATA_KEY


@dataclass(frozen=True, slots=True)
class GenerateDataKeyWithoutPlaintext(DataKeyRequest):
    """Answers NewDataKey."""

    key_spec: str | None = None
    number_of_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GenerateDataKey(DataKeyRequest):
    """Answers NewDataKey."""

    key_spec: str | None = None
    number_of_bytes: int | None = None
    recipient: Mapping[str, object] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class GenerateDataKeyPairWithoutPlaintext(DataKeyRequest):
    """Answers NewPair."""

    key_pair_spec: str = ""


@dataclass(frozen=True, slots=True)
class GenerateDataKeyPair(DataKeyRequest):
    """Answers NewPair."""

    key_pair_spec: str = ""
    recipient: Mapping[str, object] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class GenerateRandom(AwsRequest):
    """Answers bytes."""

    action = Action.RANDOM
    number_of_bytes: int | None = None
    custom_key_store_id: str | None = None
    recipient: Mapping[str, object] | None = field(default=None, repr=False)


# Signatures, MACs, shared secrets


@dataclass(frozen=True, slots=True)
class Sign(UseRequest):
    """Answers Signed."""

    action = Action.SIGN
    message: bytes = field(default=b"", repr=False)
    message_type: str = "RAW"
    signing_algorithm: str = ""


@dataclass(frozen=True, slots=True)
class Verify(UseRequest):
    """Answers Verified."""

    action = Action.VERIFY
    message: bytes = field(default=b"", repr=False)
    message_type: str = "RAW"
    signature: bytes = field(default=b"", repr=False)
    signing_algorithm: str = ""


@dataclass(frozen=True, slots=True)
class GenerateMac(UseRequest):
    """Answers Signed."""

    action = Action.SIGN
    message: bytes = field(default=b"", repr=False)
    mac_algorithm: str = ""


@dataclass(frozen=True, slots=True)
class VerifyMac(UseRequest):
    """Answers Verified."""

    action = Action.VERIFY
    message: bytes = field(default=b"", repr=False)
    mac: bytes = field(default=b"", repr=False)
    mac_algorithm: str = ""


@dataclass(frozen=True, slots=True)
class GetPublicKey(AwsKeyRequest):
    """Answers View."""

    action = Action.KEY_READ
    by_alias = True
    grant_tokens: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class DeriveSharedSecret(UseRequest):
    """Answers SharedSecret."""

    action = Action.DERIVE
    key_agreement_algorithm: str = ""
    public_key: bytes = b""
    recipient: Mapping[str, object] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Encapsulate(UseRequest):
    """Answers SharedSecret."""

    action = Action.ENCAPSULATE
    encapsulation_algorithm: str = ""


@dataclass(frozen=True, slots=True)
class Decapsulate(UseRequest):
    """Answers SharedSecret."""

    action = Action.DECAPSULATE
    shared_secret_ciphertext_blob: bytes = field(default=b"", repr=False)
    encapsulation_algorithm: str = ""


# Rotation


@dataclass(frozen=True, slots=True)
class EnableKeyRotation(AwsKeyRequest):
    """Answers None."""

    action = Action.KEY_UPDATE
    rotation_period_in_days: int | None = None


@dataclass(frozen=True, slots=True)
class DisableKeyRotation(AwsKeyRequest):
    """Answers None."""

    action = Action.KEY_UPDATE


@dataclass(frozen=True, slots=True)
class GetKeyRotationStatus(AwsKeyRequest):
    """Answers View."""

    action = Action.KEY_READ


@dataclass(frozen=True, slots=True)
class RotateKeyOnDemand(AwsKeyRequest):
    """Answers View."""

    action = Action.ROTATE


@dataclass(frozen=True, slots=True)
class ListKeyRotations(KeyListRequest):
    """Answers Page[Rotation]."""

    include_key_material: str = "ROTATIONS_ONLY"


# Grants


@dataclass(frozen=True, slots=True)
class CreateGrant(AwsKeyRequest):
    """Answers NewGrant."""

    action = Action.KEY_UPDATE
    grantee_principal: str | None = None
    retiring_principal: str | None = None
    grantee_service_principal: str | None = None
    retiring_service_principal: str | None = None
    operations: tuple[str, ...] = ()
    constraints: Mapping[str, object] | None = None
    grant_tokens: tuple[str, ...] = field(default=(), repr=False)
    name: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ListGrants(KeyListRequest):
    """Answers Page of pairs of grant and View."""

    grant_id: str | None = None
    grantee_principal: str | None = None
    grantee_service_principal: str | None = None


@dataclass(frozen=True, slots=True)
class ListRetirableGrants(ListRequest):
    """Answers as ListGrants."""

    retiring_principal: str | None = None
    retiring_service_principal: str | None = None


@dataclass(frozen=True, slots=True)
class RetireGrant(AwsRequest):
    """Answers None."""

    action = Action.GRANT_RETIRE
    grant_token: str | None = field(default=None, repr=False)
    key: str | None = None
    grant_id: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RevokeGrant(AwsKeyRequest):
    """Answers None."""

    action = Action.KEY_UPDATE
    grant_id: str = ""
    dry_run: bool = False


# Imported material


@dataclass(frozen=True, slots=True)
class GetParametersForImport(AwsKeyRequest):
    """Answers ImportParameters."""

    action = Action.IMPORT
    wrapping_algorithm: str = ""
    wrapping_key_spec: str = ""


@dataclass(frozen=True, slots=True)
class ImportKeyMaterial(AwsKeyRequest):
    """Answers ImportedMaterial."""

    action = Action.IMPORT
    import_token: bytes = field(default=b"", repr=False)
    encrypted_key_material: bytes = field(default=b"", repr=False)
    valid_to: int | None = None
    """Microseconds."""
    expiration_model: str = "KEY_MATERIAL_EXPIRES"
    import_type: str | None = None
    key_material_description: str | None = None
    key_material_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteImportedKeyMaterial(AwsKeyRequest):
    """Answers ImportedMaterial."""

    action = Action.IMPORT
    key_material_id: str | None = None


# Regions


@dataclass(frozen=True, slots=True)
class ReplicateKey(AwsKeyRequest):
    """Answers View of the replica."""

    action = Action.GENERATE
    replica_region: str = ""
    policy: str | None = None
    bypass_policy_lockout_safety_check: bool = False
    description: str = ""
    tags: Tags = ()


@dataclass(frozen=True, slots=True)
class UpdatePrimaryRegion(AwsKeyRequest):
    """Answers None."""

    action = Action.KEY_UPDATE
    primary_region: str = ""


# Key stores of others: none can be


@dataclass(frozen=True, slots=True)
class DescribeCustomKeyStores(ListRequest):
    """Answers an empty Page."""

    custom_key_store_id: str | None = None
    custom_key_store_name: str | None = None

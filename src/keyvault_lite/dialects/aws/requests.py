"""All operations of the AWS dialect that the vault performs, one request each, under the service's own names.

A field is the member of that name (`KeyId` is `key`); wire/aws fills it from what the table of the service's model lets
through. What `key` names is read by the engine, because only it may tell the caller that it names nothing.
"""

from collections.abc import Mapping
from typing import ClassVar

from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.model.encoding import Context
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.keys import KeyType
from keyvault_lite.model.operation import Authority, Cost
from keyvault_lite.model.requests import KeyRequest, Request

Tags = tuple[tuple[str, str], ...]


class AwsRequest(Request, frozen=True):
    """Base of the requests that name no key, or not always."""

    place: AccountRegion


class AwsKeyRequest(KeyRequest, frozen=True):
    """Base of the requests on one key."""

    by_alias: ClassVar[bool] = False
    """Whether an alias may name it."""
    place: AccountRegion


class UseRequest(AwsKeyRequest, frozen=True):
    """Base of the requests that use a key's material."""

    by_alias = True
    grant_tokens: tuple[str, ...] = ()
    dry_run: bool = False


class BoundRequest(UseRequest, frozen=True):
    """Base of the requests with an encryption context."""

    context: Context | None = None

    @property
    def bound_context(self) -> Context | None:
        """The encryption context."""
        return self.context


def _type_of(spec: str) -> KeyType | None:
    """The type of key that a word of the service stands for; None for symmetric ones, which cost nothing."""
    return KeyType.RSA if spec.startswith("RSA") else None


# Keys


class CreateKey(AwsRequest, frozen=True):
    """Answers View."""

    action = Action.GENERATE
    cost = Cost.KEY_GENERATION
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

    @property
    def generated_type(self) -> KeyType | None:
        """As asked for."""
        return _type_of(self.key_spec)


class DescribeKey(AwsKeyRequest, frozen=True):
    """Answers View."""

    action = Action.KEY_READ
    cost = Cost.QUICK
    by_alias = True
    grant_tokens: tuple[str, ...] = ()


class ListRequest(AwsRequest, frozen=True):
    """Base of the lists."""

    action = Action.KEY_READ
    limit: int | None = None
    marker: str | None = None


class KeyListRequest(AwsKeyRequest, frozen=True):
    """Base of the lists of one key's things."""

    action = Action.KEY_READ
    limit: int | None = None
    marker: str | None = None


class ListKeys(ListRequest, frozen=True):
    """Answers Page[Key]."""

    cost = Cost.SHORT
    resource_owners: tuple[str, ...] = ("SELF",)


class EnableKey(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.ENABLE
    cost = Cost.SHORT


class DisableKey(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.DISABLE
    cost = Cost.SHORT


class UpdateKeyDescription(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    description: str = ""


class ScheduleKeyDeletion(AwsKeyRequest, frozen=True):
    """Answers View."""

    action = Action.DESTROY
    cost = Cost.SHORT
    pending_window_in_days: int = 30


class CancelKeyDeletion(AwsKeyRequest, frozen=True):
    """Answers View."""

    action = Action.RESTORE
    cost = Cost.SHORT


class GetKeyLastUsage(AwsKeyRequest, frozen=True):
    """Answers LastUsage."""

    action = Action.KEY_READ
    cost = Cost.LOG_READ


# Tags and policies


class TagResource(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    tags: Tags = ()


class UntagResource(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    tag_keys: tuple[str, ...] = ()


class ListResourceTags(KeyListRequest, frozen=True):
    """Answers Page of pairs."""

    cost = Cost.QUICK


class GetKeyPolicy(AwsKeyRequest, frozen=True):
    """Answers Policy."""

    action = Action.KEY_READ
    cost = Cost.QUICK
    policy_name: str = "default"


class PutKeyPolicy(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    policy: str = ""
    policy_name: str = "default"
    bypass_policy_lockout_safety_check: bool = False


class ListKeyPolicies(KeyListRequest, frozen=True):
    """Answers Page of names."""

    cost = Cost.SHORT


# Aliases


class CreateAlias(AwsKeyRequest, frozen=True):
    """`key` is the target. Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    alias_name: str = ""


class UpdateAlias(AwsKeyRequest, frozen=True):
    """`key` is the new target. Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    alias_name: str = ""


class DeleteAlias(AwsKeyRequest, frozen=True):
    """`key` is the alias. Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    by_alias = True


class ListAliases(ListRequest, frozen=True):
    """Answers Page of pairs of KeyName and Key."""

    cost = Cost.SHORT
    key: str | None = None


# Encryption


class Encrypt(BoundRequest, frozen=True):
    """Answers Encrypted."""

    action = Action.ENCRYPT
    cost = Cost.PRIMITIVE
    plaintext: bytes = b""
    encryption_algorithm: str = "SYMMETRIC_DEFAULT"


class Decrypt(BoundRequest, frozen=True):
    """`key` is empty where the ciphertext names it. Answers Decrypted."""

    action = Action.DECRYPT
    cost = Cost.PRIMITIVE
    ciphertext_blob: bytes | None = None
    encryption_algorithm: str = "SYMMETRIC_DEFAULT"
    recipient: Mapping[str, object] | None = None
    dry_run_modifiers: tuple[str, ...] = ()


class ReEncrypt(BoundRequest, frozen=True):
    """`key` and `context` are of the source; no key where the ciphertext names it. Answers ReEncrypted."""

    action = Action.REWRAP
    cost = Cost.SHORT
    destination_key_id: str = ""
    ciphertext_blob: bytes | None = None
    destination_encryption_context: Context | None = None
    source_encryption_algorithm: str = "SYMMETRIC_DEFAULT"
    destination_encryption_algorithm: str = "SYMMETRIC_DEFAULT"
    dry_run_modifiers: tuple[str, ...] = ()


class DataKeyRequest(BoundRequest, frozen=True):
    """Base of the requests that make something and wrap it."""

    action = Action.DATA_KEY


class GenerateDataKeyWithoutPlaintext(DataKeyRequest, frozen=True):
    """Answers NewDataKey."""

    cost = Cost.PRIMITIVE
    key_spec: str | None = None
    number_of_bytes: int | None = None


class GenerateDataKey(DataKeyRequest, frozen=True):
    """Answers NewDataKey."""

    cost = Cost.PRIMITIVE
    key_spec: str | None = None
    number_of_bytes: int | None = None
    recipient: Mapping[str, object] | None = None


class GenerateDataKeyPairWithoutPlaintext(DataKeyRequest, frozen=True):
    """Answers NewPair."""

    cost = Cost.KEY_GENERATION
    key_pair_spec: str = ""

    @property
    def generated_type(self) -> KeyType | None:
        """As asked for."""
        return _type_of(self.key_pair_spec)


class GenerateDataKeyPair(DataKeyRequest, frozen=True):
    """Answers NewPair."""

    cost = Cost.KEY_GENERATION
    key_pair_spec: str = ""
    recipient: Mapping[str, object] | None = None

    @property
    def generated_type(self) -> KeyType | None:
        """As asked for."""
        return _type_of(self.key_pair_spec)


class GenerateRandom(AwsRequest, frozen=True):
    """Answers bytes."""

    action = Action.RANDOM
    cost = Cost.QUICK
    number_of_bytes: int | None = None
    custom_key_store_id: str | None = None
    recipient: Mapping[str, object] | None = None


# Signatures, MACs, shared secrets


class Sign(UseRequest, frozen=True):
    """Answers Signed."""

    action = Action.SIGN
    cost = Cost.PRIMITIVE
    message: bytes = b""
    message_type: str = "RAW"
    signing_algorithm: str = ""


class Verify(UseRequest, frozen=True):
    """Answers Verified."""

    action = Action.VERIFY
    cost = Cost.PRIMITIVE
    message: bytes = b""
    message_type: str = "RAW"
    signature: bytes = b""
    signing_algorithm: str = ""


class GenerateMac(UseRequest, frozen=True):
    """Answers Signed."""

    action = Action.SIGN
    cost = Cost.PRIMITIVE
    message: bytes = b""
    mac_algorithm: str = ""


class VerifyMac(UseRequest, frozen=True):
    """Answers Verified."""

    action = Action.VERIFY
    cost = Cost.PRIMITIVE
    message: bytes = b""
    mac: bytes = b""
    mac_algorithm: str = ""


class GetPublicKey(AwsKeyRequest, frozen=True):
    """Answers View."""

    action = Action.KEY_READ
    cost = Cost.QUICK
    by_alias = True
    grant_tokens: tuple[str, ...] = ()


class DeriveSharedSecret(UseRequest, frozen=True):
    """Answers SharedSecret."""

    action = Action.DERIVE
    cost = Cost.SHORT
    key_agreement_algorithm: str = ""
    public_key: bytes = b""
    recipient: Mapping[str, object] | None = None


class Encapsulate(UseRequest, frozen=True):
    """Answers SharedSecret."""

    action = Action.ENCAPSULATE
    cost = Cost.SHORT
    encapsulation_algorithm: str = ""


class Decapsulate(UseRequest, frozen=True):
    """Answers SharedSecret."""

    action = Action.DECAPSULATE
    cost = Cost.SHORT
    shared_secret_ciphertext_blob: bytes = b""
    encapsulation_algorithm: str = ""


# Rotation


class EnableKeyRotation(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    rotation_period_in_days: int | None = None


class DisableKeyRotation(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT


class GetKeyRotationStatus(AwsKeyRequest, frozen=True):
    """Answers View."""

    action = Action.KEY_READ
    cost = Cost.SHORT


class RotateKeyOnDemand(AwsKeyRequest, frozen=True):
    """Answers View."""

    action = Action.ROTATE
    cost = Cost.SHORT


class ListKeyRotations(KeyListRequest, frozen=True):
    """Answers Page[Rotation]."""

    cost = Cost.SHORT
    include_key_material: str = "ROTATIONS_ONLY"


# Grants


class CreateGrant(AwsKeyRequest, frozen=True):
    """Answers NewGrant."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    grantee_principal: str | None = None
    retiring_principal: str | None = None
    grantee_service_principal: str | None = None
    retiring_service_principal: str | None = None
    operations: tuple[str, ...] = ()
    constraints: Mapping[str, object] | None = None
    grant_tokens: tuple[str, ...] = ()
    name: str | None = None
    dry_run: bool = False


class ListGrants(KeyListRequest, frozen=True):
    """Answers Page of pairs of grant and View."""

    cost = Cost.SHORT
    grant_id: str | None = None
    grantee_principal: str | None = None
    grantee_service_principal: str | None = None


class ListRetirableGrants(ListRequest, frozen=True):
    """Answers as ListGrants."""

    cost = Cost.SHORT
    retiring_principal: str | None = None
    retiring_service_principal: str | None = None


class RetireGrant(AwsRequest, frozen=True):
    """Answers None."""

    action = Action.GRANT_RETIRE
    cost = Cost.SHORT
    grant_token: str | None = None
    key: str | None = None
    grant_id: str | None = None
    dry_run: bool = False


class RevokeGrant(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    grant_id: str = ""
    dry_run: bool = False


# Imported material


class GetParametersForImport(AwsKeyRequest, frozen=True):
    """Answers ImportParameters."""

    action = Action.IMPORT
    cost = Cost.KEY_GENERATION
    wrapping_algorithm: str = ""
    wrapping_key_spec: str = ""

    @property
    def generated_type(self) -> KeyType:
        """The wrapping key's."""
        return KeyType.RSA


class ImportKeyMaterial(AwsKeyRequest, frozen=True):
    """Answers ImportedMaterial."""

    action = Action.IMPORT
    cost = Cost.SHORT
    import_token: bytes = b""
    encrypted_key_material: bytes = b""
    valid_to: int | None = None
    """Microseconds."""
    expiration_model: str = "KEY_MATERIAL_EXPIRES"
    import_type: str | None = None
    key_material_description: str | None = None
    key_material_id: str | None = None


class DeleteImportedKeyMaterial(AwsKeyRequest, frozen=True):
    """Answers ImportedMaterial."""

    action = Action.IMPORT
    cost = Cost.SHORT
    key_material_id: str | None = None


# Regions


class ReplicateKey(AwsKeyRequest, frozen=True):
    """Answers View of the replica."""

    action = Action.GENERATE
    cost = Cost.SHORT
    replica_region: str = ""
    policy: str | None = None
    bypass_policy_lockout_safety_check: bool = False
    description: str = ""
    tags: Tags = ()


class UpdatePrimaryRegion(AwsKeyRequest, frozen=True):
    """Answers None."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    primary_region: str = ""


# Key stores of others: none can be


class DescribeCustomKeyStores(ListRequest, frozen=True):
    """Answers an empty Page."""

    cost = Cost.SHORT
    custom_key_store_id: str | None = None
    custom_key_store_name: str | None = None


class EraseExpiredMaterial(KeyRequest, frozen=True):
    """Erase imported material that has expired; the vault itself asks. Answers None."""

    action = Action.DESTROY
    cost = Cost.SHORT
    authority = Authority.VAULT
    version: int | None = None
    """Of which version; None for material that waits for its rotation."""

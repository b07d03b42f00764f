"""The refusals that only the AWS dialect tells apart, each under the general error that it is a case of.

Stable codes, entries and other dialects see the general error; `wire/aws/errors.py` gives each its AWS name. An ARN in
`detail` is that of a stored key: what a caller wrote is never repeated here.
"""

from keyvault_lite.model.errors import (
    Conflict,
    Forbidden,
    InvalidCiphertext,
    InvalidRequest,
    InvalidState,
    KeyVaultError,
    LimitExceeded,
    MalformedRequest,
    NotFound,
    Unauthenticated,
)

# Authentication


class MissingSignature(Unauthenticated):
    """The request carries no signature."""


class IncompleteSignature(Unauthenticated):
    """The signature lacks a part, or leaves out of its protection what must be under it."""


class UnknownAccessKey(Unauthenticated):
    """The access key is unknown, revoked, expired, or its service may not act."""


class SignatureMismatch(Unauthenticated):
    """The signature does not fit the request, or is of another service."""


class SignatureExpired(SignatureMismatch):
    """The signature is genuine, and of another time."""


# What is asked


class UnknownOperation(MalformedRequest):
    """There is no operation of that name."""


class Unserializable(MalformedRequest):
    """The body is not JSON, or a member is of another type than the service's model says."""


class Validation(InvalidRequest):
    """A member breaks a constraint of the service's model, or a rule across members."""


class UnsupportedOperation(InvalidRequest):
    """The operation does not exist for this kind of key, or in this installation."""


class InvalidKeyUsage(InvalidRequest):
    """The key's usage or kind does not fit the operation or algorithm."""


class MalformedPolicy(InvalidRequest):
    """The key policy is not one, or would lock everyone out."""


class InvalidTag(InvalidRequest):
    """A tag is reserved, given twice, or one too many."""


class InvalidArn(InvalidRequest):
    """The ARN is not one of a key or principal here."""


class ReservedAlias(Forbidden):
    """Aliases under `alias/aws/` belong to the service."""


class InvalidMarker(InvalidRequest):
    """The marker is not one that this list gave."""


class InvalidGrantToken(InvalidRequest):
    """The grant token is not one of a live grant."""


class InvalidGrantId(InvalidRequest):
    """The key has no grant of that id."""


# What is there


class KeyNotFound(NotFound):
    """No such key or alias in this Region, for a caller who may know that."""


class DestinationNotFound(KeyNotFound):
    """As KeyNotFound, of the key that a ciphertext is to move to."""


class AliasNotFound(KeyNotFound):
    """As KeyNotFound, of the alias that is to move."""


class InvalidKeyId(KeyNotFound):
    """As KeyNotFound, of an alias where only a key's id or ARN names it."""


class ReplicaNotFound(KeyNotFound):
    """As KeyNotFound, of a replica in another Region."""


class CustomKeyStoreNotFound(NotFound):
    """There are no custom key stores."""


class PolicyNotFound(NotFound):
    """A key has one policy, `default`."""


class AlreadyExists(Conflict):
    """The alias, or the replica in that Region, is there."""


class Disabled(InvalidState):
    """The key is disabled."""


class KeyUnavailable(InvalidState):
    """The key is pending deletion, pending import or revoked."""


class RotationLimit(LimitExceeded):
    """As many rotations on demand as a key may have."""


# What cryptography says


class IncorrectKey(InvalidCiphertext):
    """The ciphertext was made under another key than the one named."""


class InvalidSignature(InvalidCiphertext):
    """The signature does not hold."""


class InvalidMac(InvalidCiphertext):
    """The MAC does not hold."""


class IncorrectKeyMaterial(InvalidRequest):
    """The material is not the one that was imported before, or not of this kind of key."""


class InvalidImportToken(InvalidRequest):
    """The import token is not one of this key."""


class ExpiredImportToken(InvalidRequest):
    """The import token's day is over."""


class DryRun(KeyVaultError):
    """All checks passed; nothing was done, as asked. An answer in the shape of an error, as the service has it."""

    code = "dry_run"

"""A key as one Region of the AWS dialect has it: found by what the caller named, with its state and facts there.

A multi-Region key is one record of the vault with a facet for each Region: id, material and rotation are shared, and
description, tags, policy, grants and enabled state are the facet's. The primary's are the record's own.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from msgspec import structs

from keyvault_lite.crypto import blob
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.authorize import check_named_key
from keyvault_lite.dialects.aws.errors import (
    Disabled,
    InvalidKeyId,
    KeyNotFound,
    KeyUnavailable,
    ReservedAlias,
    Validation,
)
from keyvault_lite.dialects.aws.model import (
    ATTRIBUTE,
    RESERVED_ALIAS,
    AccountRegion,
    KeyReference,
    aws_id,
    facts,
    is_here,
    material,
    parse_name,
    spec_word,
)
from keyvault_lite.engine.dialect import Located
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import InvalidCiphertext, KeyVaultError
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Principal
from keyvault_lite.model.keys import Key, KeyStatus, KeyVersion
from keyvault_lite.model.material import awaits_material, is_expired, is_waiting
from keyvault_lite.model.names import KeyId


class KeyState(StrEnum):
    """The states of the service."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    PENDING_DELETION = "PendingDeletion"
    PENDING_IMPORT = "PendingImport"
    PENDING_REPLICA_DELETION = "PendingReplicaDeletion"
    UNAVAILABLE = "Unavailable"


_SAYS: Final[Mapping[KeyState, str]] = {
    KeyState.DISABLED: "is disabled.",
    KeyState.PENDING_DELETION: "is pending deletion.",
    KeyState.PENDING_IMPORT: "is pending import.",
    KeyState.PENDING_REPLICA_DELETION: "is pending replica deletion.",
    KeyState.UNAVAILABLE: "is unavailable.",
}
_OF_STATUS: Final[Mapping[KeyStatus, KeyState]] = {
    KeyStatus.PENDING_DESTRUCTION: KeyState.PENDING_DELETION,
    KeyStatus.REVOKED: KeyState.UNAVAILABLE,
    KeyStatus.DESTROYED: KeyState.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class View:
    """A key in one Region at one moment."""

    key: Key
    place: AccountRegion
    now: int
    facts: Mapping[str, Any] = field(repr=False)
    """The dialect's attributes of the record."""
    facet: Mapping[str, Any] = field(repr=False)
    """Those of this Region."""

    @property
    def is_replica(self) -> bool:
        """Whether the primary is in another Region."""
        return self.facet is not self.facts

    @property
    def id(self) -> str:
        """The id as the dialect writes it."""
        return aws_id(self.key)

    @property
    def arn(self) -> str:
        """The ARN here."""
        return self.place.key_arn(self.key)

    @property
    def spec(self) -> str:
        """What the service calls this kind of key."""
        return spec_word(self.key.spec)

    @property
    def origin(self) -> str:
        """Where material comes from."""
        origin: str = self.facts.get("origin", "AWS_KMS")
        return origin

    @property
    def description(self) -> str:
        """Of this Region."""
        description: str = self.facet["description"] if self.is_replica else self.key.description
        return description

    @property
    def tags(self) -> Mapping[str, str]:
        """Of this Region."""
        tags: Mapping[str, str] = self.facet["tags"] if self.is_replica else self.key.tags
        return tags

    @property
    def created_at(self) -> int:
        """When it came to be here."""
        created: int = self.facet["created_at"] if self.is_replica else self.key.created_at
        return created

    @property
    def deletion_at(self) -> int | None:
        """When it goes."""
        return self.facet.get("deletion_at") if self.is_replica else self.key.destroy_at

    @property
    def active(self) -> KeyVersion | None:
        """The version that protects, if it is there and has not expired."""
        version = self.key.active
        return None if version is None or is_expired(version, self.now) else version

    @property
    def state(self) -> KeyState:
        """In this Region."""
        if self._leaving is not None:
            return self._leaving
        if self.key.status not in {KeyStatus.ACTIVE, KeyStatus.DISABLED}:
            return _OF_STATUS[self.key.status]
        if awaits_material(self.key, self.now):
            return KeyState.PENDING_IMPORT
        if self.key.status is KeyStatus.DISABLED or (self.is_replica and not self.facet["enabled"]):
            return KeyState.DISABLED
        return KeyState.UNAVAILABLE if self.active is None else KeyState.ENABLED

    @property
    def _leaving(self) -> KeyState | None:
        """What of the way out only this Region's facts tell."""
        if self.is_replica:
            return None if self.deletion_at is None else KeyState.PENDING_DELETION
        waits = is_waiting(self.key) and self.key.status is not KeyStatus.PENDING_DESTRUCTION
        return KeyState.PENDING_REPLICA_DELETION if waits else None

    def require(self, *states: KeyState) -> None:
        """Raise unless the key is in one of these states: Disabled for a disabled one, KeyUnavailable for others."""
        state = self.state
        if state not in states:
            kind = Disabled if state is KeyState.DISABLED and KeyState.ENABLED in states else KeyUnavailable
            raise kind(f"{self.arn} {_SAYS.get(state, 'is enabled.')}")

    def require_usable(self) -> None:
        """As `require`, for the use of material."""
        self.require(KeyState.ENABLED)

    def protecting(self) -> KeyVersion:
        """The version that protects now. Raises Disabled or KeyUnavailable."""
        self.require_usable()
        return self.key.versions[-1]  # the newest: of a key that is Enabled it is ACTIVE, and there

    def with_facts(self, **changes: Any) -> Key:  # noqa: ANN401  (JSON)
        """The record with other facts of the whole key; None takes one away."""
        return structs.replace(self.key, attributes={**self.key.attributes, ATTRIBUTE: _merged(self.facts, changes)})

    def with_facet(self, **changes: Any) -> Key:  # noqa: ANN401  (JSON)
        """The record with other facts of this Region; None takes one away. Description and tags are facts too."""
        if self.is_replica:
            replicas = dict(self.facts["replicas"])
            replicas[self.place.region] = _merged(self.facet, changes)
            return self.with_facts(replicas=replicas)
        own = {name: changes.pop(name) for name in ("description", "tags") if name in changes}
        return structs.replace(self.with_facts(**changes), **own) if changes else structs.replace(self.key, **own)


def _merged(facts: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**facts, **changes}.items() if value is not None}


def view(key: Key, place: AccountRegion, now: int) -> View:
    """The key in this Region; it MUST be here."""
    known = facts(key)
    replica = known.get("replicas", {}).get(place.region)
    return View(key, place, now, known, known if replica is None else replica)


def exists(key: Key, place: AccountRegion, now: int) -> bool:
    """Whether the key is in this Region, and not past its deletion."""
    if key.status is KeyStatus.DESTROYED or not is_here(key, place):
        return False
    deletion_at = view(key, place, now).deletion_at
    return deletion_at is None or deletion_at > now


# Versions


def material_id(version: KeyVersion) -> str:
    """The id of a version's material, 64 hex digits: the same in every Region."""
    known: str | None = material(version).get("material_id")
    return known or _generated_id(version.key_id, version.version)


def _generated_id(key_id: KeyId, version: int) -> str:
    return hashlib.sha256(pae("aws/material", key_id, version)).hexdigest()


# Finding keys


def find(named: KeyReference, place: AccountRegion, state: State, now: int) -> Key | None:
    """The key of that name in this Region."""
    key = state.find_key(named.ref)
    if key is None or not exists(key, place, now):
        return None
    if not named.alias and named.multi_region is not bool(facts(key).get("multi_region")):
        return None  # the id of a multi-Region key begins with mrk-, and of no other
    return key


def locate(request: words.AwsKeyRequest, state: State, now: int) -> Located:
    """Find the key a request is about: by its name, else by the ciphertext that names it."""
    if request.key:
        try:
            named = parse_name(request.key, request.place)
        except KeyVaultError as error:
            return Located(error=error)
        if named.alias and not request.by_alias:
            return Located(ref=named.ref, error=_no_target(request))
        return Located(find(named, request.place, state, now), named.ref, _reserved(request))
    key_id = _key_in(request)
    if key_id is None and isinstance(request, (words.Decrypt, words.ReEncrypt)) and request.dry_run_modifiers:
        return Located(error=Validation("KeyId is required when the ciphertext is ignored."))
    if key_id is None:
        return Located(error=_no_ciphertext(request))
    key = state.find_key(key_id)
    here = key is not None and exists(key, request.place, now)
    return Located(key if here else None, key_id, None if here else InvalidCiphertext())


def entry_key(request: words.AwsRequest | words.AwsKeyRequest, state: State, now: int) -> Key | None:
    """The key that the entry of a refused request names, even if the operation does not take that kind of name."""
    name: str | None = getattr(request, "key", None)
    if name:
        return find(parse_name(name, request.place), request.place, state, now)
    return locate(request, state, now).key if isinstance(request, words.AwsKeyRequest) else None


def _no_ciphertext(request: words.AwsKeyRequest) -> KeyVaultError:
    given = getattr(request, "ciphertext_blob", None) is not None
    return InvalidCiphertext() if given else Validation("CiphertextBlob is required.")


def _no_target(request: words.AwsKeyRequest) -> KeyVaultError:
    if isinstance(request, (words.CreateAlias, words.UpdateAlias)):
        return Validation("Aliases must refer to keys. Not aliases")
    return InvalidKeyId()


def _reserved(request: words.AwsKeyRequest) -> KeyVaultError | None:
    if isinstance(request, words.DeleteAlias) and request.key.startswith(RESERVED_ALIAS):
        return ReservedAlias("Aliases under alias/aws/ are reserved.")
    return None


def _key_in(request: words.AwsKeyRequest) -> KeyId | None:
    if not isinstance(request, (words.Decrypt, words.ReEncrypt)) or request.ciphertext_blob is None:
        return None
    try:
        digits = blob.header(request.ciphertext_blob).id.hex()
    except InvalidCiphertext:
        return None
    return KeyId("-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])))


def admit(request: words.AwsKeyRequest, located: Located, principal: Principal) -> Key:
    """The key, if the vault lets the principal use it so. Policies and grants narrow that: dialects/aws/guard.py."""
    # Re-encryption opens with this key; its other key is admitted by its handler.
    action = Action.DECRYPT if isinstance(request, words.ReEncrypt) else request.action
    if located.key is not None:
        return check_named_key(principal, located.key, located.ref, action)
    if located.ref is None and isinstance(located.error, (InvalidCiphertext, Validation)):
        raise located.error  # a ciphertext that names no key says nothing of any
    try:
        return check_named_key(principal, None, located.ref, action)
    except KeyNotFound:
        if located.error is not None:
            raise located.error from None
        raise

"""Results as the AWS dialect writes them."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.aliases import default_policy
from keyvault_lite.dialects.aws.model import (
    USAGE_OF,
    AccountRegion,
    encryption_algorithms,
    mac_algorithms,
    material,
    signing_algorithms,
)
from keyvault_lite.dialects.aws.view import KeyState, View, material_id
from keyvault_lite.model.keys import KeyName, KeyType, Purpose
from keyvault_lite.model.material import EXTERNAL
from keyvault_lite.model.replies import Page
from keyvault_lite.model.requests import Request

Members = dict[str, Any]
_TIMES: Final = ("_date", "timestamp", "valid_to")


def seconds(microseconds: int) -> float:
    """A time as the service writes it: seconds, to the millisecond."""
    return microseconds // 1000 / 1000


def _algorithms(seen: View) -> Members:
    spec = seen.key.spec
    lists = {
        "EncryptionAlgorithms": list(encryption_algorithms(spec)),
        "SigningAlgorithms": list(signing_algorithms(spec)),
        "MacAlgorithms": list(mac_algorithms(spec)),
        "KeyAgreementAlgorithms": ["ECDH"] if spec.purpose is Purpose.AGREE else [],
        "EncapsulationAlgorithms": ["ML_KEM"] if spec.purpose is Purpose.ENCAPSULATE else [],
    }
    return {name: names for name, names in lists.items() if names}


def metadata(seen: View) -> Members:
    """Write KeyMetadata."""
    key, state = seen.key, seen.state
    members: Members = {
        "AWSAccountId": seen.place.account,
        "KeyId": seen.id,
        "Arn": seen.arn,
        "CreationDate": seconds(seen.created_at),
        "Enabled": state is KeyState.ENABLED,
        "Description": seen.description,
        "KeyUsage": USAGE_OF[key.spec.purpose],
        "KeyState": state.value,
        "Origin": seen.origin,
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": seen.spec,
        "KeySpec": seen.spec,
        **_algorithms(seen),
        "MultiRegion": bool(seen.facts.get("multi_region")),
    }
    if state is KeyState.PENDING_DELETION and seen.deletion_at is not None:
        members["DeletionDate"] = seconds(seen.deletion_at)
    if seen.facts.get("waits_days") is not None and not seen.is_replica:
        members["PendingDeletionWindowInDays"] = seen.facts["waits_days"]
    if seen.facts.get("multi_region"):
        members["MultiRegionConfiguration"] = _regions(seen)
    newest = key.versions[-1]
    if key.spec.type is KeyType.AES and (seen.active is not None or "material_id" in material(newest)):
        members["CurrentKeyMaterialId"] = material_id(newest)  # of deleted material too: which one is to come back
    if seen.active is not None and seen.origin == EXTERNAL:
        valid_to = material(seen.active).get("valid_to")
        members["ExpirationModel"] = f"KEY_MATERIAL_{'DOES_NOT_EXPIRE' if valid_to is None else 'EXPIRES'}"
        if valid_to is not None:
            members["ValidTo"] = seconds(valid_to)
    return members


def _regions(seen: View) -> Members:
    def written(region: str) -> Members:
        return {"Arn": AccountRegion(seen.place.account, region).key_arn(seen.key), "Region": region}

    return {
        "MultiRegionKeyType": "REPLICA" if seen.is_replica else "PRIMARY",
        "PrimaryKey": written(seen.facts["region"]),
        "ReplicaKeys": [written(region) for region in sorted(seen.facts.get("replicas", {}))],
    }


def _described(seen: View) -> Members:
    return {"KeyMetadata": metadata(seen)}


def _public_key(seen: View) -> Members:
    version = seen.active
    algorithms = _algorithms(seen)
    return {
        "KeyId": seen.arn,
        "PublicKey": None if version is None else version.public_key,
        "CustomerMasterKeySpec": seen.spec,
        "KeySpec": seen.spec,
        "KeyUsage": USAGE_OF[seen.key.spec.purpose],
        **algorithms,
    }


def _scheduled(seen: View) -> Members:
    waits = seen.facts.get("waits_days") if not seen.is_replica else None
    members: Members = {
        "KeyId": seen.arn,
        "KeyState": seen.state.value,
        "PendingWindowInDays": seen.facet.get("window") if waits is None else waits,
    }
    if waits is None and seen.deletion_at is not None:
        members["DeletionDate"] = seconds(seen.deletion_at)
    return members


def _named(seen: View) -> Members:
    return {"KeyId": seen.arn}


def _replicated(seen: View) -> Members:
    tags = [{"TagKey": name, "TagValue": value} for name, value in seen.tags.items()]
    policy = seen.facet.get("policy") or default_policy(seen.place)
    return {"ReplicaKeyMetadata": metadata(seen), "ReplicaPolicy": policy, "ReplicaTags": tags}


def _listed(name: str, item: Callable[[Any], object]) -> Callable[[Page[Any]], Members]:
    def render(page: Page[Any]) -> Members:
        members: Members = {name: [item(one) for one in page.items], "Truncated": page.next is not None}
        if page.next is not None:
            members["NextMarker"] = page.next
        return members

    return render


def _key(seen: View) -> Members:
    return {"KeyId": seen.id, "KeyArn": seen.arn}


def _alias(pair: tuple[KeyName, View]) -> Members:
    name, seen = pair
    return {
        "AliasName": name.name,
        "AliasArn": seen.place.arn(name.name),
        "TargetKeyId": seen.id,
        "CreationDate": seconds(name.created_at),
        "LastUpdatedDate": seconds(name.updated_at),
    }


def _tag(pair: tuple[str, str]) -> Members:
    return {"TagKey": pair[0], "TagValue": pair[1]}


def _service(principal: str | None) -> str | None:
    """A principal that is a service of AWS, as its own member beside the one for all principals."""
    return None if principal is None or principal.startswith("arn:") else principal


def _grant(pair: tuple[Mapping[str, Any], View]) -> Members:
    grant, seen = pair
    members = {
        "KeyId": seen.arn,
        "GrantId": grant["id"],
        "Name": grant.get("name"),
        "CreationDate": seconds(grant["created_at"]),
        "GranteePrincipal": grant["grantee"],
        "GranteeServicePrincipal": _service(grant["grantee"]),
        "RetiringPrincipal": grant.get("retiring"),
        "RetiringServicePrincipal": _service(grant.get("retiring")),
        "IssuingAccount": seen.place.root_arn,
        "Operations": grant["operations"],
        "Constraints": grant.get("constraints"),
    }
    return {name: value for name, value in members.items() if value is not None}


def members(reply: Any) -> Members:  # noqa: ANN401  (any of dialects/aws/replies.py)
    """Write a reply by the names of its fields."""
    found: Members = {}
    for one in fields(reply):
        value = getattr(reply, one.name)
        if value is None:
            continue
        if is_dataclass(value):
            value = members(value)
        elif one.name.endswith(_TIMES):
            value = seconds(value)
        found[_member(one.name)] = value
    return found


_names: dict[str, str] = {}


def _member(field: str) -> str:
    name = _names.get(field)
    if name is None:
        name = _names[field] = "".join(part.capitalize() for part in field.split("_"))
    return name


_WRITERS: Final[Mapping[type[Request], Callable[[Any], Members]]] = {
    words.CancelKeyDeletion: _named,
    words.CreateKey: _described,
    words.DescribeCustomKeyStores: _listed("CustomKeyStores", str),
    words.DescribeKey: _described,
    words.GetPublicKey: _public_key,
    words.ListAliases: _listed("Aliases", _alias),
    words.ListGrants: _listed("Grants", _grant),
    words.ListKeyPolicies: _listed("PolicyNames", str),
    words.ListKeyRotations: _listed("Rotations", members),
    words.ListKeys: _listed("Keys", _key),
    words.ListResourceTags: _listed("Tags", _tag),
    words.ListRetirableGrants: _listed("Grants", _grant),
    words.ReplicateKey: _replicated,
    words.RotateKeyOnDemand: _named,
    words.ScheduleKeyDeletion: _scheduled,
}


def write_result(request: Request, result: object) -> Members | None:
    """The members of an answer; None for one that has no body."""
    if result is None:
        return None
    return _WRITERS.get(type(request), members)(result)

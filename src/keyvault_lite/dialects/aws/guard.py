"""What every operation of the AWS dialect on a key passes: policy and grants, grant tokens, and the dry run."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.authorize import KeyUse, check_named_key, check_use
from keyvault_lite.dialects.aws.errors import (
    DestinationNotFound,
    DryRun,
    InvalidGrantToken,
    InvalidKeyId,
    KeyNotFound,
    UnsupportedOperation,
)
from keyvault_lite.dialects.aws.model import ALIAS, USAGE_OF, AccountRegion, alias_names, judged_arn, parse_name
from keyvault_lite.dialects.aws.view import View, find, view
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.model.encoding import Context, decode_base64, encode_base64
from keyvault_lite.model.errors import InvalidCiphertext, InvalidRequest, KeyVaultError
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.keys import Key

Act = Callable[[Any, View, HandlerContext], HandlerResult]
"""One operation on a key in its Region."""
MICROSECONDS: Final = 1_000_000
_NOTE: Final = "GRANT"
_FACTS: Final[Mapping[str, str]] = {
    "encryption_algorithm": "kms:EncryptionAlgorithm",
    "signing_algorithm": "kms:SigningAlgorithm",
    "mac_algorithm": "kms:MacAlgorithm",
    "message_type": "kms:MessageType",
    "key_pair_spec": "kms:DataKeyPairSpec",
    "pending_window_in_days": "kms:ScheduleKeyDeletionPendingWindowInDays",
    "wrapping_algorithm": "kms:WrappingAlgorithm",
    "wrapping_key_spec": "kms:WrappingKeySpec",
    "replica_region": "kms:ReplicaRegion",
    "primary_region": "kms:PrimaryRegion",
}


def guarded(act: Act) -> Handler:
    """The handler of an operation on a key: its grant tokens have to be valid, and a dry run ends before any result.

    Policy and grants of the key have allowed it: dialects/aws/narrowing.py.
    """

    def handle(request: Any, ctx: HandlerContext) -> HandlerResult:  # noqa: ANN401  (each operation has its own)
        seen = view(ctx.key, request.place, ctx.now)
        tokens = getattr(request, "grant_tokens", ())
        for token in tokens:
            open_token(token, ctx)
        done = act(request, seen, ctx)
        if getattr(request, "dry_run", False):
            raise DryRun("The request would have succeeded, but the DryRun option is set.")
        return done

    return handle


def check(seen: View, operation: str, request: object, context: Context | None, ctx: HandlerContext) -> None:
    """Raise Forbidden unless policy and grants allow it."""
    use = KeyUse(operation, context, {} if seen.facet.get("policy") is None else _facts(seen, operation, request, ctx))
    check_use(ctx.principal, seen.place, judged_arn(seen.key, seen.place), seen.facet, use)


def _facts(seen: View, operation: str, request: object, ctx: HandlerContext) -> Mapping[str, tuple[str, ...]]:
    """What a policy's conditions can ask of the key and of the request."""
    found = key_facts(seen, ctx)
    named: str = getattr(request, "key", "")
    if isinstance(request, words.ReEncrypt):
        named, algorithm = _side(request, operation)
        found["kms:EncryptionAlgorithm"] = (algorithm,)
        found["kms:ReEncryptOnSameKey"] = (_truth(_is_same(request, ctx)),)
    if isinstance(request, words.CreateGrant):
        found["kms:GrantOperations"] = request.operations
        found["kms:GranteePrincipal"] = _given(request.grantee_principal)
        found["kms:RetiringPrincipal"] = _given(request.retiring_principal)
    if ALIAS in named:
        found["kms:RequestAlias"] = (named[named.index(ALIAS) :],)
    return {fact: _given(getattr(request, name, None)) for name, fact in _FACTS.items()} | found


def key_facts(seen: View, ctx: HandlerContext) -> dict[str, tuple[str, ...]]:
    """What conditions can ask of the key, the moment and the caller's address."""
    key = seen.key
    return {
        "kms:KeySpec": (seen.spec,),
        "kms:KeyUsage": (USAGE_OF[key.spec.purpose],),
        "kms:KeyOrigin": (seen.origin,),
        "kms:MultiRegion": (_truth(bool(seen.facts.get("multi_region"))),),
        "kms:ResourceAliases": alias_names(key, seen.place),
        "aws:CurrentTime": (datetime.fromtimestamp(ctx.now // MICROSECONDS, UTC).isoformat(),),
        "aws:EpochTime": (str(ctx.now // MICROSECONDS),),
        "aws:SourceIp": _address(ctx.source),
        **{f"aws:ResourceTag/{name}": (value,) for name, value in seen.tags.items()},
    }


def _truth(value: bool) -> str:  # noqa: FBT001
    return "true" if value else "false"


def _given(value: object) -> tuple[str, ...]:
    return () if value is None else (str(value),)


def _address(source: str | None) -> tuple[str, ...]:
    """The peer's address in its plain form; nothing, for a peer without one, as behind a Unix socket."""
    try:
        address = ip_address(source or "")
    except ValueError:
        return ()
    return (str(getattr(address, "ipv4_mapped", None) or address),)


def _side(request: words.ReEncrypt, operation: str) -> tuple[str, str]:
    """Name and algorithm of the key that a re-encryption is evaluated on."""
    if operation == "ReEncryptTo":
        return request.destination_key_id, request.destination_encryption_algorithm
    return request.key, request.source_encryption_algorithm


def _is_same(request: words.ReEncrypt, ctx: HandlerContext) -> bool:
    """Whether both keys of a re-encryption are one. Of a key that is not found its own check will say so."""
    with suppress(KeyVaultError):
        key = find(parse_name(request.destination_key_id, request.place), request.place, ctx.state, ctx.now)
        return key is not None and key.id == ctx.key.id
    return False


def other_key(name: str, place: AccountRegion, action: Action, ctx: HandlerContext) -> Key:
    """A second key that a request names, if the vault lets the caller use it so. Raises as for the first."""
    try:
        named = parse_name(name, place)
        key = find(named, place, ctx.state, ctx.now)
        return check_named_key(ctx.principal, key, named.ref, action)
    except KeyNotFound as error:
        raise DestinationNotFound(error.detail) from None


def key_by_id(name: str, place: AccountRegion, action: Action, ctx: HandlerContext) -> Key:
    """A key by its id or ARN, if the vault lets the caller act so on it. An alias is neither."""
    named = parse_name(name, place)
    key = None if named.alias else find(named, place, ctx.state, ctx.now)
    try:
        return check_named_key(ctx.principal, key, named.ref, action)
    except KeyNotFound:
        if named.alias:
            raise InvalidKeyId from None
        raise


def refuse_recipient(recipient: object) -> None:
    """Refuse to answer to an attested enclave: its attestation cannot be verified here."""
    if recipient is not None:
        raise UnsupportedOperation(
            "Recipient: attestation documents are not verified here, so nothing is released to one"
        )


# Grant tokens


def make_token(seen: View, grant_id: str, ctx: HandlerContext) -> str:
    """A token of a grant."""
    payload = json.dumps([seen.key.id, seen.place.region, grant_id]).encode()
    return encode_base64(ctx.keyring.seal_note(_NOTE, payload))


def open_token(token: str, ctx: HandlerContext) -> tuple[Key, Mapping[str, Any], AccountRegion]:
    """The key, grant and Region of a token of a live grant. Raises InvalidGrantToken."""
    try:
        key_id, region, grant_id = json.loads(ctx.keyring.open_note(_NOTE, decode_base64(token)))
    except (InvalidCiphertext, InvalidRequest):
        raise InvalidGrantToken from None
    key, place = ctx.state.find_key(key_id), AccountRegion("", region)
    for grant in () if key is None else view(key, place, ctx.now).facet.get("grants", ()):
        if key is not None and grant["id"] == grant_id:
            return key, grant, place
    raise InvalidGrantToken

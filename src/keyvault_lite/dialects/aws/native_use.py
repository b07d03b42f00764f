"""Key policies and AWS grants where a SERVICE uses a key through the native API.

The ciphertexts of both APIs are the same containers, so one native call would step around a policy that bound AWS
clients alone (ADR 0027). A native request is evaluated as the AWS operation that does the same, at the key's home.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from keyvault_lite.dialects.aws.authorize import KeyUse, check_use
from keyvault_lite.dialects.aws.guard import key_facts
from keyvault_lite.dialects.aws.model import (
    SYMMETRIC,
    AccountRegion,
    encryption_algorithms,
    facts,
    judged_arn,
    signing_word,
)
from keyvault_lite.dialects.aws.view import View, view
from keyvault_lite.engine.handler import HandlerContext
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keys import Key, KeyType, Purpose
from keyvault_lite.model.requests import (
    Decrypt,
    Encrypt,
    GenerateDataKey,
    ListVersions,
    OpenDataKey,
    ReadKey,
    ReadPublicKey,
    Request,
    Rewrap,
    Sign,
    Verify,
)

Operations = Callable[[Any, Key], tuple[str, ...]]
"""The AWS operations that a native request on a key amounts to."""
OPERATIONS: Final[Mapping[type[Request], Operations]] = {
    Decrypt: lambda *_: ("Decrypt",),
    Encrypt: lambda *_: ("Encrypt",),
    GenerateDataKey: lambda request, _: ("GenerateDataKey" + ("" if request.reveal else "WithoutPlaintext"),),
    OpenDataKey: lambda *_: ("Decrypt",),
    ReadPublicKey: lambda *_: ("GetPublicKey",),
    Rewrap: lambda *_: ("ReEncryptFrom", "ReEncryptTo"),
    Sign: lambda _, key: ("GenerateMac" if key.spec.purpose is Purpose.MAC else "Sign",),
    Verify: lambda _, key: ("VerifyMac" if key.spec.purpose is Purpose.MAC else "Verify",),
}
METADATA: Final[frozenset[type[Request]]] = frozenset({ListVersions, ReadKey})
"""What policies do not bind: it tells no more than the list of keys, which AWS does not authorise by key either."""
_POLICIES: Final = ("policy", "grantees", "grants")


def narrow_native(account: str, request: Request, ctx: HandlerContext) -> None:
    """Raise Forbidden for what policy and AWS grants of a key keep a SERVICE from doing through another API."""
    operations = OPERATIONS.get(type(request))
    if operations is None or ctx.principal.role is not Role.SERVICE:
        return
    if any(one in facts(ctx.key) for one in _POLICIES):
        _check(account, request, operations(request, ctx.key), ctx)


def _check(account: str, request: Request, operations: tuple[str, ...], ctx: HandlerContext) -> None:
    """Raise Forbidden unless policy and grants allow all of this."""
    key = ctx.key
    place = AccountRegion(account, facts(key).get("region", ""))
    seen = view(key, place, ctx.now)
    known = {**key_facts(seen, ctx), **_facts(seen, request)}
    for operation in operations:
        use = KeyUse(operation, request.bound_context, known, regional=bool(place.region))
        check_use(ctx.principal, place, judged_arn(key, place), seen.facet, use)


def _facts(seen: View, request: Request) -> dict[str, tuple[str, ...]]:
    """What conditions can ask of the request, in the words of the AWS dialect."""
    spec = seen.key.spec
    if isinstance(request, (Sign, Verify)):
        word = signing_word(spec, request.algorithm)
        algorithm = () if word is None else (word,)
        if spec.purpose is Purpose.MAC:
            return {"kms:MacAlgorithm": algorithm}
        return {"kms:SigningAlgorithm": algorithm, "kms:MessageType": ("DIGEST" if request.prehashed else "RAW",)}
    # The native API wraps with RSA-OAEP and SHA-256 alone.
    sealing = SYMMETRIC if spec.type is KeyType.AES else "RSAES_OAEP_SHA_256"
    found: dict[str, tuple[str, ...]] = {}
    if sealing in encryption_algorithms(spec):
        found["kms:EncryptionAlgorithm"] = (sealing,)
    if isinstance(request, Rewrap):
        found["kms:ReEncryptOnSameKey"] = ("true",)
    return found

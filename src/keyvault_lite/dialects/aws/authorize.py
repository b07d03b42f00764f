"""What key policies and AWS grants leave of the vault's own authorisation.

They bind AWS clients, and a SERVICE in the native API too (dialects/aws/native_use.py).

Allowed is what the vault allows and the key's policy does not deny, if one of these holds besides:
- the policy names the caller,
- a grant on the key allows the operation, its constraints included,
- the policy leaves it to the account (the default does), and the caller was never made a grantee of the key.

So a grant takes its grantee out of the account's general permission, for this key, and what is left of it after the
grant was revoked is nothing: as with the service, where the grant was all the grantee had. Nothing here ever allows
what the vault does not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from keyvault_lite.access.authorize import NO_KEY, check_key
from keyvault_lite.dialects.aws.errors import KeyNotFound, MalformedPolicy
from keyvault_lite.dialects.aws.model import AccountRegion, comparable
from keyvault_lite.dialects.aws.policy import AuthorizationRequest, Decision, read_policy
from keyvault_lite.model.encoding import Context
from keyvault_lite.model.errors import Forbidden, NotFound
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Principal, Role
from keyvault_lite.model.keys import Key

REFUSAL: Final = "the key's policy or grants do not allow this"
RESCUE: Final = frozenset({"GetKeyPolicy", "PutKeyPolicy", "ListKeyPolicies", "DescribeKey"})
"""What an ADMIN may always do, so that no policy can lock everyone out."""
_BOUND: Final = frozenset(
    {
        "Decrypt",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
        "GenerateDataKeyWithoutPlaintext",
        "ReEncryptFrom",
        "ReEncryptTo",
    }
)
"""Operations that have an encryption context, which a grant's constraints are about."""


def check_named_key(principal: Principal, key: Key | None, ref: str | None, action: Action) -> Key:
    """As `check_key`; and a SERVICE that a grant covers under the name it used gets NotFound."""
    try:
        return check_key(principal, key, action)
    except NotFound as error:
        if key is None and (principal.role is not Role.SERVICE or _covers(principal, ref)):
            raise KeyNotFound(NO_KEY) from None
        raise error from None


def _covers(principal: Principal, ref: str | None) -> bool:
    return any(grant.key == "*" or (ref is not None and grant.covers(ref)) for grant in principal.grants)


@dataclass(frozen=True, slots=True)
class KeyUse:
    """An operation on a key, as policies and grants see it."""

    operation: str
    context: Context | None = field(default=None, repr=False)
    """The encryption context."""
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other condition keys, with the request's values."""
    regional: bool = True
    """Whether the request is one of a Region; conditions on the Region are not understood otherwise."""


def check_use(principal: Principal, place: AccountRegion, arn: str, facet: Mapping[str, Any], use: KeyUse) -> None:
    """Raise Forbidden unless policy and grants of a key allow what the vault allows already."""
    if principal.role is Role.ADMIN and use.operation in RESCUE:
        return
    caller = comparable(place.principal_arn(principal.name))
    told = _evaluate(principal, place, arn, facet.get("policy"), use)
    if told.denied:
        raise Forbidden(REFUSAL)
    if told.named:
        return
    governed = principal.role is Role.SERVICE and caller in map(comparable, facet.get("grantees", ()))
    if told.delegated and not governed:
        return
    if not any(allows(grant, caller, use) for grant in facet.get("grants", ())):
        raise Forbidden(REFUSAL)


def _evaluate(principal: Principal, place: AccountRegion, arn: str, policy: str | None, use: KeyUse) -> Decision:
    if policy is None:
        return Decision(delegated=True)
    pairs = use.context or {}
    context = {
        **_by_key(use.facts.items()),
        **_by_key((f"kms:EncryptionContext:{name}", (value,)) for name, value in pairs.items()),
        **_by_key([("kms:EncryptionContextKeys", tuple(pairs))]),
    }
    try:
        known = read_policy(policy)
    except MalformedPolicy:
        return Decision(denied=True)  # kept by an earlier version, and read by this one as no policy
    question = _question(principal, place, arn, use.operation, context)
    if not use.regional:
        question = replace(question, context={**question.context, "aws:requestedregion": None})
    return known.evaluate(question)


def _by_key(facts: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    """Values by key in lower case: all of them, where names differ in nothing else. A key of no values is absent."""
    found: dict[str, list[str]] = {}
    for name, values in facts:
        if values:
            found.setdefault(name.lower(), []).extend(values)
    return {key: tuple(values) for key, values in found.items()}


def _question(
    principal: Principal, place: AccountRegion, arn: str, operation: str, context: Mapping[str, tuple[str, ...]]
) -> AuthorizationRequest:
    """What the principal asks of a key's policy: the context, and what is known of the principal."""
    caller = comparable(place.principal_arn(principal.name))
    known = {
        "aws:principalarn": (caller,),
        "aws:principalaccount": (place.account,),
        "aws:principaltype": ("User",),
        "aws:username": (principal.name,),
        "aws:userid": (principal.service_id,),
        "aws:requestedregion": (place.region,),
        "kms:calleraccount": (place.account,),
    }
    return AuthorizationRequest(caller, comparable(place.root_arn), f"kms:{operation}", arn, {**context, **known})


def allows(grant: Mapping[str, Any], caller: str, use: KeyUse) -> bool:
    """Whether a grant lets the caller do this."""
    return (
        comparable(grant["grantee"]) == comparable(caller)
        and use.operation in grant["operations"]
        and (use.operation not in _BOUND or _within(grant.get("constraints") or {}, use.context or {}))
        # The ARN of a source comes from the service's own integrations, none of which is here.
        and "SourceArn" not in (grant.get("constraints") or {})
    )


def _within(constraints: Mapping[str, Any], context: Context) -> bool:
    """Whether the pairs are as the constraints have them: the names in any case, all values of a name the same."""
    equals, subset = constraints.get("EncryptionContextEquals"), constraints.get("EncryptionContextSubset")
    given = _by_name(context)
    if equals is not None and _by_name(equals) != given:
        return False
    return subset is None or all(given.get(name) == values for name, values in _by_name(subset).items())


def _by_name(pairs: Context) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, value in pairs.items():
        found.setdefault(name.lower(), set()).add(value)
    return found


def may_retire(principal: Principal, place: AccountRegion, grant: Mapping[str, Any]) -> bool:
    """Whether the principal may retire a grant: an ADMIN, the retiring principal, the grantee of one that says so."""
    caller = comparable(place.principal_arn(principal.name))
    if principal.role is Role.ADMIN or comparable(grant.get("retiring", "")) == caller:
        return True
    return comparable(grant["grantee"]) == caller and "RetireGrant" in grant["operations"]


def may_list_retirable(principal: Principal, place: AccountRegion, retiring: str | None) -> bool:
    """Whether the principal may see what another can retire."""
    return principal.role in {Role.ADMIN, Role.AUDITOR} or _is_caller(principal, place, retiring)


def _is_caller(principal: Principal, place: AccountRegion, arn: str | None) -> bool:
    return arn is not None and comparable(arn) == comparable(place.principal_arn(principal.name))


def locks_out(policy: str, principal: Principal, place: AccountRegion, arn: str) -> bool:
    """Whether a policy would leave its author unable to change it again. Raises MalformedPolicy."""
    told = read_policy(policy).evaluate(_question(principal, place, arn, "PutKeyPolicy", {}))
    return told.denied or not (told.named or told.delegated)

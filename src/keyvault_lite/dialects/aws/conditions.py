"""Conditions of key policies: which keys the vault evaluates, and how their values are compared.

What is not understood counts against the caller: it holds in a statement that denies, and fails in one that allows.
Not understood is a condition whose key or operator is not in the tables here, and one with a value that cannot be read.
"""

import ipaddress
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from keyvault_lite.dialects.aws.model import comparable
from keyvault_lite.model.names import matches

Context = Mapping[str, Sequence[str] | None]
"""Condition keys in lower case, with the values that the request has for them: at least one.

None says that a request of this kind does not determine the value; a condition on it is not understood.
"""
KEYS: Final = frozenset(
    {
        "aws:currenttime",
        "aws:epochtime",
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principaltype",
        "aws:requestedregion",
        "aws:sourceip",
        "aws:userid",
        "aws:username",
        "kms:calleraccount",
        "kms:datakeypairspec",
        "kms:encryptionalgorithm",
        "kms:encryptioncontextkeys",
        "kms:granteeprincipal",
        "kms:grantoperations",
        "kms:keyorigin",
        "kms:keyspec",
        "kms:keyusage",
        "kms:macalgorithm",
        "kms:messagetype",
        "kms:multiregion",
        "kms:primaryregion",
        "kms:reencryptonsamekey",
        "kms:replicaregion",
        "kms:requestalias",
        "kms:resourcealiases",
        "kms:retiringprincipal",
        "kms:schedulekeydeletionpendingwindowindays",
        "kms:signingalgorithm",
        "kms:viaservice",  # always absent: no request comes through a service of AWS
        "kms:wrappingalgorithm",
        "kms:wrappingkeyspec",
    }
)
"""What the vault evaluates. It knows the value of each, or knows that the request has none."""
PAIRS: Final = ("aws:resourcetag/", "kms:encryptioncontext:")
"""How keys begin that are evaluated too, one for each name of a tag or pair.

Names that differ in case only are one key with several values. The caller may choose them, so all have to fit in a
statement that allows, and one is enough in a statement that denies.
"""

PRINCIPALS: Final = frozenset({"aws:principalarn", "kms:granteeprincipal", "kms:retiringprincipal"})
"""Keys whose values are ARNs of principals: partitions are left out of their comparison."""
VARIABLE: Final = "${"
"""How a policy variable begins. None is filled in here, and taken for text it could be what the caller says."""
ALL_VALUES: Final = "ForAllValues:"
ANY_VALUE: Final = "ForAnyValue:"


def holds(name: str, key: str, wanted: Sequence[str], context: Context, *, denies: bool) -> bool:
    """Whether a condition holds, in a statement that denies or in one that allows. `key` is in lower case."""
    scope = next((one for one in (ALL_VALUES, ANY_VALUE) if name.startswith(one)), "")
    compare, negated, read = _OPERATORS.get(name.removeprefix(scope).removesuffix("IfExists"), _NO_OPERATOR)
    values = context.get(key)
    known = (key in KEYS or key.startswith(PAIRS)) and (compare is not None or name == "Null")
    undetermined = values is None and key in context
    if undetermined or not (known and _is_readable(wanted, read)):
        return denies
    if key in PRINCIPALS:
        wanted = [comparable(one) for one in wanted]
        values = None if values is None else [comparable(one) for one in values]
    if compare is None:
        return _is_absent(wanted, absent=values is None, denies=denies)
    if values is None:
        return scope != ANY_VALUE and (negated or name.endswith("IfExists") or scope == ALL_VALUES)
    try:
        met = [any(compare(one, value) for one in wanted) is not negated for value in values]
    except (ValueError, ArithmeticError):
        return denies
    if key.startswith(PAIRS) or not scope:
        return any(met) if denies else all(met)
    return all(met) if scope == ALL_VALUES else any(met)


def _is_readable(wanted: Sequence[str], read: Callable[[str], object]) -> bool:
    """Whether all that is wanted is what the operator compares, whatever the request has to say."""
    try:
        for one in wanted:
            read(one)
    except (ValueError, ArithmeticError):
        return False
    return bool(wanted) and not any(VARIABLE in one for one in wanted)


def _is_absent(wanted: Sequence[str], *, absent: bool, denies: bool) -> bool:
    words = {one.lower() for one in wanted}
    return denies if words - {"true", "false"} else ("true" if absent else "false") in words


# Comparisons, of what a policy wants and the request's value. A ValueError or ArithmeticError: one of them is not one.


def like(pattern: str, text: str) -> bool:
    """Whether a pattern with `*` and `?` covers the text."""
    if "?" not in pattern:
        return matches(pattern, text)
    # At most one of the two ways forward is tried again for each position: no pattern takes exponential time.
    place = mark = 0
    star = -1
    index = 0
    while place < len(text):
        if index < len(pattern) and pattern[index] != "*" and pattern[index] in {"?", text[place]}:
            place, index = place + 1, index + 1
        elif index < len(pattern) and pattern[index] == "*":
            star, mark, index = index, place, index + 1
        elif star >= 0:
            mark += 1
            place, index = mark, star + 1
        else:
            return False
    return set(pattern[index:]) <= {"*"}


MAX_ARN: Final = 512
"""Characters of an ARN: no key has a longer one."""
_RUNS: Final = re.compile(r"\*+")


@lru_cache(maxsize=4096)
def covers_arn(pattern: str, arn: str) -> bool:
    """Whether a pattern covers an ARN; for one with `*`, some ARN that has any text without colons in those places."""
    if "*" not in arn:
        return like(pattern, arn)
    pattern = _RUNS.sub("*", pattern)
    if len(pattern.replace("*", "")) > MAX_ARN:
        return False
    first, *rest = arn.split("*")
    places = _advance(pattern, {0}, first)
    for piece in rest:
        places = _advance(pattern, _skip(pattern, places), piece)
    return len(pattern) in places


def _advance(pattern: str, places: set[int], text: str) -> set[int]:
    """Where in a pattern one may be behind a text, having been at one of some places before it."""
    places = _past_stars(pattern, places)
    for one in text:
        met = (at for at in places if at < len(pattern) and pattern[at] in {"*", "?", one})
        moved = {at if pattern[at] == "*" else at + 1 for at in met}
        places = _past_stars(pattern, moved)
    return places


def _skip(pattern: str, places: set[int]) -> set[int]:
    """As `_advance`, for any text without colons."""
    found: set[int] = set()
    for place in places:
        end = pattern.find(":", place)
        found.update(range(place, (len(pattern) if end < 0 else end) + 1))
    return found


def _past_stars(pattern: str, places: set[int]) -> set[int]:
    return places | {at + 1 for at in places if pattern[at : at + 1] == "*"}


_NUMBER: Final = re.compile(r"[+-]?\d{1,18}(\.\d{1,9})?", re.ASCII)
_EPOCH_SECONDS: Final = re.compile(r"\d{9,12}(\.\d{1,6})?", re.ASCII)
"""Fewer digits are a year or a day."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _number(text: str) -> Decimal:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("no number")
    return Decimal(text)


def _snapshot_version(text: str) -> Decimal:
    """Seconds since 1970, of such or of a date; one without an offset is in UTC."""
    if _EPOCH_SECONDS.fullmatch(text) is not None:
        return Decimal(text)
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return Decimal((moment - _EPOCH) // timedelta(microseconds=1)) / 1_000_000


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _is_within(network: str, address: str) -> bool:
    return ipaddress.ip_address(address) in _network(network)


_Compare = Callable[[str, str], bool]


def _ordered(read: Callable[[str], Any], compare: Callable[[Any, Any], bool]) -> _Compare:
    return lambda wanted, value: compare(read(value), read(wanted))


def _same(wanted: str, value: str) -> bool:
    return wanted.lower() == value.lower()


_NO_OPERATOR: Final = (None, False, str)
_OPERATORS: Final[Mapping[str, tuple[_Compare, bool, Callable[[str], object]]]] = {
    # How what is wanted and a value are compared, whether no match is asked for, and how what is wanted is read.
    "StringEquals": (operator.eq, False, str),
    "StringNotEquals": (operator.eq, True, str),
    "StringEqualsIgnoreCase": (_same, False, str),
    "StringNotEqualsIgnoreCase": (_same, True, str),
    "StringLike": (like, False, str),
    "StringNotLike": (like, True, str),
    "ArnEquals": (like, False, str),
    "ArnLike": (like, False, str),
    "ArnNotEquals": (like, True, str),
    "ArnNotLike": (like, True, str),
    "Bool": (_same, False, str),
    "IpAddress": (_is_within, False, _network),
    "NotIpAddress": (_is_within, True, _network),
    **{
        f"{kind}{name}": (_ordered(read, compare), name == "NotEquals", read)
        for kind, read in (("Numeric", _number), ("Date", _snapshot_version))
        for name, compare in (
            ("Equals", operator.eq),
            ("NotEquals", operator.eq),
            ("LessThan", operator.lt),
            ("LessThanEquals", operator.le),
            ("GreaterThan", operator.gt),
            ("GreaterThanEquals", operator.ge),
        )
    },
}

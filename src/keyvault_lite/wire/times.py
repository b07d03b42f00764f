"""Times on the wire: RFC 3339 in UTC, to the microsecond. Inside they are integers of microseconds since 1970."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from keyvault_lite.model.errors import InvalidRequest

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# 24:00 is not RFC 3339, though ISO 8601 and newer Pythons know it.
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT(?!24)\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)", re.ASCII)


def format_time(microseconds: int) -> str:
    """Write a time down, always with six decimals and Z."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> int:
    """Read a time: UTC only, as Z or +00:00, at most six decimals. Raises InvalidRequest."""
    if _TIME.fullmatch(text) is None:
        raise InvalidRequest("a time is written like 2026-01-31T12:00:00Z: RFC 3339, UTC, at most microseconds")
    seconds, _, rest = text.removesuffix("Z").removesuffix("+00:00").partition(".")
    try:
        moment = datetime.fromisoformat(seconds).replace(tzinfo=UTC)
    except ValueError:
        raise InvalidRequest("there is no such time") from None
    return (moment - _EPOCH) // _MICROSECOND + int(rest.ljust(6, "0"))

"""What a request's head has to be, beyond what the parser requires of it (RFC 9112, sections 2.3 and 3.2)."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

MAX_HEADERS: Final = 128
"""Lines of a head."""
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")


class RefusedHeadError(Exception):
    """A head that is not taken. Raised inside the parser, which makes it a plain 400 and a closed connection."""


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def check_head(version: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise RefusedHeadError for a version that is not served, and unless HTTP/1.1 names one host in one Host field."""
    hosts = [value for name, value in headers if name == b"host"]
    missing = not hosts and version != "1.0"
    if version not in _VERSIONS or missing or len(hosts) > 1 or (hosts and not _is_host(hosts[0])):
        raise RefusedHeadError

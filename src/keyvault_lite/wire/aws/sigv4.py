r"""AWS Signature Version 4 as it comes in: from headers or query to what needs a secret to verify.

    string to sign    = "AWS4-HMAC-SHA256" \n time \n scope \n hex SHA-256(canonical request)
    canonical request = method \n path \n query \n headers \n names of the headers \n hex SHA-256(body)

Everything is made from the request as it came, never from what the caller says of it. What matters must be under the
signature: the host, the time and every x-amz-* header that is read here, the operation above all; a body that is not
(UNSIGNED-PAYLOAD) is refused. Other headers, which proxies add, say nothing here.
A header that comes twice and is signed has no one value, so such a request is refused too.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from keyvault_lite.dialects.aws.credentials import AwsCredential, SignatureFault
from keyvault_lite.model.names import TokenId
from keyvault_lite.wire.http import Exchange

ALGORITHM: Final = b"AWS4-HMAC-SHA256"
SERVICE: Final = "kms"
MAX_LIFETIME: Final = 7 * 24 * 3600
"""Seconds that a presigned request may be good for."""
_MAX_FIELD: Final = 4096
_PARTS: Final = frozenset({b"Credential", b"SignedHeaders", b"Signature"})
_READ: Final = frozenset({b"x-amz-content-sha256", b"x-amz-date", b"x-amz-security-token", b"x-amz-target"})
"""Headers of the service that mean something here: none of them counts unless it is signed."""
_SCOPE: Final = re.compile(r"([A-Za-z0-9]{16,128})/(\d{8})/([a-z0-9-]{1,32})/([a-z0-9-]{1,32})/aws4_request", re.ASCII)
_NAMES: Final = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+(?:;[a-z0-9!#$%&'*+.^_`|~-]+)*")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIME: Final = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE: Final = re.compile(
    rf"[A-Z][a-z]{{2}}, (\d\d) ({'|'.join(_MONTHS)}) (\d{{4}}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII
)
_SPACES: Final = re.compile(rb" +")
_SAFE: Final = "-_.~"


def _faulty(fault: SignatureFault) -> AwsCredential:
    return AwsCredential(TokenId(""), "", "", "", b"", "", 0, fault=fault)


MISSING: Final = _faulty(SignatureFault.MISSING)
INCOMPLETE: Final = _faulty(SignatureFault.INCOMPLETE)


def read_credential(exchange: Exchange, body: bytes) -> AwsCredential:
    """The credential of a request, unverified; one with a fault if there is nothing to verify."""
    header = exchange.headers.get(b"authorization")
    if header is not None and len(header) <= _MAX_FIELD and header.startswith(ALGORITHM):
        return _from_header(exchange, header, body)
    if b"X-Amz-" in exchange.query:
        return _from_query(exchange, body)
    return MISSING if header is None else INCOMPLETE


def _from_header(exchange: Exchange, header: bytes, body: bytes) -> AwsCredential:
    given = _parts(header)
    dated = b"x-amz-date" if b"x-amz-date" in exchange.headers else b"date"
    if given is None:
        return INCOMPLETE
    query = _canonical_query(_pairs(exchange.query)) if exchange.query else b""
    return _credential(
        exchange,
        body,
        scope=_text(given[b"Credential"]),
        names=given[b"SignedHeaders"],
        signature=_text(given[b"Signature"]),
        time=_basic(_text(exchange.headers.get(dated, b""))),
        query=query,
        dated=dated,
    )


def _parts(header: bytes) -> dict[bytes, bytes] | None:
    """The parts of an Authorization header, in whatever order; None unless each is there, once."""
    rest = header.removeprefix(ALGORITHM)
    pairs = [part.strip(b" ").partition(b"=") for part in rest.split(b",")]
    given = {name: value for name, _, value in pairs}
    sound = rest.startswith(b" ") and len(pairs) == len(_PARTS) and given.keys() == _PARTS
    return given if sound and _SIGNATURE.fullmatch(_text(given[b"Signature"])) is not None else None


def _basic(time: str) -> str:
    """A time as X-Amz-Date has it, of such or of a Date header."""
    found = _HTTP_DATE.fullmatch(time)
    if found is None:
        return time
    day, month, year, *clock = found.groups()
    return f"{year}{_MONTHS.index(month) + 1:02}{day}T{''.join(clock)}Z"


def _from_query(exchange: Exchange, body: bytes) -> AwsCredential:
    pairs = _pairs(exchange.query)
    given = dict(pairs)
    lifetime = given.get("X-Amz-Expires", "")
    sound = len(given) == len(pairs) and lifetime.isascii() and lifetime.isdigit() and len(lifetime) <= 6  # noqa: PLR2004
    if not sound or not 0 < int(lifetime) <= MAX_LIFETIME or given.get("X-Amz-Algorithm") != _text(ALGORITHM):
        return INCOMPLETE
    signature = given.get("X-Amz-Signature", "")
    if _SIGNATURE.fullmatch(signature) is None:
        return INCOMPLETE
    query = _canonical_query([pair for pair in pairs if pair[0] != "X-Amz-Signature"])
    return _credential(
        exchange,
        body,
        scope=given.get("X-Amz-Credential", ""),
        names=given.get("X-Amz-SignedHeaders", "").encode(),
        signature=signature,
        time=given.get("X-Amz-Date", ""),
        query=query,
        token=given.get("X-Amz-Security-Token"),
        lifetime=int(lifetime),
    )


def _credential(
    exchange: Exchange,
    body: bytes,
    *,
    scope: str,
    names: bytes,
    signature: str,
    time: str,
    query: bytes,
    dated: bytes | None = None,
    token: str | None = None,
    lifetime: int | None = None,
) -> AwsCredential:
    found = _SCOPE.fullmatch(scope)
    signed_at = _snapshot_version(time)
    headers = _canonical_headers(exchange, names, dated)
    if found is None or signed_at is None or headers is None:
        return INCOMPLETE
    access_key, day, region, service = found.groups()
    if service != SERVICE:
        return _faulty(SignatureFault.OTHER_SERVICE)
    if token or exchange.headers.get(b"x-amz-security-token"):
        return _faulty(SignatureFault.SESSION)  # access keys here are lasting ones; no session was ever opened
    payload = hashlib.sha256(body).hexdigest().encode()
    if day != time[:8] or exchange.headers.get(b"x-amz-content-sha256", payload) != payload:
        return INCOMPLETE
    method = exchange.scope["method"].encode()
    canonical = b"\n".join((method, _path(exchange), query, headers, names, payload))
    place = scope.partition("/")[2].encode()
    string_to_sign = b"\n".join((ALGORITHM, time.encode(), place, hashlib.sha256(canonical).hexdigest().encode()))
    return AwsCredential(TokenId(access_key), day, region, service, string_to_sign, signature, signed_at, lifetime)


def _path(exchange: Exchange) -> bytes:
    path: bytes = exchange.scope.get("raw_path") or exchange.scope["path"].encode()
    return path


def _canonical_headers(exchange: Exchange, names: bytes, dated: bytes | None) -> bytes | None:
    """The headers under the signature, each in one line; None if one is absent, repeated, or wrongly left out.

    `dated` is the one that the time was taken from.
    """
    if len(names) > _MAX_FIELD or _NAMES.fullmatch(names) is None:
        return None
    listed = names.split(b";")
    signed = frozenset(listed)
    if len(signed) != len(listed) or b"host" not in signed or listed != sorted(listed):
        return None
    present = [name for name, _ in exchange.scope["headers"]]
    if not signed.issuperset(_READ.intersection(present)) or (dated is not None and dated not in signed):
        return None
    values: Mapping[bytes, bytes] = exchange.headers
    times = Counter(present)
    if any(times[name] != 1 for name in listed):
        return None
    return b"".join(b"%b:%b\n" % (name, _SPACES.sub(b" ", values[name].strip(b" \t"))) for name in listed)


def _pairs(query: bytes) -> list[tuple[str, str]]:
    # No "+" for a space here: SigV4 has percent signs only.
    parts = [part.partition(b"=") for part in query.split(b"&") if part]
    return [(_text(unquote_to_bytes(name)), _text(unquote_to_bytes(value))) for name, _, value in parts]


def _canonical_query(pairs: list[tuple[str, str]]) -> bytes:
    written = sorted(
        (quote(name, safe=_SAFE, encoding="latin-1"), quote(value, safe=_SAFE, encoding="latin-1"))
        for name, value in pairs
    )
    return "&".join(f"{name}={value}" for name, value in written).encode()


def _text(raw: bytes) -> str:
    # Bytes as they are, one character each: nothing here is shown, only compared and hashed again.
    return raw.decode("latin-1")


def _snapshot_version(time: str) -> int | None:
    found = _TIME.fullmatch(time)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups())
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) * 1_000_000

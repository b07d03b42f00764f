"""One short HTTPS exchange with a service that wraps keys.

Bounded in time and size; no redirects, no proxies, no cookies. What a service answers in error is never repeated: it
may hold what was sent.
"""

import http.client
import ipaddress
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import SplitResult, urlsplit

from keyvault_lite.crypto.root import RootError
from keyvault_lite.roots.root import RootRefused, RootUnavailable

TIMEOUT_SECONDS: Final = 5.0
MAX_ANSWER: Final = 64 * 1024
_OK: Final = 200
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service is."""

    parts: SplitResult
    ca_file: str | None = None

    @classmethod
    def parse(cls, url: str, *, ca_file: str | None = None) -> Self:
        """Raises RootError for anything but https, or http to this machine."""
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise RootError("The address of the root is malformed.") from None
        if parts.scheme not in {"https", "http"} or not parts.hostname or parts.username or parts.fragment:
            raise RootError("The address of the root is like https://host:port.")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise RootError("A root on another machine is reached over https only.")
        return cls(parts, ca_file)

    @property
    def host(self) -> str:
        """With the port, if one is given: the header Host."""
        return self.parts.netloc

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """The JSON object that is answered with 200. Raises RootUnavailable and RootRefused."""
        return _exchange(self._connect(), ("POST", path), body, headers, self.host)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self.parts.hostname or "", self.parts.port
        if self.parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError:
            raise RootRefused(f"The certificates {self.ca_file} cannot be read.") from None
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)


def _exchange(
    connection: http.client.HTTPConnection, request: tuple[str, str], body: bytes, headers: Mapping[str, str], host: str
) -> dict[str, Any]:
    try:
        connection.request(*request, body, dict(headers))
        reply = connection.getresponse()
        raw = reply.read(MAX_ANSWER + 1)
    except ssl.SSLCertVerificationError:
        raise RootRefused(f"The certificate of {host} cannot be verified.") from None
    except (OSError, http.client.HTTPException) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no answer"
        raise RootUnavailable(f"{host} cannot be reached: {why}.") from None
    finally:
        connection.close()
    if reply.status in _PASSING:
        raise RootUnavailable(f"{host} answers {reply.status}.")
    if reply.status != _OK:
        raise RootRefused(f"{host} refuses with {reply.status}: does the credential allow it, is the key there?")
    try:
        found = json.loads(raw) if len(raw) <= MAX_ANSWER else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RootUnavailable(f"{host} answers with something else than a short JSON object.")
    return found


def text_of(answer: Mapping[str, Any], *names: str) -> str:
    """A text inside an answer. Raises RootUnavailable if it is not there."""
    value: Any = answer
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, str):
        raise RootUnavailable("The service answers without what was asked for.")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


METADATA: Final = "metadata.google.internal"


def metadata_token() -> str:
    """An access token of the machine's service account, from Google's metadata server (a link-local address)."""
    connection = http.client.HTTPConnection(METADATA, timeout=TIMEOUT_SECONDS)
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    answer = _exchange(connection, ("GET", path), b"", {"Metadata-Flavor": "Google"}, METADATA)
    return text_of(answer, "access_token")

"""Where the vault is and with what to call it: the client's settings, read from the environment and checked."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from keyvault_lite.client.errors import Misconfigured

SETTINGS: Final = frozenset({"KEYVAULT_ADDR", "KEYVAULT_TOKEN", "KEYVAULT_TOKEN_FILE", "KEYVAULT_CACERT"})
"""What the client reads and the vault does not."""
DEFAULT_ADDRESS: Final = "http://127.0.0.1:8000"
MAX_TOKEN_FILE: Final = 4096
# Printable ASCII without space: what may be in a header. The server checks the rest.
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,1024}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Connection:
    """A vault's address and what authenticates us there."""

    address: str
    """Without a trailing slash."""
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""


def from_environment(environment: Mapping[str, str] = os.environ) -> Connection:
    """Read KEYVAULT_ADDR, KEYVAULT_TOKEN, KEYVAULT_TOKEN_FILE, KEYVAULT_CACERT and KEYVAULT_ALLOW_PLAIN_HTTP.

    Raises Misconfigured for a malformed address, an unreadable file, or a token that would travel in the clear.
    """
    address = environment.get("KEYVAULT_ADDR") or DEFAULT_ADDRESS
    parts = _split(address)
    token = _token(environment)
    exposed = parts.scheme == "http" and not _is_loopback(parts.hostname or "")
    if token and exposed and environment.get("KEYVAULT_ALLOW_PLAIN_HTTP") != "1":
        raise Misconfigured(
            "KEYVAULT_ADDR is plain http on an address that is not loopback, and the token could be read on the way: "
            "use https, or set KEYVAULT_ALLOW_PLAIN_HTTP=1"
        )
    ca_file = environment.get("KEYVAULT_CACERT")
    return Connection(address=address.rstrip("/"), token=token, ca_file=Path(ca_file) if ca_file else None)


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # what resolving it begins with
    except ValueError:  # includes UnicodeError
        valid = False
        parts = SplitResult("", "", "", "", "")
    if not valid or parts.username is not None or parts.query or parts.fragment:
        raise Misconfigured("KEYVAULT_ADDR is not an address like https://vault.example:8000")
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(environment: Mapping[str, str]) -> str | None:
    """KEYVAULT_TOKEN wins over KEYVAULT_TOKEN_FILE, so that one command can run as somebody else."""
    source, token = "KEYVAULT_TOKEN", environment.get("KEYVAULT_TOKEN", "").strip()
    file = environment.get("KEYVAULT_TOKEN_FILE")
    if not token and file:
        source = "KEYVAULT_TOKEN_FILE"
        try:
            with Path(file).open("rb") as stream:
                token = stream.read(MAX_TOKEN_FILE).decode("ascii", "replace").strip()
        except OSError as error:
            raise Misconfigured(f"KEYVAULT_TOKEN_FILE cannot be read: {error.strerror}") from None
        if not token:
            raise Misconfigured("KEYVAULT_TOKEN_FILE is empty")
    if token and _TOKEN.fullmatch(token) is None:
        raise Misconfigured(f"{source} does not hold a token (kvl_<id>_<secret>)")
    return token or None

"""Where a PostgreSQL URL leads, and whether what is sent there can be read or forged on the way.

The password is in the connection string alone, which is never shown: `place` is what people see.
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from keyvault_lite.model.errors import InvalidRequest

_DEFAULTS: Final = {
    "application_name": "keyvault-lite",
    "connect_timeout": "5",
    # A server that is gone is noticed within seconds, not when TCP gives up after a quarter of an hour.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_PORT: Final = "5432"
_REQUIRE_AUTH: Final = "!password,!md5"
"""What a server whose certificate is not verified may not ask for: the password, or a digest from which it is guessed.

A process that takes the server's port or socket while it is down could ask for it. SCRAM tells such a server nothing.
"""
_HAS_REQUIRE_AUTH: Final = 160000
"""The version of libpq from which on it knows `require_auth`."""
_NOWHERE: Final = "/nonexistent"
"""For libpq as if there were no such file."""
_OF_HOME: Final = {
    "passfile": "PGPASSFILE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "sslrootcert": "PGSSLROOTCERT",
}
"""What libpq looks for in HOME unless the URL or these variables say otherwise: the folder of a service's user, who
writes there, may be that of a database."""


@dataclass(frozen=True, slots=True)
class Address:
    """A database of a server."""

    conninfo: str = field(repr=False)
    """What the driver connects with; it may hold a password."""
    place: str
    """For people and logs."""
    name: str
    """Of the database."""


def read_address(url: str, *, allow_plain: bool) -> Address:
    """Check a postgresql:// URL. Raises InvalidRequest for one that is malformed, or not safe on the way.

    TLS with the server's name verified is demanded for every host that is not this one, unless `allow_plain`.
    """
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error:
        # The driver's own message repeats the URL, and with it a password.
        raise InvalidRequest("the database URL is not of the form postgresql://user@host:port/database") from None
    if "service" in given or os.environ.get("PGSERVICE"):
        raise InvalidRequest("the database URL names a service file: write out where the database is")
    chosen = {**_DEFAULTS, **_from_environment(), **given}
    if not allow_plain and not _is_local(chosen):
        if chosen.setdefault("sslmode", "verify-full") != "verify-full":
            raise InvalidRequest(
                "the database is on another host: its URL has to say sslmode=verify-full (with sslrootcert), "
                "or KEYVAULT_ALLOW_PLAIN_DATABASE=1 that what protects the way is something else"
            )
        # Else encryption by Kerberos would take the place of TLS and of its verified name.
        chosen["gssencmode"] = "disable"
    if chosen.get("sslmode") != "verify-full" and pq.version() >= _HAS_REQUIRE_AUTH:
        chosen.setdefault("require_auth", _REQUIRE_AUTH)
    _name_files(chosen)
    name = chosen.get("dbname") or chosen.get("user") or ""
    host, port = chosen.get("host") or chosen.get("hostaddr") or "", chosen.get("port") or _PORT
    return Address(make_conninfo("", **chosen), f"postgresql://{host}:{port}/{name}", name)


def _from_environment() -> dict[str, str]:
    """What libpq would take from its own variables, so that it is checked too."""
    names = {
        "PGHOST": "host",
        "PGHOSTADDR": "hostaddr",
        "PGPORT": "port",
        "PGSSLMODE": "sslmode",
        "PGUSER": "user",
        "PGREQUIREAUTH": "require_auth",
    }
    return {name: value for variable, name in names.items() if (value := os.environ.get(variable))}


def _name_files(chosen: dict[str, str]) -> None:
    """Leave libpq no file to look for in HOME. The system's certificate authorities are trusted for a verified name."""
    for option, variable in _OF_HOME.items():
        if option not in chosen and not os.environ.get(variable):
            by_system = option == "sslrootcert" and chosen.get("sslmode") == "verify-full"
            chosen[option] = "system" if by_system else _NOWHERE


def _is_local(chosen: Mapping[str, str]) -> bool:
    """Whether every host that may be connected to is this one: a socket of its own, or a loopback address."""
    addresses = (chosen.get("hostaddr") or "").split(",")
    hosts = (chosen.get("host") or "").split(",")
    # Where the address of a host is left empty, its name is what is connected to.
    return all(_is_loopback(address or host) for address, host in zip_longest(addresses, hosts, fillvalue=""))


def _is_loopback(host: str) -> bool:
    if not host or host.startswith(("/", "@")):
        return True  # no host is libpq's socket, as its wheels and distributions build it
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Addresses to listen on."""

import errno
import ipaddress
import os
import socket
import ssl
from typing import Final

from keyvault_lite.server.tls import UnusablePair, load_pair
from keyvault_lite.settings import InvalidSettings, Settings

_HINTS: Final = {
    errno.EADDRINUSE: "; another server has it, choose another port (--port, KEYVAULT_PORT)",
    errno.EADDRNOTAVAIL: "; this machine has no such address (--host, KEYVAULT_HOST)",
    errno.EACCES: "; ports below 1024 need a privilege, choose another (--port, KEYVAULT_PORT)",
}


class CannotListen(Exception):
    """An address cannot be taken; the message is one sentence for the operator."""


def listen(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Take an address, on which nothing is answered before the server starts. Raises CannotListen.

    One that is shared can be taken several times by processes of one user: connections are spread over them evenly.
    """
    try:
        return _listen(host, port, shared=shared)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        hint = _HINTS.get(error.errno or 0, "")
        raise CannotListen(f"Cannot listen on {host}, port {port}: {reason}{hint}.") from None


def address(scheme: str, host: str, port: int) -> str:
    """An address as a client writes it."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _listen(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            one = socket.socket(family, kind, protocol)
        except OSError:
            continue  # a family that this machine does not have
        sockets.append(one)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            one.bind(address)
        except OSError:
            for made in sockets:
                made.close()
            raise
    return sockets


def check_address(chosen: Settings) -> ssl.SSLContext | None:
    """With what to serve TLS; None: plain HTTP.

    Raises InvalidSettings for plain HTTP on an address that others can reach, for TLS by halves, and for files that it
    cannot be served with.
    """
    if (chosen.tls_cert is None) != (chosen.tls_key is None):
        raise InvalidSettings("KEYVAULT_TLS_CERT and KEYVAULT_TLS_KEY go together.")
    for name, path in (("KEYVAULT_TLS_CERT", chosen.tls_cert), ("KEYVAULT_TLS_KEY", chosen.tls_key)):
        if path is not None and not os.access(path, os.R_OK):
            raise InvalidSettings(f"{name} does not name a readable file.")
    if chosen.tls_cert is not None and chosen.tls_key is not None:
        try:
            return load_pair(chosen.tls_cert, chosen.tls_key, names=("KEYVAULT_TLS_CERT", "KEYVAULT_TLS_KEY"))
        except UnusablePair as error:
            raise InvalidSettings(f"{error}.") from None
    if chosen.allow_plain_http:
        return None
    try:
        loopback = ipaddress.ip_address(chosen.host).is_loopback
    except ValueError:
        loopback = chosen.host == "localhost"
    if not loopback:
        raise InvalidSettings(
            "Plain HTTP is served on loopback addresses only: set KEYVAULT_TLS_CERT and KEYVAULT_TLS_KEY, "
            "or KEYVAULT_ALLOW_PLAIN_HTTP=1 behind something that ends TLS."
        )
    return None

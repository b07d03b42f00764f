"""Addresses to listen on."""

import errno
import os
import socket
from typing import Final

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

"""Listeners: TCP addresses and Unix sockets, and the protocol that is spoken at each."""

import asyncio
import errno
import fcntl
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from keyvault_lite.ledger.storage.own_files import open_own
from keyvault_lite.server.tls import UnusablePair, load_pair
from keyvault_lite.settings import InvalidSettings, Settings

_HINTS: Final = {
    errno.EADDRINUSE: "; another server has it, choose another port (--port, KEYVAULT_PORT)",
    errno.EADDRNOTAVAIL: "; this machine has no such address (--host, KEYVAULT_HOST)",
    errno.EACCES: "; ports below 1024 need a privilege, choose another (--port, KEYVAULT_PORT)",
}


class CannotListen(Exception):
    """An address cannot be taken; the message is one sentence for the operator."""


class Closing(Protocol):
    """An open connection, as the server's end sees it."""

    def shutdown(self) -> None:
        """Close once what is under way is finished."""


MakeProtocol = Callable[[set[Closing]], asyncio.Protocol]
"""From the set of open connections, which holds each connection of the protocol as long as it is open."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what is spoken there."""

    socket: socket.socket
    tls: ssl.SSLContext | None = None
    protocol: MakeProtocol | None = None
    """None: HTTP/1.1, for the application of the server."""


def http_listeners(sockets: Iterable[socket.socket], tls: ssl.SSLContext | None) -> list[Listener]:
    """Listeners for HTTP; a Unix socket needs no TLS, because the kernel says who is at the other end."""
    return [Listener(one, None if one.family == socket.AF_UNIX else tls) for one in sockets]


def listen(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Take an address, on which nothing is answered before the server starts. Raises CannotListen.

    One that is shared can be taken several times by processes of one user: connections are spread over them evenly.
    """
    try:
        return take_address(host, port, shared=shared)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        hint = _HINTS.get(error.errno or 0, "")
        raise CannotListen(f"Cannot listen on {host}, port {port}: {reason}{hint}.") from None


class UnixSocket:
    """A Unix socket at a path, for this user alone (mode 0600), until it is closed.

    Safe because the folder is checked first, and a lock file beside the socket says whether another process serves
    there: only the file of a process that has ended is replaced.
    """

    def __init__(self, path: Path) -> None:
        """Raises CannotListen if the folder is open to other users, or another process has the path."""
        self._path = path
        folder = path.parent
        try:
            mode = folder.stat().st_mode
            if mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise CannotListen(f"Cannot listen on {path}: other users can write its folder; chmod go-w it.")
            self._lock = open_own(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise CannotListen(f"Cannot listen on {path}: {error.strerror}.") from None
        try:
            self.socket = self._bind()
        except BaseException:
            os.close(self._lock)
            raise

    def _bind(self) -> socket.socket:
        path = self._path
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotListen(f"Cannot listen on {path}: another process serves there.") from None
        if path.is_symlink() or (path.exists() and not path.is_socket()):
            raise CannotListen(f"Cannot listen on {path}: it is a file, not a socket.")
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        new = path.with_name(f"{path.name}.new")
        try:
            new.unlink(missing_ok=True)
            made.bind(str(new))
            # Nobody can connect before the server listens, which is after the mode is set.
            new.chmod(0o600)
            self._identity = new.stat().st_ino
            new.rename(path)
        except OSError as error:
            made.close()
            raise CannotListen(f"Cannot listen on {path}: {error.strerror or error}.") from None
        return made

    def close(self) -> None:
        """Stop listening, and remove the socket's file unless another one is there by now."""
        self.socket.close()
        with suppress(OSError):
            if self._path.lstat().st_ino == self._identity:
                self._path.unlink()
        os.close(self._lock)


def address(scheme: str, host: str, port: int) -> str:
    """An address as a client writes it."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def take_address(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    """As `listen`; raises OSError."""
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

"""The peer of a connection, read once when it is accepted."""

import socket
import struct
from asyncio import BaseTransport
from typing import Final

from keyvault_lite.model.intake import UNKNOWN_PEER, Peer

_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred of SO_PEERCRED (unix(7)): pid, uid, gid."""


def peer_of(transport: BaseTransport) -> Peer:
    """What TLS or the kernel says of the other end; UNKNOWN_PEER on plain TCP."""
    tls = transport.get_extra_info("ssl_object")
    if tls is not None:
        certificate = tls.getpeercert(binary_form=True)
        return UNKNOWN_PEER if certificate is None else Peer(certificate=certificate)
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return UNKNOWN_PEER
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(uid=uid, gid=gid, pid=pid)

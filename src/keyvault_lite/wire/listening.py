"""Addresses to listen on."""

import socket


def listen(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Take an address, on which nothing is answered before the server starts. Raises OSError.

    One that is shared can be taken several times by processes of one user: connections are spread over them evenly.
    """
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

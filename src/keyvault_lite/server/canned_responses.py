"""Responses to connections that are closed, as bytes ready to be sent."""

from typing import Final

FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 22\r\n"
    b"Retry-After: 1\r\nCache-Control: no-store\r\nConnection: close\r\n\r\nToo many connections.\n"
)
SLOW: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 27\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\n\r\nThe request took too long.\n"
)

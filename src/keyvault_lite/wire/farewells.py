"""What a connection is told that is closed, ready to be sent."""

from typing import Final

FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 22\r\n"
    b"retry-after: 1\r\ncache-control: no-store\r\nconnection: close\r\n\r\nToo many connections.\n"
)
SLOW: Final = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 27\r\n"
    b"cache-control: no-store\r\nconnection: close\r\n\r\nThe request took too long.\n"
)

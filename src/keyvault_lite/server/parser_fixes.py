"""What the HTTP parser understands otherwise than we do: LIST, a method of the Vault dialect, and offers to upgrade.

It does not know LIST. It reads a method of the same length in its place, and the application sees the right one. A real
LINK stays what it is. Only a message that begins with the bytes that came in is looked at: clients send LIST without a
body, so none follows another in one read unless it is pipelined.

To a request with `Upgrade` it gives no body, and takes what follows for the next message. We speak one protocol and
leave the offer as if it were not there (RFC 9110, section 7.8): clients that would rather speak HTTP/2 make it beside a
body. An offer that is not found here, being split or pipelined, is refused when the head is complete.
"""

import re
from typing import Final

LIST: Final = b"LIST "
STAND_IN: Final = b"LINK "
_OFFER: Final = re.compile(rb"(?<=\n)upgrade(?=:)", re.IGNORECASE)


def without_offer(data: bytes) -> bytes:
    """A read that begins or goes on with a head, without its offer to upgrade."""
    if b"pgrade" not in data and b"PGRADE" not in data:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _OFFER.sub(b"ignored", head) + end + rest

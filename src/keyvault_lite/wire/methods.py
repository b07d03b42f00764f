"""LIST, a method of the Vault dialect that the HTTP parser does not know.

The parser reads a method of the same length in its place, and the application sees the right one. A real LINK stays
what it is. Only a message that begins with the bytes that came in is looked at: clients send LIST without a body, so
none follows another in one read unless it is pipelined.
"""

from typing import Final

LIST: Final = b"LIST "
STAND_IN: Final = b"LINK "

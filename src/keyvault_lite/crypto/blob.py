"""One opaque blob, for dialects whose ciphertext is a single value: the wrapped DEK and the message behind it.

    01 | uint16 length of encrypted_dek | encrypted_dek | ciphertext

Both parts are containers, so the blob names its key and version, and nothing in it is believed before both have opened:
the length only says where to cut, and a wrong cut gives parts that open nowhere.
"""

from struct import Struct
from typing import Final

from keyvault_lite.crypto.container import Header, parse, refusal

FORMAT: Final = 1
_HEAD: Final = Struct(">BH")


def join(encrypted_dek: bytes, ciphertext: bytes) -> bytes:
    """The blob of a message."""
    return _HEAD.pack(FORMAT, len(encrypted_dek)) + encrypted_dek + ciphertext


def split(blob: bytes) -> tuple[bytes, bytes]:
    """Its encrypted_dek and ciphertext. Raises InvalidCiphertext for what `join` cannot have made."""
    if len(blob) < _HEAD.size:
        raise refusal()
    form, length = _HEAD.unpack_from(blob)
    end = _HEAD.size + length
    if form != FORMAT or len(blob) <= end:
        raise refusal()
    return blob[_HEAD.size : end], blob[end:]


def header(blob: bytes) -> Header:
    """What the blob says of its key and version. Raises InvalidCiphertext."""
    return parse(split(blob)[0])

"""Ciphertexts that another product made with a key before it was imported: read, and never written.

body = nonce[12, XChaCha20: 24] | ciphertext | tag[16]. Such a body does not commit to its key, which is why it is
opened under the one version that its prefix names and no other. A derived key is HKDF-SHA256(key, info = context); a
convergent body has its nonce in front like any other.
"""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyvault_lite.crypto.container import refusal
from keyvault_lite.model.keys import KeySpec, KeyType

_TAG: Final = 16
_WORDS: Final = Struct("<16I")
_SIGMA: Final = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)


def open_foreign(spec: KeySpec, key: bytes, body: bytes, *, context: bytes | None, associated: bytes | None) -> bytes:
    """The plaintext. Raises InvalidCiphertext."""
    length, opened = _READERS[spec.type]
    if len(body) < length + _TAG:
        raise refusal()
    if context:
        key = HKDF(hashes.SHA256(), len(key), None, context).derive(key)
    try:
        return opened(key, body[:length], body[length:], associated or None)
    except InvalidTag:
        raise refusal() from None


def _xchacha(key: bytes, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
    """XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha, section 2): ChaCha20-Poly1305 under a key made by HChaCha20."""
    inner = ChaCha20Poly1305(_hchacha(key, nonce[:16]))
    return inner.decrypt(bytes(4) + nonce[16:], data, associated)


def _hchacha(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20: ChaCha20's block function without the final addition, of which the first and last row are the key.

    The library gives the block after the addition, so what was added is taken away again.
    """
    block = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    words = _WORDS.unpack(block)
    first = [(word - added) % 2**32 for word, added in zip(words[:4], _SIGMA, strict=True)]
    added_last = Struct("<4I").unpack(nonce)
    last = [(word - added) % 2**32 for word, added in zip(words[12:], added_last, strict=True)]
    return Struct("<8I").pack(*first, *last)


_Reader = Callable[[bytes, bytes, bytes, bytes | None], bytes]
_READERS: Final[Mapping[KeyType, tuple[int, _Reader]]] = {
    KeyType.AES: (12, lambda key, nonce, data, more: AESGCM(key).decrypt(nonce, data, more)),
    KeyType.CHACHA20: (12, lambda key, nonce, data, more: ChaCha20Poly1305(key).decrypt(nonce, data, more)),
    KeyType.XCHACHA20: (24, _xchacha),
}

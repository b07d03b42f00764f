"""The cryptography of TPM 2.0 sessions: commands are authentic, and secrets cross the chip's bus sealed.

Source: Trusted Platform Module Library, part 1 (revision 1.59): sections 11.4.10 (KDFa, KDFe), 18.6 (HMAC of
commands and responses), 21 (parameter encryption), C.6.1 (salt by ECDH). SHA-256, P-256, AES-128-CFB throughout.
"""

import hashlib
import hmac
import os
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from keyvault_lite.crypto.secret import Secret

CONTINUE: Final = 0x01
DECRYPT: Final = 0x20
"""The command's first parameter is encrypted."""
ENCRYPT: Final = 0x40
"""The response's first parameter is encrypted."""
_COORDINATE: Final = 32


class ForgedResponse(Exception):
    """The response was not made by the chip that the session is with."""


def kdfa(key: bytes, label: bytes, party_u: bytes, party_v: bytes, bits: int) -> bytes:
    """KDFa with HMAC-SHA256: NIST SP 800-108 in counter mode. Up to 256 bits."""
    text = b"".join((_u32(1), label, b"\x00", party_u, party_v, _u32(bits)))
    return hmac.digest(key, text, "sha256")[: bits // 8]


def kdfe(shared: bytes, label: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """KDFe with SHA-256: NIST SP 800-56A, one block of 256 bits."""
    return hashlib.sha256(b"".join((_u32(1), shared, label, b"\x00", party_u, party_v))).digest()


def make_salt(x: bytes, y: bytes) -> tuple[bytes, tuple[bytes, bytes]]:
    """A salt that only the chip with the private key of the point can have: the salt, and the point it is sent as.

    Raises ValueError for a point that is not on the curve.
    """
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
    ours = ec.generate_private_key(ec.SECP256R1())
    shared = ours.exchange(ec.ECDH(), numbers.public_key())
    point = ours.public_key().public_numbers()
    sent_x, sent_y = point.x.to_bytes(_COORDINATE), point.y.to_bytes(_COORDINATE)
    return kdfe(shared, b"SECRET", sent_x, x.rjust(_COORDINATE, b"\x00")), (sent_x, sent_y)


class Session(Secret):
    """One session. `auth` is the authorisation value of what it is used for.

    Without a salt (empty), only `auth` authenticates either side: it has to be one that nobody can guess.
    """

    __slots__ = ("_key", "_nonce_caller", "_nonce_tpm", "handle")

    def __init__(self, handle: int, salt: bytes, nonce_caller: bytes, nonce_tpm: bytes) -> None:
        self.handle: Final = handle
        # Part 1, 19.6.8: a session that is neither salted nor bound has an empty key.
        self._key: Final = kdfa(salt, b"ATH", nonce_tpm, nonce_caller, 256) if salt else b""
        self._nonce_caller = nonce_caller
        self._nonce_tpm = nonce_tpm

    def begin_command(self) -> bytes:
        """A fresh nonce for the next command."""
        self._nonce_caller = os.urandom(16)
        return self._nonce_caller

    def encrypt(self, parameter: bytes, auth: bytes = b"") -> bytes:
        """The first parameter of the command that was begun."""
        return self._cfb(auth, self._nonce_caller, self._nonce_tpm).encryptor().update(parameter)

    def decrypt(self, parameter: bytes, auth: bytes = b"") -> bytes:
        """The first parameter of the response that was checked."""
        return self._cfb(auth, self._nonce_tpm, self._nonce_caller).decryptor().update(parameter)

    def command_mac(self, digest: bytes, attributes: int, auth: bytes = b"") -> bytes:
        """HMAC of the command that was begun; `digest` is cpHash."""
        text = digest + self._nonce_caller + self._nonce_tpm + bytes((attributes,))
        return hmac.digest(self._key + auth, text, "sha256")

    def check_response(self, digest: bytes, nonce_tpm: bytes, attributes: int, mac: bytes, auth: bytes = b"") -> None:
        """Check the response's HMAC; `digest` is rpHash. Raises ForgedResponse."""
        text = digest + nonce_tpm + self._nonce_caller + bytes((attributes,))
        if not hmac.compare_digest(hmac.digest(self._key + auth, text, "sha256"), mac):
            raise ForgedResponse
        self._nonce_tpm = nonce_tpm

    def _cfb(self, auth: bytes, newer: bytes, older: bytes) -> "Cipher[CFB]":
        material = kdfa(self._key + auth, b"CFB", newer, older, 256)
        return Cipher(AES(material[:16]), CFB(material[16:]))


def _u32(value: int) -> bytes:
    return value.to_bytes(4)

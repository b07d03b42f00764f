"""The one container: every sealed thing in the product, from the keyring to a user's message, has this form.

    header      "KVL" | format 1 | suite | flags 0 | id[16] | version uint32          26 bytes
    suite 1     header | salt[32] | commitment[32] | AES-256-GCM(plaintext) and tag   one fresh key a container
    suite 2     header | commitment[32] | RSA-OAEP-SHA256(secret)                     to the holder of a private key
    suite 3     as 1, with ChaCha20-Poly1305 in the place of AES-256-GCM
    suite 4, 5  as 1 and 3, with a salt that follows from key, context and plaintext  convergent encryption

Suite 1: okm[64] = HKDF-Expand-SHA512(wrapping key, info), key = okm[:32], commitment = okm[32:], with
info = PAE("kvl/v1/" layer, header, instance id, purpose) | salt | context digest.

Why it is safe: the salt is fresh, so every container has a key of its own, and the constant nonce meets each key once
(no nonce to repeat, no limit of 2^32 messages). The commitment covers wrapping key, header and context and is compared
before GCM, so no container opens under two keys. The wrapping key is uniform, so HKDF's Extract would add nothing
(RFC 5869, section 3.3), and 64 bytes are one HMAC block.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from keyvault_lite.crypto.hmac_key import Hmac, HmacKey, OneUseKey
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import InvalidCiphertext

Rng = Callable[[int], bytes]
"""A source of uniform bytes: os.urandom, or fixed bytes when golden containers are made."""

MAGIC: Final = b"KVL"
FORMAT: Final = 1
FLAGS: Final = 0
_HEADER: Final = Struct(">3sBBB16sI")
_SALT_AT: Final = _HEADER.size
_COMMITMENT_AT: Final = _SALT_AT + 32
_BODY_AT: Final = _COMMITMENT_AT + 32
_TAG: Final = 16
_NONCE: Final = bytes(12)
_REFUSAL: Final = "it does not open with this key and context"


@dataclass(frozen=True, slots=True)
class Suite:
    """One way to fill a container. A suite that is retired loses `may_encrypt` long before `may_decrypt`."""

    number: int
    smallest: int
    """Length of the shortest container."""
    chacha: bool = False
    """Whether ChaCha20-Poly1305 is in the place of AES-256-GCM."""
    may_encrypt: bool = True
    may_decrypt: bool = True


AES_GCM: Final = Suite(1, smallest=_BODY_AT + _TAG)
RSA_OAEP: Final = Suite(2, smallest=_SALT_AT + 32 + 256)
CHACHA20: Final = Suite(3, smallest=_BODY_AT + _TAG, chacha=True)
CONVERGENT_AES_GCM: Final = Suite(4, smallest=_BODY_AT + _TAG)
CONVERGENT_CHACHA20: Final = Suite(5, smallest=_BODY_AT + _TAG, chacha=True)
SUITES: Final[Mapping[int, Suite]] = {
    suite.number: suite for suite in (AES_GCM, RSA_OAEP, CHACHA20, CONVERGENT_AES_GCM, CONVERGENT_CHACHA20)
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a container says of itself; nothing of it is proven until the container has opened."""

    suite: Suite
    id: bytes
    version: int


def refusal() -> InvalidCiphertext:
    """The one error for every failure to open: an answer that tells causes apart would be an oracle."""
    return InvalidCiphertext(_REFUSAL)


def prk(key: bytes) -> OneUseKey:
    """A uniform key of 16 bytes or more in the place where RFC 5869 has the PRK, for `expand`."""
    return OneUseKey(key, "sha512")


def expand(key: Hmac, info: bytes) -> bytes:
    """HKDF-Expand with SHA-512 for one block: 64 bytes (RFC 5869, section 2.3).

    What comes out is as strong as the key: 128 bits under an AES-128 key.
    """
    return key.mac(info + b"\x01")


def parse(container: bytes) -> Header:
    """Read the header, strictly. Raises InvalidCiphertext for anything this version would not have written."""
    if len(container) < _SALT_AT:
        raise refusal()
    magic, form, number, flags, id_, version = _HEADER.unpack_from(container)
    suite = SUITES.get(number)
    if magic != MAGIC or form != FORMAT or flags != FLAGS or suite is None or not suite.may_decrypt:
        raise refusal()
    if len(container) < suite.smallest:
        raise refusal()
    return Header(suite, id_, version)


class ContainerLayout:
    """The place of a container: its layer, id, version and purpose in one installation. Holds no secret.

    `label` is PAE("kvl/v1/" layer, header, instance id, purpose), made once for all containers of the place.
    """

    __slots__ = ("header", "label", "suite")

    def __init__(
        self, layer: str, *, instance_id: bytes, id: bytes, version: int, purpose: str, suite: Suite = AES_GCM
    ) -> None:
        self.suite: Final = suite
        self.header: Final = _HEADER.pack(MAGIC, FORMAT, suite.number, FLAGS, id, version)
        self.label: Final = pae(f"kvl/v1/{layer}", self.header, instance_id, purpose)

    def _aead(self, key: bytes) -> AESGCM | ChaCha20Poly1305:
        return ChaCha20Poly1305(key) if self.suite.chacha else AESGCM(key)

    def check_seal(self) -> None:
        """Refuse to write in a suite that is kept for old containers only."""
        if not self.suite.may_encrypt:
            raise ValueError(f"suite {self.suite.number} is read and no longer written")

    def check_open(self, container: bytes) -> None:
        """Refuse a container that is not of this place, before any cryptography.

        Equality with the one header expected here is the strictest parse: magic, format, suite, flags, id and version
        are compared at once, so a flipped suite byte never selects another algorithm.
        """
        if container[:_SALT_AT] != self.header or len(container) < self.suite.smallest or not self.suite.may_decrypt:
            raise refusal()

    def seal(self, key: Hmac, context: bytes, plaintext: bytes, rng: Rng) -> bytes:
        """Seal under a wrapping key (see `prk`), in any suite but 2. `context` is a digest of 32 bytes."""
        self.check_seal()
        salt = rng(32)
        okm = expand(key, self.label + salt + context)
        body = self._aead(okm[:32]).encrypt(_NONCE, plaintext, self.header)
        return b"".join((self.header, salt, okm[32:], body))

    def open(self, key: Hmac, context: bytes, container: bytes) -> bytes:
        """Open what `seal` made with the same key and context. Raises InvalidCiphertext for anything else."""
        self.check_open(container)
        okm = expand(key, self.label + container[_SALT_AT:_COMMITMENT_AT] + context)
        if not hmac.compare_digest(okm[32:], container[_COMMITMENT_AT:_BODY_AT]):
            raise refusal()
        try:
            return self._aead(okm[:32]).decrypt(_NONCE, container[_BODY_AT:], self.header)
        except InvalidTag:
            raise refusal() from None


class Sealer(Protocol):
    """A frame together with the key of its containers."""

    def seal(self, context: bytes, plaintext: bytes, rng: Rng) -> bytes:
        """Put in."""

    def open(self, context: bytes, container: bytes) -> bytes:
        """Take out. Raises InvalidCiphertext."""


class KeySealer(Secret):
    """A frame of suite 1 with its wrapping key."""

    __slots__ = ("_frame", "_key")

    def __init__(self, frame: ContainerLayout, key: bytes) -> None:
        self._frame: Final = frame
        self._key: Final = HmacKey(key, hashlib.sha512)

    @property
    def header(self) -> bytes:
        """What its containers begin with."""
        return self._frame.header

    def seal(self, context: bytes, plaintext: bytes, rng: Rng) -> bytes:
        """See ContainerLayout.seal."""
        return self._frame.seal(self._key, context, plaintext, rng)

    def open(self, context: bytes, container: bytes) -> bytes:
        """See ContainerLayout.open."""
        return self._frame.open(self._key, context, container)


class RsaSealer(Secret):
    """A frame of suite 2 with its private key; holds secrets of at most 64 bytes (a DEK or a data key).

    fields = PAE("kvl/v1/" layer, header, instance id, purpose) | context digest; OAEP label = SHA-256(fields);
    commitment = HKDF-Expand-SHA512(secret, fields)[32:]. Anyone with the public key can make such a container: it gives
    confidentiality, never origin.
    """

    __slots__ = ("_frame", "_key", "_public")

    def __init__(self, frame: ContainerLayout, key: RSAPrivateKey) -> None:
        self._frame: Final = frame
        self._key: Final = key
        self._public: Final = key.public_key()

    def seal(self, context: bytes, plaintext: bytes, rng: Rng) -> bytes:
        """Wrap a uniform secret to the public key. OAEP draws its seed from OpenSSL's generator, not from `rng`."""
        self._frame.check_seal()
        fields = self._frame.label + context
        wrapped = self._public.encrypt(plaintext, oaep(hashlib.sha256(fields).digest()))
        return b"".join((self._frame.header, expand(prk(plaintext), fields)[32:], wrapped))

    def open(self, context: bytes, container: bytes) -> bytes:
        """Unwrap. Raises InvalidCiphertext for anything that `seal` did not make for this context."""
        self._frame.check_open(container)
        fields = self._frame.label + context
        try:
            secret = self._key.decrypt(container[_COMMITMENT_AT:], oaep(hashlib.sha256(fields).digest()))
        except ValueError:
            raise refusal() from None
        if not hmac.compare_digest(expand(prk(secret), fields)[32:], container[_SALT_AT:_COMMITMENT_AT]):
            raise refusal()
        return secret


def oaep(label: bytes) -> padding.OAEP:
    """RSAES-OAEP with SHA-256 for hash and mask (RFC 8017, section 7.1)."""
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)


def id_bytes(text: str) -> bytes:
    """The 16 bytes of a UUID."""
    return bytes.fromhex(text.replace("-", ""))

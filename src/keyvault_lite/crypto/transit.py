"""One version of a key of purpose TRANSIT: everything its material does.

What is encrypted here is one container (layer `transit`) right under the version's key: bound to the derivation context
and the associated data, and committing, unlike a bare AEAD. RSA is plain RSAES-OAEP, which any holder of the public key
can make outside. Material: HMAC key[32] | key, so that each version MACs with a key of its own; for type `hmac` the key
itself. A version that came as a public key alone has its HMAC key and nothing behind it.

Deriving (RFC 5869): HKDF-SHA256(ikm = key, no salt, info = context), for Ed25519 of seed | public key. In a container
the context needs no key of its own: HKDF's info has it.
"""

import hashlib
import hmac
from base64 import b64encode
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey, MLDSA65PublicKey, MLDSA87PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from keyvault_lite.crypto import transit_signature
from keyvault_lite.crypto.container import (
    AES_GCM,
    CHACHA20,
    CONVERGENT_AES_GCM,
    CONVERGENT_CHACHA20,
    ContainerLayout,
    KeySealer,
    Rng,
    expand,
    oaep,
    prk,
    refusal,
)
from keyvault_lite.crypto.imported_ciphertext import open_foreign
from keyvault_lite.crypto.material import Material, generate, load
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.crypto.transit_certificate import signing_request
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import KeySpec, KeyType
from keyvault_lite.model.signature_schemes import Scheme

LAYER: Final = "transit"
MAC_KEY: Final = 32
"""Bytes."""
_NOT_BOUND: Final = hashlib.sha256(pae("transit", None, None)).digest()
_DIGESTS: Final = {
    "sha1": "sha1",
    **{f"sha2-{bits}": f"sha{bits}" for bits in (224, 256, 384, 512)},
    **{f"sha3-{bits}": f"sha3_{bits}" for bits in (224, 256, 384, 512)},
}


def binding(context: bytes | None, associated: bytes | None) -> bytes:
    """The context digest of a container: over derivation context and associated data, empty ones as absent."""
    if not context and not associated:
        return _NOT_BOUND
    return hashlib.sha256(pae("transit", context or None, associated or None)).digest()


def digest(name: str, data: bytes) -> bytes:
    """The plain digest by the dialect's name for it."""
    return hashlib.new(_DIGESTS[name], data).digest()


def generate_transit(spec: KeySpec, rng: Rng) -> Material:
    """Fresh material of one version. RSA takes up to seconds."""
    return with_mac_key(spec, generate(spec, rng), rng)


def with_mac_key(spec: KeySpec, material: Material, rng: Rng) -> Material:
    """The material with the HMAC key that is before it."""
    if spec.type is KeyType.HMAC:
        return material
    return Material(rng(MAC_KEY) + material.secret, material.public_key)


def public_text(public_key: bytes) -> str:
    """A public key as the dialect writes it: PEM for RSA and EC, base64 of the raw key for the rest."""
    key = load_der_public_key(public_key)
    if isinstance(key, ed25519.Ed25519PublicKey | MLDSA44PublicKey | MLDSA65PublicKey | MLDSA87PublicKey):
        return b64encode(key.public_bytes_raw()).decode()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class TransitVersion(Secret):
    """The loaded material of one version."""

    __slots__ = ("_box", "_convergent", "_convergent_key", "_key", "_mac_key", "_pair", "_public", "_rng", "_spec")

    def __init__(
        self,
        spec: KeySpec,
        secret: bytes,
        public_key: bytes | None,
        *,
        instance_id: bytes,
        key_id: bytes,
        version: int,
        rng: Rng,
    ) -> None:
        self._spec: Final = spec
        self._rng: Final = rng
        own = spec.type is KeyType.HMAC
        self._mac_key: Final = secret if own else secret[:MAC_KEY]
        self._key: Final = b"" if own else secret[MAC_KEY:]
        self._pair: Final[Any] = load(self._key) if spec.asymmetric and self._key else None
        self._public: Final[Any] = None if public_key is None else load_der_public_key(public_key)
        aes = spec.type is KeyType.AES

        def frame(suite: Any) -> ContainerLayout:  # noqa: ANN401
            return ContainerLayout(
                LAYER, instance_id=instance_id, id=key_id, version=version, purpose=spec.purpose, suite=suite
            )

        convergent = frame(CONVERGENT_AES_GCM if aes else CONVERGENT_CHACHA20)
        self._box: Final = KeySealer(frame(AES_GCM if aes else CHACHA20), self._key)
        self._convergent: Final = KeySealer(convergent, self._key)
        label = pae("kvl/v1/convergent", convergent.label)
        self._convergent_key: Final = expand(prk(self._key), label)[:32]

    # Encryption

    def encrypt(self, plaintext: bytes, context: bytes | None, associated: bytes | None, *, convergent: bool) -> bytes:
        """The body of a ciphertext. Raises InvalidRequest for what an RSA key cannot hold."""
        if self._spec.asymmetric:
            return self._encrypt_rsa(plaintext)
        bound = binding(context, associated)
        if not convergent:
            return self._box.seal(bound, plaintext, self._rng)
        # The salt, and with it key and body, follows from what is sealed: equal messages are equal, no others are.
        salt = hmac.digest(self._convergent_key, pae("convergent", bound, plaintext), "sha256")
        return self._convergent.seal(bound, plaintext, lambda _: salt)

    def _encrypt_rsa(self, plaintext: bytes) -> bytes:
        public: rsa.RSAPublicKey = self._public
        if len(plaintext) > public.key_size // 8 - 66:
            raise InvalidRequest("failed to RSA encrypt the plaintext: message too long for RSA key size")
        return public.encrypt(plaintext, oaep_plain())

    def decrypt(
        self, body: bytes, context: bytes | None, associated: bytes | None, *, convergent: bool, foreign: bool
    ) -> bytes:
        """The plaintext. Raises InvalidCiphertext, one and the same whatever the cause.

        `foreign` says that this version's material was imported: then a body that is not our container may be one that
        the former owner made. It is opened with this version's key alone, which the ciphertext names.
        """
        if self._spec.asymmetric:
            return self._decrypt_rsa(body)
        box = self._convergent if convergent else self._box
        if foreign and not body.startswith(box.header):
            return open_foreign(self._spec, self._key, body, context=context, associated=associated)
        return box.open(binding(context, associated), body)

    def _decrypt_rsa(self, body: bytes) -> bytes:
        if self._pair is None:
            raise InvalidRequest("cannot decrypt ciphertext, key version does not have a private counterpart")
        pair: rsa.RSAPrivateKey = self._pair
        try:
            return pair.decrypt(body, oaep_plain())
        except ValueError:
            raise refusal() from None

    # Signatures

    def sign(self, message: bytes, scheme: Scheme, context: bytes | None) -> tuple[bytes, bytes | None]:
        """A signature, and the raw public key if it is one derived for the context."""
        if self._pair is None:
            raise InvalidRequest("requested version for signing does not contain a private part")
        pair = self._pair if context is None else self._derived(context)
        signature = transit_signature.sign(pair, message, scheme)
        return signature, None if context is None else pair.public_key().public_bytes_raw()

    def verify(self, message: bytes, signature: bytes, scheme: Scheme, context: bytes | None) -> bool:
        """Whether the signature holds. Raises InvalidRequest for one that does not parse."""
        public = self._public if context is None else self._derived(context).public_key()
        return transit_signature.verify(public, message, signature, scheme)

    def derived_public_text(self, context: bytes) -> str:
        """The public key of the Ed25519 pair derived for a context, in base64."""
        return b64encode(self._derived(context).public_key().public_bytes_raw()).decode()

    def _derived(self, context: bytes) -> ed25519.Ed25519PrivateKey:
        pair: ed25519.Ed25519PrivateKey = self._pair
        both = pair.private_bytes_raw() + pair.public_key().public_bytes_raw()
        return ed25519.Ed25519PrivateKey.from_private_bytes(derive(both, context, 32))

    # MACs

    def mac(self, data: bytes, name: str) -> bytes:
        """HMAC with the version's own HMAC key."""
        return hmac.digest(self._mac_key, data, _DIGESTS[name])

    # Certificates

    def signing_request(self, template: str | None) -> str:
        """A certificate signing request in PEM. Raises InvalidRequest."""
        if self._pair is None:
            raise InvalidRequest("could not create the csr: private key not imported for key version selected")
        return signing_request(self._pair, template)

    # Private keys that come later

    @property
    def is_public_only(self) -> bool:
        """Whether it is of a key pair whose private key is not here."""
        return self._spec.asymmetric and self._pair is None

    def completed(self, material: Material) -> Material:
        """This version's material with the private key of other material for the same public key; it MACs as before."""
        return Material(self._mac_key + material.secret[MAC_KEY:], material.public_key)


def derive(key: bytes, context: bytes, size: int) -> bytes:
    """HKDF-SHA256 without salt."""
    return HKDF(hashes.SHA256(), size, None, context).derive(key)


def oaep_plain() -> padding.OAEP:
    """RSAES-OAEP as both products do it: SHA-256, no label."""
    return oaep(b"")

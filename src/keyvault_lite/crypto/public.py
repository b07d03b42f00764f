"""Public keys as others want them: PEM, DER, JWK and raw.

raw is what the algorithm's own standard has: Ed25519 32 bytes (RFC 8032), EC the uncompressed point (SEC 1, 2.3.3),
ML-DSA the encoded key (FIPS 204), RSA the RSAPublicKey of PKCS #1 in DER (RFC 8017). JWK is RFC 7517 with RFC 7518
(RSA, EC), RFC 8037 (Ed25519) and RFC 9964 (ML-DSA).
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from keyvault_lite.crypto import material
from keyvault_lite.model import replies
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest
from keyvault_lite.model.keys import KeySpec, KeyVersion, PublicKeyFormat, Purpose

_USE: Final = {Purpose.ENCRYPT: "enc", Purpose.SIGN: "sig"}


def public_key(version: KeyVersion, spec: KeySpec, format: PublicKeyFormat) -> replies.PublicKey:
    """The public key of a verified version. Raises InvalidRequest for a key that has none."""
    if version.public_key is None:
        raise InvalidRequest(f"a key of type {spec.type} has no public key")
    key = load_der_public_key(version.public_key)
    if not isinstance(key, material.PublicKey):
        raise IntegrityViolation("the public key of this version is not of a known type")
    return replies.PublicKey(version.version, spec.algorithms[0], format, _FORMATS[format](key, version, spec))


def _pem(key: material.PublicKey, _version: KeyVersion, _spec: KeySpec) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def _der(key: material.PublicKey, _version: KeyVersion, _spec: KeySpec) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _raw(key: material.PublicKey, _version: KeyVersion, _spec: KeySpec) -> bytes:
    if isinstance(key, rsa.RSAPublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return key.public_bytes_raw()


def _jwk(key: material.PublicKey, version: KeyVersion, spec: KeySpec) -> Mapping[str, str]:
    return {**_parameters(key, spec), "use": _USE[spec.purpose], "kid": f"{version.key_id}/{version.version}"}


def _parameters(key: material.PublicKey, spec: KeySpec) -> dict[str, str]:
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)}
    if isinstance(key, ec.EllipticCurvePublicKey):
        # Coordinates have the full length of the field, leading zeros included (RFC 7518, section 6.2.1.2).
        point, length = key.public_numbers(), (key.key_size + 7) // 8
        x, y = (_text(value.to_bytes(length, "big")) for value in (point.x, point.y))
        return {"kty": "EC", "crv": f"P-{spec.size}", "x": x, "y": y}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": _text(key.public_bytes_raw())}
    return {"kty": "AKP", "alg": f"ML-DSA-{spec.size}", "pub": _text(key.public_bytes_raw())}


def _integer(value: int) -> str:
    return _text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


_Writer = Callable[[material.PublicKey, KeyVersion, KeySpec], str | bytes | Mapping[str, str]]
_FORMATS: Final[Mapping[PublicKeyFormat, _Writer]] = {
    PublicKeyFormat.PEM: _pem,
    PublicKeyFormat.DER: _der,
    PublicKeyFormat.JWK: _jwk,
    PublicKeyFormat.RAW: _raw,
}

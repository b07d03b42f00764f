"""Requests about imported keys, for the differential suite: by wrapped material and by public keys alone."""

import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.suites.differential.vault import WRAPPING, Asked, Wrapped, b64

PAIRS: Final[Mapping[str, tuple[Any, Any]]] = {
    "rsa-2048": (rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)),
    "ecdsa-p256": (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())),
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()),
    "mldsa-44": (mldsa.MLDSA44PrivateKey.generate(), mldsa.MLDSA44PrivateKey.generate()),
}
SECRETS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "aes256-gcm96": (bytes(32), bytes(range(32)), bytes(31)),
    "hmac": (bytes(32), bytes(range(32)), bytes(20)),
}
KINDS: Final = (*PAIRS, *SECRETS)


def prepare() -> Iterator[Asked]:
    """The wrapping key, and a key to bring versions to."""
    yield Asked("GET", "MOUNT/wrapping_key", keep=WRAPPING)
    yield Asked("POST", "MOUNT/keys/imported-mac/import", {"type": "hmac", "ciphertext": Wrapped(bytes(64))})


def public(pair: Any) -> str:  # noqa: ANN401
    pem: bytes = pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def private(pair: Any) -> Wrapped:  # noqa: ANN401
    return Wrapped(pair.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def signed(pair: Any) -> str:  # noqa: ANN401
    if isinstance(pair, rsa.RSAPrivateKey):
        raw = pair.sign(b"hello", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    elif isinstance(pair, ec.EllipticCurvePrivateKey):
        raw = pair.sign(b"hello", ec.ECDSA(hashes.SHA256()))
    else:
        raw = pair.sign(b"hello")
    return b64(raw)


class Imports:
    """Requests from a seed: keys of few names, so that most have a past."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._names = {f"imp-{seed}-{at}": self._one(*KINDS) for at in range(12)}

    def _one(self, *choices: Any) -> Any:  # noqa: ANN401
        return self._random.choice(choices)

    def _rarely(self, body: dict[str, Any], name: str, *values: Any) -> None:  # noqa: ANN401
        if self._random.random() < 0.15:
            body[name] = self._one(*values)

    def __iter__(self) -> Iterator[Asked]:
        while True:
            name, kind = self._one(*self._names.items())
            yield self._one(self.first, self.further, self.further, self.use, self.use, self.manage)(name, kind)

    def _material(self, kind: str) -> dict[str, Any]:
        if self._random.random() < 0.1 and kind != "hmac":  # any bytes are an HMAC key
            kind = self._one(*KINDS)
        if kind in SECRETS:
            return {"ciphertext": Wrapped(self._one(*SECRETS[kind]))}
        pair = self._one(*PAIRS[kind])
        material: dict[str, Any] = self._one(
            {"ciphertext": private(pair)},
            {"public_key": public(pair)},
            {"public_key": public(pair)},
            {"ciphertext": private(pair), "public_key": "not looked at"},
            {"public_key": "no key"},
            {},
        )
        return material

    def first(self, name: str, kind: str) -> Asked:
        body = {"type": kind, **self._material(kind)}
        self._rarely(body, "allow_rotation", True, False)
        self._rarely(body, "auto_rotate_period", "24h", 0)
        self._rarely(body, "hash_function", "SHA256", "sha256", "MD5")
        self._rarely(body, "ciphertext", "!!", b64(bytes(600)), b64(bytes(9)))
        return Asked("POST", f"MOUNT/keys/{name}/import", body)

    def further(self, name: str, kind: str) -> Asked:
        body = self._material(kind)
        if self._random.random() < 0.4:
            body["version"] = self._one(1, 1, 2, 2, 3, "1", 0, -1, 99, "x")
        return Asked("POST", f"MOUNT/keys/{name}/import_version", body)

    def use(self, name: str, kind: str) -> Asked:
        version: dict[str, Any] = self._one({}, {}, {"key_version": 1}, {"key_version": 2})
        hello = {"input": b64("hello")}
        asked: Asked = self._one(
            Asked("POST", f"MOUNT/sign/{name}", {**hello, **version}),
            Asked("POST", f"MOUNT/sign/{name}", {"batch_input": [hello, hello]}),
            Asked("POST", f"MOUNT/hmac/{name}", {**hello, **version}),
            Asked("POST", f"MOUNT/encrypt/{name}", {"plaintext": b64("hello"), **version}),
            Asked("POST", f"MOUNT/datakey/wrapped/{name}", {}),
            self._verify(name, kind),
            self._verify(name, kind),
        )
        return asked

    def _verify(self, name: str, kind: str) -> Asked:
        pair = self._one(*PAIRS[kind if kind in PAIRS else "ed25519"])
        signature = f"vault:v{self._one(1, 1, 2)}:{signed(pair)}"
        return Asked("POST", f"MOUNT/verify/{name}", {"input": b64("hello"), "signature": signature})

    def manage(self, name: str, _: str) -> Asked:
        asked: Asked = self._one(
            Asked("GET", f"MOUNT/keys/{name}"),
            Asked("GET", f"MOUNT/keys/{name}"),
            Asked("GET", f"MOUNT/export/public-key/{name}"),
            Asked("GET", f"MOUNT/export/public-key/{name}/1?format=der"),
            Asked("POST", f"MOUNT/keys/{name}/rotate", {}),
            Asked("POST", f"MOUNT/keys/{name}/config", {"auto_rotate_period": self._one(0, "24h")}),
            Asked("POST", f"MOUNT/keys/{name}/csr", {"version": 9}),
        )
        return asked

"""The dialect beside OpenBao: the same generated requests, valid and not, and every difference that is meant.

A request may refer to what a server answered earlier (its own ciphertext, signature or MAC), so that both are asked the
same thing about their own keys. Compared are status, shape and meaning: what cannot be equal (random bytes, keys,
times, the words of an error) is compared by its form.
"""

import base64
import json
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_pem_public_key


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@dataclass(frozen=True)
class Ref:
    """What the server that is asked answered to an earlier request."""

    name: str


@dataclass(frozen=True)
class Wrapped:
    """Material under the wrapping key of the server that is asked."""

    material: bytes = field(repr=False)

    def under(self, pem: str) -> str:
        public = load_pem_public_key(pem.encode())
        assert isinstance(public, rsa.RSAPublicKey)
        key = os.urandom(32)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        return b64(public.encrypt(key, oaep) + aes_key_wrap_with_padding(key, self.material))


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    keep: str | None = None
    """Under which name to keep the ciphertext, signature, MAC or wrapping key of the answer."""

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.body}"


@dataclass(frozen=True)
class Said:
    status: int
    body: Any


KEPT: Final = ("ciphertext", "signature", "hmac", "public_key")
WRAPPING: Final = "wrapping key"


@dataclass
class Side:
    """One server, with what it answered."""

    url: str
    token: str
    mount: str
    kept: dict[str, str] = field(default_factory=dict)

    def ask(self, asked: Asked) -> Said:
        body = None if asked.body is None else json.dumps(self._resolve(asked.body)).encode()
        request = Request(
            f"{self.url}/v1/{asked.path.replace('MOUNT', self.mount)}",
            data=body,
            method=asked.method,
            headers={"X-Vault-Token": self.token, "Content-Type": "application/json"},
        )
        try:
            with urlopen(request, timeout=30) as answer:
                said = Said(answer.status, _parse(answer.read()))
        except HTTPError as refusal:
            said = Said(refusal.code, _parse(refusal.read()))
        if asked.keep is not None:
            assert said.status == 200, (self.url, str(asked), said)
            data = said.body["data"]
            self.kept[asked.keep] = next(data[name] for name in KEPT if name in data)
        return said

    def _resolve(self, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, Ref):
            return self.kept[value.name]
        if isinstance(value, Wrapped):
            return value.under(self.kept[WRAPPING])
        if isinstance(value, Mapping):
            return {name: self._resolve(one) for name, one in value.items()}
        return [self._resolve(one) for one in value] if isinstance(value, list) else value


def _parse(raw: bytes) -> Any:  # noqa: ANN401
    return json.loads(raw) if raw.strip() else None


# Forms: what of an answer can be equal

_PREFIX: Final = re.compile(r"(vault:v\d+:)(.*)", re.DOTALL)


def _prefixed(value: str) -> str:
    found = _PREFIX.fullmatch(value)
    return found[1] if found else value


FORMS: Final[Mapping[str, Callable[[Any], object]]] = {
    "ciphertext": _prefixed,
    "hmac": _prefixed,
    "signature": _prefixed,
    "publickey": len,
    "public_key": lambda value: value.splitlines()[0] if value.startswith("-----") else len(value),
    "csr": lambda value: value.splitlines()[0],
    "random_bytes": len,
    "creation_time": bool,
    "request_id": len,
    "error": bool,
    "errors": len,
    "warnings": lambda value: None if value is None else len(value),
}


def _version(value: Any) -> Any:  # noqa: ANN401
    return FORMS["public_key"](value) if isinstance(value, str) else form(value, "version")


def form(value: Any, name: str = "", *, data_key: bool = False) -> Any:  # noqa: ANN401
    """The value with what can differ replaced by its form."""
    if name == "plaintext" and data_key:
        return len(value)
    if name in FORMS and value is not None and not isinstance(value, Mapping):
        return FORMS[name](value)
    if name == "keys" and isinstance(value, Mapping):
        return {key: "time" if isinstance(one, int) else _version(one) for key, one in value.items()}
    if isinstance(value, Mapping):
        return {key: form(one, key, data_key=data_key) for key, one in value.items()}
    if isinstance(value, list):
        return [form(one, "item", data_key=data_key) for one in value]
    return value


# Differences that are meant


@dataclass(frozen=True)
class Difference:
    """A difference with its reason; docs/vault.md tells it to those who move."""

    name: str
    why: str
    example: Asked
    """A request that shows it."""
    applies: Callable[[Asked, Said, Said], bool]
    """From the request, OpenBao's answer and ours."""


def _field(asked: Asked, name: str) -> Any:  # noqa: ANN401
    return (asked.body or {}).get(name)


def _statuses(theirs: int, ours: int) -> Callable[[Said, Said], bool]:
    return lambda one, other: (one.status, other.status) == (theirs, ours)


def _uses(*operations: str) -> Callable[[Asked], bool]:
    return lambda asked: any(f"MOUNT/{operation}" in asked.path for operation in operations)


def _judged(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer to a batch with `valid` in every item."""
    items = [{"valid": False, **one} for one in body["data"]["batch_results"]]
    return {**body, "data": {"batch_results": items}}


_LAX: Final = _statuses(200, 400)
INTENDED: Final = (
    Difference(
        "caller's mistakes are 400",
        "OpenBao answers some bad input with 500, an internal error; here it is 400, and nothing of ours failed.",
        Asked("POST", "MOUNT/encrypt/rsa", {"plaintext": b64(bytes(300))}),
        lambda _, theirs, ours: (theirs.status, ours.status) == (500, 400),
    ),
    Difference(
        "no new SHA-1 signatures",
        "SHA-1 verifies what is old; signing with it is refused.",
        Asked("POST", "MOUNT/sign/ecdsa/sha1", {"input": b64("hello")}),
        lambda asked, theirs, ours: (
            _LAX(theirs, ours)
            and _uses("sign/")(asked)
            and "sha1" in (_field(asked, "hash_algorithm"), asked.path.rsplit("/", 1)[-1])
        ),
    ),
    Difference(
        "a prehashed input has the length of its hash",
        "OpenBao signs any bytes as an ECDSA digest, so that a forgotten hash goes unnoticed; here the length counts.",
        Asked("POST", "MOUNT/sign/ecdsa", {"input": b64("hello"), "prehashed": True}),
        lambda asked, theirs, ours: (
            _LAX(theirs, ours)
            and bool(_field(asked, "prehashed"))
            and _field(asked, "hash_algorithm") != "none"
            and "ecdsa" in asked.path
        ),
    ),
    Difference(
        "options are checked for every type",
        "OpenBao ignores a wrong signature_algorithm or salt_length unless the key is RSA; here a wrong option is 400.",
        Asked("POST", "MOUNT/sign/ecdsa", {"input": b64("hello"), "signature_algorithm": "zz"}),
        lambda asked, theirs, ours: (
            _LAX(theirs, ours)
            and _uses("sign/", "verify/")(asked)
            and (_field(asked, "signature_algorithm") == "zz" or _field(asked, "salt_length") in ("zz", -7))
        ),
    ),
    Difference(
        "hash none is for RSA",
        "OpenBao takes hash_algorithm=none for keys that are not RSA; a scheme without a hash is RSA's alone.",
        Asked(
            "POST",
            "MOUNT/sign/ecdsa",
            {"input": b64("hello"), "hash_algorithm": "none", "prehashed": True, "signature_algorithm": "pkcs1v15"},
        ),
        lambda asked, theirs, ours: _LAX(theirs, ours) and _field(asked, "hash_algorithm") == "none",
    ),
    Difference(
        "rewrap takes associated data",
        "Neither product can rewrap a ciphertext that is bound to associated data; here it is given and checked.",
        Asked("POST", "MOUNT/rewrap/aes", {"ciphertext": Ref("ct:aes:aad"), "associated_data": b64("aad")}),
        lambda asked, theirs, ours: (
            _uses("rewrap/")(asked)
            and (_field(asked, "associated_data") is not None or "aad" in json.dumps(asked.body, default=str))
            and {theirs.status, ours.status} == {200, 400}
        ),
    ),
    Difference(
        "soft deletion of nothing is an error",
        "OpenBao answers 204 for a key that is not there; here it is 400, as for other operations on it.",
        Asked("DELETE", "MOUNT/keys/absent/soft-delete"),
        lambda asked, theirs, ours: "soft-delete" in asked.path and (theirs.status, ours.status) == (204, 400),
    ),
    Difference(
        "hmac keys have a default size",
        "OpenBao wants key_size; Vault has 32 bytes by default, and so have we.",
        Asked("POST", "MOUNT/keys/new-hmac", {"type": "hmac"}),
        lambda asked, theirs, ours: theirs.status >= 400 and ours.status == 200 and _field(asked, "type") == "hmac",
    ),
    Difference(
        "both spellings of ML-DSA",
        "Vault writes ml-dsa with parameter_set, OpenBao mldsa-65; both are known here.",
        Asked("POST", "MOUNT/keys/new-mldsa", {"type": "ml-dsa-65"}),
        lambda asked, theirs, ours: (
            theirs.status == 400 and ours.status == 200 and str(_field(asked, "type")).startswith("ml-dsa")
        ),
    ),
    Difference(
        "a check of a MAC always says whether it is valid",
        "OpenBao leaves `valid` out of the items of a batch whose MAC is wrong or cannot be judged.",
        Asked("POST", "MOUNT/verify/aes", {"batch_input": [{"input": b64("other"), "hmac": Ref("mac:aes:1")}]}),
        lambda asked, theirs, ours: (
            (theirs.status, ours.status) == (200, 200)
            and _uses("verify/")(asked)
            and "batch_input" in (asked.body or {})
            and form(_judged(theirs.body)) == form(_judged(ours.body)) == form(ours.body)
        ),
    ),
    Difference(
        "versions of an hmac key are of one size",
        "OpenBao takes imported versions of other lengths, and shows the length of the newest as the key's.",
        Asked("POST", "MOUNT/keys/imported-mac/import_version", {"ciphertext": Wrapped(bytes(32))}),
        lambda asked, theirs, ours: (
            (theirs.status, ours.status) == (204, 400) and asked.path.endswith("imported-mac/import_version")
        ),
    ),
    Difference(
        "a batch is answered item by item",
        "OpenBao refuses a whole signing batch for a key that does not sign; here each item says so.",
        Asked("POST", "MOUNT/sign/aes", {"batch_input": [{"input": b64("hello")}]}),
        lambda asked, theirs, ours: (
            (theirs.status, ours.status) == (400, 200) and _uses("sign/")(asked) and "batch_input" in (asked.body or {})
        ),
    ),
    Difference(
        "an item of a wrong type fails alone",
        "OpenBao answers a batch with 500 if one item has a number for text; here that item fails, the others do not.",
        Asked(
            "POST",
            "MOUNT/decrypt/aes",
            {"batch_input": [{"ciphertext": 5}, {"ciphertext": Ref("ct:aes:1")}], "partial_failure_response_code": 207},
        ),
        lambda asked, theirs, ours: (
            theirs.status == 500 and ours.status in (200, 207) and "batch_input" in (asked.body or {})
        ),
    ),
)


def compare(asked: Asked, theirs: Said, ours: Said) -> str | None:
    """None if the answers are the same in form, the name of the difference if it is meant. Raises AssertionError."""
    data_key = "datakey" in asked.path
    same = theirs.status == ours.status and form(theirs.body, data_key=data_key) == form(ours.body, data_key=data_key)
    if same:
        return None
    for one in INTENDED:
        if one.applies(asked, theirs, ours):
            return one.name
    raise AssertionError(f"{asked}\n  OpenBao {theirs}\n  we      {ours}")


# What is asked

KEYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "aes": {},
    "aes128": {"type": "aes128-gcm96"},
    "chacha": {"type": "chacha20-poly1305"},
    "xchacha": {"type": "xchacha20-poly1305"},
    "derived": {"derived": True},
    "convergent": {"derived": True, "convergent_encryption": True},
    "rsa": {"type": "rsa-2048"},
    "ecdsa": {"type": "ecdsa-p256"},
    "ecdsa384": {"type": "ecdsa-p384"},
    "ed25519": {"type": "ed25519"},
    "edderived": {"type": "ed25519", "derived": True},
    "mac": {"type": "hmac", "key_size": 32},
    "mldsa": {"type": "mldsa-44"},
}
ENCRYPTING: Final = ("aes", "aes128", "chacha", "xchacha", "derived", "convergent", "rsa")
SIGNING: Final = ("rsa", "ecdsa", "ecdsa384", "ed25519", "edderived", "mldsa")
_CONTEXT: Final = {"context": b64("ctx")}


def prepare() -> Iterator[Asked]:
    """Keys of every kind with two versions, and something made under each version."""
    for name, rules in KEYS.items():
        yield Asked("POST", f"MOUNT/keys/{name}", rules)
        for version in (1, 2):
            context = _CONTEXT if rules.get("derived") else {}
            if name in ENCRYPTING:
                body = {"plaintext": b64("hello"), **context}
                yield Asked("POST", f"MOUNT/encrypt/{name}", body, keep=f"ct:{name}:{version}")
            if name in SIGNING:
                yield Asked(
                    "POST", f"MOUNT/sign/{name}", {"input": b64("hello"), **context}, keep=f"sig:{name}:{version}"
                )
            yield Asked("POST", f"MOUNT/hmac/{name}", {"input": b64("hello")}, keep=f"mac:{name}:{version}")
            if version == 1:
                yield Asked("POST", f"MOUNT/keys/{name}/rotate", {})
    body = {"plaintext": b64("hello"), "associated_data": b64("aad")}
    yield Asked("POST", "MOUNT/encrypt/aes", body, keep="ct:aes:aad")


class Generator:
    """Requests from a seed: mostly right in one point, and sometimes wrong in one."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _one(self, *choices: Any) -> Any:  # noqa: ANN401
        return self._random.choice(choices)

    def _maybe(self, body: dict[str, Any], name: str, *values: Any, odds: float = 0.3) -> None:  # noqa: ANN401
        if self._random.random() < odds:
            body[name] = self._one(*values)

    def _bytes(self) -> Any:  # noqa: ANN401
        return self._one(
            b64("hello"), b64("hello"), b64(""), b64(bytes(range(200))), "!!", "aGk", "a-_=", 7, "aGVs\nbG8="
        )

    def _key(self) -> str:
        name: str = self._one(*KEYS, "absent")
        return name

    def _context(self, body: dict[str, Any], key: str) -> None:
        derived = bool(KEYS.get(key, {}).get("derived"))
        self._maybe(
            body, "context", b64("ctx"), b64("ctx"), b64("ctx"), "", b64("other"), "!!", odds=0.9 if derived else 0.1
        )

    def __iter__(self) -> Iterator[Asked]:
        while True:
            yield self._one(
                *(self.encrypt, self.decrypt, self.rewrap, self.data_key, self.batch),
                *(self.sign, self.verify, self.mac, self.verify_mac, self.verify_batch),
                *(self.digest, self.random_bytes),
                *(self.create, self.configure, self.read, self.path),
            )()

    def encrypt(self) -> Asked:
        key, body = self._key(), {"plaintext": self._bytes()}
        self._context(body, key)
        self._maybe(body, "associated_data", b64("a"), "", "!", odds=0.15)
        self._maybe(body, "key_version", 0, 1, 2, 3, -1, "1", "x", odds=0.3)
        self._maybe(body, "type", "zz", "rsa-2048", "ml-dsa", 5, odds=0.1)
        self._maybe(body, "convergent_encryption", True, False, "true", odds=0.1)
        self._maybe(body, "batch_input", None, odds=0.1)
        if key == "absent":
            key = "aes"
        return Asked("POST", f"MOUNT/encrypt/{key}", body)

    def _ciphertext(self, key: str) -> Any:  # noqa: ANN401
        known = f"ct:{key if key in ENCRYPTING else 'aes'}:{self._one(1, 2)}"
        return self._one(
            Ref(known), Ref(known), Ref(known), "", "x", "vault:v1:", "vault:v9:AAAA", "vault:v1:!!", "vault:v1:AAAA", 5
        )

    def decrypt(self) -> Asked:
        key = self._key()
        body = {"ciphertext": self._ciphertext(key)}
        self._context(body, key)
        self._maybe(body, "associated_data", b64("aad"), "", odds=0.1)
        return Asked(self._one("POST", "PUT"), f"MOUNT/decrypt/{key}", body)

    def rewrap(self) -> Asked:
        key = self._key()
        body = {"ciphertext": self._ciphertext(key)}
        self._context(body, key)
        self._maybe(body, "key_version", 0, 1, 2, 9, odds=0.3)
        if self._random.random() < 0.1:
            key, body = "aes", {"ciphertext": Ref("ct:aes:aad"), "associated_data": b64("aad")}
        return Asked("POST", f"MOUNT/rewrap/{key}", body)

    def data_key(self) -> Asked:
        key, body = self._key(), dict[str, Any]()
        self._context(body, key)
        self._maybe(body, "bits", 128, 256, 512, 100, "256", "x", odds=0.5)
        return Asked("POST", f"MOUNT/datakey/{self._one('plaintext', 'wrapped', 'other')}/{key}", body)

    def _scheme(self, body: dict[str, Any]) -> None:
        self._maybe(body, "hash_algorithm", "sha2-224", "sha2-512", "sha3-256", "sha1", "none", "md5", odds=0.3)
        self._maybe(body, "marshaling_algorithm", "asn1", "jws", "xml", odds=0.25)
        self._maybe(body, "signature_algorithm", "pss", "pkcs1v15", "zz", odds=0.2)
        self._maybe(body, "salt_length", "auto", "hash", 20, "0", "zz", 9999, odds=0.2)
        self._maybe(body, "prehashed", True, False, "true", odds=0.15)

    def sign(self) -> Asked:
        key, body = self._one(*SIGNING, self._key()), dict[str, Any]()
        self._maybe(body, "input", self._bytes(), odds=0.95)
        self._context(body, key)
        self._scheme(body)
        self._maybe(body, "key_version", 0, 1, 2, 3, odds=0.2)
        self._maybe(body, "batch_input", None, odds=0.1)
        return Asked("POST", f"MOUNT/sign/{key}{self._one('', '', '', '/sha2-384', '/zz')}", body)

    def verify(self) -> Asked:
        key = self._one(*SIGNING, self._key())
        known = f"sig:{key if key in SIGNING else 'rsa'}:{self._one(1, 2)}"
        body: dict[str, Any] = {"input": self._one(b64("hello"), b64("hello"), b64("other"), "!!")}
        self._maybe(body, "signature", Ref(known), Ref(known), "x", "vault:v9:AAAA", "vault:v1:!!", odds=0.95)
        self._context(body, key)
        self._maybe(body, "hash_algorithm", "sha2-256", "sha2-512", "zz", odds=0.2)
        return Asked("POST", f"MOUNT/verify/{key}", body)

    def mac(self) -> Asked:
        body = dict[str, Any]()
        self._maybe(body, "input", self._bytes(), odds=0.95)
        self._maybe(body, "algorithm", "sha2-512", "sha3-384", "sha1", "zz", odds=0.3)
        self._maybe(body, "key_version", 0, 1, 2, 3, odds=0.3)
        return Asked("POST", f"MOUNT/hmac/{self._key()}{self._one('', '', '/sha2-224', '/zz')}", body)

    def verify_mac(self) -> Asked:
        key = self._key()
        known = f"mac:{'aes' if key == 'absent' else key}:{self._one(1, 2)}"
        body = {"input": self._one(b64("hello"), b64("hello"), b64("other"), "!!")}
        body["hmac"] = self._one(Ref(known), Ref(known), "x", "vault:v9:AAAA", "vault:v1:!!", "vault:v1:AAAA")
        return Asked("POST", f"MOUNT/verify/{key}", body)

    def digest(self) -> Asked:
        body = dict[str, Any]()
        self._maybe(body, "input", self._bytes(), odds=0.95)
        self._maybe(body, "algorithm", "sha2-512", "sha3-224", "zz", odds=0.3)
        self._maybe(body, "format", "hex", "base64", "octal", odds=0.3)
        return Asked("POST", f"MOUNT/hash{self._one('', '', '/sha2-384', '/zz')}", body)

    def random_bytes(self) -> Asked:
        body = dict[str, Any]()
        self._maybe(body, "bytes", 1, 32, "16", 0, -1, 131073, odds=0.5)
        self._maybe(body, "format", "hex", "base64", "octal", odds=0.3)
        return Asked("POST", f"MOUNT/random{self._one('', '/16', '/platform/8', '/seal', '/moon/8', '/0')}", body)

    def create(self) -> Asked:
        body: dict[str, Any] = {
            "type": self._one(*(rules.get("type", "aes256-gcm96") for rules in KEYS.values()), "zz")
        }
        self._maybe(body, "derived", True, "false", odds=0.2)
        self._maybe(body, "convergent_encryption", True, odds=0.1)
        self._maybe(body, "exportable", True, odds=0.1)
        self._maybe(body, "auto_rotate_period", "24h", 3600, "10m", 0, odds=0.2)
        self._maybe(body, "key_size", 32, 64, 31, odds=0.2)
        return Asked("POST", f"MOUNT/keys/new-{self._random.randrange(10**9)}", body)

    def configure(self) -> Asked:
        body = dict[str, Any]()
        self._maybe(body, "min_decryption_version", 0, 1, 9, -1, odds=0.4)
        self._maybe(body, "min_encryption_version", 0, 1, 2, 9, -1, odds=0.4)
        self._maybe(body, "deletion_allowed", False, "false", "perhaps", odds=0.3)
        self._maybe(body, "auto_rotate_period", 0, "30m", "48h", "1.5h", "3600000ms", "2d", "1d12h", "1.5d", odds=0.3)
        return Asked("POST", f"MOUNT/keys/{self._key()}/config", body)

    def read(self) -> Asked:
        key = self._key()
        asked: Asked = self._one(
            Asked("GET", f"MOUNT/keys/{key}"),
            Asked("GET", f"MOUNT/export/public-key/{key}"),
            Asked("GET", f"MOUNT/export/public-key/{key}/{self._one(0, 1, 2, 9, 'latest', 'v1')}"),
            Asked("GET", f"MOUNT/export/certificate-chain/{key}{self._one('', '/0', '/1', '/9')}"),
            Asked("GET", f"MOUNT/keys/{key}?{self._one('foo', 'foo=1&foo=2', 'a&b=2&a', 'list=false')}"),
            Asked("GET", f"MOUNT/export/public-key/{key}?format={self._one('', 'der', 'pem', 'raw', 'zz')}"),
            Asked("GET", f"MOUNT/export/{self._one('encryption-key', 'signing-key', 'hmac-key', 'zz')}/{key}"),
            Asked("DELETE", f"MOUNT/keys/{key}"),
            Asked("POST", f"MOUNT/keys/{key}/trim", {"min_available_version": self._one(1, 5)}),
            Asked("GET", "MOUNT/config/keys"),
        )
        return asked

    def verify_batch(self) -> Asked:
        key = self._one("ecdsa", "rsa", "edderived", "aes", "absent")
        kind = "sig" if key in SIGNING and self._random.random() < 0.7 else "mac"
        items = []
        for _ in range(self._one(1, 2, 4)):
            known = f"{kind}:{'aes' if key == 'absent' else key}:{self._one(1, 2)}"
            item: dict[str, Any] = {"signature" if kind == "sig" else "hmac": self._one(Ref(known), Ref(known), "x")}
            self._maybe(item, "input", b64("hello"), b64("hello"), b64("other"), "", odds=0.9)
            self._maybe(item, "context", b64("ctx"), odds=0.8 if key == "edderived" else 0.05)
            self._maybe(item, "reference", "r1", odds=0.3)
            items.append({} if self._random.random() < 0.05 else item)
        return Asked("POST", f"MOUNT/verify/{key}{self._one('', '', '/sha2-256')}", {"batch_input": items})

    def batch(self) -> Asked:
        key = self._one("aes", "derived", "ed25519", "edderived", "absent", "mac")
        operation = self._one("encrypt", "decrypt", "rewrap", "sign", "hmac")
        if key == "absent" and operation == "encrypt":
            key = "aes"
        items = []
        for _ in range(self._one(0, 1, 2, 5)):
            item: dict[str, Any] = {
                "encrypt": {"plaintext": self._bytes()},
                "decrypt": {"ciphertext": self._ciphertext(key)},
                "rewrap": {"ciphertext": self._ciphertext(key)},
                "sign": {"input": self._bytes()},
                "hmac": {"input": self._bytes()},
            }[operation]
            if key.endswith("derived"):
                self._maybe(item, "context", b64("ctx"), odds=0.95)
            if operation in ("sign", "hmac") and self._random.random() < 0.05:
                del item["input"]
            self._maybe(item, "reference", "r1", odds=0.3)
            items.append(item)
        body: dict[str, Any] = {"batch_input": items}
        self._maybe(body, "partial_failure_response_code", 207, odds=0.3)
        return Asked("POST", f"MOUNT/{operation}/{key}", body)

    def path(self) -> Asked:
        asked: Asked = self._one(
            Asked("GET", "MOUNT/encrypt/aes"),
            Asked("DELETE", "MOUNT/encrypt/aes"),
            Asked("GET", "MOUNT/nothing"),
            Asked("POST", "MOUNT/keys/a!b", {}),
            Asked("GET", "MOUNT/keys/absent"),
            Asked("POST", "MOUNT/rewrap/aes", {"batch_input": [{"ciphertext": 5}, {"ciphertext": Ref("ct:aes:1")}]}),
            Asked("POST", "MOUNT/keys/absent/rotate", {}),
            Asked("POST", f"MOUNT/keys/{self._one('absent', 'aes', 'ecdsa', 'rsa', 'ed25519')}/csr", {}),
            Asked("POST", "MOUNT/random/all/8", {}),
            Asked("POST", f"MOUNT/encrypt/{self._one('rsa', 'aes')}", {"plaintext": b64("x"), "type": "rsa-2048"}),
            Asked("DELETE", "MOUNT/keys/absent/soft-delete"),
            Asked("POST", "MOUNT/keys/absent/soft-delete-restore", {}),
            Asked("POST", f"MOUNT/keys/new-{self._random.randrange(10**9)}", {"type": "hmac"}),
            Asked("POST", f"MOUNT/keys/new-{self._random.randrange(10**9)}", {"type": "ml-dsa-65"}),
        )
        return asked

"""Write tests/vectors/containers.json: containers that every later release must open.

Run as `python -m tests.vectors.make_golden` from the top of the repository. All but two sections follow from SEED and
the code. `material` (key pairs) and `rsa` (OAEP draws its own seed) cannot be reproduced: they are made once and kept.
A change of any other byte is a change of the format, and needs a new format number beside the old one.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from keyvault_lite.crypto.credentials import format_token, new_token
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.material import Material
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.crypto.transit import with_mac_key
from keyvault_lite.model.keys import ALGORITHMS, SYMMETRIC, KeySpec, KeyType, KeyVersion, Purpose
from keyvault_lite.model.names import KeyId, ServiceId, TokenId
from keyvault_lite.model.signature_schemes import Scheme

FILE: Final = Path(__file__).with_name("containers.json")
SEED: Final = b"KeyVault Lite golden containers, format 1"
CONTEXTS: Final[tuple[dict[str, str] | None, ...]] = (
    None,
    {"tenant": "acme"},
    {"b": "2", "a": "1", "": "", "ünïcode": "κλειδί 🔑"},
    {f"name-{i:02}": "v" * i for i in range(32)},
)
TRANSIT: Final = (
    (KeyType.AES, 128),
    (KeyType.AES, 256),
    (KeyType.CHACHA20, 256),
    (KeyType.XCHACHA20, 256),
    (KeyType.HMAC, 256),
    (KeyType.ED25519, None),
)
"""Keys of the Vault dialect: a kind of each way in which their material is laid out."""
BINDINGS: Final[tuple[tuple[bytes | None, bytes | None], ...]] = ((None, None), (b"context", None), (None, b"data"))
"""Derivation context and associated data."""
NOTES: Final = ("GRANT", "IMPORT")
PLAINTEXTS: Final = (b"", b"\x00", "grüße".encode(), bytes(range(256)))
Document = dict[str, Any]


def stream(seed: bytes) -> Callable[[int], bytes]:
    """Fixed bytes in place of randomness: SHAKE-256 of seed and call number."""
    calls = iter(range(1 << 30))
    return lambda size: hashlib.shake_256(seed + next(calls).to_bytes(4, "big")).digest(size)


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def specs() -> list[KeySpec]:
    return [KeySpec(*row) for row in ALGORITHMS]


def spec_json(spec: KeySpec) -> list[Any]:
    return [spec.type.value, spec.size, spec.purpose.value]


def version_json(spec: KeySpec, version: KeyVersion) -> Document:
    return {
        "spec": spec_json(spec),
        "key_id": version.key_id,
        "version": version.version,
        "public_key": version.public_key.hex() if version.public_key else None,
        "encrypted_key": version.encrypted_key.hex(),
    }


def master_keys() -> list[str]:
    return [MasterKey.generate(stream(SEED + b"/master/%d" % number))[1] for number in range(3)]


def keyring() -> Keyring:
    return Keyring.create(stream(SEED))


def make_material() -> list[Document]:
    """The part that is made once."""
    made = []
    for spec in specs():
        material = keyring().generate(spec)
        public = material.public_key.hex() if material.public_key else None
        made.append({"spec": spec_json(spec), "secret": material.secret.hex(), "public_key": public})
    return made


def make_rsa(material: list[Document]) -> list[Document]:
    """Suite 2, made once: an encrypted DEK and a data key for each size."""
    ring, made = keyring(), []
    for spec, version in versions(ring, material):
        if spec.type is KeyType.RSA and spec.purpose is Purpose.ENCRYPT:
            for context in CONTEXTS[:2]:
                ciphertext, dek = ring.encrypt(spec, version, b"to RSA", context)
                message = {"ciphertext": ciphertext.hex(), "encrypted_dek": dek.hex(), "plaintext": b"to RSA".hex()}
                key, wrapped = ring.data_key(spec, version, 256, context)
                made.append(
                    {
                        "key_id": version.key_id,
                        "context": context,
                        **message,
                        "plaintext_key": key.hex(),
                        "encrypted_key": wrapped.hex(),
                    }
                )
    return made


def versions(ring: Keyring, material: list[Document]) -> list[tuple[KeySpec, KeyVersion]]:
    """One key a kind, its material wrapped in the order of the file."""
    made = []
    for number, row in enumerate(material, 1):
        spec = KeySpec(KeyType(row["spec"][0]), row["spec"][1], Purpose(row["spec"][2]))
        public = bytes.fromhex(row["public_key"]) if row["public_key"] else None
        opaque = Material(bytes.fromhex(row["secret"]), public)
        made.append((spec, ring.versions.wrap(opaque, spec, key_id=KeyId(uuid(number)), version=1, created_at=0)))
    return made


def transit(ring: Keyring, material: list[Document]) -> list[Document]:
    """A version of each kind of TRANSIT key, as it is stored, and what it makes."""
    rng, made = stream(SEED + b"/transit"), []
    pairs = {
        row["spec"][0]: Material(*(bytes.fromhex(row[part]) for part in ("secret", "public_key")))
        for row in material
        if row["public_key"]
    }
    for number, (kind, size) in enumerate(TRANSIT, 0x3000):
        spec = KeySpec(kind, size, Purpose.TRANSIT)
        secret = with_mac_key(spec, pairs[kind] if kind in pairs else Material(rng((size or 0) // 8)), rng)
        version = ring.versions.wrap(secret, spec, key_id=KeyId(uuid(number)), version=3, created_at=0)
        loaded = ring.transit(spec, version)
        row = {**version_json(spec, version), "secret": secret.secret.hex(), "mac": loaded.mac(b"m", "sha2-256").hex()}
        if kind is KeyType.ED25519:
            row["signature"] = loaded.sign(b"m", Scheme(), None)[0].hex()
            row["derived_public"] = loaded.derived_public_text(b"context")
        row["messages"] = [
            {
                "convergent": convergent,
                "context": context.hex() if context else None,
                "associated": associated.hex() if associated else None,
                "plaintext": plaintext.hex(),
                "ciphertext": loaded.encrypt(plaintext, context, associated, convergent=convergent).hex(),
            }
            for convergent in (False, True)
            for context, associated in BINDINGS
            for plaintext in PLAINTEXTS
            if kind in SYMMETRIC - {KeyType.HMAC}
        ]
        made.append(row)
    return made


def reproducible(material: list[Document]) -> Document:
    """Everything that follows from SEED and the material."""
    ring = keyring()
    document: Document = {
        "instance_id": ring.instance_id.hex(),
        "log_public_key": ring.log_public_key.hex(),
        "master_keys": master_keys(),
        "slots": [],
        "messages": [],
        "data_keys": [],
        "replies": [],
    }
    for number, text in enumerate(document["master_keys"]):
        slot = ring.seal(MasterKey.parse(text), slot_id=uuid(0x1000 + number), created_at=0)
        document["slots"].append({"id": slot.id, "generation": slot.generation, "sealed": slot.sealed.hex()})
    made = versions(ring, material)
    document["versions"] = [version_json(*row) for row in made]
    for spec, version in made:
        if spec.type is not KeyType.AES:
            continue
        successor = ring.versions.wrap(
            Material(b"\x5a" * ((spec.size or 0) // 8)), spec, key_id=version.key_id, version=2, created_at=0
        )
        document["versions"].append(version_json(spec, successor))
        for context in CONTEXTS:
            for plaintext in PLAINTEXTS:
                ciphertext, dek = ring.encrypt(spec, version, plaintext, context)
                document["messages"].append(
                    {
                        "key_id": version.key_id,
                        "context": context,
                        "plaintext": plaintext.hex(),
                        "ciphertext": ciphertext.hex(),
                        "encrypted_dek": dek.hex(),
                        "rewrapped": ring.rewrap(spec, version, successor, dek, context).hex(),
                    }
                )
            for bits in (128, 256, 512):
                key, wrapped = ring.data_key(spec, version, bits, context)
                document["data_keys"].append(
                    {
                        "key_id": version.key_id,
                        "context": context,
                        "plaintext_key": key.hex(),
                        "encrypted_key": wrapped.hex(),
                    }
                )
    for number, body in enumerate(PLAINTEXTS):
        row = uuid(0x2000 + number)
        sealed = ring.seal_reply(row, ("service", number, b"digest"), body)
        document["replies"].append({"row": row, "number": number, "body": body.hex(), "sealed": sealed.hex()})
    document["transit"] = transit(ring, material)
    document["notes"] = [
        {"kind": kind, "payload": payload.hex(), "sealed": ring.seal_note(kind, payload).hex()}
        for kind in NOTES
        for payload in PLAINTEXTS
    ]
    held = ring.access_keys.seal(TokenId("AKIAIOSFODNN7EXAMPLE"), ServiceId(uuid(0x4000)), "secret")
    document["access_key"] = {"id": "AKIAIOSFODNN7EXAMPLE", "service_id": uuid(0x4000), "sealed": held.hex()}
    token_id, secret = new_token(stream(SEED + b"/token"))
    document["evidence"] = {
        "row_mac": ring.row_mac("keys", ("id", 1), 7, ("text", None, 5, b"bytes")).hex(),
        "row_mac_schema_2": ring.row_mac("keys", ("id", 1), 7, ("text", None, 5, b"bytes"), schema=2).hex(),
        "head_mac": ring.head_mac(0, 12, bytes(32), 5).hex(),
        "redact_context": ring.redact_context(KeyId(uuid(1)), CONTEXTS[2]).hex(),
        "redact_text": ring.redact_text("a secret pasted into a path"),
        "log_signature": ring.sign_log(b"checkpoint\n").hex(),
        "token": format_token(token_id, secret),
        "token_digest": ring.token_digest(token_id, secret).hex(),
    }
    return document


def main() -> None:
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    material = kept.get("material") or make_material()
    document = {"material": material, "rsa": kept.get("rsa") or make_rsa(material), **reproducible(material)}
    FILE.write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()

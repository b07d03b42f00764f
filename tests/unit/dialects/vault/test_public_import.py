"""Public keys that come alone, their private keys that come later, and ML-DSA keys from outside."""

from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from msgspec import structs

from keyvault_lite.dialects.vault.requests import key_ref
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.keys import Key
from tests.support.harness import Harness
from tests.support.vault_client import Answer, Asker, b64
from tests.unit.dialects.vault.test_outside import bring, wrapped

HELLO = b64("hello")
PAIRS: Mapping[str, Any] = {
    "rsa-2048": rsa.generate_private_key(65537, 2048),
    "ecdsa-p256": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p521": ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "mldsa-44": mldsa.MLDSA44PrivateKey.generate(),
    "mldsa-65": mldsa.MLDSA65PrivateKey.generate(),
    "mldsa-87": mldsa.MLDSA87PrivateKey.generate(),
}


def public(pair: Any) -> str:  # noqa: ANN401
    pem: bytes = pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def private(pair: Any) -> bytes:  # noqa: ANN401
    der: bytes = pair.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return der


def signed(pair: Any, message: bytes = b"hello") -> str:  # noqa: ANN401
    if isinstance(pair, rsa.RSAPrivateKey):
        raw = pair.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    elif isinstance(pair, ec.EllipticCurvePrivateKey):
        raw = pair.sign(message, ec.ECDSA(hashes.SHA256()))
    else:
        raw = pair.sign(message)
    return f"vault:v1:{b64(raw)}"


def verifies(ask: Asker, name: str, signature: str) -> bool:
    found: bool = ask.post(f"transit/verify/{name}", {"input": HELLO, "signature": signature}).data["valid"]
    return found


def further(ask: Asker, name: str, **body: object) -> Answer:
    return ask.post(f"transit/keys/{name}/import_version", body)


def stored(ask: Asker, name: str) -> Key:
    found = ask.harness.ledger.snapshot().find_key(key_ref("transit", name))
    assert found is not None
    return found


def reopened(ask: Asker) -> Asker:
    ask.harness.reopen()
    return Asker(ask.harness)


def lone(ask: Asker, name: str, kind: str, **more: object) -> None:
    body = {"type": kind, "public_key": public(PAIRS[kind]), **more}
    assert ask.post(f"transit/keys/{name}/import", body).status == 204


@pytest.mark.parametrize("kind", PAIRS)
def test_a_public_key_alone_verifies_and_no_more(ask: Asker, kind: str) -> None:
    lone(ask, "k", kind)
    last = ask.last.draft
    assert (last.action, last.result, last.key_version) == (Action.IMPORT, Result.SUCCESS, 1)
    pair = PAIRS[kind]
    for again in (False, True):
        if again:
            ask = reopened(ask)
        assert verifies(ask, "k", signed(pair))
        assert not verifies(ask, "k", signed(pair, b"other"))
        refused = ask.post("transit/sign/k", {"input": HELLO})
        assert (refused.status, refused.error) == (
            400,
            "requested version for signing does not contain a private part",
        )
        assert (ask.last.draft.action, ask.last.draft.result) == (Action.SIGN, Result.ERROR)
        assert "private key not imported" in ask.post("transit/keys/k/csr").error
        mac = ask.post("transit/hmac/k", {"input": HELLO}).data["hmac"]
        assert ask.post("transit/verify/k", {"input": HELLO, "hmac": mac}).data == {"valid": True}
        assert ask("GET", "transit/export/signing-key/k").status == 400
        assert ask.post("transit/keys/k/rotate").status == 400
        found = ask.read("k")
        assert (found["imported_key"], found["latest_version"]) == (True, 1)
        exported = ask("GET", "transit/export/public-key/k?format=pem").data["keys"]["1"]
        assert exported.split() == public(pair).split()
        assert ask.harness.ledger.verify().valid


def test_a_public_rsa_key_encrypts_and_does_not_open(ask: Asker) -> None:
    lone(ask, "k", "rsa-2048")
    sealed = ask.encrypt("k")
    wrapped_key = ask.post("transit/datakey/wrapped/k").data["ciphertext"]
    pair = PAIRS["rsa-2048"]
    assert isinstance(pair, rsa.RSAPrivateKey)
    for operation in ("decrypt", "rewrap"):
        refused = ask.post(f"transit/{operation}/k", {"ciphertext": sealed})
        assert (refused.status, "private counterpart" in refused.error) == (400, True)
    batch = ask.post("transit/decrypt/k", {"batch_input": [{"ciphertext": sealed}]})
    assert (batch.status, "private counterpart" in batch.json["data"]["batch_results"][0]["error"]) == (400, True)
    assert further(ask, "k", ciphertext=wrapped(ask, private(pair))).status == 204
    assert ask.decrypt("k", sealed) == b"hello"
    assert len(ask.decrypt("k", wrapped_key)) == 32


@pytest.mark.parametrize("kind", PAIRS)
def test_the_private_key_of_the_newest_version_comes_later(ask: Asker, kind: str) -> None:
    lone(ask, "k", kind)
    before = ask.read("k")
    mac = ask.post("transit/hmac/k", {"input": HELLO}).data["hmac"]
    assert further(ask, "k", ciphertext=wrapped(ask, private(PAIRS[kind]))).status == 204
    assert (ask.last.draft.action, ask.last.draft.key_version) == (Action.IMPORT, 1)
    assert ask.read("k") == before
    assert verifies(ask, "k", ask.post("transit/sign/k", {"input": HELLO}).data["signature"])
    assert ask.post("transit/verify/k", {"input": HELLO, "hmac": mac}).data == {"valid": True}
    ask = reopened(ask)
    assert verifies(ask, "k", ask.post("transit/sign/k", {"input": HELLO}).data["signature"])
    assert verifies(ask, "k", signed(PAIRS[kind]))
    # From here on it is a version like any other: the same key once more is a further version.
    assert further(ask, "k", ciphertext=wrapped(ask, private(PAIRS[kind]))).status == 204
    assert ask.read("k")["latest_version"] == 2


def test_another_private_key_is_a_version_of_its_own(ask: Asker) -> None:
    lone(ask, "k", "ecdsa-p256")
    other = ec.generate_private_key(ec.SECP256R1())
    assert further(ask, "k", ciphertext=wrapped(ask, private(other))).status == 204
    assert ask.read("k")["latest_version"] == 2
    assert ask.post("transit/sign/k", {"input": HELLO}).data["key_version"] == 2
    assert ask.post("transit/sign/k", {"input": HELLO, "key_version": 1}).status == 400
    assert verifies(ask, "k", signed(PAIRS["ecdsa-p256"]))


def test_a_private_key_for_the_version_named(ask: Asker) -> None:
    first, second = PAIRS["ecdsa-p256"], ec.generate_private_key(ec.SECP256R1())
    lone(ask, "k", "ecdsa-p256")
    assert further(ask, "k", public_key=public(second)).status == 204
    key = wrapped(ask, private(first))
    for body, message in (
        ({"ciphertext": key, "version": 2}, "cannot import key, key pair does not match"),
        ({"ciphertext": key, "version": 3}, "no such key version"),
        ({"ciphertext": key, "version": 0}, "no such key version"),
        ({"ciphertext": key, "version": -1}, "no such key version"),
        (
            {"public_key": public(first), "version": 1},
            "cannot add a public key to a key version that already has a public key set",
        ),
    ):
        answer = further(ask, "k", **body)
        assert (answer.status, answer.error) == (400, message)
    assert further(ask, "k", ciphertext=key, version=1, public_key="not looked at").status == 204
    assert ask.read("k")["latest_version"] == 2
    assert ask.post("transit/sign/k", {"input": HELLO, "key_version": 1}).data["key_version"] == 1
    assert ask.post("transit/sign/k", {"input": HELLO}).status == 400
    assert further(ask, "k", ciphertext=key, version=1).error == "private key imported, key version cannot be updated"
    bring(ask, "aes", bytes(32))
    again = further(ask, "aes", ciphertext=wrapped(ask, bytes(32)), version=1)
    assert (again.status, again.error) == (400, "provided type does not support importing key versions")


def test_a_destroyed_version_takes_no_private_key(ask: Asker) -> None:
    lone(ask, "k", "ecdsa-p256")
    assert further(ask, "k", public_key=public(PAIRS["ecdsa-p256"])).status == 204
    ask.post("transit/keys/k/config", {"min_encryption_version": 2, "min_decryption_version": 2})
    ask.post("transit/keys/k/trim", {"min_available_version": 2})
    key = wrapped(ask, private(PAIRS["ecdsa-p256"]))
    assert further(ask, "k", ciphertext=key, version=1).status == 400
    assert further(ask, "k", ciphertext=key).status == 204
    assert ask.post("transit/sign/k", {"input": HELLO}).data["key_version"] == 2


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("aes256-gcm96", public(PAIRS["ecdsa-p256"])),
        ("hmac", public(PAIRS["ecdsa-p256"])),
        ("ecdsa-p256", public(PAIRS["ecdsa-p521"])),
        ("ecdsa-p256", public(ec.generate_private_key(ec.SECP256K1()))),
        ("ecdsa-p256", public(PAIRS["ed25519"])),
        ("rsa-4096", public(PAIRS["rsa-2048"])),
        ("mldsa-65", public(PAIRS["mldsa-44"])),
        ("ed25519", b64(PAIRS["ed25519"].public_key().public_bytes_raw())),
        ("ecdsa-p256", public(PAIRS["ecdsa-p256"])[:90]),
        ("ecdsa-p256", "-----BEGIN PUBLIC KEY-----\n\ud800"),
        ("ecdsa-p256", "-----BEGIN PUBLIC KEY-----\n" + "A" * 20_000),
        ("ecdsa-p256", 5),
        ("ecdsa-p256", ""),
    ],
    ids=[
        *(
            "aes",
            "hmac",
            "another curve",
            "a curve not known here",
            "ed25519 for ecdsa",
            "another size",
            "another ml-dsa",
        ),
        *("raw", "cut short", "half a surrogate", "long", "a number", "empty"),  # the keys themselves are new each time
    ],
)
def test_what_is_no_public_key_of_the_kind(ask: Asker, kind: str, key: object) -> None:
    assert ask.post("transit/keys/k/import", {"type": kind, "public_key": key}).status in {400, 413}
    assert ask("GET", "transit/keys/k").status == 404


def test_the_hash_of_a_wrapping_counts_where_something_is_wrapped(ask: Asker) -> None:
    lone(ask, "k", "ecdsa-p256", hash_function="MD5")
    body = {"ciphertext": wrapped(ask, bytes(32)), "hash_function": "MD5"}
    assert ask.post("transit/keys/other/import", body).status == 400


def test_a_derived_key_has_no_public_key_to_import(ask: Asker) -> None:
    body = {"type": "ed25519", "public_key": public(PAIRS["ed25519"]), "derived": True}
    assert ask.post("transit/keys/k/import", body).status == 400


def test_rotation_makes_a_version_that_signs(ask: Asker) -> None:
    lone(ask, "k", "ecdsa-p256", allow_rotation=True)
    assert ask.post("transit/keys/k/rotate").data["imported_key"] is False
    assert ask.post("transit/sign/k", {"input": HELLO}).data["key_version"] == 2
    assert verifies(ask, "k", signed(PAIRS["ecdsa-p256"]))
    # A key whose versions are made here takes none from outside.
    assert further(ask, "k", ciphertext=wrapped(ask, private(PAIRS["ecdsa-p256"]))).status == 400


@pytest.mark.parametrize("size", [44, 65, 87])
def test_ml_dsa_by_the_wrapping_key_in_both_spellings(ask: Asker, size: int) -> None:
    pair = PAIRS[f"mldsa-{size}"]
    bring(ask, "one", private(pair), type=f"mldsa-{size}")
    bring(ask, "two", private(pair), type="ml-dsa", parameter_set=str(size))
    bring(ask, "three", private(pair), type=f"ml-dsa-{size}")
    for name in ("one", "two", "three"):
        found = ask.read(name)
        assert (found["type"], found["imported_key"]) == (f"mldsa-{size}", True)
        assert found["keys"]["1"]["public_key"] == b64(pair.public_key().public_bytes_raw())
        assert verifies(ask, name, signed(pair))
        assert verifies(ask, name, ask.post(f"transit/sign/{name}", {"input": HELLO}).data["signature"])
    other = 44 if size != 44 else 65
    body = {"ciphertext": wrapped(ask, private(pair)), "type": f"mldsa-{other}"}
    assert ask.post("transit/keys/bad/import", body).status == 400


def test_an_ml_dsa_key_without_its_seed_is_refused(ask: Asker) -> None:
    """RFC 9881 lets a private key be written expanded; only the seed is kept, and there is no way back to it."""
    seed = PAIRS["mldsa-44"].private_bytes_raw()
    for raw in (seed, private(PAIRS["mldsa-44"])[:-34] + b"\x04\x20" + seed):
        body = {"ciphertext": wrapped(ask, raw), "type": "mldsa-44"}
        assert ask.post("transit/keys/k/import", body).status == 400


def test_an_hmac_key_is_as_long_as_its_material(ask: Asker) -> None:
    bring(ask, "long", bytes(range(64)), type="hmac")
    assert ask.read("long")["key_size"] == 64
    body = {"ciphertext": wrapped(ask, bytes(31)), "type": "hmac"}
    assert ask.post("transit/keys/short/import", body).status == 400


def test_no_period_turns_an_imported_key_that_may_not(harness: Harness) -> None:
    ask = Asker(harness)
    body = {"ciphertext": wrapped(ask, bytes(32)), "auto_rotate_period": "1h"}
    refused = ask.post("transit/keys/k/import", body)
    assert (refused.status, "allow_rotation" in refused.error) == (400, True)
    bring(ask, "fixed", bytes(32))
    bring(ask, "free", bytes(32), allow_rotation=True, auto_rotate_period="1h")
    assert ask.post("transit/keys/fixed/config", {"auto_rotate_period": "1h"}).data["auto_rotate_period"] == 3600
    found = {name: stored(ask, name).rotate_at is not None for name in ("fixed", "free")}
    assert found == {"fixed": False, "free": True}
    harness.run(harness.jobs.round())
    assert ask.read("fixed")["latest_version"] == 1


def test_a_public_key_stands_under_its_container(ask: Asker) -> None:
    """A version whose public key is another one does not load, whatever its row says."""
    lone(ask, "k", "ed25519")
    key, other = stored(ask, "k"), ed25519.Ed25519PrivateKey.generate().public_key()
    der = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(IntegrityViolation):
        ask.harness.vault.keyring.transit(key.spec, structs.replace(key.versions[0], public_key=der))

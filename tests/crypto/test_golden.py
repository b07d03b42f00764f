"""The format is a promise: containers made by any release open in all later ones."""

from typing import Any

import pytest

from keyvault_lite.crypto.container import parse
from keyvault_lite.crypto.credentials import parse_token
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import KeySpec, KeyType, KeyVersion, Purpose, VersionStatus
from tests.vectors import make_golden

Golden = dict[str, Any]
Versions = dict[tuple[str, int], tuple[KeySpec, KeyVersion]]


def slots(golden: Golden) -> list[Slot]:
    instance = bytes.fromhex(golden["instance_id"])
    return [Slot(s["id"], s["generation"], instance, "none", bytes.fromhex(s["sealed"])) for s in golden["slots"]]


@pytest.fixture(scope="module")
def old(golden: Golden) -> Keyring:
    return Keyring.open(slots(golden), MasterKey.parse(golden["master_keys"][0]))


@pytest.fixture(scope="module")
def stored(golden: Golden) -> Versions:
    found: Versions = {}
    for row in golden["versions"]:
        kind, size, purpose = row["spec"]
        version = KeyVersion(
            row["key_id"],
            row["version"],
            VersionStatus.ACTIVE,
            0,
            bytes.fromhex(row["encrypted_key"]),
            bytes.fromhex(row["public_key"]) if row["public_key"] else None,
        )
        found[row["key_id"], row["version"]] = KeySpec(KeyType(kind), size, Purpose(purpose)), version
    return found


def test_there_are_enough(golden: Golden) -> None:
    sealed = [golden[part] for part in ("slots", "versions", "messages", "data_keys", "replies", "rsa")]
    assert sum(map(len, sealed)) >= 50
    assert len(golden["versions"]) >= 15
    assert len(golden["messages"]) >= 30


def test_every_master_key_opens_its_slot_and_no_other(golden: Golden) -> None:
    for number, text in enumerate(golden["master_keys"]):
        master = MasterKey.parse(text)
        ring = Keyring.open(slots(golden), master)
        assert ring.instance_id.hex() == golden["instance_id"]
        assert ring.log_public_key.hex() == golden["log_public_key"]
        assert [ring.opens(slot, master) for slot in slots(golden)] == [number == n for n in range(3)]


def test_messages_open_before_and_after_rewrapping(golden: Golden, old: Keyring, stored: Versions) -> None:
    for row in golden["messages"]:
        for name, number in (("encrypted_dek", 1), ("rewrapped", 2)):
            spec, version = stored[row["key_id"], number]
            dek = bytes.fromhex(row[name])
            assert old.version_in(version.key_id, dek) == number
            opened = old.decrypt(spec, version, bytes.fromhex(row["ciphertext"]), dek, row["context"])
            assert opened.hex() == row["plaintext"]


def test_data_keys_open(golden: Golden, old: Keyring, stored: Versions) -> None:
    for row in golden["data_keys"] + golden["rsa"]:
        spec, version = stored[row["key_id"], 1]
        opened = old.open_data_key(spec, version, bytes.fromhex(row["encrypted_key"]), row["context"])
        assert opened.hex() == row["plaintext_key"]


def test_rsa_messages_open(golden: Golden, old: Keyring, stored: Versions) -> None:
    for row in golden["rsa"]:
        spec, version = stored[row["key_id"], 1]
        dek = bytes.fromhex(row["encrypted_dek"])
        assert parse(dek).suite.number == 2
        opened = old.decrypt(spec, version, bytes.fromhex(row["ciphertext"]), dek, row["context"])
        assert opened.hex() == row["plaintext"]


def test_every_key_signs_or_is_a_cipher(old: Keyring, stored: Versions) -> None:
    for spec, version in stored.values():
        if spec.purpose is Purpose.ENCRYPT:
            ciphertext, dek = old.encrypt(spec, version, b"new", None)
            assert old.decrypt(spec, version, ciphertext, dek, None) == b"new"
        else:
            for algorithm in spec.algorithms:
                signature = old.sign(spec, version, b"m", algorithm, prehashed=False)
                assert old.verify(spec, version, b"m", signature, algorithm, prehashed=False)


def test_replies_open(golden: Golden, old: Keyring) -> None:
    for row in golden["replies"]:
        opened = old.open_reply(row["row"], ("service", row["number"], b"digest"), bytes.fromhex(row["sealed"]))
        assert opened.hex() == row["body"]


def test_the_stored_token_is_known(golden: Golden, old: Keyring) -> None:
    token = parse_token(golden["evidence"]["token"])
    assert token is not None
    assert old.token_matches(*token, bytes.fromhex(golden["evidence"]["token_digest"]))


def test_the_same_randomness_makes_the_same_bytes(golden: Golden) -> None:
    again = make_golden.reproducible(golden["material"])
    for part, made in again.items():
        assert made == golden[part], part
    assert golden.keys() == again.keys() | {"material", "rsa"}

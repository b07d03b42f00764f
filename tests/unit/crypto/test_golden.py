"""The format is a promise: containers made by any release open in all later ones."""

import hashlib
import hmac
from typing import Any

import pytest

from keyvault_lite.crypto.container import expand, parse, prk
from keyvault_lite.crypto.credentials import parse_token
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.crypto.transit import TransitVersion
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import KeySpec, KeyType, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.signature_schemes import Scheme
from tests.vectors import make_golden

Golden = dict[str, Any]
Versions = dict[tuple[str, int], tuple[KeySpec, KeyVersion]]
Rows = list[tuple[Golden, KeySpec, TransitVersion]]


def slots(golden: Golden) -> list[Slot]:
    instance = bytes.fromhex(golden["instance_id"])
    return [Slot(s["id"], s["generation"], instance, "none", bytes.fromhex(s["sealed"])) for s in golden["slots"]]


@pytest.fixture(scope="module")
def old(golden: Golden) -> Keyring:
    return Keyring.open(slots(golden), MasterKey.parse(golden["master_keys"][0]))


def read(row: Golden) -> tuple[KeySpec, KeyVersion]:
    kind, size, purpose = row["spec"]
    version = KeyVersion(
        row["key_id"],
        row["version"],
        VersionStatus.ACTIVE,
        0,
        bytes.fromhex(row["encrypted_key"]),
        bytes.fromhex(row["public_key"]) if row["public_key"] else None,
    )
    return KeySpec(KeyType(kind), size, Purpose(purpose)), version


@pytest.fixture(scope="module")
def stored(golden: Golden) -> Versions:
    return {(row["key_id"], row["version"]): read(row) for row in golden["versions"]}


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


@pytest.fixture(scope="module")
def rows(golden: Golden, old: Keyring) -> Rows:
    found = []
    for row in golden["transit"]:
        spec, version = read(row)
        found.append((row, spec, old.transit(spec, version)))
    assert len(found) == len(make_golden.TRANSIT)
    return found


class TestVaultDialect:
    def test_a_version_macs_with_what_stands_first_in_its_material(self, rows: Rows) -> None:
        for row, spec, version in rows:
            secret = bytes.fromhex(row["secret"])
            key = secret if spec.type is KeyType.HMAC else secret[:32]
            assert version.mac(b"m", "sha2-256").hex() == row["mac"] == hmac.digest(key, b"m", "sha256").hex()

    def test_messages_open(self, rows: Rows) -> None:
        seen = 0
        for row, _, version in rows:
            for message in row["messages"]:
                context, more = (bytes.fromhex(message[part] or "") for part in ("context", "associated"))
                body, convergent = bytes.fromhex(message["ciphertext"]), message["convergent"]
                opened = version.decrypt(body, context, more, convergent=convergent, foreign=False)
                assert opened.hex() == message["plaintext"]
                # That a version was imported changes nothing of what this vault made under it.
                assert version.decrypt(body, context, more, convergent=convergent, foreign=True) == opened
                aes = row["spec"][0] == "AES"
                assert parse(body).suite.number == ((4 if aes else 5) if convergent else (1 if aes else 3))
                seen += 1
        assert seen == 4 * 2 * len(make_golden.BINDINGS) * len(make_golden.PLAINTEXTS)

    def test_the_salt_of_a_convergent_message_is_the_documented_one(self, golden: Golden, rows: Rows) -> None:
        instance = bytes.fromhex(golden["instance_id"])
        for row, _, _ in rows:
            for message in row["messages"]:
                body = bytes.fromhex(message["ciphertext"])
                place = pae("kvl/v1/transit", body[:26], instance, "TRANSIT")
                key = expand(prk(bytes.fromhex(row["secret"])[32:]), pae("kvl/v1/convergent", place))[:32]
                context, more = (bytes.fromhex(message[part] or "") or None for part in ("context", "associated"))
                bound = hashlib.sha256(pae("transit", context, more)).digest()
                salt = hmac.digest(key, pae("convergent", bound, bytes.fromhex(message["plaintext"])), "sha256")
                assert (body[26:58] == salt) == message["convergent"]

    def test_a_pair_signs_and_derives_as_it_did(self, rows: Rows) -> None:
        row, _, version = rows[-1]
        signature = bytes.fromhex(row["signature"])
        assert version.verify(b"m", signature, Scheme(), None)
        assert version.sign(b"m", Scheme(), None) == (signature, None)
        assert version.derived_public_text(b"context") == row["derived_public"]


def test_notes_open(golden: Golden, old: Keyring) -> None:
    for row in golden["notes"]:
        sealed = bytes.fromhex(row["sealed"])
        assert sealed[:26] == b"KVL\x01\x01\x00" + bytes(16) + bytes(4)
        assert old.open_note(row["kind"], sealed).hex() == row["payload"]


def test_the_stored_token_is_known(golden: Golden, old: Keyring) -> None:
    token = parse_token(golden["evidence"]["token"])
    assert token is not None
    assert old.token_matches(*token, bytes.fromhex(golden["evidence"]["token_digest"]))


def test_the_same_randomness_makes_the_same_bytes(golden: Golden) -> None:
    again = make_golden.reproducible(golden["material"])
    for part, made in again.items():
        assert made == golden[part], part
    assert golden.keys() == again.keys() | {"material", "rsa"}

"""The keyring: slots, bindings of stored material, the cache, evidence and stored replies."""

import hmac
from dataclasses import replace
from struct import error as struct_error
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from keyvault_lite.crypto import keyring, versions
from keyvault_lite.crypto.container import expand, prk
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.keyring_secrets import KeyringSecrets
from keyvault_lite.crypto.root import MasterKey, WrongMasterKey
from keyvault_lite.model.encoding import Value, pae
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import KeySpec, KeyType, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId
from tests.unit.crypto.conftest import AES, KEY, Made
from tests.vectors.make_golden import uuid

SLOT = uuid(0xB)
OTHER = KeyId(uuid(0xC))


@pytest.fixture(scope="module")
def slot(ring: Keyring, master: MasterKey) -> Slot:
    return ring.seal(master, slot_id=SLOT, created_at=5)


class TestSlots:
    def test_a_new_keyring(self, ring: Keyring) -> None:
        assert ring.generation == 1
        assert len(ring.instance_id) == 16
        assert len(ring.log_public_key) == 32
        assert Keyring.create().instance_id != ring.instance_id

    def test_opens_as_it_was(self, ring: Keyring, master: MasterKey, slot: Slot) -> None:
        assert (slot.id, slot.generation, slot.instance_id, slot.kdf, slot.created_at) == (
            SLOT,
            1,
            ring.instance_id,
            "none",
            5,
        )
        again = Keyring.open([slot], master)
        assert (again.instance_id, again.generation, again.log_public_key) == (
            ring.instance_id,
            1,
            ring.log_public_key,
        )
        assert again.head_mac(1) == ring.head_mac(1)
        assert again.opens(slot, master)

    def test_the_commitment_picks_the_slot(self, ring: Keyring, master: MasterKey, slot: Slot) -> None:
        second = MasterKey.generate()[0]
        slots = [slot, ring.seal(second, slot_id=OTHER, created_at=6)]
        for key in (master, second):
            assert Keyring.open(slots, key).instance_id == ring.instance_id
        assert [ring.opens(s, second) for s in slots] == [False, True]

    def test_the_newest_generation_wins(self, ring: Keyring, master: MasterKey, slot: Slot) -> None:
        newer = Keyring(ring._bundle, 2, ring._rng)
        slots = [slot, newer.seal(master, slot_id=OTHER, created_at=6)]
        assert Keyring.open(slots, master).generation == 2
        assert Keyring.open(slots[::-1], master).generation == 2

    @pytest.mark.parametrize("count", [0, 1])
    def test_a_wrong_master_key_is_one_clear_sentence(self, slot: Slot, count: int) -> None:
        with pytest.raises(WrongMasterKey, match="The master key opens no slot") as caught:
            Keyring.open([slot][:count], MasterKey.generate()[0])
        assert caught.value.detail.count(".") == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"id": OTHER},
            {"id": "not a uuid"},
            {"id": ""},
            {"generation": 2},
            {"generation": 0},
            {"generation": -1},
            {"generation": 2**32},
            {"instance_id": bytes(16)},
            {"instance_id": b""},
            {"kdf": "argon2id"},
            {"sealed": b""},
            {"sealed": b"KVL"},
        ],
        ids=str,
    )
    def test_an_altered_slot_does_not_open(
        self, ring: Keyring, master: MasterKey, slot: Slot, change: dict[str, Any]
    ) -> None:
        altered = replace(slot, **change)
        assert not ring.opens(altered, master)
        with pytest.raises(WrongMasterKey):
            Keyring.open([altered], master)
        assert Keyring.open([altered, slot], master).generation == 1

    @given(data=st.data())
    def test_a_flipped_bit_does_not_open(self, ring: Keyring, master: MasterKey, slot: Slot, data: Any) -> None:  # noqa: ANN401
        bit = data.draw(st.integers(0, len(slot.sealed) * 8 - 1))
        damaged = bytearray(slot.sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not ring.opens(replace(slot, sealed=bytes(damaged)), master)

    def test_generations_begin_with_1_also_for_who_holds_the_master_key(self, ring: Keyring, master: MasterKey) -> None:
        for generation in (0, 1):
            sealed = Keyring(ring._bundle, generation, ring._rng).seal(master, slot_id=SLOT, created_at=5)
            assert ring.opens(sealed, master) is (generation == 1)

    def test_a_slot_of_another_keyring_is_not_this_one(self, ring: Keyring, master: MasterKey) -> None:
        foreign = Keyring.create().seal(master, slot_id=SLOT, created_at=0)
        assert not ring.opens(foreign, master)

    def test_a_keyring_of_another_instance_inside_is_refused(self, master: MasterKey, ring: Keyring) -> None:
        # Only who holds the master key could make one.
        box, context = keyring._slot_box(SLOT, 1, bytes(16), "none", master)
        sealed = box.seal(context, ring._bundle.write(), ring._rng)
        with pytest.raises(IntegrityViolation, match="another installation"):
            Keyring.open([Slot(SLOT, 1, bytes(16), "none", sealed)], master)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda b: b"",
            lambda b: b"\x02" + b[1:],
            lambda b: b[:-1],
            lambda b: b + b[-36:],
            lambda b: b[:-36],
            lambda b: b[:-37],
            lambda b: b[:40],
        ],
    )
    def test_an_unknown_form_of_the_bundle_is_refused(self, ring: Keyring, damage: Any) -> None:  # noqa: ANN401
        raw = ring._bundle.write()
        assert KeyringSecrets.read(raw).write() == raw
        with pytest.raises(IntegrityViolation, match="form that this release does not know"):
            KeyringSecrets.read(damage(raw))

    def test_a_bundle_keeps_all_wrapping_keys(self) -> None:
        wrap = {2: b"\x02" * 32, 1: b"\x01" * 32}
        bundle = KeyringSecrets(instance_id=bytes(16), root=bytes(32), log_seed=bytes(32), wrap=wrap)
        assert KeyringSecrets.read(bundle.write()).wrap == wrap


class TestMaterial:
    def test_a_version_is_active_and_complete(self, ring: Keyring, made: Made) -> None:
        for spec, version in made.values():
            assert (version.version, version.status, version.generation) == (1, VersionStatus.ACTIVE, 1)
            assert (version.public_key is not None) == spec.asymmetric

    @pytest.mark.parametrize(
        "change",
        [
            {"key_id": OTHER},
            {"version": 2},
            {"generation": 2},
            {"public_key": b"another"},
            {"encrypted_key": b""},
            {"encrypted_key": bytes(138)},
        ],
        ids=str,
    )
    def test_an_altered_version_does_not_open(self, ring: Keyring, aes: KeyVersion, change: dict[str, Any]) -> None:
        ring.encrypt(AES, aes, b"", None)  # its true material is in the cache
        with pytest.raises(IntegrityViolation, match="does not open") as caught:
            ring.encrypt(AES, structs.replace(aes, **change), b"", None)
        assert caught.value.__cause__ is None

    def test_material_is_bound_to_its_kind(self, ring: Keyring, aes: KeyVersion) -> None:
        ring._load(AES, aes)  # the cache asks too
        for spec in (KeySpec(KeyType.AES, 128, Purpose.ENCRYPT), KeySpec(KeyType.HMAC, 256, Purpose.MAC)):
            with pytest.raises(IntegrityViolation):
                ring._load(spec, aes)
        equal = KeySpec(KeyType.AES, 256, Purpose.ENCRYPT)
        assert ring._load(equal, aes) is ring._load(AES, aes)

    def test_a_swapped_public_key_is_found(self, ring: Keyring, made: Made) -> None:
        spec, version = made[KeyType.ED25519, None, Purpose.SIGN]
        _, other = made[KeyType.EC, 256, Purpose.SIGN]
        with pytest.raises(IntegrityViolation):
            ring.sign(
                spec, structs.replace(version, public_key=other.public_key), b"", spec.algorithms[0], prehashed=False
            )

    def test_material_of_another_installation_does_not_open(self, aes: KeyVersion) -> None:
        with pytest.raises(IntegrityViolation):
            Keyring.create().encrypt(AES, aes, b"", None)

    def test_instance_id_enters_even_with_equal_secrets(self, ring: Keyring, aes: KeyVersion) -> None:
        own = ring._bundle
        twin = Keyring(
            KeyringSecrets(instance_id=bytes(16), root=own.root, log_seed=own.log_seed, wrap=own.wrap), 1, ring._rng
        )
        with pytest.raises(IntegrityViolation):
            twin.encrypt(AES, aes, b"", None)
        assert twin.head_mac(1) != ring.head_mac(1)

    def test_the_newest_wrapping_key_is_used(self, ring: Keyring) -> None:
        own = ring._bundle
        wrap = {**own.wrap, 2: b"\x02" * 32}
        rotated = Keyring(
            KeyringSecrets(instance_id=own.instance_id, root=own.root, log_seed=own.log_seed, wrap=wrap), 2, ring._rng
        )
        fresh = rotated.versions.wrap(rotated.generate(AES), AES, key_id=KEY, version=1, created_at=0)
        assert fresh.generation == 2
        rotated.encrypt(AES, fresh, b"", None)
        with pytest.raises(IntegrityViolation):
            ring.encrypt(AES, fresh, b"", None)

    def test_a_version_beyond_32_bits_is_never_written(self, ring: Keyring) -> None:
        with pytest.raises(struct_error):
            ring.versions.wrap(ring.generate(AES), AES, key_id=KEY, version=2**32, created_at=0)


class TestCache:
    def test_is_bounded_and_drops_the_least_recently_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(versions, "LOADED", 3)
        ring = Keyring.create()
        rows = [ring.versions.wrap(ring.generate(AES), AES, key_id=KEY, version=n, created_at=0) for n in range(1, 5)]
        first, second, third, fourth = rows
        kept = {row.version: ring._load(AES, row) for row in (first, second, third)}
        assert ring._load(AES, first) is kept[1]
        ring._load(AES, fourth)
        assert len(ring.versions._loaded) == 3
        assert ring._load(AES, first) is kept[1]
        assert ring._load(AES, second) is not kept[2]

    def test_forget_drops_one_key_and_leaves_the_others(self) -> None:
        ring = Keyring.create()
        one = ring.versions.wrap(ring.generate(AES), AES, key_id=KEY, version=1, created_at=0)
        two = ring.versions.wrap(ring.generate(AES), AES, key_id=OTHER, version=1, created_at=0)
        loaded = ring._load(AES, one), ring._load(AES, two)
        ring.versions.forget(KEY)
        assert ring._load(AES, one) is not loaded[0]
        assert ring._load(AES, two) is loaded[1]

    def test_a_failure_is_not_cached(self, ring: Keyring, aes: KeyVersion) -> None:
        count = len(ring.versions._loaded)
        with pytest.raises(IntegrityViolation):
            ring._load(AES, structs.replace(aes, version=9))
        assert len(ring.versions._loaded) == count


def derived(ring: Keyring, use: str) -> bytes:
    return expand(prk(ring._bundle.root), pae("kvl/v1/derive", use, ring.instance_id))[:32]


class TestEvidence:
    def test_row_mac_is_the_documented_one(self, ring: Keyring) -> None:
        key, values = (KEY, 1), ("ACTIVE", None, 5, b"bytes")
        for schema in (1, 2, 1):
            expected = pae("row", ring.instance_id, "keys", schema, key, 77, values)
            assert ring.row_mac("keys", key, 77, values, schema=schema) == hmac.digest(
                derived(ring, "row"), expected, "sha256"
            )
        assert ring.row_mac("keys", key, 77, values) == ring.row_mac("keys", key, 77, values, schema=1)

    @pytest.mark.parametrize(
        ("key", "values"),
        [
            ((KEY,), (KEY, "ACTIVE", 5)),
            ((KEY,), (KEY,)),
            ((KEY,), ()),
            ((KEY,), ("ACTIVE", KEY)),
            ((KEY, "n"), (KEY, "n", 1)),
            ((), ()),
            ((), ("a",)),
            ((b"k",), (b"k", None)),
        ],
    )
    def test_row_mac_of_a_row_that_begins_with_its_key(
        self, ring: Keyring, key: tuple[Value, ...], values: tuple[Value, ...]
    ) -> None:
        expected = pae("row", ring.instance_id, "keys", 1, key, 77, values)
        assert ring.row_mac("keys", key, 77, values) == hmac.digest(derived(ring, "row"), expected, "sha256")

    def test_row_mac_tells_every_field_apart(self, ring: Keyring) -> None:
        macs = {
            ring.row_mac("keys", ("a",), 1, ("b", None)),
            ring.row_mac("keyz", ("a",), 1, ("b", None)),
            ring.row_mac("keys", ("b",), 1, ("a", None)),
            ring.row_mac("keys", ("a", "b"), 1, (None,)),
            ring.row_mac("keys", ("a",), 2, ("b", None)),
            ring.row_mac("keys", ("a",), 1, ("b", "")),
            ring.row_mac("keys", ("a",), 1, ("b", 0)),
            ring.row_mac("keys", ("a",), 1, (b"b", None)),
            Keyring.create().row_mac("keys", ("a",), 1, ("b", None)),
        }
        assert len(macs) == 9

    def test_head_mac_is_the_documented_one(self, ring: Keyring) -> None:
        expected = pae("head", ring.instance_id, 0, 12, bytes(32), None)
        assert ring.head_mac(0, 12, bytes(32), None) == hmac.digest(derived(ring, "head"), expected, "sha256")

    def test_redacted_contexts_compare_within_a_key_only(self, ring: Keyring) -> None:
        context = {"b": "2", "a": "1"}
        digest = ring.redact_context(KEY, context)
        assert digest == hmac.digest(derived(ring, "redact"), pae("context", KEY, "a", "1", "b", "2"), "sha256")
        assert digest == ring.redact_context(KEY, {"a": "1", "b": "2"})
        assert digest != ring.redact_context(OTHER, context)
        assert ring.redact_context(KEY, None) == ring.redact_context(KEY, {})

    def test_redacted_text_is_short_keyed_and_no_name(self, ring: Keyring) -> None:
        text = ring.redact_text("kvl_secret")
        assert text[0] == "~"
        assert len(text) == 33
        assert text.isprintable()
        assert text.isascii()
        assert text == ring.redact_text("kvl_secret")
        assert text not in {ring.redact_text("kvl_secreT"), Keyring.create().redact_text("kvl_secret")}
        assert ring.redact_text("\udcff") != ring.redact_text("?")

    def test_log_signatures_verify_with_the_public_key(self, ring: Keyring) -> None:
        key = Ed25519PublicKey.from_public_bytes(ring.log_public_key)
        key.verify(ring.sign_log(b"checkpoint"), b"checkpoint")

    def test_every_use_has_a_key_of_its_own(self, ring: Keyring) -> None:
        keys = [derived(ring, use) for use in ("row", "head", "token", "redact", "idem")]
        keys += [ring._bundle.root, ring._bundle.log_seed, *ring._bundle.wrap.values()]
        assert len(set(keys)) == len(keys)


class TestReplies:
    BINDING = ("service", "key", b"hash")

    def test_round_trip(self, ring: Keyring) -> None:
        sealed = ring.seal_reply(SLOT, self.BINDING, b"{}")
        assert b"{}" not in sealed
        assert ring.open_reply(SLOT, self.BINDING, sealed) == b"{}"

    def test_bound_to_row_request_and_installation(self, ring: Keyring) -> None:
        sealed = ring.seal_reply(SLOT, self.BINDING, b"{}")
        for opener, row, binding in (
            (ring, OTHER, self.BINDING),
            (ring, SLOT, ("service", "kez", b"hash")),
            (ring, SLOT, ("service", "key", "hash")),
            (Keyring.create(), SLOT, self.BINDING),
        ):
            with pytest.raises(IntegrityViolation, match="stored reply"):
                opener.open_reply(row, binding, sealed)
        with pytest.raises(IntegrityViolation):
            ring.open_reply(SLOT, self.BINDING, sealed[:-1])

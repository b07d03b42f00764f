"""Parameters of slots are written by a writer of the database: what they may hold is bounded before it is used."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault_lite.crypto import passphrase
from keyvault_lite.crypto.slot_parameters import (
    MAX_TEXT,
    SlotParameters,
    SlotPlace,
    UnusableSlot,
    bind_to_place,
    parameters,
)

PLACE = SlotPlace(b"i" * 16, "00000000-0000-4000-8000-000000000001")


def test_a_master_key_has_none() -> None:
    found = SlotParameters.read("none")
    assert found is not None
    assert (found.kind, found.write()) == ("file", "none")


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name not in {"kind", "v"}),
        st.integers(-(2**53), 2**53) | st.text(max_size=20),
    )
)
def test_what_is_written_is_read(values: dict[str, object]) -> None:
    made = SlotParameters("tpm2", values)
    assert SlotParameters.read(made.write()) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "argon2id",
        '{"kind":"tpm2"}',
        '{"kind":"tpm2","v":2}',
        '{"kind":"tpm2","v":true}',
        '{"kind":"tpm2","v":1.0}',
        '{"kind":7,"v":1}',
        '{"v":1,"kind":"tpm2"}',
        '{"kind": "tpm2","v":1}',
        '{"kind":"tpm2","v":1}\n',
        '{"kind":"tpm2","kind":"tpm2","v":1}',
        '{"kind":"file","v":1}',
        '{"kind":"tpm2","v":1,"x":"' + "a" * MAX_TEXT + '"}',
        "[" * 3000,
    ],
)
def test_any_other_text_is_none(text: str) -> None:
    assert SlotParameters.read(text) is None


def test_too_much_is_not_written() -> None:
    with pytest.raises(UnusableSlot, match="4096"):
        parameters("tpm2", blob=bytes(4000)).write()


@pytest.mark.parametrize("value", [True, 1.0, "3", None, 2, 11, 10**30])
def test_a_number_beyond_its_limits_is_refused(value: object) -> None:
    with pytest.raises(UnusableSlot, match="`t`"):
        SlotParameters("passphrase", {"t": value}).integer("t", 3, 10)


@pytest.mark.parametrize("value", [None, 1, "", "é", "a\nb", "a" * 3000])
def test_a_text_beyond_its_limits_is_refused(value: object) -> None:
    with pytest.raises(UnusableSlot, match="`name`"):
        SlotParameters("vault", {"name": value}).text("name")


@pytest.mark.parametrize("value", [None, "", "****", "AAA", "AAAA", "A" * 10_000])
def test_bytes_beyond_their_limits_are_refused(value: object) -> None:
    with pytest.raises(UnusableSlot, match="`salt`"):
        SlotParameters("passphrase", {"salt": value}).raw("salt", 16, 16)


COSTS = {"m": (64 * 1024, 1024 * 1024), "t": (3, 10), "p": (1, 16)}


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("end", [0, 1])
def test_costs_beyond_the_caps_are_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, name: str, end: int
) -> None:
    monkeypatch.setattr(passphrase, "Argon2id", lambda **_: pytest.fail("work was done"))
    made = passphrase.new_parameters(bytes)
    wrong = COSTS[name][end] + (1 if end else -1)
    with pytest.raises(UnusableSlot, match=f"`{name}`"):
        passphrase.derive("a passphrase", SlotParameters(made.kind, {**made.values, name: wrong}), PLACE)


def test_a_passphrase_is_bound_to_its_place_and_typed_on_any_keyboard() -> None:
    cheap = parameters("passphrase", m=64 * 1024, t=3, p=4, salt=bytes(16))
    key = passphrase.derive("caf\u00e9 passphrase", cheap, PLACE).reveal()
    assert passphrase.derive("cafe\u0301 passphrase", cheap, PLACE).reveal() == key
    assert passphrase.derive("cafe passphrase", cheap, PLACE).reveal() != key
    other = SlotPlace(PLACE.instance_id, "00000000-0000-4000-8000-000000000002")
    assert passphrase.derive("caf\u00e9 passphrase", cheap, other).reveal() != key


@pytest.mark.parametrize("text", ["", "short", "a" * 40, "abababababababab", "\ud800" * 20, "long enough " * 100])
def test_nothing_is_sealed_under_an_unfit_passphrase(text: str) -> None:
    with pytest.raises(passphrase.UnfitPassphrase):
        passphrase.check_new(text)


def test_what_a_device_unwraps_is_bound_to_its_place() -> None:
    other = SlotPlace(b"j" * 16, PLACE.slot_id)
    keys = {bind_to_place(bytes(32), place, kind).reveal() for place in (PLACE, other) for kind in ("vault", "awskms")}
    assert len(keys) == 4


def test_the_text_is_sorted_json() -> None:
    made = parameters("tpm2", b=1, a=b"\x00")
    assert made.write() == json.dumps({"a": "AA==", "b": 1, "kind": "tpm2", "v": 1}, separators=(",", ":"))

"""Notes and checkpoints are those of C2SP, in one spelling each, and only a known key's signature counts."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault_lite.audit import checkpoint
from keyvault_lite.audit.checkpoint import (
    COSIGNATURE,
    ED25519,
    Checkpoint,
    InvalidNote,
    checkpoint_body,
    cosign,
    fact_lines,
    key_hash,
    origin,
    parse_checkpoint,
    parse_note,
    parse_number,
    parse_verifier_key,
    read_facts,
    sign_note,
    signed_by,
    split_origin,
    verifier_key,
    verify_cosignature,
    verify_note,
)
from tests.vectors.make_receipts import (
    INSTANCE,
    ORIGIN,
    PUBLIC_KEY,
    VKEY,
    WITNESS,
    WITNESS_PUBLIC_KEY,
    Log,
    digest,
    sign,
    verify,
    witness_sign,
)

ROOT = digest("root")
BODY = checkpoint_body(ORIGIN, 7, ROOT)
NOTE = sign_note(BODY, ORIGIN, PUBLIC_KEY, sign)
LINE = NOTE.removeprefix(BODY + "\n")
WITNESS_VKEY = verifier_key(WITNESS, WITNESS_PUBLIC_KEY, COSIGNATURE)
COSIGNED = NOTE + cosign(NOTE, name=WITNESS, public_key=WITNESS_PUBLIC_KEY, timestamp=1_700_000_000, sign=witness_sign)


def test_the_specification_s_signed_note(vectors: Callable[[str], Any]) -> None:
    example = vectors("c2sp/signed_note.json")["signed_note"]
    key = parse_verifier_key(example["vkey"])
    assert verifier_key(key.name, key.public_key) == example["vkey"]
    body, (signature,) = parse_note(example["note"])
    assert body == "This is an example message.\n"
    assert (signature.name, signature.key_hash) == (key.name, key.hash)
    assert verify(key.public_key, body.encode(), signature.value)
    with pytest.raises(InvalidNote, match="three lines"):
        verify_note(example["note"], example["vkey"], verify)  # signed, but no checkpoint


def test_the_specification_s_checkpoint(vectors: Callable[[str], Any]) -> None:
    text = vectors("c2sp/signed_note.json")["checkpoint_text_only_example"]
    checkpoint = parse_checkpoint(text)
    assert checkpoint_body(checkpoint.origin, checkpoint.size, checkpoint.root) == text
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)


def test_the_bounds_of_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (checkpoint.MAX_NOTE_CHARS, checkpoint.MAX_SIGNATURES) == (1_048_576, 100)
    assert len(parse_note(BODY + "\n" + LINE * 100)[1]) == 100
    for wrong in (BODY + "\n" + LINE * 101, BODY + "\n", BODY, BODY[:-1], LINE, "\n" + LINE):
        with pytest.raises(InvalidNote):
            parse_note(wrong)
    monkeypatch.setattr(checkpoint, "MAX_NOTE_CHARS", len(NOTE))
    parse_note(NOTE)
    monkeypatch.setattr(checkpoint, "MAX_NOTE_CHARS", len(NOTE) - 1)
    with pytest.raises(InvalidNote):
        parse_note(NOTE)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_of_another_size_is_asked_of_nobody(size: int) -> None:
    raw = key_hash(ORIGIN, ED25519, PUBLIC_KEY) + bytes(size)
    note = f"{BODY}\n— {ORIGIN} {base64.b64encode(raw).decode()}\n"
    with pytest.raises(InvalidNote):
        verify_note(note, VKEY, lambda *_: True)


def test_the_origin_names_installation_and_epoch() -> None:
    assert origin(INSTANCE, 0) == "keyvault-lite/00112233445566778899aabbccddeeff"
    assert origin(INSTANCE, 2) == "keyvault-lite/00112233445566778899aabbccddeeff/2"


def test_a_signed_checkpoint_verifies() -> None:
    assert verify_note(NOTE, VKEY, verify) == Checkpoint(ORIGIN, 7, ROOT)
    assert NOTE.startswith(BODY + "\n— " + ORIGIN + " ")


def test_extension_lines_are_kept_and_signed() -> None:
    note = sign_note(checkpoint_body(ORIGIN, 7, ROOT, ["one", "two"]), ORIGIN, PUBLIC_KEY, sign)
    assert verify_note(note, VKEY, verify).extensions == ("one", "two")
    with pytest.raises(InvalidNote):
        verify_note(note.replace("two", "three"), VKEY, verify)


def test_the_facts_of_an_anchor_are_extension_lines() -> None:
    lines = fact_lines(5, ROOT)
    assert lines == ("state-seq 5", f"entry-hash {base64.b64encode(ROOT).decode()}")
    assert read_facts(lines) == (5, ROOT)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        fact_lines(5, ROOT)[:1],
        (*fact_lines(5, ROOT), "more"),
        fact_lines(5, ROOT)[::-1],
        ("state-seq 05", fact_lines(5, ROOT)[1]),
        fact_lines(5, ROOT[:31]),
        fact_lines(-1, ROOT),
        ("state-seq 5", "entry-hash A"),
        ("5", fact_lines(5, ROOT)[1]),
        ("state-seq 5", fact_lines(5, ROOT)[1].removeprefix("entry-hash ")),
    ],
)
def test_other_extension_lines_are_no_facts(lines: tuple[str, ...]) -> None:
    with pytest.raises(InvalidNote):
        read_facts(lines)


@pytest.mark.parametrize("epoch", [0, 1, 17])
def test_an_origin_is_split_as_it_was_made(epoch: int) -> None:
    assert split_origin(origin(INSTANCE, epoch)) == (ORIGIN, epoch)


@pytest.mark.parametrize("name", ["example.com/7", "a/b/01", "a/b/0", "a/b/x", "log", "a/b/12345678901"])
def test_what_does_not_end_in_an_epoch_is_the_log_itself(name: str) -> None:
    assert split_origin(name) == (name, 0)


def test_a_note_is_reduced_to_known_signatures() -> None:
    stranger = f"— stranger {'A' * 96}\n"
    text = NOTE + stranger + COSIGNED.removeprefix(NOTE)
    assert signed_by(text, VKEY) == NOTE
    assert signed_by(text, VKEY, WITNESS_VKEY) == COSIGNED
    with pytest.raises(InvalidNote, match="not signed by this key"):
        signed_by(NOTE, WITNESS_VKEY)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20), st.integers(0, 2**63 - 1))
def test_bodies_are_read_as_written(extension: str, size: int) -> None:
    extensions = (extension,) if extension else ()
    body = checkpoint_body(ORIGIN, size, ROOT, extensions)
    assert parse_checkpoint(body) == Checkpoint(ORIGIN, size, ROOT, extensions)
    assert parse_note(sign_note(body, ORIGIN, PUBLIC_KEY, lambda _: bytes(64))).body == body


def test_every_flipped_bit_of_a_note_is_refused() -> None:
    raw = NOTE.encode()
    for position in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << position % 8
        text = flipped.decode("utf-8", "surrogateescape")
        with pytest.raises(InvalidNote):
            verify_note(text, VKEY, verify)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\n",
        f"{ORIGIN}\n7\n",
        BODY.removesuffix("\n"),
        BODY + "\n",
        "\n" + BODY,
        BODY.replace("\n7\n", "\n07\n"),
        BODY.replace("\n7\n", "\n+7\n"),
        BODY.replace("\n7\n", "\n-7\n"),
        BODY.replace("\n7\n", "\n7 \n"),
        BODY.replace("\n7\n", "\n\u0667\n"),
        BODY.replace("\n7\n", "\n9223372036854775808\n"),
        BODY.replace("\n7\n", "\n10000000000000000000\n"),
        BODY.replace("=\n", "\n"),
        f"{ORIGIN}\n7\n{base64.b64encode(ROOT[:31]).decode()}\n",
        f"{ORIGIN}\n7\n{base64.urlsafe_b64encode(bytes([255] * 32)).decode()}\n",
    ],
)
def test_malformed_checkpoints_are_refused(body: str) -> None:
    with pytest.raises(InvalidNote):
        parse_checkpoint(body)


def test_the_largest_size() -> None:
    assert parse_number("9223372036854775807") == 2**63 - 1
    assert parse_number("0") == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        BODY,
        BODY + "\n",
        BODY + LINE,
        NOTE.removesuffix("\n"),
        NOTE + "\n",
        NOTE.replace("— ", "- "),
        NOTE.replace("— ", "—"),
        NOTE.replace("— ", "—  "),
        NOTE + "— name+plus AAAAAAAA\n",
        NOTE + "— name\n",
        NOTE + "— na me AAAAAAAA\n",
        NOTE + "— na\u2003me AAAAAAAA\n",
        NOTE + "— name AAAA\n",
        NOTE + "— name AAAAAA==\n",
        NOTE + "— name AAAAAAB=\n",
        NOTE + "— name é\n",
        NOTE.replace("\n", "\r\n"),
        NOTE + "— name AAAAAAAA\x00\n",
        NOTE.replace("7", "\ud800"),
        NOTE + LINE * 100,
        "x" * (1 << 20) + NOTE,
    ],
)
def test_malformed_notes_are_refused(text: str) -> None:
    with pytest.raises(InvalidNote):
        verify_note(text, VKEY, verify)


def test_the_last_blank_line_divides() -> None:
    body, signatures = parse_note("a\n\nb\n\n\n— name AAAAAAAA\n")
    assert body == "a\n\nb\n\n"
    assert [line.name for line in signatures] == ["name"]


def test_signatures_of_other_keys_are_ignored_but_do_not_count() -> None:
    same_name = f"— {ORIGIN} {base64.b64encode(bytes(68)).decode()}\n"
    same_hash = f"— other {base64.b64encode(key_hash(ORIGIN, ED25519, PUBLIC_KEY) + bytes(64)).decode()}\n"
    assert verify_note(BODY + "\n" + same_name * 8 + LINE + same_hash * 8, VKEY, verify).size == 7
    with pytest.raises(InvalidNote, match="not signed by this key"):
        verify_note(BODY + "\n" + same_name + same_hash, VKEY, verify)


def test_every_signature_that_claims_the_key_has_to_verify() -> None:
    forged = f"— {ORIGIN} {base64.b64encode(key_hash(ORIGIN, ED25519, PUBLIC_KEY) + bytes(64)).decode()}\n"
    short = f"— {ORIGIN} {base64.b64encode(key_hash(ORIGIN, ED25519, PUBLIC_KEY) + bytes(63)).decode()}\n"
    assert verify_note(NOTE + LINE, VKEY, verify).size == 7
    for bad in (forged, short):
        with pytest.raises(InvalidNote, match="does not verify"):
            verify_note(NOTE + bad, VKEY, verify)


def test_a_checkpoint_of_another_origin_under_the_same_key_is_refused() -> None:
    later = checkpoint_body(origin(INSTANCE, 1), 7, ROOT)
    with pytest.raises(InvalidNote, match="another log or epoch"):
        verify_note(sign_note(later, ORIGIN, PUBLIC_KEY, sign), VKEY, verify)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        VKEY + "=",
        VKEY + " ",
        " " + VKEY,
        VKEY.replace("+", "-", 1),
        VKEY.replace("keyvault", "keyvaults"),
        VKEY[:-4] + "AAAA",
        f"na\u2003me+{VKEY.split('+', 1)[1]}",
        f"{ORIGIN}+00000000+{VKEY.split('+', 2)[2]}",
        verifier_key(ORIGIN, PUBLIC_KEY[:31]),
        verifier_key(ORIGIN, PUBLIC_KEY, 2),
        "a\ud800+00000000+AAAA",
        verifier_key("a\x01b", PUBLIC_KEY),
        verifier_key("a\x00", PUBLIC_KEY),
    ],
)
def test_malformed_or_mistyped_keys_are_refused(vkey: str) -> None:
    with pytest.raises(InvalidNote):
        parse_verifier_key(vkey)


def test_a_witness_confirms_a_checkpoint() -> None:
    assert verify_cosignature(COSIGNED, WITNESS_VKEY, verify) == (Checkpoint(ORIGIN, 7, ROOT), 1_700_000_000)
    assert verify_note(COSIGNED, VKEY, verify).size == 7
    _, (_, line) = parse_note(COSIGNED)
    message = b"cosignature/v1\ntime 1700000000\n" + BODY.encode()
    assert line.value == (1_700_000_000).to_bytes(8, "big") + witness_sign(message)


def test_the_newest_confirmation_of_a_witness_counts() -> None:
    again = cosign(COSIGNED, name=WITNESS, public_key=WITNESS_PUBLIC_KEY, timestamp=1_800_000_000, sign=witness_sign)
    for text in (COSIGNED + again, NOTE + again + COSIGNED.removeprefix(NOTE)):
        assert verify_cosignature(text, WITNESS_VKEY, verify)[1] == 1_800_000_000


def test_forged_confirmations_are_refused() -> None:
    _, (_, line) = parse_note(COSIGNED)
    for value in (
        line.value[:-1],
        line.value + b"x",
        bytes(72),
        (1_700_000_001).to_bytes(8, "big") + line.value[8:],
        (2**63).to_bytes(8, "big") + line.value[8:],
    ):
        forged = f"{NOTE}— {WITNESS} {base64.b64encode(line.key_hash + value).decode()}\n"
        with pytest.raises(InvalidNote):
            verify_cosignature(forged, WITNESS_VKEY, verify)
    with pytest.raises(InvalidNote, match="not signed"):
        verify_cosignature(NOTE, WITNESS_VKEY, verify)


@pytest.mark.parametrize("timestamp", [0, 2**63 - 1])
def test_the_times_of_a_witness_have_bounds(timestamp: int) -> None:
    text = NOTE + cosign(NOTE, name=WITNESS, public_key=WITNESS_PUBLIC_KEY, timestamp=timestamp, sign=witness_sign)
    assert verify_cosignature(text, WITNESS_VKEY, verify)[1] == timestamp


@pytest.mark.parametrize("value", [b"x", bytes(71), bytes(73), (2**63).to_bytes(8, "big") + bytes(64)])
def test_what_has_not_the_form_of_a_confirmation_is_none_whatever_its_signature(value: bytes) -> None:
    _, (_, line) = parse_note(COSIGNED)
    forged = f"{NOTE}— {WITNESS} {base64.b64encode(line.key_hash + value).decode()}\n"
    with pytest.raises(InvalidNote):
        verify_cosignature(forged, WITNESS_VKEY, lambda *_: True)


def test_the_two_kinds_of_key_do_not_stand_for_each_other() -> None:
    with pytest.raises(InvalidNote, match="witness"):
        verify_note(COSIGNED, WITNESS_VKEY, verify)
    with pytest.raises(InvalidNote, match="log"):
        verify_cosignature(COSIGNED, VKEY, verify)


def test_a_checkpoint_of_the_empty_log(log: Log) -> None:
    assert verify_note(log.checkpoint(0), VKEY, verify).size == 0


def test_a_signature_that_is_repeated_is_verified_and_kept_once() -> None:
    """Anybody can repeat a genuine line; each verification takes a tenth of a millisecond."""
    verified = 0

    def counted(public_key: bytes, message: bytes, signature: bytes) -> bool:
        nonlocal verified
        verified += 1
        return verify(public_key, message, signature)

    repeated = NOTE + LINE * 99
    assert verify_note(repeated, VKEY, counted).size == 7
    assert verified == 1
    assert signed_by(repeated, VKEY) == NOTE
    _, (line,) = parse_note(NOTE)
    forged = f"{NOTE}— {ORIGIN} {base64.b64encode(line.key_hash + bytes(64)).decode()}\n"
    with pytest.raises(InvalidNote):
        verify_note(forged, VKEY, verify)

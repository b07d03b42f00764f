"""A receipt is C2SP's tlog-proof, and not one of its bits can be changed."""

import base64
from collections.abc import Callable

import pytest

from keyvault_lite.audit.entry import encode_entry
from keyvault_lite.audit.merkle import InvalidProof
from keyvault_lite.audit.receipt import Receipt, format_receipt, leaf_hash, parse_receipt, verify_receipt
from keyvault_lite.model.errors import IntegrityViolation
from tests.vectors.make_receipts import VKEY, Log, verify


def test_the_format_is_that_of_the_specification() -> None:
    text = format_receipt(5, [b"a" * 32, b"b" * 32], "note\n")
    hashes = [base64.b64encode(name * 32).decode() for name in (b"a", b"b")]
    assert text == f"c2sp.org/tlog-proof@v1\nindex 5\n{hashes[0]}\n{hashes[1]}\n\nnote\n"
    assert format_receipt(0, [], "note\n") == "c2sp.org/tlog-proof@v1\nindex 0\n\nnote\n"
    assert format_receipt(0, [], "n\n", b"extra") == "c2sp.org/tlog-proof@v1\nextra ZXh0cmE=\nindex 0\n\nn\n"


@pytest.mark.parametrize("extra", [None, b"", b"extra"])
@pytest.mark.parametrize("proof", [(), (b"a" * 32,), (b"a" * 32,) * 63])
def test_a_receipt_is_read_as_written(extra: bytes | None, proof: tuple[bytes, ...]) -> None:
    checkpoint = "origin\n8\n\nroot\n\n— name AAAAAAAA\n"
    assert parse_receipt(format_receipt(7, proof, checkpoint, extra)) == Receipt(7, proof, checkpoint, extra)


@pytest.mark.parametrize("extra", [False, True])
def test_every_entry_has_a_receipt_at_every_size(log: Log, *, extra: bool) -> None:
    for size in range(1, len(log.leaves) + 1):
        for id in range(1, size + 1):
            text = log.receipt(id, size, extra=extra)
            checkpoint = verify_receipt(text, log.leaves[id - 1], vkey=VKEY, verify=verify)
            assert checkpoint.size == size


@pytest.mark.parametrize("extra", [False, True])
def test_every_flipped_bit_is_refused(log: Log, *, extra: bool) -> None:
    raw = log.receipt(13, 23, extra=extra).encode()
    for position in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(IntegrityViolation):
            verify_receipt(flipped.decode("utf-8", "surrogateescape"), log.leaves[12], vkey=VKEY, verify=verify)


def test_another_entry_index_or_checkpoint_is_refused(log: Log) -> None:
    text, leaf = log.receipt(8, 23), log.leaves[7]
    for wrong_text, wrong_leaf in (
        (text, log.leaves[8]),
        (text, leaf[:31]),
        (text.replace("index 7\n", "index 6\n"), leaf),
        (text.replace("index 7\n", "index 23\n"), leaf),
        (text.replace(log.checkpoint(23), log.checkpoint(22)), leaf),
        (log.receipt(8, 23, extra=True), log.leaves[8]),
        (log.receipt(9, 23, extra=True), leaf),
    ):
        with pytest.raises(IntegrityViolation):
            verify_receipt(wrong_text, wrong_leaf, vkey=VKEY, verify=verify)


def test_the_entry_in_a_receipt_is_the_leaf(log: Log) -> None:
    receipt = parse_receipt(log.receipt(13, 23, extra=True))
    assert receipt.extra == encode_entry(log.entries[12])
    assert leaf_hash(receipt.extra) == log.leaves[12]


@pytest.mark.parametrize("proof", [(b"a" * 32,) * 64, (b"a" * 31,), (b"a" * 33,)])
def test_what_is_no_proof_is_not_read(proof: tuple[bytes, ...]) -> None:
    with pytest.raises(InvalidProof):
        parse_receipt(format_receipt(7, proof, "note\n"))


def test_a_receipt_has_a_checkpoint() -> None:
    with pytest.raises(InvalidProof, match="no checkpoint"):
        parse_receipt("c2sp.org/tlog-proof@v1\nindex 7\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace("@v1", "@v2"),
        lambda text: " " + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("index 7", "Index 7"),
        lambda text: text.replace("index 7\n", ""),
        lambda text: text.replace("index 7\n", "7\n"),
        lambda text: text.replace("index 7\n", "index 7\nindex 7\n"),
        lambda text: text.replace("index 7\n", "index 07\n"),
        lambda text: text.replace("index 7\n", "index 7 \n"),
        lambda text: text.replace("index 7\n", "index 7\n" + "A" * 43 + "=\n"),
        lambda text: text.replace("index 7\n", "index 7\n" + ("A" * 43 + "=\n") * 64),
        lambda text: text.replace("index 7\n", "index 7\nAAAA\n"),
        lambda text: text.replace("index 7\n", "extra A\nindex 7\n"),
        lambda text: text.replace("index 7\n", "index 7\nextra AAAA\n"),
        lambda text: text.replace("index 7\n", "extra AAAA\nextra AAAA\nindex 7\n"),
        lambda text: "c2sp.org/tlog-proof@v1\n\n" + text.partition("\n\n")[2],
    ],
)
def test_malformed_receipts_are_refused(log: Log, change: Callable[[str], str]) -> None:
    with pytest.raises(IntegrityViolation):
        verify_receipt(change(log.receipt(8, 23)), log.leaves[7], vkey=VKEY, verify=verify)

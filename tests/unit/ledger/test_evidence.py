"""What an outsider is given to check: checkpoints with what witnesses confirmed, receipts, proofs between sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from keyvault_lite.audit.merkle import CompactRange, verify_consistency
from keyvault_lite.audit.receipt import verify_receipt
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor.confirmation import Confirmation
from keyvault_lite.model.errors import AuditUnavailable, InvalidRequest, KeyVaultError
from keyvault_lite.model.requests import ListKeys
from tests.support.harness import Harness


@dataclass
class Witness:
    """One that has confirmed what a test says."""

    newest: Confirmation | None = None
    fault: KeyVaultError | None = None

    def facts(self) -> Mapping[str, object]:
        return {}


def confirmed(harness: Harness, name: str = "w", epoch: int = 0) -> Confirmation:
    """The newest checkpoint, with a line of a witness."""
    return Confirmation(harness.ledger.evidence.signed_head(), f"— {name} AAAAAAAA\n", epoch, harness.size)


def use(harness: Harness, times: int) -> None:
    for _ in range(times):
        harness.ask(ListKeys())


class TestCheckpoints:
    def test_lines_of_those_that_have_confirmed_it(self, harness: Harness) -> None:
        use(harness, 3)
        head = harness.ledger.evidence.signed_head()
        one, two, none = Witness(confirmed(harness, "one")), Witness(confirmed(harness, "two")), Witness()
        for witnesses, lines in (
            ((), ""),
            ((none,), ""),
            ((one,), "— one AAAAAAAA\n"),
            ((none, two, one), "— two AAAAAAAA\n— one AAAAAAAA\n"),
            ((one, one), "— one AAAAAAAA\n"),
        ):
            harness.ledger.evidence.witnesses = witnesses
            assert harness.ledger.evidence.checkpoint() == head + lines
            assert harness.ledger.evidence.signed_head() == head

    def test_one_of_another_size_has_no_line(self, harness: Harness) -> None:
        harness.ledger.evidence.witnesses = (Witness(confirmed(harness)),)
        use(harness, 1)
        assert harness.ledger.evidence.checkpoint() == harness.ledger.evidence.signed_head()


class TestReceipts:
    def size(self, harness: Harness, entry_id: int) -> int:
        """Of the checkpoint in the receipt for an entry, which verifies."""
        entry = harness.ledger.evidence.entry(entry_id)
        assert entry is not None
        text = harness.ledger.evidence.receipt(entry)
        assert text.count("— w") <= 1
        key = harness.ledger.evidence.log_key().verifier_key
        found = verify_receipt(text, entry.hash, vkey=key, verify=verify_ed25519)
        assert ("— w AAAAAAAA\n" in text) is any(
            one.newest is not None and one.newest.size == found.size for one in harness.ledger.evidence.witnesses
        )
        return found.size

    def test_under_the_newest_checkpoint_that_is_confirmed(self, harness: Harness) -> None:
        use(harness, 4)
        size = harness.size
        assert self.size(harness, 1) == self.size(harness, size) == size
        older, witness = Witness(confirmed(harness)), Witness(confirmed(harness))
        harness.ledger.evidence.witnesses = (witness,)
        assert self.size(harness, 1) == self.size(harness, size) == size
        use(harness, 2)
        assert self.size(harness, 1) == self.size(harness, size) == size
        assert self.size(harness, size + 1) == self.size(harness, size + 2) == size + 2
        harness.ledger.evidence.witnesses = (Witness(), older, replace(witness, newest=confirmed(harness)), older)
        assert self.size(harness, 1) == self.size(harness, size + 2) == size + 2

    def test_what_a_witness_knows_of_another_log_is_left_out(self, harness: Harness) -> None:
        use(harness, 2)
        size = harness.size
        for other in (confirmed(harness, epoch=1), replace(confirmed(harness), size=size + 1)):
            harness.ledger.evidence.witnesses = (Witness(replace(other, note="none\n")),)
            entry = harness.ledger.evidence.entry(1)
            assert entry is not None
            text = harness.ledger.evidence.receipt(entry)
            key = harness.ledger.evidence.log_key().verifier_key
            assert verify_receipt(text, entry.hash, vkey=key, verify=verify_ed25519).size == size

    def test_before_this_process_has_signed_anything(self, harness: Harness) -> None:
        writer = harness.ledger._writer
        writer.replica.tip = replace(writer.tip, checkpoint="")
        assert self.size(harness, 1) == harness.size


def test_a_witness_with_a_fault_lets_nothing_be_done(harness: Harness) -> None:
    harness.ledger.evidence.witnesses = (Witness(), Witness(fault=AuditUnavailable("silent for too long")))
    before = harness.size
    assert harness.refusal(ListKeys(), AuditUnavailable).detail == "silent for too long"
    harness.ledger.evidence.witnesses = ()
    assert harness.size == before


def test_proofs_between_sizes(harness: Harness) -> None:
    use(harness, 5)
    size = harness.size
    root = harness.ledger._writer.tip.tiles.edge.root()
    for old, new in ((0, 1), (0, size), (-1, 1), (2, 1), (1, size + 1), (size + 1, size + 1)):
        with pytest.raises(InvalidRequest):
            harness.ledger.evidence.consistency(old, new)
    assert (
        harness.ledger.evidence.consistency(1, 1).hashes == harness.ledger.evidence.consistency(size, size).hashes == ()
    )
    first = harness.ledger.evidence.entry(1)
    assert first is not None
    proof = harness.ledger.evidence.consistency(1, size).hashes
    verify_consistency(proof, old=1, new=size, old_root=leaf_root(first.hash), new_root=root)


def leaf_root(entry_hash: bytes) -> bytes:
    edge = CompactRange()
    edge.append(entry_hash)
    return edge.root()

"""What an outsider is given to check: checkpoints with what witnesses confirmed, receipts, proofs between sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from keyvault_lite.audit.merkle import Edge, verify_consistency
from keyvault_lite.audit.receipt import verify_receipt
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor.confirmation import Confirmation
from keyvault_lite.model.errors import AuditUnavailable, InvalidRequest, KeyVaultError
from keyvault_lite.model.requests import ListKeys
from tests.house import House


@dataclass
class Witness:
    """One that has confirmed what a test says."""

    newest: Confirmation | None = None
    fault: KeyVaultError | None = None

    def facts(self) -> Mapping[str, object]:
        return {}


def confirmed(house: House, name: str = "w", epoch: int = 0) -> Confirmation:
    """The newest checkpoint, with a line of a witness."""
    return Confirmation(house.ledger.evidence.signed_head(), f"— {name} AAAAAAAA\n", epoch, house.size)


def use(house: House, times: int) -> None:
    for _ in range(times):
        house.ask(ListKeys())


class TestCheckpoints:
    def test_lines_of_those_that_have_confirmed_it(self, house: House) -> None:
        use(house, 3)
        head = house.ledger.evidence.signed_head()
        one, two, none = Witness(confirmed(house, "one")), Witness(confirmed(house, "two")), Witness()
        for witnesses, lines in (
            ((), ""),
            ((none,), ""),
            ((one,), "— one AAAAAAAA\n"),
            ((none, two, one), "— two AAAAAAAA\n— one AAAAAAAA\n"),
            ((one, one), "— one AAAAAAAA\n"),
        ):
            house.ledger.evidence.witnesses = witnesses
            assert house.ledger.evidence.checkpoint() == head + lines
            assert house.ledger.evidence.signed_head() == head

    def test_one_of_another_size_has_no_line(self, house: House) -> None:
        house.ledger.evidence.witnesses = (Witness(confirmed(house)),)
        use(house, 1)
        assert house.ledger.evidence.checkpoint() == house.ledger.evidence.signed_head()


class TestReceipts:
    def size(self, house: House, entry_id: int) -> int:
        """Of the checkpoint in the receipt for an entry, which verifies."""
        entry = house.ledger.evidence.entry(entry_id)
        assert entry is not None
        text = house.ledger.evidence.receipt(entry)
        assert text.count("— w") <= 1
        key = house.ledger.evidence.log_key().verifier_key
        found = verify_receipt(text, entry.hash, vkey=key, verify=verify_ed25519)
        assert ("— w AAAAAAAA\n" in text) is any(
            one.newest is not None and one.newest.size == found.size for one in house.ledger.evidence.witnesses
        )
        return found.size

    def test_under_the_newest_checkpoint_that_is_confirmed(self, house: House) -> None:
        use(house, 4)
        size = house.size
        assert self.size(house, 1) == self.size(house, size) == size
        older, witness = Witness(confirmed(house)), Witness(confirmed(house))
        house.ledger.evidence.witnesses = (witness,)
        assert self.size(house, 1) == self.size(house, size) == size
        use(house, 2)
        assert self.size(house, 1) == self.size(house, size) == size
        assert self.size(house, size + 1) == self.size(house, size + 2) == size + 2
        house.ledger.evidence.witnesses = (Witness(), older, replace(witness, newest=confirmed(house)), older)
        assert self.size(house, 1) == self.size(house, size + 2) == size + 2

    def test_what_a_witness_knows_of_another_log_is_left_out(self, house: House) -> None:
        use(house, 2)
        size = house.size
        for other in (confirmed(house, epoch=1), replace(confirmed(house), size=size + 1)):
            house.ledger.evidence.witnesses = (Witness(replace(other, note="none\n")),)
            entry = house.ledger.evidence.entry(1)
            assert entry is not None
            text = house.ledger.evidence.receipt(entry)
            key = house.ledger.evidence.log_key().verifier_key
            assert verify_receipt(text, entry.hash, vkey=key, verify=verify_ed25519).size == size

    def test_before_this_process_has_signed_anything(self, house: House) -> None:
        journal = house.ledger._journal
        journal.known = replace(journal.known, checkpoint="")
        assert self.size(house, 1) == house.size


def test_a_witness_with_a_fault_lets_nothing_be_done(house: House) -> None:
    house.ledger.evidence.witnesses = (Witness(), Witness(fault=AuditUnavailable("silent for too long")))
    before = house.size
    assert house.refusal(ListKeys(), AuditUnavailable).detail == "silent for too long"
    house.ledger.evidence.witnesses = ()
    assert house.size == before


def test_proofs_between_sizes(house: House) -> None:
    use(house, 5)
    size = house.size
    root = house.ledger._journal.known.tiles.edge.root()
    for old, new in ((0, 1), (0, size), (-1, 1), (2, 1), (1, size + 1), (size + 1, size + 1)):
        with pytest.raises(InvalidRequest):
            house.ledger.evidence.consistency(old, new)
    assert house.ledger.evidence.consistency(1, 1).hashes == house.ledger.evidence.consistency(size, size).hashes == ()
    first = house.ledger.evidence.entry(1)
    assert first is not None
    proof = house.ledger.evidence.consistency(1, size).hashes
    verify_consistency(proof, old=1, new=size, old_root=leaf_root(first.hash), new_root=root)


def leaf_root(entry_hash: bytes) -> bytes:
    edge = Edge()
    edge.append(entry_hash)
    return edge.root()

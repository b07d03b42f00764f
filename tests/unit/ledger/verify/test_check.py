"""A check beside a running server: whose key it is given, what opens nothing, what it reads, what is signed of it."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from keyvault_lite.audit.checkpoint import Checkpoint, origin, verifier_key
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority, PublicAuthority
from keyvault_lite.ledger.state.root import StateTree
from keyvault_lite.ledger.state.verified_rows import VerifiedRows
from keyvault_lite.ledger.verify import offline_check
from keyvault_lite.ledger.verify.inspection import Inspection
from keyvault_lite.ledger.verify.offline_check import CheckInputs, identity_of
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest
from keyvault_lite.model.keyring import Slot

RING = Keyring.create()
PUBLIC = PublicAuthority(RING.instance_id, RING.log_public_key)
UNSIGNED = "no signature covers the newest {} entries yet"


def seen(entries: int, checkpoint: str = "", *, head: bool = True) -> Inspection:
    stored = Head(0, entries, bytes(32), 1, 1, bytes(32), b"", checkpoint) if head else None
    return Inspection(stored, b"", VerifiedRows(), StateTree(), b"", entries=entries)


def of(**means: Any) -> offline_check._Check:  # noqa: ANN401
    given = {"anchor": lambda _: None, "verify": verify_ed25519, **means}
    return offline_check._Check(cast(Any, None), cast(Any, None), CheckInputs(**given))


def test_a_key_names_its_log() -> None:
    for epoch in (0, 3):
        assert identity_of(verifier_key(origin(RING.instance_id, epoch), RING.log_public_key)) == PUBLIC


@pytest.mark.parametrize(
    "name", [f"another/{'0' * 32}", "keyvault-lite", "keyvault-lite/log", f"keyvault-lite/{'0' * 34}"]
)
def test_a_key_of_another_log_is_none(name: str) -> None:
    with pytest.raises(InvalidRequest, match="not that of a log of KeyVault Lite"):
        identity_of(verifier_key(name, RING.log_public_key))


def test_without_slots_nothing_is_there_to_open() -> None:
    def unlock(slots: Sequence[Slot]) -> Authority | None:
        if not slots:
            raise IntegrityViolation("no slot verifies")
        return RING

    made = of(unlock=unlock)
    assert made._authority(()) is None
    assert made._authority([Slot("slot", 1, b"i", "kdf", b"sealed", 1, None)]) is RING
    assert of()._authority(()) is None
    assert made._findings == []


@pytest.mark.parametrize(
    ("mark", "stored", "entries", "unsigned"),
    [
        (None, None, 0, 0),
        (None, None, 1, 1),
        (None, None, 5, 5),
        (3, None, 5, 2),
        (3, 4, 5, 1),
        (4, 3, 5, 1),
        (None, 4, 5, 1),
        (None, 0, 1, 1),  # one that is not signed covers nothing
        (3, 0, 5, 2),
        (5, None, 5, 0),
        (None, 6, 5, 0),
    ],
)
def test_without_the_keyring_it_is_told_what_nobody_signed_yet(
    monkeypatch: pytest.MonkeyPatch, mark: int | None, stored: int | None, entries: int, unsigned: int
) -> None:
    """`stored` is up to which entry the head's checkpoint goes, 0 if it is not signed."""
    found = Checkpoint("log", stored, bytes(32)) if stored else None
    monkeypatch.setattr(offline_check._Check, "_check_note", lambda *_: found)
    remembered = None if mark is None else AnchorRecord(0, mark, 0, bytes(32), bytes(32), "note", "key")
    for identity, notes in ((PUBLIC, [UNSIGNED.format(unsigned)] if unsigned else []), (RING, [])):
        judged = seen(entries, "" if stored is None else "checkpoint")
        of()._after(judged, identity, remembered)
        assert judged.notes == notes


def test_a_head_that_has_no_checkpoint_yet_lacks_no_signature() -> None:
    made = of()
    for judged in (seen(1), seen(0, head=False)):
        made._after(judged, PUBLIC, None)
    assert made._findings == []
    made._after(seen(1, "not a note"), PUBLIC, None)
    assert [one.problem for one in made._findings] == ["its checkpoint is not signed by the key of this log"]


def test_it_looks_at_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def inspect(*_: object, **how: Any) -> Inspection:  # noqa: ANN401
        asked.append(how)
        return seen(2)

    monkeypatch.setattr(offline_check, "inspect", inspect)
    found = of()._judge(PUBLIC, None)
    assert [(how["log_from"], how["pages"], how["segment_store"]) for how in asked] == [(0, True, None)]
    assert found.notes == (UNSIGNED.format(2),)

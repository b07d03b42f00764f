"""When a database may go on without its anchor's word, and what is told of the loss."""

import pytest

from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.verify.startup import FOREIGN
from keyvault_lite.ledger.verify.trust import AcceptedHead, check_accepted, describe_loss, require_acceptable
from keyvault_lite.model.errors import Conflict, IntegrityViolation
from keyvault_lite.model.replies import Finding

MARK = AnchorRecord(2, 9, 7, bytes(32), bytes(32), "", "")
WORD = AcceptedHead(5, bytes(32))
ANCHOR = Finding("anchor", "/a", "remembers more")
FOREIGNER = Finding("anchor", "/a", FOREIGN)
ROW = Finding("keys", "1", "is not genuine")


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (5, ("entries 6 to 9 (", "; management entries among them, the newest 7: what they created or revoked is")),
        (6, ("entries 7 to 9 (", "; management entries among them, the newest 7: what they created or revoked is")),
        (7, ("entries 8 to 9 (", "; none of them a management entry")),
        (8, ("entries 9 to 9 (", "; none of them a management entry")),
        (9, ("another history of 9 entries (", "; its newest management entry was 7")),
        (10, ("another history of 9 entries (", "; its newest management entry was 7")),
    ],
)
def test_what_is_lost(size: int, told: tuple[str, str]) -> None:
    said = describe_loss(MARK, size)
    assert said.startswith(told[0])
    assert told[1] in said
    assert ", epoch 2); " in said


@pytest.mark.parametrize(
    ("findings", "mark", "accepted", "refusal"),
    [
        ([ANCHOR, ROW], MARK, WORD, DamagedVault),
        ([], MARK, WORD, Conflict),
        ([ANCHOR], MARK, None, IntegrityViolation),
        ([ANCHOR, FOREIGNER], MARK, WORD, IntegrityViolation),
        ([FOREIGNER], None, None, IntegrityViolation),
        ([ANCHOR], None, WORD, Conflict),
        ([ANCHOR], MARK, WORD, None),
        ([ANCHOR], None, None, None),
    ],
)
def test_whose_word_is_needed(
    findings: list[Finding], mark: AnchorRecord | None, accepted: AcceptedHead | None, refusal: type[Exception] | None
) -> None:
    if refusal is None:
        require_acceptable(findings, mark, accepted)
    else:
        with pytest.raises(refusal) as refused:
            require_acceptable(findings, mark, accepted)
        assert type(refused.value) is refusal


def test_the_first_finding_is_told_unless_one_is_foreign() -> None:
    other = Finding("anchor", "/b", "remembers less")
    for findings, told in (([ANCHOR, other], "/a remembers more"), ([other, ANCHOR], "/b remembers less")):
        with pytest.raises(IntegrityViolation, match=told):
            require_acceptable(findings, MARK, None)
    with pytest.raises(IntegrityViolation, match=FOREIGN):
        require_acceptable([other, ANCHOR, FOREIGNER], MARK, WORD)


@pytest.mark.parametrize(("size", "root"), [(4, bytes(32)), (6, bytes(32)), (5, b"x" * 32)])
def test_only_the_head_that_was_named_is_accepted(size: int, root: bytes) -> None:
    check_accepted(WORD, 5, bytes(32))
    with pytest.raises(Conflict, match="nothing was accepted"):
        check_accepted(WORD, size, root)

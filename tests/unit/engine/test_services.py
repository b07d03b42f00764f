"""Services and tokens through the one door, and that somebody can always manage the vault."""

from collections.abc import Callable

import pytest

from keyvault_lite.model.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unauthenticated
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import KeyRef, new_id
from keyvault_lite.model.replies import Page
from keyvault_lite.model.requests import (
    NEVER,
    AddSlot,
    CreateService,
    Encrypt,
    Initialise,
    ListKeys,
    ListServices,
    ReadKey,
    ReadService,
    RecoverAdmin,
    RemoveSlots,
    RenewToken,
    UpdateService,
)
from tests.support.harness import DAY, Harness, grant, idempotent


def test_a_service_is_made_with_its_token(harness: Harness) -> None:
    service, token = harness.service("worker", grant("orders-*", "sign"))
    entry = harness.last.draft
    assert (entry.action, entry.subject, entry.result) == (Action.SERVICE_CREATE, service.id, Result.SUCCESS)
    assert (service.active, service.role, service.grants) == (True, Role.SERVICE, (grant("orders-*", "sign"),))
    assert harness.ask(ReadService("worker")) == harness.ask(ReadService(service.id)) == service
    harness.ask(ListKeys(), token)
    assert harness.last.draft.service_id == service.id
    harness.reopen()
    harness.ask(ListKeys(), token)
    harness.refusal(CreateService("worker", Role.AUDITOR), Conflict)
    harness.refusal(ReadService("absent"), NotFound)
    harness.refusal(CreateService("late", Role.SERVICE, expires_at=1), InvalidRequest)


def test_services_are_listed_in_pages(harness: Harness) -> None:
    for number in range(4):
        harness.service(f"worker-{number}")
    first: Page = harness.ask(ListServices(limit=3))  # type: ignore[type-arg]
    rest: Page = harness.ask(ListServices(limit=3, after=first.next))  # type: ignore[type-arg]
    assert [one.name for one in (*first.items, *rest.items)] == ["admin", *(f"worker-{number}" for number in range(4))]
    assert rest.next is None
    harness.refusal(ListServices(after="nonsense"), InvalidRequest)


def test_changes_hold_at_once(harness: Harness) -> None:
    harness.key("orders-1")
    service, token = harness.service("worker")
    harness.refusal(ReadKey(KeyRef("orders-1")), NotFound, token)
    harness.ask(UpdateService("worker", grants=(grant("orders-*"),)))
    harness.ask(ReadKey(KeyRef("orders-1")), token)
    others = (grant("orders-*"), grant("web", "sign"))
    harness.refusal(UpdateService("worker", grants=(), expected_grants=others), Conflict)
    same = (grant("orders-*", "encrypt", "decrypt"), grant("orders-*", "sign", "verify", "encrypt"))
    assert harness.ask(ReadService("worker")).grants == (grant("orders-*"),)
    harness.ask(UpdateService("worker", grants=(grant("orders-*"),), expected_grants=same))
    harness.ask(UpdateService(service.id, role=Role.AUDITOR))
    harness.refusal(Encrypt(KeyRef("orders-1")), Forbidden, token)
    harness.ask(UpdateService("worker", active=False))
    harness.refusal(ListKeys(), Unauthenticated, token)
    entry = harness.last.draft
    assert (entry.action, entry.result, entry.service_id) == (Action.AUTHENTICATE, Result.DENIED, service.id)
    harness.ask(UpdateService("worker", active=True))
    harness.ask(ListKeys(), token)
    assert harness.ask(UpdateService("worker")) == harness.ask(ReadService("worker"))


def test_expiry(harness: Harness) -> None:
    now = harness.ledger.now()
    _, token = harness.service("worker")
    harness.refusal(UpdateService("worker", expires_at=now), InvalidRequest)
    harness.ask(UpdateService("worker", expires_at=now + DAY))
    harness.ask(ListKeys(), token)
    real = harness.ledger.now
    harness.ledger.now = lambda: real() + 2 * DAY  # type: ignore[method-assign]
    harness.refusal(ListKeys(), Unauthenticated, token)
    assert harness.ask(UpdateService("worker", expires_at=NEVER)).expires_at is None
    harness.ask(ListKeys(), token)


def test_a_renewed_token_replaces_the_old_one_at_once(harness: Harness) -> None:
    service, old = harness.service("worker")
    made = harness.ask(RenewToken("worker"), old)
    assert harness.last.draft.subject == service.id
    harness.refusal(ListKeys(), Unauthenticated, old)
    assert (harness.last.draft.service_id, harness.last.draft.reason) == (service.id, "replaced")
    harness.ask(ListKeys(), made.token)
    newest = harness.ask(RenewToken(service.id)).token
    harness.refusal(ListKeys(), Unauthenticated, made.token)
    harness.reopen()
    harness.refusal(ListKeys(), Unauthenticated, made.token)
    harness.ask(ListKeys(), newest)


def test_only_an_admin_renews_other_tokens(harness: Harness) -> None:
    _, worker = harness.service("worker")
    _, eye = harness.service("eye", role=Role.AUDITOR)
    for token in (worker, eye):
        harness.refusal(RenewToken("admin"), Forbidden, token)
        harness.refusal(RenewToken("absent"), Forbidden, token)
    harness.refusal(RenewToken("absent"), NotFound)


def test_a_replay_is_judged_anew(harness: Harness) -> None:
    # An ADMIN renewed somebody's token; as a SERVICE it is not told of it again.
    harness.service("worker")
    _, token = harness.service("second", role=Role.ADMIN)
    twice = idempotent("renewal")
    harness.ask(RenewToken("worker"), token, idempotency=twice)
    harness.ask(UpdateService("second", role=Role.SERVICE))
    harness.refusal(RenewToken("worker"), Forbidden, token, idempotency=twice)


LAST: list[Callable[[Harness], UpdateService]] = [
    lambda _: UpdateService("admin", role=Role.AUDITOR),
    lambda _: UpdateService("admin", active=False),
    lambda harness: UpdateService("admin", expires_at=harness.ledger.now() + DAY),
]


@pytest.mark.parametrize("change", LAST)
def test_the_last_admin_stays(harness: Harness, change: Callable[[Harness], UpdateService]) -> None:
    harness.refusal(change(harness), Conflict)
    harness.ask(CreateService("passing", Role.ADMIN, expires_at=harness.ledger.now() + DAY))
    harness.refusal(change(harness), Conflict)
    _, second = harness.service("second", role=Role.ADMIN)
    harness.ask(change(harness))
    harness.refusal(UpdateService("second", active=False), Conflict, second)


def test_two_admins_cannot_depose_each_other_at_once(harness: Harness) -> None:
    _, second = harness.service("second", role=Role.ADMIN)
    results = harness.together(
        harness.perform(UpdateService("second", active=False)),
        harness.perform(UpdateService("admin", active=False), second),
    )
    assert sorted(type(one).__name__ for one in results) in (["Answer", "Conflict"], ["Answer", "AuthenticationFailed"])


def test_recovery_gives_the_oldest_lasting_admin_a_new_token(harness: Harness) -> None:
    made = harness.system(RecoverAdmin())
    assert made.service.name == "admin"
    harness.refusal(ListKeys(), Unauthenticated)
    harness.ask(ListKeys(), made.token)
    harness.refusal(RecoverAdmin(), Forbidden, made.token)


def test_recovery_makes_an_admin_where_none_lasts(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyvault_lite.engine import services

    monkeypatch.setattr(services, "is_lasting", lambda _: False)
    made = harness.system(RecoverAdmin())
    assert made.service.name.startswith("admin-")
    harness.ask(ListServices(), made.token)


def test_a_vault_begins_once(harness: Harness) -> None:
    slot = Slot(new_id(), 1, harness.vault.keyring.instance_id, "none", b"x")
    with pytest.raises(Conflict):
        harness.system(Initialise(slot))


def test_the_last_slot_stays(harness: Harness) -> None:
    (first,) = harness.ledger.snapshot().slots()
    with pytest.raises(Conflict):
        harness.system(RemoveSlots((first.id,)))
    second = harness.vault.keyring.seal(harness.vault.opened.key, slot_id=new_id(), created_at=1)
    harness.system(AddSlot(second))
    assert harness.system(RemoveSlots((first.id,))) == 1
    assert harness.system(RemoveSlots((first.id,))) == 0
    assert [slot.id for slot in harness.ledger.snapshot().slots()] == [second.id]
    assert harness.ledger.empty_write_ahead_log()
    assert first.sealed not in harness.files()
    harness.reopen()


def test_a_caller_whose_own_record_does_not_verify_has_no_authority(harness: Harness) -> None:
    from keyvault_lite.model.errors import IntegrityViolation

    service, token = harness.service("worker")
    harness.ledger.snapshot().quarantine(service.id)
    harness.refusal(ListKeys(), IntegrityViolation, token)
    entry = harness.last.draft
    assert (entry.action, entry.result, entry.reason) == (Action.AUTHENTICATE, Result.ERROR, "integrity_violation")


def test_nothing_changes_while_the_state_is_incomplete(harness: Harness) -> None:
    from keyvault_lite.model.errors import IntegrityViolation

    key = KeyRef(harness.key().id)
    harness.ledger._writer.replica.read_only = True
    harness.refusal(CreateService("worker", Role.SERVICE), IntegrityViolation)
    harness.ask(Encrypt(key, plaintext=b"x"))
    harness.ledger._writer.replica.read_only = False


def test_what_waits_too_long_in_a_lane_is_turned_away_undone(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyvault_lite.model.errors import Overloaded

    before = harness.size
    monkeypatch.setattr(harness.engine._executors.changing, "_limit", 0)
    harness.refusal(CreateService("worker", Role.SERVICE), Overloaded)
    assert harness.size == before

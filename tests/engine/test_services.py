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
from tests.house import DAY, House, grant, idempotent


def test_a_service_is_made_with_its_token(house: House) -> None:
    service, token = house.service("worker", grant("orders-*", "sign"))
    entry = house.last.draft
    assert (entry.action, entry.subject, entry.result) == (Action.SERVICE_CREATE, service.id, Result.SUCCESS)
    assert (service.active, service.role, service.grants) == (True, Role.SERVICE, (grant("orders-*", "sign"),))
    assert house.ask(ReadService("worker")) == house.ask(ReadService(service.id)) == service
    house.ask(ListKeys(), token)
    assert house.last.draft.service_id == service.id
    house.reopen()
    house.ask(ListKeys(), token)
    house.refusal(CreateService("worker", Role.AUDITOR), Conflict)
    house.refusal(ReadService("absent"), NotFound)
    house.refusal(CreateService("late", Role.SERVICE, expires_at=1), InvalidRequest)


def test_services_are_listed_in_pages(house: House) -> None:
    for number in range(4):
        house.service(f"worker-{number}")
    first: Page = house.ask(ListServices(limit=3))  # type: ignore[type-arg]
    rest: Page = house.ask(ListServices(limit=3, after=first.next))  # type: ignore[type-arg]
    assert [one.name for one in (*first.items, *rest.items)] == ["admin", *(f"worker-{number}" for number in range(4))]
    assert rest.next is None
    house.refusal(ListServices(after="nonsense"), InvalidRequest)


def test_changes_hold_at_once(house: House) -> None:
    house.key("orders-1")
    service, token = house.service("worker")
    house.refusal(ReadKey(KeyRef("orders-1")), NotFound, token)
    house.ask(UpdateService("worker", grants=(grant("orders-*"),)))
    house.ask(ReadKey(KeyRef("orders-1")), token)
    others = (grant("orders-*"), grant("web", "sign"))
    house.refusal(UpdateService("worker", grants=(), expected_grants=others), Conflict)
    same = (grant("orders-*", "encrypt", "decrypt"), grant("orders-*", "sign", "verify", "encrypt"))
    assert house.ask(ReadService("worker")).grants == (grant("orders-*"),)
    house.ask(UpdateService("worker", grants=(grant("orders-*"),), expected_grants=same))
    house.ask(UpdateService(service.id, role=Role.AUDITOR))
    house.refusal(Encrypt(KeyRef("orders-1")), Forbidden, token)
    house.ask(UpdateService("worker", active=False))
    house.refusal(ListKeys(), Unauthenticated, token)
    entry = house.last.draft
    assert (entry.action, entry.result, entry.service_id) == (Action.AUTHENTICATE, Result.DENIED, service.id)
    house.ask(UpdateService("worker", active=True))
    house.ask(ListKeys(), token)
    assert house.ask(UpdateService("worker")) == house.ask(ReadService("worker"))


def test_expiry(house: House) -> None:
    now = house.ledger.now()
    _, token = house.service("worker")
    house.refusal(UpdateService("worker", expires_at=now), InvalidRequest)
    house.ask(UpdateService("worker", expires_at=now + DAY))
    house.ask(ListKeys(), token)
    real = house.ledger.now
    house.ledger.now = lambda: real() + 2 * DAY  # type: ignore[method-assign]
    house.refusal(ListKeys(), Unauthenticated, token)
    assert house.ask(UpdateService("worker", expires_at=NEVER)).expires_at is None
    house.ask(ListKeys(), token)


def test_a_renewed_token_replaces_the_old_one_at_once(house: House) -> None:
    service, old = house.service("worker")
    made = house.ask(RenewToken("worker"), old)
    assert house.last.draft.subject == service.id
    house.refusal(ListKeys(), Unauthenticated, old)
    assert (house.last.draft.service_id, house.last.draft.reason) == (service.id, "replaced")
    house.ask(ListKeys(), made.token)
    newest = house.ask(RenewToken(service.id)).token
    house.refusal(ListKeys(), Unauthenticated, made.token)
    house.reopen()
    house.refusal(ListKeys(), Unauthenticated, made.token)
    house.ask(ListKeys(), newest)


def test_only_an_admin_renews_other_tokens(house: House) -> None:
    _, worker = house.service("worker")
    _, eye = house.service("eye", role=Role.AUDITOR)
    for token in (worker, eye):
        house.refusal(RenewToken("admin"), Forbidden, token)
        house.refusal(RenewToken("absent"), Forbidden, token)
    house.refusal(RenewToken("absent"), NotFound)


def test_a_replay_is_judged_anew(house: House) -> None:
    # An ADMIN renewed somebody's token; as a SERVICE it is not told of it again.
    house.service("worker")
    _, token = house.service("second", role=Role.ADMIN)
    twice = idempotent("renewal")
    house.ask(RenewToken("worker"), token, idempotency=twice)
    house.ask(UpdateService("second", role=Role.SERVICE))
    house.refusal(RenewToken("worker"), Forbidden, token, idempotency=twice)


LAST: list[Callable[[House], UpdateService]] = [
    lambda _: UpdateService("admin", role=Role.AUDITOR),
    lambda _: UpdateService("admin", active=False),
    lambda house: UpdateService("admin", expires_at=house.ledger.now() + DAY),
]


@pytest.mark.parametrize("change", LAST)
def test_the_last_admin_stays(house: House, change: Callable[[House], UpdateService]) -> None:
    house.refusal(change(house), Conflict)
    house.ask(CreateService("passing", Role.ADMIN, expires_at=house.ledger.now() + DAY))
    house.refusal(change(house), Conflict)
    _, second = house.service("second", role=Role.ADMIN)
    house.ask(change(house))
    house.refusal(UpdateService("second", active=False), Conflict, second)


def test_two_admins_cannot_depose_each_other_at_once(house: House) -> None:
    _, second = house.service("second", role=Role.ADMIN)
    results = house.together(
        house.perform(UpdateService("second", active=False)),
        house.perform(UpdateService("admin", active=False), second),
    )
    assert sorted(type(one).__name__ for one in results) in (["Answer", "Conflict"], ["Answer", "Refused"])


def test_recovery_gives_the_oldest_lasting_admin_a_new_token(house: House) -> None:
    made = house.system(RecoverAdmin())
    assert made.service.name == "admin"
    house.refusal(ListKeys(), Unauthenticated)
    house.ask(ListKeys(), made.token)
    house.refusal(RecoverAdmin(), Forbidden, made.token)


def test_recovery_makes_an_admin_where_none_lasts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyvault_lite.engine import services

    monkeypatch.setattr(services, "is_lasting", lambda _: False)
    made = house.system(RecoverAdmin())
    assert made.service.name.startswith("admin-")
    house.ask(ListServices(), made.token)


def test_a_vault_begins_once(house: House) -> None:
    slot = Slot(new_id(), 1, house.vault.keyring.instance_id, "none", b"x")
    with pytest.raises(Conflict):
        house.system(Initialise(slot))


def test_the_last_slot_stays(house: House) -> None:
    (first,) = house.ledger.snapshot().slots()
    with pytest.raises(Conflict):
        house.system(RemoveSlots((first.id,)))
    second = house.vault.keyring.seal(house.vault.master, slot_id=new_id(), created_at=1)
    house.system(AddSlot(second))
    assert house.system(RemoveSlots((first.id,))) == 1
    assert house.system(RemoveSlots((first.id,))) == 0
    assert [slot.id for slot in house.ledger.snapshot().slots()] == [second.id]
    assert house.ledger.empty_write_ahead_log()
    assert first.sealed not in house.files()
    house.reopen()


def test_a_caller_whose_own_record_does_not_verify_has_no_authority(house: House) -> None:
    from keyvault_lite.model.errors import IntegrityViolation

    service, token = house.service("worker")
    house.ledger.snapshot().quarantine(service.id)
    house.refusal(ListKeys(), IntegrityViolation, token)
    entry = house.last.draft
    assert (entry.action, entry.result, entry.reason) == (Action.AUTHENTICATE, Result.ERROR, "integrity_violation")


def test_nothing_changes_while_the_state_is_incomplete(house: House) -> None:
    from keyvault_lite.model.errors import IntegrityViolation

    key = KeyRef(house.key().id)
    house.ledger._journal.frozen = True
    house.refusal(CreateService("worker", Role.SERVICE), IntegrityViolation)
    house.ask(Encrypt(key, plaintext=b"x"))
    house.ledger._journal.frozen = False


def test_what_waits_too_long_in_a_lane_is_turned_away_undone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyvault_lite.model.errors import Overloaded

    before = house.size
    monkeypatch.setattr(house.engine._lanes.changing, "_limit", 0)
    house.refusal(CreateService("worker", Role.SERVICE), Overloaded)
    assert house.size == before

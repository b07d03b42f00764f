"""Services and their tokens, and the vault's own beginnings: first ADMIN, recovery, the keyring's slots."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from msgspec import structs

from keyvault_lite.crypto.credentials import format_token, new_token
from keyvault_lite.engine.keys import format_place, parse_place
from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.ledger.outcome import Change
from keyvault_lite.model.errors import Conflict, InvalidRequest, NotFound
from keyvault_lite.model.identity import Grant, Permission, Role, Service, Token, TokenKind
from keyvault_lite.model.names import ServiceId, new_id
from keyvault_lite.model.replies import NewService, Page
from keyvault_lite.model.requests import (
    NEVER,
    AddSlot,
    CreateService,
    Initialise,
    ListServices,
    ReadService,
    RecoverAdmin,
    RemoveSlots,
    RenewToken,
    Request,
    TrustAnchor,
    UpdateService,
)


def _find(scene: Scene, ref: str) -> Service:
    service = scene.state.find_service(ref)
    if service is None:
        raise NotFound("no such service")
    return service


def _check_expiry(expires_at: int | None, now: int) -> None:
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("expires_at is in the past")


def _issue(service: Service, scene: Scene) -> tuple[tuple[Token, ...], str]:
    """The token records of a service with a new native token: the new one, and the old one ended."""
    token_id, secret = scene.once("token", (), new_token)
    old = scene.state.native_token(service.id)
    ended = () if old is None else (replace(old, ended_at=scene.now),)
    fresh = Token(
        id=token_id,
        service_id=service.id,
        kind=TokenKind.NATIVE,
        digest=scene.keyring.token_digest(token_id, secret),
        created_at=scene.now,
    )
    return (*ended, fresh), format_token(token_id, secret)


def create(request: CreateService, scene: Scene) -> Done:
    """A service, active, with its token."""
    if scene.state.find_service(request.name) is not None:
        raise Conflict("a service of this name exists")
    _check_expiry(request.expires_at, scene.now)
    service = Service(
        id=scene.once("id", (), lambda: ServiceId(new_id())),
        name=request.name,
        role=request.role,
        active=True,
        created_at=scene.now,
        grants=request.grants,
        expires_at=request.expires_at,
    )
    tokens, text = _issue(service, scene)
    return Done(
        NewService(service, text),
        Change(services=(service,), tokens=tokens),
        subject=service.id,
    )


def read(request: ReadService, scene: Scene) -> Done:
    """One service; never a token."""
    service = _find(scene, request.service)
    return Done(service, subject=service.id)


def page(request: ListServices, scene: Scene) -> Done:
    """A page of the services, oldest first."""
    found: list[Service] = []
    for service in scene.state.services_after(None if request.after is None else parse_place(request.after)):
        if len(found) == request.limit:
            return Done(Page(tuple(found), format_place(found[-1].created_at, found[-1].id)))
        found.append(service)
    return Done(Page(tuple(found), None))


def update(request: UpdateService, scene: Scene) -> Done:
    """Change role, grants, active or expiry."""
    service = _find(scene, request.service)
    if request.expected_grants is not None and _meaning(request.expected_grants) != _meaning(service.grants):
        raise Conflict("the service has other grants by now; nothing was changed")
    changed = service
    if request.role is not None:
        changed = replace(changed, role=request.role)
    if request.grants is not None:
        changed = replace(changed, grants=request.grants)
    if request.active is not None:
        changed = replace(changed, active=request.active)
    if request.expires_at is not None:
        expires_at = None if request.expires_at == NEVER else request.expires_at
        _check_expiry(expires_at, scene.now)
        changed = replace(changed, expires_at=expires_at)
    steps_down = _lasts(service) and not _lasts(changed)
    if steps_down and not any(_lasts(other) for other in scene.state.active_admins() if other.id != service.id):
        raise Conflict("the last active ADMIN cannot be demoted, deactivated or made to expire")
    return Done(changed, None if changed == service else Change(services=(changed,)), subject=service.id)


def _meaning(grants: tuple[Grant, ...]) -> dict[str, set[Permission]]:
    """What grants allow, whatever their order and number."""
    held: dict[str, set[Permission]] = {}
    for grant in grants:
        held.setdefault(grant.key, set()).update(grant.actions)
    return held


def _lasts(service: Service) -> bool:
    """Whether the service is an ADMIN today and stays one: an expiring ADMIN does not keep the vault governed."""
    return service.role is Role.ADMIN and service.active and service.expires_at is None


def renew_token(request: RenewToken, scene: Scene) -> Done:
    """A new native token; the old one is dead with this entry."""
    service = _find(scene, request.service)
    tokens, text = _issue(service, scene)
    return Done(NewService(service, text), Change(tokens=tokens), subject=service.id)


def initialise(request: Initialise, scene: Scene) -> Done:
    """The first entry of a vault."""
    if scene.state.slots():
        raise Conflict("the vault is initialised")
    done = create(CreateService(request.name, Role.ADMIN), scene)
    change = replace(done.change or Change(), slots=(request.slot,))
    return structs.replace(done, change=change, comment=request.slot.on_record)


def recover_admin(_: RecoverAdmin, scene: Scene) -> Done:
    """A new token for the oldest ADMIN that lasts; if none is left, a new ADMIN."""
    admins = sorted(filter(_lasts, scene.state.active_admins()), key=lambda service: (service.created_at, service.id))
    if not admins:
        return create(CreateService(f"admin-{new_id()[:8]}", Role.ADMIN), scene)
    tokens, text = _issue(admins[0], scene)
    return Done(NewService(admins[0], text), Change(tokens=tokens), subject=admins[0].id)


def add_slot(request: AddSlot, _: Scene) -> Done:
    """One more master key opens the keyring."""
    return Done(None, Change(slots=(request.slot,)), comment=request.slot.on_record)


def remove_slots(request: RemoveSlots, scene: Scene) -> Done:
    """The master keys of these slots open it no more; what they sealed is overwritten."""
    wanted = [slot for slot in scene.state.slots() if slot.id in request.slot_ids]
    if len(wanted) == len(scene.state.slots()):
        raise Conflict("the last slot cannot be removed")
    gone = tuple(replace(slot, sealed=b"", removed_at=scene.now) for slot in wanted)
    if not gone:
        return Done(0)
    return Done(len(gone), Change(slots=gone), comment="; ".join(slot.on_record for slot in gone))


def trust_anchor(request: TrustAnchor, _: Scene) -> Done:
    """The operator's word for what no anchor confirms. An acknowledged rollback makes the log another log."""
    if request.lost is None:
        return Done(None, Change(), comment=f"no anchor; trusted at {request.size} entries")
    return Done(None, Change(new_epoch=True), comment=f"rollback to {request.size} entries; lost: {request.lost}")


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    AddSlot: add_slot,
    CreateService: create,
    Initialise: initialise,
    ListServices: page,
    ReadService: read,
    RecoverAdmin: recover_admin,
    RemoveSlots: remove_slots,
    RenewToken: renew_token,
    TrustAnchor: trust_anchor,
    UpdateService: update,
}

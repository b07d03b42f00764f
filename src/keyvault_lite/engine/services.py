"""Services and their tokens, and the vault's own beginnings: first ADMIN, recovery, the keyring's slots."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from msgspec import structs

from keyvault_lite.access.lifetimes import end_of, last_end
from keyvault_lite.engine.admins import is_lasting
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.keys import format_place, parse_place
from keyvault_lite.engine.native_tokens import first_lifetime, issue, renew
from keyvault_lite.engine.tokens import own_token
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.errors import Conflict, InvalidRequest, NotFound
from keyvault_lite.model.identity import Grant, Permission, Role, Service, Token, TokenKind
from keyvault_lite.model.names import SELF, ServiceId, new_id
from keyvault_lite.model.native_tokens import Lifetime
from keyvault_lite.model.replies import Caller, Page
from keyvault_lite.model.requests import (
    NEVER,
    AddSlot,
    CreateService,
    Initialise,
    ListServices,
    ReadSelf,
    ReadService,
    RecordRootCheck,
    RecordUnseal,
    RecoverAdmin,
    RemoveSlots,
    RenewToken,
    Request,
    SealVault,
    TrustAnchor,
    UpdateService,
)

MAX_ENDED: Final = 2_000
"""Leased tokens that are ended in one entry."""


def _find(ctx: HandlerContext, ref: str) -> Service:
    service = ctx.state.find_service(ref)
    if service is None:
        raise NotFound("no such service")
    return service


def _check_expiry(expires_at: int | None, now: int) -> None:
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("expires_at is in the past")


def create(request: CreateService, ctx: HandlerContext) -> HandlerResult:
    """A service, active, with its token."""
    if ctx.state.find_service(request.name) is not None:
        raise Conflict("a service of this name exists")
    _check_expiry(request.expires_at, ctx.now)
    service = Service(
        id=ctx.once("id", (), lambda: ServiceId(new_id())),
        name=request.name,
        role=request.role,
        active=True,
        created_at=ctx.now,
        grants=request.grants,
        expires_at=request.expires_at,
    )
    lifetime = first_lifetime(request.token_ttl, request.token_max_ttl, ctx.now)
    token, result = issue(service, lifetime, ctx)
    return HandlerResult(result, Change(services=(service,), tokens=(token,)), subject=service.id)


def read(request: ReadService, ctx: HandlerContext) -> HandlerResult:
    """One service; never a token."""
    service = _find(ctx, request.service)
    return HandlerResult(service, subject=service.id)


def page(request: ListServices, ctx: HandlerContext) -> HandlerResult:
    """A page of the services, oldest first."""
    found: list[Service] = []
    for service in ctx.state.services_after(None if request.after is None else parse_place(request.after)):
        if len(found) == request.limit:
            return HandlerResult(Page(tuple(found), format_place(found[-1].created_at, found[-1].id)))
        found.append(service)
    return HandlerResult(Page(tuple(found), None))


def update(request: UpdateService, ctx: HandlerContext) -> HandlerResult:
    """Change role, grants, active or expiry."""
    service = _find(ctx, request.service)
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
        _check_expiry(expires_at, ctx.now)
        changed = replace(changed, expires_at=expires_at)
    if changed == service:
        return HandlerResult(changed, subject=service.id)
    ended = _ended_by_activation(service, ctx) if changed.active and not service.active else ()
    return HandlerResult(changed, Change(services=(changed,), tokens=ended), subject=service.id)


def _ended_by_activation(service: Service, ctx: HandlerContext) -> tuple[Token, ...]:
    """The leased tokens that were left when the service was deactivated: they are not to be valid again."""
    left = [one for one in ctx.state.tokens_of(service.id) if one.kind is TokenKind.LEASED]
    if len(left) > MAX_ENDED:
        raise Conflict("the tokens of this service are still being removed: repeat this in a minute")
    return tuple(replace(one, ended_at=ctx.now) for one in left)


def _meaning(grants: tuple[Grant, ...]) -> dict[str, set[Permission]]:
    """What grants allow, whatever their order and number."""
    held: dict[str, set[Permission]] = {}
    for grant in grants:
        held.setdefault(grant.key, set()).update(grant.actions)
    return held


def read_self(_: ReadSelf, ctx: HandlerContext) -> HandlerResult:
    """What the caller's token is and may do, and when it ends."""
    principal, token = ctx.principal, own_token(ctx)
    service = _find(ctx, principal.service_id)
    until = last_end(token) if token.kind is TokenKind.LEASED else Lifetime.of(token).renewable_until
    caller = Caller(
        service=replace(service, role=principal.role or service.role, grants=principal.grants),
        token=token,
        expires_at=end_of(token, service, ctx.state),
        renewable_until=min(filter(None, (until, service.expires_at)), default=None),
    )
    return HandlerResult(caller, subject=service.id)


def renew_token(request: RenewToken, ctx: HandlerContext) -> HandlerResult:
    """A new native token."""
    ref = ctx.principal.service_id if request.service == SELF else request.service
    return renew(_find(ctx, ref), request, ctx)


def initialise(request: Initialise, ctx: HandlerContext) -> HandlerResult:
    """The first entry of a vault."""
    if ctx.state.slots():
        raise Conflict("the vault is initialised")
    done = create(CreateService(request.name, Role.ADMIN), ctx)
    slots = (request.slot,) if request.recovery is None else (request.slot, request.recovery)
    change = replace(done.change or Change(), slots=slots)
    return structs.replace(done, change=change, comment="; ".join(slot.on_record for slot in slots))


def recover_admin(_: RecoverAdmin, ctx: HandlerContext) -> HandlerResult:
    """A new token for the oldest ADMIN that lasts; if none is left, a new ADMIN."""
    found = filter(is_lasting, ctx.state.active_admins())
    admins = sorted(found, key=lambda service: (service.created_at, service.id))
    if not admins:
        return create(CreateService(f"admin-{new_id()[:8]}", Role.ADMIN), ctx)
    return renew(admins[0], RenewToken(admins[0].id, ttl=0, max_ttl=0), ctx)


def add_slot(request: AddSlot, _: HandlerContext) -> HandlerResult:
    """One more master key opens the keyring."""
    return HandlerResult(None, Change(slots=(request.slot,)), comment=request.slot.on_record)


def remove_slots(request: RemoveSlots, ctx: HandlerContext) -> HandlerResult:
    """The master keys of these slots open it no more; what they sealed is overwritten."""
    wanted = [slot for slot in ctx.state.slots() if slot.id in request.slot_ids]
    if len(wanted) == len(ctx.state.slots()):
        raise Conflict("the last slot cannot be removed")
    gone = tuple(replace(slot, sealed=b"", removed_at=ctx.now) for slot in wanted)
    if not gone:
        return HandlerResult(0)
    return HandlerResult(len(gone), Change(slots=gone), comment="; ".join(slot.on_record for slot in gone))


def seal_vault(_: SealVault, ctx: HandlerContext) -> HandlerResult:
    """The entry; the server ends once it was answered."""
    return HandlerResult(None)


def record_unseal(request: RecordUnseal, _: HandlerContext) -> HandlerResult:
    """The first entry of a server that a root has opened."""
    return HandlerResult(None, comment=request.comment)


def record_root_check(request: RecordRootCheck, _: HandlerContext) -> HandlerResult:
    """Which slots open."""
    return HandlerResult(None, comment=request.comment)


def trust_anchor(request: TrustAnchor, _: HandlerContext) -> HandlerResult:
    """The operator's word for what no anchor confirms. An acknowledged rollback makes the log another log."""
    if request.lost is None:
        return HandlerResult(None, Change(), comment=f"no anchor; trusted at {request.size} entries")
    return HandlerResult(
        None, Change(new_epoch=True), comment=f"rollback to {request.size} entries; lost: {request.lost}"
    )


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    AddSlot: add_slot,
    CreateService: create,
    Initialise: initialise,
    ListServices: page,
    ReadSelf: read_self,
    ReadService: read,
    RecoverAdmin: recover_admin,
    RecordRootCheck: record_root_check,
    RecordUnseal: record_unseal,
    RemoveSlots: remove_slots,
    RenewToken: renew_token,
    SealVault: seal_vault,
    TrustAnchor: trust_anchor,
    UpdateService: update,
}

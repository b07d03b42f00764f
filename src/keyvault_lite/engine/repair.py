"""Giving up what a quarantine has set aside: each loss an entry, each lost row replaced by a tombstone.

What cannot be verified cannot be rescued: not even its type or name is believed.
"""

from collections.abc import Callable, Mapping
from typing import Final

from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.identity import Role, Service, Setting, Token, TokenKind
from keyvault_lite.model.keys import Key, KeySpec, KeyStatus, KeyType, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId, ServiceId, TokenId, is_id
from keyvault_lite.model.requests import Repair, Request

_UNKNOWN: Final = KeySpec(KeyType.AES, 256, Purpose.ENCRYPT)


def repair(request: Repair, ctx: HandlerContext) -> HandlerResult:
    """Replace what a finding names."""
    found = request.finding
    change = _REPLACEMENTS[found.table](request, ctx)
    return HandlerResult(
        None,
        change,
        key_id=change.keys[0].id if change.keys else None,
        subject=found.row if found.table == "services" and is_id(found.row) else None,
        comment="; ".join(
            [f"lost: {found.table} {found.row}: {found.problem}"[:500], *(slot.on_record for slot in change.slots)]
        ),
    )


def _key(request: Repair, ctx: HandlerContext) -> Change:
    """The key with all its versions as DESTROYED."""
    key_id = KeyId(request.finding.row.partition("/")[0])
    gone = tuple(
        KeyVersion(key_id, number, VersionStatus.DESTROYED, ctx.now, b"")
        for number in range(1, max(1, ctx.log.stored_versions(key_id)) + 1)
    )
    lost = Key(
        id=key_id,
        name=None,
        spec=_UNKNOWN,
        status=KeyStatus.DESTROYED,
        created_at=ctx.now,
        description="lost: its stored rows did not verify",
        versions=gone,
    )
    return Change(keys=(lost,))


def _name(request: Repair, ctx: HandlerContext) -> Change:
    name = ctx.log.stored_name(request.finding.row)
    return Change() if name is None else Change(gone_names=(name,))


def _service(request: Repair, ctx: HandlerContext) -> Change:
    row = request.finding.row
    lost = Service(ServiceId(row), f"lost-{row[:8]}", Role.SERVICE, active=False, created_at=ctx.now)
    return Change(services=(lost,))


def _token(request: Repair, ctx: HandlerContext) -> Change:
    if " " in request.finding.row:
        return Change()  # it is not there any more: nothing to replace, the new root says so
    holder = next(iter(ctx.state.services_after(None)))
    lost = Token(TokenId(request.finding.row), holder.id, TokenKind.NATIVE, b"", created_at=ctx.now, ended_at=ctx.now)
    return Change(tokens=(lost,))


def _setting(request: Repair, _: HandlerContext) -> Change:
    return Change(settings=(Setting(request.finding.row, None),))


def _slot(request: Repair, _: HandlerContext) -> Change:
    return Change() if request.slot is None else Change(slots=(request.slot,))


def _reply(request: Repair, _: HandlerContext) -> Change:
    return Change(lost_replies=(request.finding.row,))


_REPLACEMENTS: Final[Mapping[str, Callable[[Repair, HandlerContext], Change]]] = {
    "idempotency_replies": _reply,
    "key_names": _name,
    "key_versions": _key,
    "keyring_slots": _slot,
    "keys": _key,
    "services": _service,
    "settings": _setting,
    "tokens": _token,
}

HANDLERS: Final[Mapping[type[Request], Handler]] = {Repair: repair}

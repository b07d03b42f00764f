"""Reading and checking the audit log."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from keyvault_lite.access.authorize import may_read_entry
from keyvault_lite.engine import session
from keyvault_lite.engine.display import with_names
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.archive import PREFIX, newest_of
from keyvault_lite.model.errors import Conflict, IntegrityViolation, NotFound
from keyvault_lite.model.replies import LogPage
from keyvault_lite.model.requests import (
    ArchiveEntries,
    FollowAudit,
    ListAudit,
    ListReceipts,
    ReadCheckpoint,
    ReadConsistency,
    ReadLogKey,
    ReadMetrics,
    ReadReceipt,
    Request,
    VerifyAudit,
)
from keyvault_lite.observe.metrics import METRICS


def page(request: ListAudit, ctx: HandlerContext) -> HandlerResult:
    """A page of the log. Services and keys may be named; a name that nobody has matches nothing."""
    wanted = _filter(request, ctx)
    found = ctx.once("page", (), lambda: ctx.log.evidence.entries(wanted))
    return HandlerResult(with_names(found, ctx.state), comment=_span("entries", [entry.id for entry in found.items]))


def open_follow(request: FollowAudit, _: HandlerContext) -> HandlerResult:
    """The beginning of a session of reading: the entry that records it says what may be read in it."""
    return HandlerResult(None, comment=session.opening(f"entries from {request.first} on"))


def next_page(request: FollowAudit, ctx: HandlerContext) -> LogPage:
    """What a session of reading is answered: the entries behind its cursor, and where it goes on."""
    size = ctx.log.evidence.size  # before it is read: what comes meanwhile and is not on the page is next
    found = ctx.log.evidence.entries(_filter(request.wanted, ctx))
    looked_at = max(size, request.first - 1, found.items[-1].id if found.items else 0)
    return with_names(replace(found, next=found.next or str(looked_at)), ctx.state)


def _filter(request: ListAudit, ctx: HandlerContext, last: int | None = None) -> Filter:
    service_id = request.service_id
    if service_id is not None:
        service = ctx.state.find_service(service_id)
        service_id = service_id if service is None else service.id
    return Filter(
        limit=request.limit,
        after=request.after,
        service_id=service_id,
        key_id=_key_id(request.key_id, ctx),
        action=request.of,
        result=request.result,
        since=request.since,
        until=request.until,
        ascending=request.ascending,
        last=last,
    )


def _span(what: str, numbers: Sequence[int]) -> str:
    """For the entry that records a reading: what was read."""
    return f"{what} {min(numbers)} to {max(numbers)}" if numbers else f"no {what}"


def _key_id(ref: str | None, ctx: HandlerContext) -> str | None:
    if ref is None:
        return None
    try:
        key = ctx.state.find_key(ref)
    except IntegrityViolation:
        return ref  # what happened to a damaged key must stay readable
    return ref if key is None else key.id


def verify(_: VerifyAudit, ctx: HandlerContext) -> HandlerResult:
    """Check everything that is stored."""
    return HandlerResult(ctx.once("verification", (), ctx.log.verify))


def checkpoint(_: ReadCheckpoint, ctx: HandlerContext) -> HandlerResult:
    """The newest signed checkpoint."""
    return HandlerResult(ctx.log.evidence.checkpoint())


def receipt(request: ReadReceipt, ctx: HandlerContext) -> HandlerResult:
    """The proof that an entry is in the log: for readers of the log, and for the service whose entry it is."""
    entry = ctx.once("entry", (), lambda: ctx.log.evidence.entry(request.entry))
    if entry is None or not may_read_entry(ctx.principal, entry.draft.service_id, entry.draft.result):
        raise NotFound("no such entry")
    return HandlerResult(ctx.log.evidence.receipt(entry))


def receipts(request: ListReceipts, ctx: HandlerContext) -> HandlerResult:
    """The proofs of many entries."""
    wanted = _filter(request.wanted, ctx, request.last)
    found = ctx.once("receipts", (), lambda: ctx.log.evidence.receipts(wanted))
    return HandlerResult(found, comment=_span("receipts", [one.entry for one in found.items]))


def consistency(request: ReadConsistency, ctx: HandlerContext) -> HandlerResult:
    """The proof that the log only grew."""
    return HandlerResult(ctx.log.evidence.consistency(request.old, request.new))


def log_key(_: ReadLogKey, ctx: HandlerContext) -> HandlerResult:
    """The key that verifies checkpoints."""
    return HandlerResult(ctx.log.evidence.log_key())


def open_metrics(_: ReadMetrics, __: HandlerContext) -> HandlerResult:
    """The beginning of a session in which metrics are read."""
    return HandlerResult(None, comment=session.opening("metrics"))


def read_metrics(_: ReadMetrics, __: HandlerContext) -> str:
    """The numbers of this process and its fellows."""
    return METRICS.page()


def archive(request: ArchiveEntries, ctx: HandlerContext) -> HandlerResult:
    """The oldest entries go. The entry names their file, and the slots, whose own entries may be among them."""
    segment, newest = request.segment, newest_of(ctx.state.settings_under(PREFIX))
    if segment.first != (1 if newest is None else newest.last + 1):
        raise Conflict("other entries were archived meanwhile; nothing was done")
    change = Change(settings=(segment.as_setting(),), archived=segment)
    return HandlerResult(
        None, change, comment="; ".join((segment.comment, *(slot.on_record for slot in ctx.state.slots())))
    )


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    ArchiveEntries: archive,
    FollowAudit: open_follow,
    ListAudit: page,
    ListReceipts: receipts,
    ReadCheckpoint: checkpoint,
    ReadConsistency: consistency,
    ReadLogKey: log_key,
    ReadMetrics: open_metrics,
    ReadReceipt: receipt,
    VerifyAudit: verify,
}

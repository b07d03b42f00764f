"""Reading and checking the audit log."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.access.authorize import may_read_entry
from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.ledger.outcome import Change
from keyvault_lite.ledger.reader import Filter
from keyvault_lite.model.archive import PREFIX, newest_of
from keyvault_lite.model.errors import Conflict, IntegrityViolation, NotFound
from keyvault_lite.model.requests import (
    ArchiveEntries,
    ListAudit,
    ReadCheckpoint,
    ReadConsistency,
    ReadLogKey,
    ReadMetrics,
    ReadReceipt,
    Request,
    VerifyAudit,
)
from keyvault_lite.observe.metrics import METRICS


def page(request: ListAudit, scene: Scene) -> Done:
    """A page of the log. Services and keys may be named; a name that nobody has matches nothing."""
    service_id = request.service_id
    if service_id is not None:
        service = scene.state.find_service(service_id)
        service_id = service_id if service is None else service.id
    wanted = Filter(
        limit=request.limit,
        after=request.after,
        service_id=service_id,
        key_id=_key_id(request.key_id, scene),
        action=request.of,
        result=request.result,
        since=request.since,
        until=request.until,
        ascending=request.ascending,
    )
    return Done(scene.once("page", (), lambda: scene.ledger.evidence.entries(wanted)))


def _key_id(ref: str | None, scene: Scene) -> str | None:
    if ref is None:
        return None
    try:
        key = scene.state.find_key(ref)
    except IntegrityViolation:
        return ref  # what happened to a damaged key must stay readable
    return ref if key is None else key.id


def verify(_: VerifyAudit, scene: Scene) -> Done:
    """Check everything that is stored."""
    return Done(scene.once("verification", (), scene.ledger.verify))


def checkpoint(_: ReadCheckpoint, scene: Scene) -> Done:
    """The newest signed checkpoint."""
    return Done(scene.ledger.evidence.checkpoint())


def receipt(request: ReadReceipt, scene: Scene) -> Done:
    """The proof that an entry is in the log: for who may read the log, and for the service whose entry it is."""
    entry = scene.once("entry", (), lambda: scene.ledger.evidence.entry(request.entry))
    if entry is None or not may_read_entry(scene.principal, entry.draft.service_id):
        raise NotFound("no such entry")
    return Done(scene.ledger.evidence.receipt(entry))


def consistency(request: ReadConsistency, scene: Scene) -> Done:
    """The proof that the log only grew."""
    return Done(scene.ledger.evidence.consistency(request.old, request.new))


def log_key(_: ReadLogKey, scene: Scene) -> Done:
    """The key that verifies checkpoints."""
    return Done(scene.ledger.evidence.log_key())


def metrics(_: ReadMetrics, __: Scene) -> Done:
    """The numbers of this process and its fellows."""
    return Done(METRICS.page())


def archive(request: ArchiveEntries, scene: Scene) -> Done:
    """The oldest entries go. The entry names their file, and the slots, whose own entries may be among them."""
    segment, newest = request.segment, newest_of(scene.state.settings_under(PREFIX))
    if segment.first != (1 if newest is None else newest.last + 1):
        raise Conflict("other entries were archived meanwhile; nothing was done")
    change = Change(settings=(segment.as_setting(),), archived=segment)
    return Done(None, change, comment="; ".join((segment.comment, *(slot.on_record for slot in scene.state.slots()))))


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    ArchiveEntries: archive,
    ListAudit: page,
    ReadCheckpoint: checkpoint,
    ReadConsistency: consistency,
    ReadLogKey: log_key,
    ReadMetrics: metrics,
    ReadReceipt: receipt,
    VerifyAudit: verify,
}

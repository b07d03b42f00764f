"""Reading and checking the audit log."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.ledger.reader import Filter
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.requests import ListAudit, Request, VerifyAudit


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
    return Done(scene.once("page", (), lambda: scene.ledger.entries(wanted)))


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


HANDLERS: Final[Mapping[type[Request], Handler]] = {ListAudit: page, VerifyAudit: verify}

"""Names of the services and keys in entries: for people that read the log, and no part of it.

An entry holds ids, which are never given twice, and is hashed and signed. Names are beside it: they are those of the
moment in which the log is read, and nothing proves them.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.identity import Service
from keyvault_lite.model.keys import Key
from keyvault_lite.model.replies import LogPage, Page

T = TypeVar("T")


class Directory(Protocol):
    """What is read of the verified state."""

    def find_key(self, ref: str) -> Key | None:
        """The key of that id. Raises IntegrityViolation for one that did not verify."""

    def find_service(self, ref: str) -> Service | None:
        """The service of that id. Raises IntegrityViolation for one that did not verify."""


def with_names(page: Page[Entry], state: Directory) -> LogPage:
    """The page with the names of its services and keys."""
    return LogPage(page.items, page.next, page.archived, dict(_names(page.items, state)))


def _names(entries: Iterable[Entry], state: Directory) -> Iterator[tuple[str, str]]:
    drafts = [entry.draft for entry in entries]
    services = {one for draft in drafts for one in (draft.service_id, draft.subject) if one is not None}
    for service_id in services:
        service = _verified(state.find_service, service_id)
        if service is not None and service.id == service_id:
            yield service_id, service.name
    for key_id in {draft.key_id for draft in drafts if draft.key_id is not None}:
        key = _verified(state.find_key, key_id)
        name = None if key is None else key.name or next(iter(key.aliases), None)
        if key is not None and key.id == key_id and name is not None:
            yield key_id, name


def _verified(find: Callable[[str], T | None], ref: str) -> T | None:
    """A record, unless it does not verify: no name is taken from it then."""
    try:
        return find(ref)
    except IntegrityViolation:
        return None

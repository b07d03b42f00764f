"""What is stored and has another meaning than it had in version 0.1.0: told by `kvl verify` and at a start.

Grants whose glob covered keys of the AWS or Vault dialect and now covers native names alone, and key policies that
the strict reader refuses, which deny everything. Neither is a sign of tampering, and neither can be seen from the
outside but by the requests that are refused.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from keyvault_lite.dialects.aws.errors import MalformedPolicy
from keyvault_lite.dialects.aws.model import ATTRIBUTE
from keyvault_lite.dialects.aws.policy import read_policy
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.identity import Grant, Role, Service
from keyvault_lite.model.names import matches
from keyvault_lite.observe import announce

MAX_NAMED: Final = 20
"""Grants and keys that are named; the rest is counted."""
MAX_MATCHES: Final = 1_000_000
"""Comparisons of a glob with a name, ..."""
MAX_POLICIES: Final = 20_000
"""... and policies of different text that are read: some seconds."""
_NAMESPACES: Final = ("aws:", "vault:")


class ChangedMeaning:
    """Takes in services, names of dialects and keys, in any order, and says what of them means less than before."""

    def __init__(self) -> None:
        self._globs: list[tuple[Service, Grant]] = []
        self._names: list[str] = []
        self._read: dict[bytes, bool] = {}
        self._refused: list[str] = []
        self._unread = 0

    def service(self, service: Service) -> None:
        """Take in a service."""
        if service.active and service.role is Role.SERVICE:
            self._globs += [(service, grant) for grant in service.grants if _may_have_covered(grant)]

    def name(self, text: str) -> None:
        """Take in a name of a dialect, as grants write it."""
        self._names.append(text)

    def key(self, key_id: str, name: str | None, attributes: Mapping[str, Any]) -> None:
        """Take in a key."""
        facts = attributes.get(ATTRIBUTE, {})
        facets = {"": facts, **facts.get("replicas", {})}
        for region, facet in facets.items():
            text = facet.get("policy")
            if text is not None and not self._is_readable(text):
                where = f" of its replica in {region}" if region else ""
                self._refused.append(
                    f"the key policy{where} of key {name or key_id} is not strict JSON, or no policy: it denies "
                    "everything that is not an ADMIN's. Put it again (PutKeyPolicy)"
                )

    def _is_readable(self, text: str) -> bool:
        digest = sha256(text.encode()).digest()  # many keys have the same policy, and a text may be long
        known = self._read.get(digest)
        if known is None and len(self._read) >= MAX_POLICIES:
            self._unread += 1
            return True
        if known is None:
            known = self._read[digest] = _is_policy(text)
        return known

    def notes(self) -> tuple[str, ...]:
        """A sentence for each, with the next step; nothing of a policy's text is in it."""
        globs, complete = self._narrowed()
        told = [*_first(globs, "grants"), *_first(self._refused, "key policies")]
        if not complete:
            told.append(
                "there are too many grants and keys to look at all of them for globs that cover less than before"
            )
        if self._unread:
            told.append(f"{self._unread} more key policies were not read")
        return tuple(told)

    def _narrowed(self) -> tuple[list[str], bool]:
        found: list[str] = []
        known: dict[str, int] = {}
        left = MAX_MATCHES
        for service, grant in self._globs:
            if grant.key not in known:
                left -= len(self._names)
                if left < 0:
                    return found, False
                known[grant.key] = sum(matches(grant.key, one) for one in self._names)
            if known[grant.key]:
                found.append(
                    f"the grant {grant.key} of service {service.name} covers native names alone, and covered "
                    f"{known[grant.key]} names of the AWS or Vault dialect in version 0.1.0: if it is to cover them, "
                    f"add grants whose prefix is {' or '.join(_NAMESPACES)}"
                )
        return found, True


def _may_have_covered(grant: Grant) -> bool:
    """Whether a glob over native names could meet a name with a namespace: what is before its star begins both."""
    return grant.is_native_glob and any(one.startswith(grant.key.partition("*")[0]) for one in _NAMESPACES)


def _is_policy(text: str) -> bool:
    try:
        read_policy.__wrapped__(text)  # past the cache, which is for policies in use
    except MalformedPolicy:
        return False
    return True


def _first(found: list[str], what: str) -> Iterator[str]:
    yield from found[:MAX_NAMED]
    if len(found) > MAX_NAMED:
        yield f"and {len(found) - MAX_NAMED} more such {what}"


def tell_changed_meaning(state: State) -> None:
    """Say at a start what ChangedMeaning finds in the state of the vault."""
    found = ChangedMeaning()
    for service in state.services_after(None):
        found.service(service)
    for key in state.keys_after(None):
        found.key(key.id, key.name, key.attributes)
        for name in key.aliases:
            found.name(name)
    for note in found.notes():
        announce(note, level="warning")

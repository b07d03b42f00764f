"""What is said of a key that `kvl repair` gives up: the name that its row has, read before the row is replaced."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from keyvault_lite.ledger.storage import driver
from keyvault_lite.model.replies import Finding

_NAME: Final = "SELECT name FROM keys WHERE id = ?"
_TABLES: Final = frozenset({"keys", "key_versions"})
_LONGEST: Final = 200
"""Of a name that is shown: the row may hold anything."""


def with_names(connection: driver.Connection, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings; those of keys say which key it is, and what cannot be read any more."""
    return tuple(_named(connection, one) if one.table in _TABLES else one for one in findings)


def _named(connection: driver.Connection, finding: Finding) -> Finding:
    try:
        rows = driver.fetch(connection, _NAME, (finding.row.partition("/")[0],))
    except driver.Damaged:
        rows = []
    name = rows[0][0] if rows else None
    called = f"its row names it {name[:_LONGEST]!r}" if isinstance(name, str) else "it has no name that can be read"
    return replace(finding, problem=f"{finding.problem}; {called}; what was encrypted under it cannot be read any more")

"""Rows become records only through here: each row's MAC is checked before anything of it is believed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.outcome import Authority, Change
from keyvault_lite.ledger.records import (
    read_key,
    read_name,
    read_service,
    read_setting,
    read_slot,
    read_token,
    read_version,
)
from keyvault_lite.ledger.schema import FORMATS, IN_ROOT, Row, RowFormat
from keyvault_lite.ledger.state import row_key
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.keys import Key, KeyName, KeyVersion
from keyvault_lite.model.names import KeyId
from keyvault_lite.model.replies import Finding

T = TypeVar("T")
# What a forged row can make a reader raise: none of it may be mistaken for a defect of ours.
_UNREADABLE = (TypeError, ValueError, KeyError, OverflowError, AttributeError, KeyVaultError)


def row_is_genuine(authority: Authority, form: RowFormat, row: Row) -> bool:
    """Whether a stored row (values, row_seq, row_mac) is one this vault wrote, in this place."""
    *values, row_seq, mac = row
    try:
        return bool(authority.row_mac(form.name, form.key_of(tuple(values)), row_seq, tuple(values)) == mac)
    except _UNREADABLE:
        return False


@dataclass(slots=True)
class VerifiedRows:
    """Rows of all tables under the root: the records they make, their MACs for the tree, and what does not verify."""

    change: Change = field(default_factory=Change)
    macs: dict[bytes, bytes] = field(default_factory=dict)
    written: dict[tuple[str, str], int] = field(default_factory=dict)
    """By table and first key column: the entry that wrote the row."""
    findings: list[Finding] = field(default_factory=list)
    quarantined: set[str] = field(default_factory=set)
    """Ids and names of keys that a bad row belongs to."""


def read_rows(
    connection: driver.Connection, authority: Authority, *, newer_than: int, known: Callable[[KeyId], Key | None]
) -> VerifiedRows:
    """Read every row that an entry after `newer_than` wrote. `known` gives the older versions of a key read in part."""
    found = VerifiedRows()
    good = {name: list(_genuine(connection, authority, FORMATS[name], newer_than, found)) for name in IN_ROOT}
    versions: dict[KeyId, dict[int, KeyVersion]] = defaultdict(dict)
    for version in _records(read_version, good["key_versions"], "key_versions", found):
        versions[version.key_id][version.version] = version
    named: dict[KeyId, list[KeyName]] = defaultdict(list)
    touched: set[tuple[str, str]] = set()
    for key_id, name in _records(read_name, good["key_names"], "key_names", found):
        touched.add((name.namespace, name.name))
        if key_id is not None:
            named[key_id].append(name)
    keys: list[Key] = []
    for row in good["keys"]:
        key_id = KeyId(row[0])
        before = known(key_id)
        merged = {one.version: one for one in (() if before is None else before.versions)} | versions.pop(key_id, {})
        ordered = tuple(merged[number] for number in sorted(merged))
        if [one.version for one in ordered] != list(range(1, len(ordered) + 1)) or not ordered:
            _note(found, "keys", key_id, "versions are missing")
            found.quarantined.add(key_id)
            continue
        kept = [one for one in (() if before is None else before.names) if (one.namespace, one.name) not in touched]
        names = tuple(sorted([*kept, *named.pop(key_id, [])], key=lambda one: (one.created_at, one.text)))
        keys.extend(_records(partial(read_key, versions=ordered, names=names), [row], "keys", found))
    for table, orphans in (("key_versions", versions), ("key_names", named)):
        for key_id in orphans:
            _note(found, table, key_id, "belongs to no key that verifies")
            found.quarantined.add(key_id)
    found.change = Change(
        keys=tuple(key for key in keys if key.id not in found.quarantined),
        services=tuple(_records(read_service, good["services"], "services", found)),
        tokens=tuple(_records(read_token, good["tokens"], "tokens", found)),
        slots=tuple(_records(read_slot, good["keyring_slots"], "keyring_slots", found)),
        settings=tuple(_records(read_setting, good["settings"], "settings", found)),
    )
    return found


def _genuine(
    connection: driver.Connection, authority: Authority, form: RowFormat, newer_than: int, found: VerifiedRows
) -> Iterator[Row]:
    sql = statements.SELECT[form.name]
    rows = connection.execute(f"{sql} WHERE row_seq > ?", (newer_than,)) if newer_than else connection.execute(sql)
    for row in rows:
        values = row[:-2]
        if row_is_genuine(authority, form, row):
            found.macs[row_key(form.name, form.key_of(values))] = row[-1]
            found.written[form.name, values[0]] = row[-2]
            yield values
            continue
        _note(found, form.name, "".join(map(str, form.key_of(values))), "row does not verify")
        if form.name in {"keys", "key_versions", "key_names"}:
            # The key is named by its columns, which may lie: all that the row could belong to is set aside.
            found.quarantined |= {value for value in values[:3] if isinstance(value, str)}


def _records(read: Callable[[Row], T], rows: Iterable[Row], table: str, found: VerifiedRows) -> Iterator[T]:
    for row in rows:
        try:
            yield read(row)
        except _UNREADABLE:
            _note(found, table, row[0], "row cannot be read by this version")


def _note(found: VerifiedRows, table: str, row: object, problem: str) -> None:
    found.findings.append(Finding(table, str(row)[:80], problem))

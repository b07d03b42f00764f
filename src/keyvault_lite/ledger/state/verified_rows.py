"""Rows become records only through here: each row's MAC is checked before anything of it is believed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any, TypeVar

from keyvault_lite.audit.merkle import HASH_BYTES
from keyvault_lite.ledger.state.codec import (
    read_key,
    read_name,
    read_version,
)
from keyvault_lite.ledger.state.outcome import Authority, Change, PublicAuthority
from keyvault_lite.ledger.state.root import row_key
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.record_types import RECORD_TYPES
from keyvault_lite.ledger.storage.schema import FORMATS, Row, RowFormat
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.keys import Key, KeyName, KeyVersion
from keyvault_lite.model.names import KeyId
from keyvault_lite.model.replies import Finding

T = TypeVar("T")
_NEVER_OLD = 1 << 63
NOT_GENUINE = "row does not verify"
UNREADABLE = "row cannot be read by this version"
NOT_COMMITTED = "is not the row that the log commits to"
MAX_LABEL = 160
"""Characters of a key that a finding repeats."""
# What a forged row can make a reader raise: none of it may be mistaken for a defect of the product.
_UNREADABLE = (TypeError, ValueError, KeyError, OverflowError, AttributeError, RecursionError, KeyVaultError)


def row_is_genuine(authority: Authority, form: RowFormat, row: Row) -> bool:
    """Whether a stored row (values, row_seq, row_mac) is one this vault wrote, in this place."""
    values = row[:-2]
    return mac_is(authority, form.name, form.key_of(values), values, row)


def mac_is(authority: Authority, table: str, key: Row, values: Row, row: Row, *, schema: int = 1) -> bool:
    """Whether the MAC of a stored row is the one over these values."""
    try:
        return compare_digest(authority.row_mac(table, key, row[-2], values, schema=schema), row[-1])
    except _UNREADABLE:
        return False


@dataclass(slots=True)
class VerifiedRows:
    """Rows of all tables under the root: the records they make, and what does not verify."""

    change: Change = field(default_factory=Change)
    findings: list[Finding] = field(default_factory=list)
    quarantined: set[str] = field(default_factory=set)
    """Ids and names of keys that a bad row belongs to."""
    others: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Row key and MAC of those that do not verify, as far as they have the outward form of any."""
    sealed_root: bytes = b""
    """The root of all rows of that form, those that do not verify included."""
    differing: set[bytes] = field(default_factory=set)
    """The row keys of those that are not as memory has them, genuine or not, and of those that are missing."""


def read_rows(
    connection: driver.Connection,
    authority: Authority | PublicAuthority,
    *,
    newer_than: int,
    known: Callable[[KeyId], Key | None] = lambda _: None,
    note: Callable[[bytes, bytes], None],
    keep: bool = True,
) -> VerifiedRows:
    """Read every row that an entry after `newer_than` wrote. `known` gives the older versions of a key read in part.

    `note` gets the row key and the MAC of each genuine row, for the state tree. In a snapshot, and row by row: of
    each there is nothing in memory afterwards but its record.
    Without `keep` the rows of keys are verified and no keys made of them: if one is missing, the root tells.
    With a PublicAuthority columns are not verified: what is read must be used for its MACs alone.
    """
    tables = _Tables(connection, authority, newer_than, note)
    found = tables.found
    keys: list[Key] = []
    if keep:
        keys = _keys(tables, known)
    else:
        for table in ("key_versions", "key_names", "keys"):
            for _ in tables.genuine(table):
                pass
    read = {kind: tuple(tables.records(kind.table, kind.from_row)) for kind in RECORD_TYPES}
    fields: dict[str, Any] = {kind.field: records for kind, records in read.items() if kind.field is not None}
    found.change = Change(
        keys=tuple([key for key in keys if key.id not in found.quarantined]),
        records=tuple(record for kind, records in read.items() if kind.field is None for record in records),
        **fields,
    )
    return found


def _keys(tables: "_Tables", known: Callable[[KeyId], Key | None]) -> list[Key]:
    """The keys, each with its versions and names; what is missing of one is noted."""
    found = tables.found
    # Versions and names before the keys that they are part of.
    versions = _by_key(tables.records("key_versions", read_version))
    named, touched = _named(tables.records("key_names", read_name))
    keys: list[Key] = []
    for row in tables.genuine("keys"):
        key_id = KeyId(row[0])
        before = known(key_id)
        ordered = _merged(() if before is None else before.versions, versions.pop(key_id, ()))
        if not ordered:
            if key_id not in found.quarantined:  # else the version that does not verify is named already
                _note(found, "keys", key_id, "versions are missing")
                found.quarantined.add(key_id)
            continue
        names: Sequence[KeyName] = named.pop(key_id, ())
        if before is not None:
            names = [*names, *(one for one in before.names if (one.namespace, one.name) not in touched)]
        try:
            keys.append(read_key(row, versions=ordered, names=_in_order(names) if names else ()))
        except _UNREADABLE:
            _note(found, "keys", key_id, UNREADABLE)
    _note_orphans(found, "key_versions", versions)
    _note_orphans(found, "key_names", named)
    return keys


class _Tables:
    """One reading of the tables under the root, row by row."""

    def __init__(
        self,
        connection: driver.Connection,
        authority: Authority | PublicAuthority,
        newer_than: int,
        note: Callable[[bytes, bytes], None],
    ) -> None:
        self._connection = connection
        self._authority = authority
        self._newer_than = newer_than
        self._tell = note
        self.found = VerifiedRows()

    def records(self, table: str, read: Callable[[Row], T]) -> Iterator[T]:
        """What `read` makes of the genuine rows of a table."""
        for values in self.genuine(table):
            try:
                yield read(values)
            except _UNREADABLE:
                _note(self.found, table, values[0], UNREADABLE)

    def genuine(self, table: str) -> Iterator[Row]:
        """The values of the genuine rows of a table; what the others are is noted."""
        found, tell, width, authority = self.found, self._tell, len(FORMATS[table].key), self._authority
        sql, limits = statements.SELECT[table], (self._newer_than,) if self._newer_than else ()
        try:
            for row in driver.stream(self._connection, f"{sql} WHERE row_seq > ?" if limits else sql, limits):
                values = row[:-2]
                key = values[:width]
                if (
                    _is_sealed(key, row)
                    if isinstance(authority, PublicAuthority)
                    else mac_is(authority, table, key, values, row)
                ):
                    tell(row_key(table, key), row[-1])
                    yield values
                    continue
                _note(found, table, _label(key), NOT_GENUINE)
                if _is_sealed(key, row):
                    found.others.append((row_key(table, key), row[-1]))
                if table in {"keys", "key_versions", "key_names"}:
                    # The key is named by its columns, which may lie: all that the row could belong to is set aside.
                    found.quarantined |= {value for value in values[:3] if isinstance(value, str)}
        except driver.Damaged as error:
            _note(found, table, "", f"cannot be read: {error}")


def _by_key(versions: Iterable[KeyVersion]) -> dict[KeyId, Sequence[KeyVersion]]:
    found: dict[KeyId, Sequence[KeyVersion]] = {}
    for version in versions:
        others = found.get(version.key_id)
        if others is None:
            found[version.key_id] = (version,)  # one, which is what the record takes as it is
        elif isinstance(others, list):
            others.append(version)
        else:
            found[version.key_id] = [*others, version]
    return found


def _note_orphans(found: VerifiedRows, table: str, orphans: Iterable[KeyId]) -> None:
    for key_id in orphans:
        if key_id not in found.quarantined:
            _note(found, table, key_id, "belongs to no key that verifies")
            found.quarantined.add(key_id)


def _named(
    rows: Iterable[tuple[KeyId | None, KeyName]],
) -> tuple[dict[KeyId, list[KeyName]], set[tuple[str, str]]]:
    """Dialects' names by key, and all names that the rows tell of, those without a key included."""
    named: dict[KeyId, list[KeyName]] = defaultdict(list)
    touched: set[tuple[str, str]] = set()
    for key_id, name in rows:
        touched.add((name.namespace, name.name))
        if key_id is not None:
            named[key_id].append(name)
    return named, touched


def _in_order(names: Sequence[KeyName]) -> tuple[KeyName, ...]:
    return tuple(sorted(names, key=lambda one: (one.created_at, one.text)))


def _merged(before: tuple[KeyVersion, ...], newer: Sequence[KeyVersion]) -> tuple[KeyVersion, ...]:
    """A key's versions from 1 on without a gap; none if that is not what there is."""
    if len(newer) == 1 and newer[0].version == 1:
        return (newer[0], *before[1:]) if before or isinstance(newer, list) else tuple(newer)
    merged = {one.version: one for one in (*before, *newer)}
    try:
        return tuple([merged[number] for number in range(1, len(merged) + 1)])
    except KeyError:
        return ()


def _label(key: Row) -> object:
    return key[0] if len(key) == 1 else "".join(map(str, key))


def last_writers(connection: driver.Connection, table: str, findings: Sequence[Finding]) -> dict[str, int]:
    """By key: the entry that wrote each row of a table. Of rows that do not verify too: they are found already."""
    bad = {one.row for one in findings if (one.table, one.problem) == (table, NOT_GENUINE)}
    key = ", ".join(FORMATS[table].key)
    try:
        rows = driver.fetch(connection, f"SELECT {key}, row_seq FROM {table}")  # noqa: S608
    except driver.Damaged:
        return {}  # which was found when the rows were read
    names = ((str(_label(row[:-1])), row[-1]) for row in rows)
    return {name: _NEVER_OLD if printable(name) in bad else row_seq for name, row_seq in names}


def _is_sealed(key: Row, row: Row) -> bool:
    """Whether a row has the outward form of one this vault wrote: what can be told without the keyring."""
    mac = row[-1]
    try:
        return (
            all(isinstance(text, str) and text.encode() is not None for text in key)
            and type(row[-2]) is int
            and isinstance(mac, bytes)
            and len(mac) == HASH_BYTES
        )
    except UnicodeEncodeError:
        return False


def _note(found: VerifiedRows, table: str, row: object, problem: str) -> None:
    found.findings.append(Finding(table, printable(row), problem))


def printable(row: object) -> str:
    """A row's key for people and for the wire, whatever is in it."""
    return str(row)[:MAX_LABEL].encode("utf-8", "backslashreplace").decode()

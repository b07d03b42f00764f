"""Rows become records only through here: each row's MAC is checked before anything of it is believed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from keyvault_lite.audit.merkle import HASH_BYTES
from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.outcome import Authority, Change, PublicAuthority
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
_NEVER_OLD = 1 << 63
NOT_GENUINE = "row does not verify"
UNREADABLE = "row cannot be read by this version"
MAX_LABEL = 160
"""Characters of a key that a finding repeats."""
# What a forged row can make a reader raise: none of it may be mistaken for a defect of ours.
_UNREADABLE = (TypeError, ValueError, KeyError, OverflowError, AttributeError, KeyVaultError)


def row_is_genuine(authority: Authority, form: RowFormat, row: Row) -> bool:
    """Whether a stored row (values, row_seq, row_mac) is one this vault wrote, in this place."""
    values = row[:-2]
    return _has_mac(authority, form.name, form.key_of(values), values, row)


def _has_mac(authority: Authority, table: str, key: Row, values: Row, row: Row) -> bool:
    try:
        return bool(authority.row_mac(table, key, row[-2], values) == row[-1])
    except _UNREADABLE:
        return False


@dataclass(slots=True)
class VerifiedRows:
    """Rows of all tables under the root: the records they make, and what does not verify."""

    change: Change = field(default_factory=Change)
    findings: list[Finding] = field(default_factory=list)
    quarantined: set[str] = field(default_factory=set)
    """Ids and names of keys that a bad row belongs to."""


def read_rows(
    connection: driver.Connection,
    authority: Authority | PublicAuthority,
    *,
    newer_than: int,
    known: Callable[[KeyId], Key | None],
    note: Callable[[bytes, bytes], None],
    keep: bool = True,
) -> VerifiedRows:
    """Read every row that an entry after `newer_than` wrote. `known` gives the older versions of a key read in part.

    `note` is told the row key and the MAC of each genuine row, for the state tree. In a snapshot, and row by row: of
    each there is nothing in memory afterwards but its record.
    Without `keep` keys are read and not returned, for who wants to know what does not verify.
    With a PublicAuthority columns are not verified: what is read must be used for its MACs alone.
    """
    found = VerifiedRows()

    def read(table: str, make: Callable[[Row], T]) -> Iterator[T]:
        rows = _genuine(connection, authority, FORMATS[table], newer_than, found, note)
        return _records(make, rows, table, found)

    versions: dict[KeyId, tuple[KeyVersion, ...] | list[KeyVersion]] = {}
    for version in read("key_versions", read_version if keep else _without_material):
        others = versions.setdefault(version.key_id, (version,))  # what most keys have is what the record takes
        if isinstance(others, list):
            others.append(version)
        elif others[0] is not version:
            versions[version.key_id] = [*others, version]
    named, touched = _named(read("key_names", read_name))
    keys: list[Key] = []
    for row in _genuine(connection, authority, FORMATS["keys"], newer_than, found, note):
        key_id = KeyId(row[0])
        before = known(key_id)
        ordered = _merged(() if before is None else before.versions, versions.pop(key_id, ()))
        if not ordered:
            if key_id not in found.quarantined:  # else the version that does not verify is named already
                _note(found, "keys", key_id, "versions are missing")
                found.quarantined.add(key_id)
            continue
        names = named.pop(key_id, [])
        if before is not None:
            names += [one for one in before.names if (one.namespace, one.name) not in touched]
        names.sort(key=lambda one: (one.created_at, one.text))
        try:
            key = read_key(row, versions=ordered, names=tuple(names))
        except _UNREADABLE:
            _note(found, "keys", key_id, UNREADABLE)
            continue
        if keep:
            keys.append(key)
    for table, orphans in (("key_versions", versions), ("key_names", named)):
        for key_id in orphans:
            if key_id not in found.quarantined:
                _note(found, table, key_id, "belongs to no key that verifies")
                found.quarantined.add(key_id)
    if not found.quarantined.isdisjoint(key.id for key in keys):
        keys = [key for key in keys if key.id not in found.quarantined]
    found.change = Change(
        keys=tuple(keys),
        services=tuple(read("services", read_service)),
        tokens=tuple(read("tokens", read_token)),
        slots=tuple(read("keyring_slots", read_slot)),
        settings=tuple(read("settings", read_setting)),
    )
    return found


def _without_material(row: Row) -> KeyVersion:
    return replace(read_version(row), encrypted_key=b"")


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


def _merged(before: tuple[KeyVersion, ...], newer: Sequence[KeyVersion]) -> tuple[KeyVersion, ...]:
    """A key's versions from 1 on without a gap; none if that is not what there is."""
    if len(newer) == 1 and newer[0].version == 1:
        return (newer[0], *before[1:]) if before or isinstance(newer, list) else tuple(newer)
    merged = {one.version: one for one in (*before, *newer)}
    try:
        return tuple([merged[number] for number in range(1, len(merged) + 1)])
    except KeyError:
        return ()


def _genuine(
    connection: driver.Connection,
    authority: Authority | PublicAuthority,
    form: RowFormat,
    newer_than: int,
    found: VerifiedRows,
    note: Callable[[bytes, bytes], None],
) -> Iterator[Row]:
    sql, name = statements.SELECT[form.name], form.name
    width = len(form.key)
    public = isinstance(authority, PublicAuthority)
    try:
        for row in driver.stream(connection, *((f"{sql} WHERE row_seq > ?", (newer_than,)) if newer_than else (sql,))):
            values = row[:-2]
            key = values[:width]
            genuine = _is_sealed(key, row) if public else _has_mac(authority, name, key, values, row)  # type: ignore[arg-type]
            if genuine:
                note(row_key(name, key), row[-1])
                yield values
                continue
            _note(found, name, _label(key), NOT_GENUINE)
            if name in {"keys", "key_versions", "key_names"}:
                # The key is named by its columns, which may lie: all that the row could belong to is set aside.
                found.quarantined |= {value for value in values[:3] if isinstance(value, str)}
    except driver.Damaged as error:
        _note(found, name, "", f"cannot be read: {error}")


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
    return {name: _NEVER_OLD if _printable(name) in bad else row_seq for name, row_seq in names}


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


def check_replies(connection: driver.Connection, authority: Authority, entries: int) -> list[Finding]:
    """The kept replies that do not verify, or name an entry beyond the `entries` of the log."""
    found = VerifiedRows()
    form = FORMATS["idempotency_replies"]
    try:
        rows = driver.fetch(connection, statements.SELECT[form.name])
    except driver.Damaged as error:
        return [Finding(form.name, "", f"cannot be read: {error}")]
    for row in rows:
        service_id, digest = row[0], row[1]
        raw = digest if isinstance(digest, bytes) else str(digest).encode(errors="surrogateescape")
        label = f"{service_id}/{raw.hex()}"
        if not row_is_genuine(authority, form, row):
            _note(found, form.name, label, NOT_GENUINE)
        elif row[-2] > entries:
            _note(found, form.name, label, "names an entry that the log does not have")
    return found.findings


def _records(read: Callable[[Row], T], rows: Iterable[Row], table: str, found: VerifiedRows) -> Iterator[T]:
    for row in rows:
        try:
            yield read(row)
        except _UNREADABLE:
            _note(found, table, row[0], UNREADABLE)


def _note(found: VerifiedRows, table: str, row: object, problem: str) -> None:
    found.findings.append(Finding(table, _printable(row), problem))


def _printable(row: object) -> str:
    """A row's key for people and for the wire, whatever stands in it."""
    return str(row)[:MAX_LABEL].encode("utf-8", "backslashreplace").decode()

"""Rows become records only through here: each row's MAC is checked before anything of it is believed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
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
    """Rows of all tables under the root: the records they make, their MACs for the tree, and what does not verify."""

    change: Change = field(default_factory=Change)
    macs: dict[bytes, bytes] = field(default_factory=dict)
    written: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """By table and key: the entry that wrote the row. Of rows that do not verify too: they are found already."""
    findings: list[Finding] = field(default_factory=list)
    quarantined: set[str] = field(default_factory=set)
    """Ids and names of keys that a bad row belongs to."""


def read_rows(
    connection: driver.Connection,
    authority: Authority | PublicAuthority,
    *,
    newer_than: int,
    known: Callable[[KeyId], Key | None],
) -> VerifiedRows:
    """Read every row that an entry after `newer_than` wrote. `known` gives the older versions of a key read in part.

    With a PublicAuthority columns are not verified: what is read must be used for its MACs alone.
    """
    found = VerifiedRows()
    good = {name: list(_genuine(connection, authority, FORMATS[name], newer_than, found)) for name in IN_ROOT}
    versions: dict[KeyId, list[KeyVersion]] = defaultdict(list)
    for version in _records(read_version, good["key_versions"], "key_versions", found):
        versions[version.key_id].append(version)
    named, touched = _named(good["key_names"], found)
    keys: list[Key] = []
    for row in good["keys"]:
        key_id = KeyId(row[0])
        before = known(key_id)
        ordered = _merged(() if before is None else before.versions, versions.pop(key_id, []))
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
            keys.append(read_key(row, versions=ordered, names=tuple(names)))
        except _UNREADABLE:
            _note(found, "keys", key_id, UNREADABLE)
    for table, orphans in (("key_versions", versions), ("key_names", named)):
        for key_id in orphans:
            if key_id not in found.quarantined:
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


def _named(rows: list[Row], found: VerifiedRows) -> tuple[dict[KeyId, list[KeyName]], set[tuple[str, str]]]:
    """Dialects' names by key, and all names that the rows tell of, those without a key included."""
    named: dict[KeyId, list[KeyName]] = defaultdict(list)
    touched: set[tuple[str, str]] = set()
    for key_id, name in _records(read_name, rows, "key_names", found):
        touched.add((name.namespace, name.name))
        if key_id is not None:
            named[key_id].append(name)
    return named, touched


def _merged(before: tuple[KeyVersion, ...], newer: list[KeyVersion]) -> tuple[KeyVersion, ...]:
    """A key's versions from 1 on without a gap; none if that is not what there is."""
    if len(newer) == 1 and newer[0].version == 1:
        return (newer[0], *before[1:])
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
) -> Iterator[Row]:
    sql, name = statements.SELECT[form.name], form.name
    try:
        rows = driver.fetch(connection, *((f"{sql} WHERE row_seq > ?", (newer_than,)) if newer_than else (sql,)))
    except driver.Damaged as error:
        _note(found, name, "", f"cannot be read: {error}")
        return
    width, written = len(form.key), found.written[name]
    public = isinstance(authority, PublicAuthority)
    for row in rows:
        values = row[:-2]
        key = values[:width]
        genuine = _is_sealed(key, row) if public else _has_mac(authority, name, key, values, row)  # type: ignore[arg-type]
        label = key[0] if width == 1 else "".join(map(str, key))
        if genuine:
            found.macs[row_key(name, key)] = row[-1]
            written[label] = row[-2]
            yield values
            continue
        written[label] = _NEVER_OLD
        _note(found, name, label, "row does not verify")
        if name in {"keys", "key_versions", "key_names"}:
            # The key is named by its columns, which may lie: all that the row could belong to is set aside.
            found.quarantined |= {value for value in values[:3] if isinstance(value, str)}


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
            _note(found, form.name, label, "row does not verify")
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

"""Which row is the old one: the root says that some row is, the log says which object was changed last and when.

Every management entry names the key or the service it changed, and every row the entry that wrote it. A row that is
older than the newest entry about it was put back; one that the log tells of and that is not there was deleted.
"""

import re
from collections.abc import Iterable, Sequence

from keyvault_lite.audit.entry import ENTRY_COLUMNS, Row
from keyvault_lite.ledger.state.verified_rows import VerifiedRows, last_writers
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.record_types import RECORD_TYPES
from keyvault_lite.model.archive import named_in
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import SYSTEM
from keyvault_lite.model.replies import Finding

_AT = {name: place for place, name in enumerate(ENTRY_COLUMNS)}
_ID, _ROOT, _WHO = _AT["id"], _AT["state_root"], _AT["service_id"]
_ACTION, _KEY, _VERSION, _SUBJECT = _AT["action"], _AT["key_id"], _AT["key_version"], _AT["subject"]
_COMMENT, _OPERATION = _AT["comment"], _AT["operation"]
APPROLE = "auth.approle."
"""Operations that name the service of a role, and write settings: its row once, when the role is made."""
_NAME_SLOTS = frozenset({Action.INITIALISE, Action.MASTER_KEY_ROTATE, Action.REPAIR, Action.AUDIT_ARCHIVE})
_DECLARED = tuple(kind for kind in RECORD_TYPES if kind.written_by)
_WRITTEN = ("keys", "key_versions", "tokens", *(kind.table for kind in _DECLARED))
"""Tables whose rows the log attributes to entries."""
_SLOT = re.compile(r"\bslot ([0-9a-f-]{36}) [0-9a-f]{64}\b")


class RowWriters:
    """Learns from management entries, in order, what each row's `row_seq` has to be."""

    __slots__ = ("_keys", "_records", "_slots", "_tokens", "_versions", "archived")

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        self._versions: dict[str, dict[int, int]] = {}
        """By key: for each version that the log tells of the entry that wrote it last."""
        self._records: dict[str, dict[str, int]] = {kind.table: {} for kind in _DECLARED}
        """By table and row: the entry that wrote the row last, of declared types."""
        self._tokens: dict[str, int] = {}
        self._slots: dict[str, str] = {}
        """By id: how the log names the slot (`Slot.on_record`)."""
        self.archived: tuple[int, str] | None = None
        """Up to which entry the newest entry about it says that the log was archived, and in which file."""

    def feed(self, rows: Iterable[Row]) -> None:
        """Take note of the management entries among these."""
        for row in rows:
            if row[_ROOT] is None:
                continue
            if row[_ACTION] == Action.AUDIT_ARCHIVE:
                self.archived = named_in(row[_COMMENT] or "")
            if row[_ACTION] in _NAME_SLOTS:
                self._slots.update({found[1]: found[0] for found in _SLOT.finditer(row[_COMMENT] or "")})
            if row[_KEY] is not None:
                self._note_key(row)
            if row[_SUBJECT] is not None and not str(row[_OPERATION] or "").startswith(APPROLE):
                for kind in _DECLARED:
                    if row[_ACTION] in kind.written_by:
                        self._records[kind.table][row[_SUBJECT]] = row[_ID]
                if row[_ACTION] in {Action.SERVICE_CREATE, Action.TOKEN_RENEW, Action.INITIALISE}:
                    self._tokens[row[_SUBJECT]] = row[_ID]

    def _note_key(self, row: Row) -> None:
        key_id, action, number = row[_KEY], row[_ACTION], row[_VERSION]
        entry: int = row[_ID]
        self._keys[key_id] = entry
        versions = self._versions.setdefault(key_id, {})
        if action in {Action.GENERATE, Action.ROTATE} and number is not None:
            if number > 1:
                versions[number - 1] = entry  # stepped down
            versions[number] = entry
        elif action == Action.REVOKE and number is not None:
            versions[number] = entry
        elif action in {Action.REVOKE, Action.REPAIR} or (action == Action.DESTROY and row[_WHO] == SYSTEM):
            versions.update(dict.fromkeys(versions, entry))

    def check_slots(self, stored: Sequence[Slot]) -> list[Finding]:
        """The slots that are not the ones on record. Needs no key, so it works where none of them opens."""
        records = {slot.id: slot.on_record for slot in stored}
        return [
            Finding("keyring_slots", name, "is not the one on record in the log" if name in records else "is missing")
            for name in sorted(self._slots)
            if records.get(name) != self._slots[name]
        ]

    def explain(self, connection: driver.Connection, rows: VerifiedRows) -> list[Finding]:
        """The rows that are not as old as the log says, or not there; empty if none can be named."""
        found: list[Finding] = []
        written = {name: last_writers(connection, name, rows.findings) for name in _WRITTEN}
        _compare(found, "keys", self._keys, written)
        for key_id, entries in self._versions.items():
            expected = {f"{key_id}/{number}": entry for number, entry in entries.items()}
            _compare(found, "key_versions", expected, written)
        for table, expected in self._records.items():
            _compare(found, table, expected, written)
        newest: dict[str, int] = {}
        for token in rows.change.tokens:
            newest[token.service_id] = max(written["tokens"].get(token.id, 0), newest.get(token.service_id, 0))
        late = [(service, entry) for service, entry in self._tokens.items() if newest.get(service, 0) < entry]
        # A row that does not verify may be the one that is looked for: it is named already.
        if len(late) > sum(one.table == "tokens" for one in rows.findings):
            found += [
                Finding("tokens", f"of service {service}", f"is older than entry {entry} or missing")
                for service, entry in late
            ]
        return found


def _compare(found: list[Finding], table: str, expected: dict[str, int], written: dict[str, dict[str, int]]) -> None:
    for row, entry in expected.items():
        writer = written[table].get(row)
        if writer is None:
            found.append(Finding(table, row, f"is missing; entry {entry} wrote it"))
        elif type(writer) is not int or writer < entry:
            found.append(Finding(table, row, f"is the row of entry {writer}; entry {entry} has replaced it"))

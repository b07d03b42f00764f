"""Rows become records and back: what is genuine, what is found, how a key is read in part; on tables of its own."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.ledger.log.kept_replies import check_replies, find_reply, reply_row
from keyvault_lite.ledger.log.retention import newest_segment
from keyvault_lite.ledger.state import codec
from keyvault_lite.ledger.state.codec import changed_rows, read_key
from keyvault_lite.ledger.state.outcome import Change, PublicAuthority, StoredReply
from keyvault_lite.ledger.state.root import row_key
from keyvault_lite.ledger.state.verified_rows import VerifiedRows, last_writers, read_rows
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.record_types import read_slot, setting_values
from keyvault_lite.ledger.storage.schema import FORMATS, IN_ROOT, Row
from keyvault_lite.model.archive import Segment
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.identity import Grant, Permission, Role, Service, Setting, Token, TokenKind
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import Key, KeyName, KeyStatus, KeyVersion, VersionStatus
from keyvault_lite.model.names import KeyId, ServiceId, TokenId
from keyvault_lite.model.replies import Finding
from tests.support.faults import FaultyConnection, failing
from tests.support.harness import AES

RING = Keyring.create()
PUBLIC = PublicAuthority(RING.instance_id, RING.log_public_key)
ONE, TWO = KeyId("key-1"), KeyId("key-2")


def version(number: int, key: KeyId = ONE, at: int = 1, *, public_key: bytes | None = None) -> KeyVersion:
    status = VersionStatus.ACTIVE
    return KeyVersion(key, number, status, created_at=at, encrypted_key=b"%d" % number, public_key=public_key)


def key(*versions: KeyVersion, name: str | None = None, names: tuple[KeyName, ...] = (), **more: Any) -> Key:  # noqa: ANN401
    made = versions[0].created_at if versions else 1
    return Key(ONE, name, AES, KeyStatus.ACTIVE, made, versions=versions, names=names, **more)


ALIAS, OTHER = KeyName("aws:eu/", "alias/a", 5, 6), KeyName("vault:transit/", "b", 3, 4)
FULL = Change(
    keys=(
        key(version(1), structs.replace(version(2, at=7), attributes={"a": 1}), name="orders", names=(OTHER, ALIAS)),
        Key(
            TWO,
            None,
            AES,
            KeyStatus.REVOKED,
            9,
            "text",
            {"t": "é"},
            30,
            40,
            50,
            True,
            (version(1, TWO, 8),),
            (),
            {"x": 1},
        ),
    ),
    services=(
        Service(ServiceId("s1"), "admin", Role.ADMIN, True, 1),
        Service(ServiceId("s2"), "worker", Role.SERVICE, False, 2, (Grant("*", frozenset({Permission.ENCRYPT})),), 3),
    ),
    tokens=(
        Token(TokenId("t1"), ServiceId("s1"), TokenKind.NATIVE, b"d", 1),
        Token(TokenId("t2"), ServiceId("s2"), TokenKind.LEASED, b"e", 1, 2, TokenId("t1"), 3, {"x": [1]}),
    ),
    slots=(Slot("slot", 1, b"i", "kdf", b"sealed", 1, None), Slot("old", 1, b"i", "kdf", b"sealed", 1, 2)),
    settings=(Setting("a", {"b": 1}), Setting("gone", None)),
)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((place, None) for place in range(6)),
        *((place, "\udcff") for place in (0, 3)),
        (1, "1"),
        (6, "2"),
        (6, b"2"),
        (6, 2.0),
    ],
)
def test_a_row_of_other_columns_is_no_slot(place: int, value: object) -> None:
    whole = ("slot", 1, b"i", "kdf", b"sealed", 1, None)
    assert [read_slot((*whole[:6], removed)) for removed in (None, 2)] == [Slot(*whole), Slot(*whole[:6], 2)]
    with pytest.raises((TypeError, ValueError)):
        read_slot((*whole[:place], value, *whole[place + 1 :]))


@pytest.fixture
def stored() -> Iterator[driver.Connection]:
    """Every table, without types or limits to its columns."""
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        for form in FORMATS.values():
            connection.execute(f"CREATE TABLE {form.name} ({', '.join(form.columns)}, row_seq, row_mac)")
        yield connection


def put(connection: driver.Connection, table: str, values: Row, seq: int = 1, mac: bytes | None = None) -> None:
    key = FORMATS[table].key_of(values)
    row = (*values, seq, RING.row_mac(table, key, seq, values) if mac is None else mac)
    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def write(connection: driver.Connection, change: Change, seq: int = 1, before: Key | None = None) -> None:
    for table, values in changed_rows(change, lambda _: before):
        width = FORMATS[table].key
        connection.execute(
            f"DELETE FROM {table} WHERE ({', '.join(width)}) = ({', '.join('?' * len(width))})",
            FORMATS[table].key_of(values),
        )
        put(connection, table, values, seq)


def read(connection: driver.Connection, before: Key | None = None, **how: Any) -> VerifiedRows:  # noqa: ANN401
    def known(key_id: KeyId) -> Key | None:
        return before if before is not None and before.id == key_id else None

    return read_rows(
        connection, how.pop("authority", RING), **{"newer_than": 0, "known": known, "note": lambda *_: None, **how}
    )


def test_only_names_under_the_prefix_are_those_of_segments(stored: driver.Connection) -> None:
    segment = Segment(1, 256, "a" * 64, bytes(32), 0, 1, 1)
    for setting in (Setting("audit/archive", {"x": 1}), segment.as_setting(), Setting("audit/archive0", {"x": 1})):
        put(stored, "settings", setting_values(setting))
    assert newest_segment(stored, RING) == segment


def told(found: VerifiedRows) -> list[tuple[str, str, str]]:
    return [(one.table, one.row, one.problem) for one in found.findings]


class TestWhole:
    def test_records_are_what_they_were(self, stored: driver.Connection) -> None:
        write(stored, FULL, 5)
        noted: dict[bytes, bytes] = {}
        found = read(stored, note=noted.__setitem__)
        assert (found.change, told(found), found.quarantined) == (FULL, [], set())
        macs = {
            row_key(table, row[: len(FORMATS[table].key)]): row[-1]
            for table in IN_ROOT
            for row in stored.execute(f"SELECT * FROM {table}")
        }
        assert noted == macs
        assert len(noted) == 15

    def test_what_is_not_kept_is_read_all_the_same(self, stored: driver.Connection) -> None:
        write(stored, FULL)
        noted: dict[bytes, bytes] = {}
        found = read(stored, note=noted.__setitem__, keep=False)
        assert (found.change, told(found)) == (replace(FULL, keys=()), [])
        assert len(noted) == 15
        stored.execute("UPDATE key_versions SET row_seq = row_seq + 1 WHERE version = 1")
        kept, let_go = read(stored), read(stored, keep=False)
        assert told(kept) == told(let_go) != []
        assert kept.quarantined == let_go.quarantined != set()

    @pytest.mark.parametrize("numbers", [(), (2,), (1, 3), (2, 3)])
    def test_versions_that_are_missing(self, stored: driver.Connection, numbers: tuple[int, ...]) -> None:
        write(stored, Change(keys=(key(*map(version, numbers)),)))
        found = read(stored)
        assert told(found) == [("keys", ONE, "versions are missing")]
        assert (found.change.keys, found.quarantined) == ((), {ONE})

    def test_parts_of_no_key(self, stored: driver.Connection) -> None:
        write(stored, Change(keys=(key(version(1), version(2), names=(ALIAS,)),)))
        stored.execute("DELETE FROM keys")
        found = read(stored)
        assert told(found) == [("key_versions", ONE, "belongs to no key that verifies")]
        assert found.quarantined == {ONE}
        stored.execute("DELETE FROM key_versions")
        found = read(stored)
        assert told(found) == [("key_names", ONE, "belongs to no key that verifies")]
        assert found.quarantined == {ONE}

    def test_names_come_in_the_order_of_their_making(self, stored: driver.Connection) -> None:
        names = tuple(KeyName("aws:", text, at, 9) for text, at in (("c", 1), ("a", 2), ("b", 2)))
        for name in reversed(names):
            write(stored, Change(keys=(key(names=(name,)),)))
        write(stored, Change(keys=(key(version(1)),)))
        assert read(stored).change.keys == (key(version(1), names=names),)


class TestForged:
    @pytest.mark.parametrize("table", IN_ROOT)
    def test_a_row_of_other_bytes(self, stored: driver.Connection, table: str) -> None:
        write(stored, FULL)
        form = FORMATS[table]
        stored.execute(f"UPDATE {table} SET row_seq = row_seq + 1 WHERE rowid = 1")
        row = stored.execute(f"SELECT * FROM {table} WHERE rowid = 1").fetchone()
        found = read(stored)
        assert told(found) == [(table, "".join(row[: len(form.key)]), "row does not verify")]
        of_a_key = table in {"keys", "key_versions", "key_names"}
        # Whatever key the row could be of is set aside, and no name of it is taken for free.
        assert found.quarantined == ({value for value in row[:3] if isinstance(value, str)} if of_a_key else set())
        assert [one.id for one in found.change.keys] == ([TWO] if of_a_key else [ONE, TWO])

    @pytest.mark.parametrize(
        ("table", "values"),
        [
            ("keys", (ONE, None, "AES", 256, "ENCRYPT", "NONE", 1, "", "{}", None, None, None, 0, "{}")),
            ("key_versions", (f"{ONE}/1", ONE, 1, b"", "NONE", 1, None, None, "{}")),
            ("services", ("s", "name", "NONE", 1, 1, "[]", None)),
            ("tokens", ("t", "s", "native", b"", 1, None, None, None, "{")),
            ("settings", ("name", "{")),
        ],
    )
    def test_a_genuine_row_of_another_version(self, stored: driver.Connection, table: str, values: Row) -> None:
        if table == "keys":
            write(stored, Change(keys=(key(version(1)),)))
            stored.execute("DELETE FROM keys")
        put(stored, table, values)
        assert told(read(stored)) == [(table, values[0], "row cannot be read by this version")]

    @pytest.mark.parametrize("table", IN_ROOT)
    def test_a_table_that_cannot_be_read(self, stored: driver.Connection, table: str) -> None:
        write(stored, FULL)
        faulty = FaultyConnection(stored)
        faulty.before = lambda sql: failing() if f"FROM {table}" in sql else None
        assert (table, "", "cannot be read: disk I/O error") in told(read(faulty))

    @pytest.mark.parametrize("values", ["value = 1.5", "value = CAST(x'ff' AS TEXT)", "row_seq = 0", "row_seq = NULL"])
    @pytest.mark.parametrize("table", ["settings", "keys"])
    def test_a_row_of_values_that_nobody_writes(self, stored: driver.Connection, table: str, values: str) -> None:
        write(stored, FULL)
        stored.execute(f"UPDATE {table} SET {values.replace('value', FORMATS[table].columns[-1])} WHERE rowid = 1")
        (name,) = stored.execute(f"SELECT {FORMATS[table].key[0]} FROM {table} WHERE rowid = 1").fetchone()
        assert (table, name, "row does not verify") in told(read(stored))

    @pytest.mark.parametrize("authority", [RING, PUBLIC])
    def test_a_name_that_is_no_text(self, stored: driver.Connection, authority: Any) -> None:  # noqa: ANN401
        put(stored, "settings", ("a", None))
        stored.execute("UPDATE settings SET name = CAST(x'61ff' AS TEXT)")
        assert told(read(stored, authority=authority)) == [("settings", "a\\udcff", "row does not verify")]

    def test_a_long_name_is_cut(self, stored: driver.Connection) -> None:
        put(stored, "settings", ("é" * 161, None), mac=bytes(32))
        put(stored, "key_names", ("a", "b" * 160, None, 1, 1), mac=bytes(32))
        assert [one.row for one in read(stored).findings] == ["a" + "b" * 159, "é" * 160]

    def test_without_the_keyring_only_the_outward_form_counts(self, stored: driver.Connection) -> None:
        noted: dict[bytes, bytes] = {}
        good = {"seq": 1, "mac": bytes(32), "name": "n"}
        for changes in ({}, {"mac": bytes(31)}, {"mac": bytes(33)}, {"mac": "x" * 32}, {"seq": "1"}, {"name": 5}):
            stored.execute("DELETE FROM settings")
            row: dict[str, Any] = good | changes
            stored.execute("INSERT INTO settings VALUES (?, NULL, ?, ?)", (row["name"], row["seq"], row["mac"]))
            found = read(stored, authority=PUBLIC, note=noted.__setitem__)
            assert told(found) == ([("settings", str(row["name"]), "row does not verify")] if changes else [])
        assert noted == {row_key("settings", ("n",)): bytes(32)}


class TestNewer:
    """What another process has written since: a key's newer rows, merged with what is known of it."""

    BEFORE = key(version(1), version(2), name="orders", names=(ALIAS, OTHER))

    @pytest.mark.parametrize(
        ("before", "newer"),
        [
            ((), (1,)),
            ((), (1, 2, 3)),
            ((1,), (1,)),
            ((1, 2), (1,)),
            ((1, 2), (2,)),
            ((1, 2), (3,)),
            ((1, 2), (2, 3)),
            ((1, 2), (1, 2, 3)),
            ((1, 2), ()),
        ],
    )
    def test_versions(self, stored: driver.Connection, before: tuple[int, ...], newer: tuple[int, ...]) -> None:
        old = key(*map(version, before)) if before else None
        fresh = {number: structs.replace(version(number), status=VersionStatus.REVOKED) for number in newer}
        changed = key(*fresh.values())
        write(stored, Change(keys=(changed,)), 9)
        found = read(stored, old, newer_than=8)
        merged = {number: version(number) for number in before} | fresh
        (one,) = found.change.keys
        assert one.versions == tuple(merged[number] for number in sorted(merged))
        assert told(found) == []
        # By that the writer tells which it has to write.
        known = old.versions if old else ()
        assert all(one.versions[was.version - 1] is was for was in known if was.version not in fresh)

    def test_a_gap(self, stored: driver.Connection) -> None:
        write(stored, Change(keys=(key(version(4)),)), 9)
        assert told(read(stored, self.BEFORE, newer_than=8)) == [("keys", ONE, "versions are missing")]

    def test_older_rows_are_not_read_again(self, stored: driver.Connection) -> None:
        write(stored, FULL, 8)
        assert read(stored, newer_than=8).change == Change()
        assert read(stored, newer_than=7).change == FULL

    def test_names(self, stored: driver.Connection) -> None:
        moved, new = replace(ALIAS, updated_at=9), KeyName("aws:eu/", "alias/new", 9, 9)
        after = structs.replace(self.BEFORE, names=(moved, new))
        write(stored, Change(keys=(after,)), 9, self.BEFORE)
        (one,) = read(stored, self.BEFORE, newer_than=8).change.keys
        assert one.names == (moved, new), "the one without a key is lost, the other one's newer row counts"
        stored.execute("DELETE FROM key_names")
        (one,) = read(stored, self.BEFORE, newer_than=8).change.keys
        assert one.names == (OTHER, ALIAS), "what no row tells of stays as it is"


def test_what_a_key_shares_with_its_first_version_is_equal() -> None:
    row = codec.key_values(key(version(1)))
    for made in (1, 2):
        one = read_key(row, versions=(version(1, at=made),), names=())
        assert (one.id, one.created_at) == (ONE, 1)


def test_maps_stand_in_canonical_json() -> None:
    made = key(version(1), tags={"b": "1", "a": "é"}, attributes={"z": [1, 2], "y": {"d": 1, "c": None}})
    assert {'{"a":"é","b":"1"}', '{"y":{"c":null,"d":1},"z":[1,2]}'} < set(codec.key_values(made))


def test_only_versions_that_are_others_are_written() -> None:
    before = key(version(1), version(2))
    after = structs.replace(before, versions=(before.versions[0], structs.replace(before.versions[1]), version(3)))
    rows = list(changed_rows(Change(keys=(after,)), lambda _: before))
    assert [(table, values[0]) for table, values in rows] == [
        ("keys", ONE),
        ("key_versions", f"{ONE}/2"),
        ("key_versions", f"{ONE}/3"),
    ]


def test_who_wrote_each_row_last(stored: driver.Connection) -> None:
    write(stored, Change(settings=(Setting("a", {}), Setting("b", {}))), 3)
    write(stored, Change(keys=(key(names=(ALIAS,)),)), 4)
    assert last_writers(stored, "settings", ()) == {"a": 3, "b": 3}
    assert last_writers(stored, "key_names", ()) == {ALIAS.text: 4}
    found = [Finding("settings", "a", "row does not verify"), Finding("settings", "b", "row cannot be read")]
    assert last_writers(stored, "settings", found) == {"a": 1 << 63, "b": 3}
    assert last_writers(stored, "tokens", found) == {}
    stored.execute("DROP TABLE settings")
    assert last_writers(stored, "settings", ()) == {}


NO_ENTRY = "names an entry that the log does not have"


def test_kept_replies(stored: driver.Connection) -> None:
    reply = StoredReply(ServiceId("s"), b"\x01", b"\x02", 3, b"sealed")
    table, values = "idempotency_replies", codec.reply_values(reply)
    put(stored, table, values, 7)
    stored.execute("CREATE TABLE audit_logs (id, hash)")
    assert check_replies(stored, RING) == [], "one of the first schema"
    assert find_reply(stored, RING, reply.service_id, reply.key_digest) is None, "which vouches for no entry"
    stored.execute("DELETE FROM idempotency_replies")
    row = reply_row(RING, replace(reply, entry_id=7), b"h" * 32)
    stored.execute(f"INSERT INTO idempotency_replies VALUES ({', '.join('?' * len(row))})", row)
    for hash, problem in ((None, NO_ENTRY), (b"g" * 32, "row does not verify"), (b"h" * 32, None)):
        stored.execute("DELETE FROM audit_logs")
        if hash is not None:
            stored.execute("INSERT INTO audit_logs (id, hash) VALUES (7, ?)", (hash,))
        assert check_replies(stored, RING) == ([] if problem is None else [Finding(table, "s/01", problem)])
        if problem is None:
            assert find_reply(stored, RING, reply.service_id, reply.key_digest) == replace(reply, entry_id=7)
        else:
            with pytest.raises(IntegrityViolation, match=problem):
                find_reply(stored, RING, reply.service_id, reply.key_digest)
    stored.execute("UPDATE idempotency_replies SET expires_at = 4")
    assert check_replies(stored, RING) == [Finding(table, "s/01", "row does not verify")]
    stored.execute("UPDATE idempotency_replies SET key_digest = 'x'")
    assert check_replies(stored, RING) == [Finding(table, "s/78", "row does not verify")]
    stored.execute("UPDATE idempotency_replies SET row_seq = 'x'")
    assert check_replies(stored, RING) == [Finding(table, "s/78", NO_ENTRY)]
    stored.execute("DROP TABLE idempotency_replies")
    (found,) = check_replies(stored, RING)
    assert (found.table, found.row) == (table, "")
    assert found.problem.startswith("cannot be read: ")

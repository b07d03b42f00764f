"""The state in memory: its root against a recomputation, undoing, and the view of a transaction under way."""

import hashlib
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs

from keyvault_lite.ledger.commit.edit_detection import owner
from keyvault_lite.ledger.state import root as tree_module
from keyvault_lite.ledger.state.outcome import Change, StoredReply
from keyvault_lite.ledger.state.root import RowMacs, StateTree, row_key, row_of
from keyvault_lite.ledger.state.snapshot import Overlay, State
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.identity import Role, Service, Setting, Token, TokenKind
from keyvault_lite.model.keys import Key, KeyName, KeyStatus
from keyvault_lite.model.names import KeyId, ServiceId, TokenId, new_id
from tests.support.harness import AES

ROW_KEYS = st.one_of(
    st.integers(0, 60).map(lambda n: row_key("keys", (f"k{n}",))),
    # Keys of other tables, lengths and numbers of columns, of which many share a bucket.
    st.sampled_from(["keys", "key_versions"]).map(lambda table: row_key(table, ("", "k" * len(table)))),
)
ROWS = st.dictionaries(ROW_KEYS, st.binary(min_size=1, max_size=4))


def collected(rows: dict[bytes, bytes]) -> RowMacs:
    found = RowMacs()
    for key, mac in rows.items():
        found.add(key, mac)
    return found


def differences(tree: StateTree, *readings: dict[bytes, bytes]) -> set[bytes]:
    compared = tree.comparison()
    for rows in readings:
        for key, mac in rows.items():
            compared.add(key, mac)
    assert compared.root() == tree.root()
    return compared.differences()


def recomputed(rows: dict[bytes, bytes]) -> bytes:
    """The root as the design defines it, in one go."""
    buckets: list[list[tuple[bytes, bytes]]] = [[] for _ in range(4096)]
    for key, mac in rows.items():
        digest = hashlib.sha256(key).digest()
        buckets[int.from_bytes(digest[:2], "big") >> 4].append((key, mac))
    digests = [
        hashlib.sha256(pae("bucket", *(value for pair in sorted(bucket) for value in pair))).digest()
        for bucket in buckets
    ]
    return hashlib.sha256(pae("state", len(rows), *digests)).digest()


@hypothesis_settings(max_examples=25, deadline=None)
@given(ROWS, st.lists(st.tuples(ROWS, st.booleans()), max_size=4))
@example({}, [])
def test_the_root_is_that_of_all_rows(first: dict[bytes, bytes], steps: list[tuple[dict[bytes, bytes], bool]]) -> None:
    tree, rows = StateTree(), dict(first)
    tree.load(collected(first))
    for change, kept in steps:
        for key, mac in change.items():
            tree.put(key, mac)
        gone = set(sorted({*rows, *change})[::3])
        tree.remove(gone)
        for key, mac in list(change.items())[:2]:
            tree.put(key, mac)  # one that was removed comes again
            gone.discard(key)
        if kept:
            tree.accept()
            rows = {key: mac for key, mac in (rows | change).items() if key not in gone}
        else:
            tree.rollback()
        assert tree.count == len(rows)
        assert differences(tree, rows) == set()
    assert tree.root() == collected(rows).root() == recomputed(rows)


@pytest.mark.parametrize("window", [1, 2, 13, 39, 40])
def test_rows_that_fill_windows_of_memory_are_all_there(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    rows = {row_key("keys", (f"{number}" * number,)): bytes(number) for number in range(1, 20)}
    rows |= {row_key("keys", (f"{number:04}",)): bytes(4) for number in range(20)}  # as long as each other
    monkeypatch.setattr(tree_module, "WINDOW", window)
    monkeypatch.setattr(tree_module, "_bucket_of", lambda key: len(key) % 3)
    found, tree = collected(rows), StateTree()
    assert sum(map(len, found._waiting.values())) == len(rows) % window, "no more is held as objects than a window"
    tree.load(found)
    assert differences(tree, rows) == set()
    for key, mac in rows.items():
        tree.put(key, mac)
    assert (tree.count, tree.root()) == (len(rows), found.root())


def test_what_was_undone_is_not_undone_again() -> None:
    tree, rows = StateTree(), {row_key("keys", ("a",)): b"1"}
    tree.put(row_key("keys", ("a",)), b"0")
    tree.rollback()
    tree.load(collected(rows))
    tree.rollback()
    assert tree.root() == recomputed(rows)


def test_rows_that_share_a_bucket_stand_in_order_however_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "_bucket_of", lambda _: 9)
    rows = {row_key("keys", (name,)): name.encode() for name in ("a", "b", "cc")}
    for order in permutations(rows):
        tree = StateTree()
        for count, one in enumerate(order, 1):
            tree.put(one, b"old")
            tree.put(one, rows[one])
            there = {key: rows[key] for key in order[:count]}
            assert (tree.count, tree.root()) == (count, collected(there).root())
        for count, one in enumerate(order, 1):
            tree.remove([one, one])
            assert tree.root() == collected({key: rows[key] for key in order[count:]}).root()
        assert tree.count == 0


def test_differences_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, d = (row_key("keys", (name,)) for name in ("a", "bb", "c", "d"))
    rows = {a: b"1" * 32, b: b"2" * 32, d: b"4" * 32}
    for bucket in (0, 4095):
        monkeypatch.setattr(tree_module, "_bucket_of", lambda _, bucket=bucket: bucket)
        tree = StateTree()
        tree.load(collected(rows))
        assert differences(tree, rows | {b: b"3" * 32, c: b"4" * 32}) == {b, c}
        assert differences(tree, {}) == {a, b, d}
        assert differences(tree, {a: rows[b], d: rows[d]}) == {a, b}
        # Once more, and so also where another is missing and the number is right.
        assert differences(tree, rows, {d: rows[d]}) == {d}
        assert differences(tree, {b: rows[b], d: rows[d]}, {b: rows[b]}) == {a, b}


def test_a_tree_that_changes_is_compared_as_it_was() -> None:
    tree, rows = StateTree(), {row_key("keys", (f"{number}",)): bytes([number]) * 32 for number in range(50)}
    tree.load(collected(rows))
    compared, root = tree.comparison(), tree.root()
    tree.put(row_key("keys", ("other",)), bytes(32))
    tree.put(row_key("keys", ("1",)), bytes(32))
    for key, mac in rows.items():
        compared.add(key, mac)
    assert compared.root() == root != tree.root()
    assert compared.differences() == set()
    assert tree.comparison().root() == tree.root()


def test_row_keys_name_their_rows() -> None:
    for table, columns in (("keys", ("id",)), ("settings", ("é",)), ("key_names", ("aws:eu/", "alias/a"))):
        assert row_key(table, columns) == pae(table, *columns)
        assert row_of(row_key(table, columns)) == (table, "".join(columns))


def nothing(_: ServiceId, __: bytes) -> StoredReply | None:
    return None


def key(name: str | None, created_at: int = 0, names: tuple[KeyName, ...] = ()) -> Key:
    return Key(KeyId(new_id()), name, AES, KeyStatus.ACTIVE, created_at, names=names)


def service(name: str, created_at: int = 0) -> Service:
    return Service(ServiceId(new_id()), name, Role.ADMIN, active=True, created_at=created_at)


def test_an_overlay_is_seen_from_above_only() -> None:
    below = State(nothing)
    old, admin = key("old", 1), service("admin", 1)
    worker = replace(service("worker", 3), role=Role.SERVICE)
    below.apply(Change(keys=(old,), services=(admin, worker), settings=(Setting("a/x", {}),)))
    below.sequence = 5
    above = Overlay(below, nothing)
    assert above.sequence == 5
    token = Token(TokenId("t"), admin.id, TokenKind.NATIVE, b"", created_at=1)
    new, second = key("new", 2), service("second", 2)
    above.apply(
        Change(
            keys=(new, structs.replace(old, description="changed")),
            services=(second, replace(admin, active=False)),
            tokens=(token,),
            settings=(Setting("a/x", None), Setting("a/y", {"z": 1})),
        )
    )
    assert [one.id for one in above.keys_after(None)] == [old.id, new.id]
    assert [one.name for one in above.services_after(None)] == ["admin", "second", "worker"]
    assert above.active_admins() == [second]
    assert above.native_tokens(admin.id) == [token]
    assert above.find_key("old") == structs.replace(old, description="changed")
    assert (above.setting("a/x"), above.settings_under("a/")) == (None, [Setting("a/y", {"z": 1})])
    # The state below knows nothing of it: an aborted transaction needs no undoing.
    assert list(below.keys_after(None)) == [old]
    assert below.find_key("new") is None
    assert below.active_admins() == [admin]
    assert below.native_tokens(admin.id) == []
    assert [one.name for one in below.settings_under("a/")] == ["a/x"]


def test_the_order_below_stays_whatever_comes_above() -> None:
    below = State(nothing)
    keys, services = [key(None, at) for at in (1, 3, 5)], [service(f"{at}", at) for at in (1, 3, 5)]
    below.apply(Change(keys=tuple(keys), services=tuple(services)))
    for change in (Change(keys=(key(None, 2),)), Change(services=(service("2", 2),))):
        above = Overlay(below, nothing)
        above.apply(change)
        assert len([*above.keys_after(None), *above.services_after(None)]) == 7
        assert (list(below.keys_after(None)), list(below.services_after(None))) == (keys, services)


def test_what_is_set_aside_is_known_and_not_used() -> None:
    state = State(nothing)
    one, admin = key("orders"), service("admin")
    state.apply(Change(keys=(one,), services=(admin,)))
    assert state.snapshot_version == (0, 0), "it includes no entry until the ledger says so"
    state.quarantine(one.id)
    state.quarantine(admin.id)
    assert state.snapshot_version == (0, 2)
    for ref in (one.id, "orders"):
        with pytest.raises(IntegrityViolation, match="key"):
            state.find_key(ref)
    for ref in (admin.id, "admin"):
        with pytest.raises(IntegrityViolation, match="service"):
            state.find_service(ref)
    assert (state.key_record(one.id), state.id_of_name("orders")) == (one, one.id)
    assert (list(state.keys_after(None)), list(state.services_after(None))) == ([], [])
    assert (state.key_record(KeyId("x")), state.find_key("x"), state.find_service("x")) == (None, None, None)


def test_what_a_kept_reply_seals_is_not_shown() -> None:
    assert "secret" not in repr(StoredReply(ServiceId("s"), b"k", b"b", 1, b"secret"))


def test_a_token_that_is_gone_above_is_still_there_below() -> None:
    below, admin = State(nothing), service("admin", 1)
    another = Token(TokenId("a"), service("another").id, TokenKind.NATIVE, b"", created_at=1)
    tokens = [
        Token(TokenId(f"t{at}"), admin.id, TokenKind.LEASED, b"", created_at=1, expires_at=10 - at) for at in range(3)
    ]
    native = Token(TokenId("n"), admin.id, TokenKind.NATIVE, b"", created_at=1, expires_at=1)
    below.apply(Change(services=(admin,), tokens=(*tokens, native, another)))
    above = Overlay(below, nothing)
    gone = Change(gone_tokens=(tokens[0].id, TokenId("unknown")))
    above.apply(gone)
    assert (above.token(tokens[0].id), below.token(tokens[0].id)) == (None, tokens[0])
    assert above.tokens() == [*tokens[1:], native, another]
    assert above.tokens_of(admin.id) == [*tokens[1:], native]
    below.apply(gone)
    assert below.tokens_of(admin.id) == [*tokens[1:], native]


def test_the_native_token_is_the_one_that_has_not_ended() -> None:
    """Whichever of the two stands first in a change, and whatever leased ones there are."""
    admin = service("admin")
    old, new = (Token(TokenId(name), admin.id, TokenKind.NATIVE, b"", created_at=1) for name in ("old", "new"))
    for tokens in ((replace(old, ended_at=2), new), (new, replace(old, ended_at=2))):
        state = State(nothing)
        state.apply(Change(services=(admin,), tokens=(old,)))
        assert state.native_tokens(admin.id) == [old]
        state.apply(Change(tokens=(*tokens, replace(new, id=TokenId("leased"), kind=TokenKind.LEASED))))
        assert state.native_tokens(admin.id) == [new]


def test_native_tokens_stand_in_the_order_in_which_they_were_made() -> None:
    admin = service("admin")
    late, early = (
        Token(TokenId(name), admin.id, TokenKind.NATIVE, b"", created_at=at) for name, at in (("a", 2), ("b", 1))
    )
    below = State(nothing)
    below.apply(Change(services=(admin,), tokens=(late, early)))
    assert below.native_tokens(admin.id) == [early, late]
    above = Overlay(below, nothing)
    above.apply(Change(tokens=(replace(late, ended_at=3),), gone_tokens=(early.id,)))
    assert (above.native_tokens(admin.id), below.native_tokens(admin.id)) == ([], [early, late])


def test_leased_tokens_are_counted_by_service_with_and_without_a_parent() -> None:
    admin = service("admin")
    login = Token(TokenId("l"), admin.id, TokenKind.LEASED, b"", created_at=1)
    child = replace(login, id=TokenId("c"), parent=login.id)

    def counts(state: State) -> tuple[int, int]:
        return state.count_leased(admin.id, children=False), state.count_leased(admin.id, children=True)

    below = State(nothing)
    assert counts(below) == (0, 0)
    below.apply(Change(services=(admin,), tokens=(login, child)))
    below.apply(Change(tokens=(replace(child, ended_at=2),)))
    assert counts(below) == (1, 1), "a record that is replaced counts once, an ended one as well"
    above = Overlay(below, nothing)
    above.apply(Change(tokens=(replace(child, id=TokenId("d")),), gone_tokens=(login.id, login.id)))
    assert (counts(above), counts(below)) == ((0, 2), (1, 1))


def test_names_of_dialects_move_between_keys() -> None:
    state = State(nothing)
    alias = KeyName("vault:transit/", "Foo", 0, 0)
    first, second = key(None, 1, names=(alias,)), key(None, 2)
    state.apply(Change(keys=(first, second)))
    assert state.find_key("vault:transit/Foo") == first
    moved = structs.replace(first, names=()), structs.replace(second, names=(alias,))
    state.apply(Change(keys=moved))
    assert state.find_key("vault:transit/Foo") == moved[1]
    back = structs.replace(first, names=(alias,)), structs.replace(second, names=())
    state.apply(Change(keys=back))  # the one that gets it comes before the one that loses it
    assert state.find_key("vault:transit/Foo") == back[0]
    state.apply(Change(keys=moved))
    state.apply(Change(keys=(structs.replace(moved[1], names=()),)))
    assert state.find_key("vault:transit/Foo") is None


def test_a_name_that_stays_leads_to_its_key_all_the_while() -> None:
    """Who reads in between must not be told that there is no such key."""
    seen: list[KeyId | None] = []

    class Watched(dict[str, KeyId | None]):
        def __setitem__(self, name: str, key_id: KeyId | None) -> None:
            seen.append(key_id)
            super().__setitem__(name, key_id)

    state = State(nothing)
    state._key_names = Watched()
    one = key("orders", names=(KeyName("vault:transit/", "Foo", 0, 0),))
    for record in (one, structs.replace(one, description="changed")):
        state.apply(Change(keys=(record,)))
    assert set(seen) == {one.id}


def test_whose_row_it_is() -> None:
    state, admin = State(nothing), service("admin")
    alias = KeyName("vault:transit/", "Foo", 0, 0)
    one = key("orders", names=(alias,))
    token = Token(TokenId("t"), admin.id, TokenKind.NATIVE, b"", 0)
    state.apply(Change(keys=(one,), services=(admin,), tokens=(token,)))
    assert owner(state, "keys", one.id) == owner(state, "key_versions", f"{one.id}/2") == one.id
    assert owner(state, "key_names", alias.text) == one.id
    assert owner(state, "key_names", "vault:transit/Bar") is None
    assert owner(state, "services", "any") == "any"
    assert owner(state, "tokens", "t") == admin.id
    assert owner(state, "tokens", "u") is None
    assert owner(state, "settings", "any") is None


def test_lists_go_on_from_any_place() -> None:
    state = State(nothing)
    keys = [key(None, created // 2) for created in range(7)]
    for one in reversed(keys):
        state.apply(Change(keys=(one,)))
    order = sorted(keys, key=lambda one: (one.created_at, one.id))
    assert list(state.keys_after(None)) == order
    for place, one in enumerate(order):
        assert list(state.keys_after((one.created_at, one.id))) == order[place + 1 :]

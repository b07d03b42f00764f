"""The tree is that of RFC 6962: against its definition, and against published proofs, good and bad."""

import base64
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyvault_lite.audit.merkle import (
    ROOT_OF_EMPTY,
    TILE_BYTES,
    CompactRange,
    InvalidProof,
    TileReader,
    Tiles,
    consistency_proof,
    inclusion_proof,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

SIZE = 66_305  # crosses 65 536 with more than two full tiles beyond it
LEAVES = [sha256(number.to_bytes(4, "big")).digest() for number in range(SIZE)]
SIZES = st.integers(1, 1200) | st.integers(65_000, SIZE) | st.sampled_from([255, 256, 257, 65_535, 65_536, 65_537])


@cache
def naive(start: int, end: int) -> bytes:
    """MTH of RFC 6962, section 2.1, by its definition."""
    count = end - start
    if count == 0:
        return sha256(b"").digest()
    if count == 1:
        return LEAVES[start]
    middle = start + (1 << (count - 1).bit_length() - 1)
    return sha256(b"\x01" + naive(start, middle) + naive(middle, end)).digest()


def node(level: int, index: int) -> bytes:
    return naive(index << level, (index + 1) << level)


@pytest.fixture(scope="module")
def stored() -> tuple[Tiles, dict[tuple[int, int], bytes]]:
    tiles, store = Tiles(), {}
    for start in range(0, SIZE, 701):
        for level, index, data in tiles.extend(LEAVES[start : start + 701]):
            assert (level, index) not in store
            store[level, index] = data
    return tiles, store


def reader(size: int, tile: Callable[[int, int], bytes | None]) -> TileReader:
    def leaves(start: int, end: int) -> Sequence[bytes]:
        assert start < end <= min(size, start + 256)
        return LEAVES[start:end]

    return TileReader(size=size, tile=tile, leaves=leaves)


def test_the_empty_tree() -> None:
    assert CompactRange().root() == ROOT_OF_EMPTY == sha256(b"").digest()
    assert CompactRange().to_bytes() == bytes(8)
    assert CompactRange.from_bytes(bytes(8)).root() == ROOT_OF_EMPTY


@given(st.lists(st.integers(0, 300), max_size=6))
def test_the_edge_has_the_naive_root_however_it_is_fed(batches: list[int]) -> None:
    edge, at = CompactRange(), 0
    for batch in batches:
        before = edge.copy()
        edge.extend(LEAVES[at : at + batch])
        assert (before.size, before.root()) == (at, naive(0, at))
        at += batch
        assert (edge.size, edge.root()) == (at, naive(0, at))
        edge = CompactRange.from_bytes(edge.to_bytes())
        assert len(edge.to_bytes()) == 8 + 32 * at.bit_count()
    edge.append(LEAVES[at])
    assert edge.root() == naive(0, at + 1)


@given(st.binary(max_size=100))
def test_a_damaged_edge_is_refused_or_is_what_it_says(data: bytes) -> None:
    try:
        edge = CompactRange.from_bytes(data)
    except InvalidProof:
        return
    assert edge.to_bytes() == data


@settings(max_examples=60, deadline=None)
@given(SIZES, st.data())
def test_inclusion_proofs(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    root = naive(0, size)
    proof = inclusion_proof(node, index, size)
    verify_inclusion(LEAVES[index], proof, index=index, size=size, root=root)
    for wrong in (
        {"index": (index + 1) % (size + 1)},
        {"size": size * 2 + 1},
        {"root": LEAVES[-1]},
        {"index": -1},
        {"index": size},
    ):
        with pytest.raises(InvalidProof):
            verify_inclusion(LEAVES[index], proof, **{"index": index, "size": size, "root": root, **wrong})  # type: ignore[arg-type]
    for bad in ([*proof, LEAVES[0]], [LEAVES[0], *proof], proof[:-1] if proof else [b""], [*proof[:-1], b"short"]):
        with pytest.raises(InvalidProof):
            verify_inclusion(LEAVES[index], bad, index=index, size=size, root=root)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.data())
def test_consistency_proofs(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    right: dict[str, Any] = {"old": old, "new": new, "old_root": naive(0, old), "new_root": naive(0, new)}
    proof = consistency_proof(node, old, new)
    verify_consistency(proof, **right)
    for wrong in ({"old": 0}, {"old": new + 1}, {"old_root": LEAVES[-1]}, {"new_root": LEAVES[-1]}):
        with pytest.raises(InvalidProof):
            verify_consistency(proof, **{**right, **wrong})
    for bad in ([*proof, LEAVES[0]], [LEAVES[0], *proof], proof[:-1] if proof else [b""], [*proof[:-1], b"short"]):
        with pytest.raises(InvalidProof):
            verify_consistency(bad, **right)


def test_a_proof_that_goes_beyond_the_root_is_none_of_this_size() -> None:
    a, b, c, d = LEAVES[:4]
    with pytest.raises(InvalidProof, match="too long"):
        verify_inclusion(a, [b], index=0, size=1, root=node_hash(b, a))
    # Of 3 in 4 leaves three hashes are the proof; a fourth would make these two roots of it.
    old, new = node_hash(d, node_hash(c, a)), node_hash(d, node_hash(c, node_hash(a, b)))
    with pytest.raises(InvalidProof, match="too long"):
        verify_consistency([a, b, c, d], old=3, new=4, old_root=old, new_root=new)
    verify_consistency([a, b, c], old=3, new=4, old_root=node_hash(c, a), new_root=node_hash(c, node_hash(a, b)))


def test_where_one_hash_ends_and_the_next_begins_cannot_be_moved() -> None:
    a, b, c, d = LEAVES[:4]
    left = node_hash(a, b)
    new = node_hash(left, node_hash(c, d))
    verify_consistency([c, d, left], old=3, new=4, old_root=node_hash(left, c), new_root=new)
    with pytest.raises(InvalidProof, match="not 32 bytes"):
        verify_consistency([c[:31], c[31:] + d, left], old=3, new=4, old_root=node_hash(left, c[:31]), new_root=new)


def test_a_proof_of_nothing_proves_nothing() -> None:
    with pytest.raises(InvalidProof, match="too short"):
        verify_consistency([], old=3, new=4, old_root=LEAVES[0], new_root=LEAVES[0])


def test_lengths_of_two_hashes_cannot_be_traded() -> None:
    root = sha256(b"\x01" + LEAVES[0] + LEAVES[1]).digest()
    both = LEAVES[0] + LEAVES[1]
    with pytest.raises(InvalidProof, match="32 bytes"):
        verify_inclusion(both[:31], [both[31:]], index=0, size=2, root=root)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 5)])
def test_no_inclusion_proof_of_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(InvalidProof):
        inclusion_proof(node, index, size)


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 5), (6, 5), (-1, 5)])
def test_no_consistency_proof_from_nothing_or_backwards(old: int, new: int) -> None:
    with pytest.raises(InvalidProof):
        consistency_proof(node, old, new)


def test_tiles_hold_the_nodes_they_should(stored: tuple[Tiles, dict[tuple[int, int], bytes]]) -> None:
    tiles, store = stored
    assert set(store) == {(0, index) for index in range(SIZE // 256)} | {(1, 0)}
    for (level, index), data in store.items():
        assert len(data) == TILE_BYTES
        assert data[:32] == node(8 * level, index * 256)
        assert data[-32:] == node(8 * level, index * 256 + 255)
    assert tiles.edge.root() == naive(0, SIZE)
    assert tiles.tile(0, SIZE // 256) == LEAVES[-1]
    assert tiles.tile(1, 1) == node(8, 256) + node(8, 257) + node(8, 258)
    assert tiles.tile(2, 0) == node(16, 0)
    assert tiles.tile(1, 0) is tiles.tile(0, 0) is tiles.tile(3, 0) is None


def test_a_copy_is_rolled_back_by_forgetting_it(stored: tuple[Tiles, dict[tuple[int, int], bytes]]) -> None:
    tiles = stored[0]
    before = tiles.edge.to_bytes(), [tiles.tile(level, SIZE >> 8 * (level + 1)) for level in range(3)]
    trial = tiles.copy()
    assert len(trial.extend(LEAVES[:600])) == 2
    assert before == (tiles.edge.to_bytes(), [tiles.tile(level, SIZE >> 8 * (level + 1)) for level in range(3)])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_535, 65_536, 65_537, SIZE])
def test_a_writer_resumes_from_what_is_stored(size: int, stored: tuple[Tiles, dict[tuple[int, int], bytes]]) -> None:
    fresh = Tiles()
    fresh.extend(LEAVES[:size])
    resumed = Tiles.resume(fresh.edge.copy(), reader(size, lambda level, index: stored[1].get((level, index))))
    assert resumed.extend(LEAVES[size : size + 300]) == fresh.extend(LEAVES[size : size + 300])
    assert resumed.edge.to_bytes() == fresh.edge.to_bytes()
    assert [resumed.tile(level, 0) for level in range(3)] == [fresh.tile(level, 0) for level in range(3)]


def test_a_writer_does_not_resume_from_another_tree(stored: tuple[Tiles, dict[tuple[int, int], bytes]]) -> None:
    edge = stored[0].edge.copy()
    forged = TileReader(size=SIZE, tile=lambda _level, _index: None, leaves=lambda start, end: LEAVES[: end - start])
    with pytest.raises(InvalidProof, match="tiles"):
        Tiles.resume(edge, forged)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 17), st.data())
def test_a_reader_answers_as_the_definition_does(
    stored: tuple[Tiles, dict[tuple[int, int], bytes]], size: int, level: int, data: st.DataObject
) -> None:
    tiles, store = stored
    answers = reader(size, lambda level, index: store.get((level, index)) or tiles.tile(level, index))
    count = size >> level
    if not count:
        with pytest.raises(InvalidProof):
            answers.node(level, 0)
        return
    index = data.draw(st.integers(0, count - 1))
    assert answers.node(level, index) == node(level, index)
    for absent in (count, -1, count + 1000):
        with pytest.raises(InvalidProof):
            answers.node(level, absent)


@pytest.mark.parametrize("size", [1, 300, 60_000, 65_536, SIZE])
def test_proofs_come_from_full_tiles_and_leaves_alone(
    size: int, stored: tuple[Tiles, dict[tuple[int, int], bytes]]
) -> None:
    known = {key: data for key, data in stored[1].items() if (key[1] + 1) << 8 * (key[0] + 1) <= size}
    answers = reader(size, lambda level, index: known.get((level, index)))
    for index in {0, size // 3, size - 1}:
        assert inclusion_proof(answers.node, index, size) == inclusion_proof(node, index, size)
        assert consistency_proof(answers.node, index + 1, size) == consistency_proof(node, index + 1, size)


def test_a_proof_reads_few_tiles(stored: tuple[Tiles, dict[tuple[int, int], bytes]]) -> None:
    tiles, store = stored
    asked: list[tuple[int, int]] = []

    def tile(level: int, index: int) -> bytes | None:
        asked.append((level, index))
        return store.get((level, index)) or tiles.tile(level, index)

    answers = reader(SIZE, tile)
    inclusion_proof(answers.node, 12_345, SIZE)
    inclusion_proof(answers.node, 12_346, SIZE)
    assert len(asked) == len(set(asked)) <= 5


@pytest.mark.parametrize(
    ("tile", "leaves"),
    [
        (lambda _level, _index: None, lambda _start, _end: []),
        (lambda _level, _index: None, lambda start, end: [b"short"] * (end - start)),
        (lambda _level, _index: b"x" * 32, lambda _start, _end: []),
    ],
)
def test_damaged_tiles_and_leaves_are_refused(
    tile: Callable[[int, int], bytes | None], leaves: Callable[[int, int], Sequence[bytes]]
) -> None:
    with pytest.raises(InvalidProof, match="damaged"):
        TileReader(size=300, tile=tile, leaves=leaves).node(0, 2)


@pytest.mark.parametrize(("level", "index"), [(0, -1), (0, 2), (1, 1), (1, -1), (2, 0)])
def test_a_tile_that_the_tree_does_not_have(level: int, index: int) -> None:
    with pytest.raises(InvalidProof, match="no such tile"):
        reader(512, lambda _level, _index: None).hashes(level, index)


def test_a_tile_that_was_stored_when_it_was_shorter_is_made_from_leaves() -> None:
    short = b"".join(LEAVES[256:296])
    assert reader(300, lambda _level, _index: short).hashes(0, 1) == LEAVES[256:300]


def decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def test_published_inclusion_proofs(vectors: Callable[[str], Any]) -> None:
    cases = vectors("merkle/rfc6962_proofs.json")["inclusion"]
    assert len(cases) == 98
    for name, case in cases.items():
        try:
            verify_inclusion(
                decoded(case["leafHash"]),
                [decoded(hash) for hash in case["proof"] or ()],
                index=case["leafIdx"],
                size=case["treeSize"],
                root=decoded(case["root"]),
            )
        except InvalidProof:
            assert case["wantErr"], name
        else:
            assert not case["wantErr"], name


def test_published_consistency_proofs(vectors: Callable[[str], Any]) -> None:
    cases = vectors("merkle/rfc6962_proofs.json")["consistency"]
    assert len(cases) == 98
    for name, case in cases.items():
        try:
            verify_consistency(
                [decoded(hash) for hash in case["proof"] or ()],
                old=case["size1"],
                new=case["size2"],
                old_root=decoded(case["root1"]),
                new_root=decoded(case["root2"]),
            )
        except InvalidProof:
            assert case["wantErr"], name
        else:
            assert not case["wantErr"], name

"""The tree over the log: RFC 6962, section 2.1, with an entry's hash as its leaf hash.

A proof is checked by recomputing a root, with the algorithms of RFC 9162, section 2.1. Nodes are named (level, index):
(0, i) is the leaf i, and (n + 1, i) is the parent of (n, 2i) and (n, 2i + 1). Only complete subtrees have a name;
their hashes never change again. All hashes are 32 bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final, Self

from keyvault_lite.model.errors import IntegrityViolation

HASH_BYTES: Final = 32
NODE_PREFIX: Final = b"\x01"
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
TILE_BYTES: Final = HASH_BYTES * TILE_WIDTH
"""A full tile of C2SP tlog-tiles: 256 hashes; in tile (level, index) the nodes (8 × level, 256 × index + i)."""
ROOT_OF_EMPTY: Final = sha256(b"").digest()
"""The root of the tree without leaves."""

Node = Callable[[int, int], bytes]
"""node(level, index) → the hash of a complete subtree."""


class InvalidProof(IntegrityViolation):
    """A proof, or a stored part of the tree, does not have the shape it must have or leads to another root."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(NODE_PREFIX + left + right).digest()


def parents(nodes: Sequence[bytes]) -> list[bytes]:
    """The level above `nodes`; an odd last node has no parent yet and is left out."""
    pairs = iter(nodes)
    return [sha256(NODE_PREFIX + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]


def split(hashes: bytes) -> list[bytes]:
    """Concatenated hashes, one by one."""
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]


class CompactRange:
    """The right edge of a growing tree: what is needed to append and to know the root, and no more (≤ 2 KiB).

    For each one in the binary form of `size` it holds the root of a complete subtree that has no sibling yet.
    """

    __slots__ = ("_waiting", "size")

    def __init__(self, size: int = 0, waiting: Sequence[bytes | None] = ()) -> None:
        """The empty tree, or that of `size` leaves. `waiting`: by level, a left child without right sibling yet."""
        self.size = size
        self._waiting = list(waiting)

    def append(self, leaf: bytes) -> None:
        """Add one leaf."""
        self.extend((leaf,))

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaves in order; one pass a level, which is several times faster than one leaf at a time."""
        for _ in self.grow(leaves):
            pass

    def grow(self, leaves: Sequence[bytes]) -> Iterator[tuple[int, Sequence[bytes]]]:
        """Add leaves, and yield (level, the nodes of that level that became complete) from level 0 upwards.

        The first of them has the index `old size >> level`. The edge is whole only once the iterator is exhausted.
        """
        self.size += len(leaves)
        nodes, level = leaves, 0
        while nodes:
            yield level, nodes
            if level == len(self._waiting):
                self._waiting.append(None)
            left = self._waiting[level]
            if left is not None:
                nodes = (left, *nodes)
            self._waiting[level] = nodes[-1] if len(nodes) & 1 else None
            nodes = parents(nodes)
            level += 1

    def root(self) -> bytes:
        """The root of the whole tree."""
        root: bytes | None = None
        for left in self._waiting:
            if left is not None:
                root = left if root is None else node_hash(left, root)
        return ROOT_OF_EMPTY if root is None else root

    def copy(self) -> Self:
        """An independent edge of the same state: grow it, and keep it only if the commit succeeded."""
        return type(self)(self.size, self._waiting)

    def to_bytes(self) -> bytes:
        """uint64(size), then the hashes of the complete subtrees, the largest (leftmost) first."""
        return self.size.to_bytes(8, "big") + b"".join(node for node in reversed(self._waiting) if node is not None)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The edge that `to_bytes` wrote. Raises InvalidProof if the length does not fit the size in it."""
        size = int.from_bytes(data[:8], "big")
        if len(data) != 8 + HASH_BYTES * size.bit_count():
            raise InvalidProof("the stored edge of the tree is damaged")
        hashes = split(data[8:])
        return cls(size, [hashes.pop() if size >> level & 1 else None for level in range(size.bit_length())])


Tile = tuple[int, int, bytes]
"""A full tile, ready to be stored: level, index, TILE_BYTES bytes."""


class Tiles:
    """The edge of a writer that also stores tiles: it keeps the tile that each level is filling."""

    __slots__ = ("_filling", "edge")

    def __init__(self, edge: CompactRange | None = None, filling: Sequence[bytes] = ()) -> None:
        """The empty tree, or that of `edge`. `filling`: by tile level, the hashes of the tile that is not full yet."""
        self.edge = CompactRange() if edge is None else edge
        self._filling = list(filling)

    @classmethod
    def resume(cls, edge: CompactRange, reader: "TileReader") -> Self:
        """The writer's state from what is stored. Raises InvalidProof if that is not the tree of `edge`."""
        filling: list[bytes] = []
        while nodes := edge.size >> TILE_HEIGHT * len(filling):
            rest = nodes % TILE_WIDTH
            filling.append(b"".join(reader.hashes(len(filling), nodes // TILE_WIDTH)) if rest else b"")
        # An unfinished tile and the part of the edge above it are two forms of the same nodes.
        parts = [edge.size.to_bytes(8, "big")]
        for hashes in reversed(filling):
            part = CompactRange()
            part.extend(split(hashes))
            parts.append(part.to_bytes()[8:])
        if b"".join(parts) != edge.to_bytes():
            raise InvalidProof("the stored tiles are not those of the log's edge")
        return cls(edge, filling)

    def extend(self, leaves: Sequence[bytes]) -> list[Tile]:
        """Add leaves in order, and return the tiles that became full."""
        full: list[Tile] = []
        size = self.edge.size
        for node_level, nodes in self.edge.grow(leaves):
            level, row = divmod(node_level, TILE_HEIGHT)
            if row:
                continue
            if level == len(self._filling):
                self._filling.append(b"")
            data = self._filling[level] + b"".join(nodes)
            index = size >> node_level + TILE_HEIGHT
            while len(data) >= TILE_BYTES:
                full.append((level, index, data[:TILE_BYTES]))
                data = data[TILE_BYTES:]
                index += 1
            self._filling[level] = data
        return full

    def tile(self, level: int, index: int) -> bytes | None:
        """The hashes there are of the tile that this level is filling, for a TileReader; None for any other tile."""
        if level < len(self._filling) and index == self.edge.size >> TILE_HEIGHT * (level + 1):
            return self._filling[level]
        return None

    def copy(self) -> Self:
        """An independent state: grow it, and keep it only if the commit succeeded."""
        return type(self)(self.edge.copy(), self._filling)


class TileReader:
    """Answers `node(level, index)` of one tree from stored tiles and leaves. Make one a question: it remembers tiles.

    Nothing it is given is trusted: a wrong hash leads to a wrong root, which the check of the proof finds.
    """

    __slots__ = ("_leaves", "_rows", "_size", "_tile")

    def __init__(
        self,
        *,
        size: int,
        tile: Callable[[int, int], bytes | None],
        leaves: Callable[[int, int], Sequence[bytes]],
    ) -> None:
        """`tile(level, index)` gives a tile, or as many of its first hashes as are at hand; None if there is none.

        `leaves(start, end)` gives the leaf hashes start ≤ i < end ≤ size. It is asked for at most 256 of them, and
        only for the tile that is not full yet, unless tiles are missing.
        """
        self._size = size
        self._tile = tile
        self._leaves = leaves
        self._rows: dict[tuple[int, int], list[Sequence[bytes]]] = {}

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree. Raises InvalidProof if the tree has no such node, or a tile is damaged."""
        tile_level, row = divmod(level, TILE_HEIGHT)
        tile_index = index << row >> TILE_HEIGHT
        rows = self._rows.get((tile_level, tile_index))
        if rows is None:
            rows = [self.hashes(tile_level, tile_index)]
            for _ in range(TILE_HEIGHT - 1):
                rows.append(parents(rows[-1]))
            self._rows[tile_level, tile_index] = rows
        place = index & (TILE_WIDTH - 1 >> row)
        if place >= len(rows[row]):
            raise InvalidProof("the tree has no such node")
        return rows[row][place]

    def hashes(self, level: int, index: int) -> Sequence[bytes]:
        """The hashes of a tile, those that this tree has: at most 256, at least one. Raises InvalidProof as `node`."""
        start = index * TILE_WIDTH
        count = min((self._size >> TILE_HEIGHT * level) - start, TILE_WIDTH)
        if count <= 0 or index < 0:
            raise InvalidProof("the tree has no such tile")
        data = self._tile(level, index)
        hashes: Sequence[bytes]
        if data is not None and len(data) >= count * HASH_BYTES:
            hashes = split(data)[:count]
        elif level == 0:
            hashes = self._leaves(start, start + count)
        else:
            # At most 255 tiles of the level below, and none when the writer's Tiles.tile is asked as well.
            hashes = [_top(self.hashes(level - 1, child)) for child in range(start, start + count)]
        if len(hashes) != count or any(len(hash) != HASH_BYTES for hash in hashes):
            raise InvalidProof("a stored tile or leaf hash is damaged")
        return hashes


def _top(hashes: Sequence[bytes]) -> bytes:
    while len(hashes) > 1:
        hashes = parents(hashes)
    return hashes[0]


def _range_root(node: Node, start: int, end: int) -> bytes:
    # `start` is a multiple of the largest power of two in the length: the range is complete subtrees, largest first.
    subtrees = []
    while start < end:
        level = (end - start).bit_length() - 1
        subtrees.append(node(level, start >> level))
        start += 1 << level
    root = subtrees.pop()
    while subtrees:
        root = node_hash(subtrees.pop(), root)
    return root


def _halves(start: int, end: int) -> int:
    # RFC 6962, section 2.1: the left half is the largest power of two smaller than the number of leaves.
    return start + (1 << (end - start - 1).bit_length() - 1)


def inclusion_proof(node: Node, index: int, size: int) -> list[bytes]:
    """PATH(index, first `size` leaves) of RFC 6962, section 2.1.1: from the leaf's sibling up to the root's child."""
    if not 0 <= index < size:
        raise InvalidProof("there is no such leaf")
    proof = []
    start, end = 0, size
    while end - start > 1:
        middle = _halves(start, end)
        if index < middle:
            proof.append(_range_root(node, middle, end))
            end = middle
        else:
            proof.append(_range_root(node, start, middle))
            start = middle
    proof.reverse()
    return proof


def consistency_proof(node: Node, old: int, new: int) -> list[bytes]:
    """PROOF(old, first `new` leaves) of RFC 6962, section 2.1.2; empty for equal sizes. Nothing extends size 0."""
    if not 0 < old <= new:
        raise InvalidProof("a tree is consistent with one that is at least as large, and not with the empty tree")
    proof = []
    start, end = 0, new
    while end != old:
        middle = _halves(start, end)
        if old <= middle:
            proof.append(_range_root(node, middle, end))
            end = middle
        else:
            proof.append(_range_root(node, start, middle))
            start = middle
    if start:
        proof.append(_range_root(node, start, end))  # if not, it is the whole old tree, whose root is known
    proof.reverse()
    return proof


def _check_hashes(*hashes: bytes) -> None:
    # Two hashes are joined without a separator: only the length says where one ends.
    if any(len(hash) != HASH_BYTES for hash in hashes):
        raise InvalidProof("a hash is not 32 bytes long")


def verify_inclusion(leaf: bytes, proof: Sequence[bytes], *, index: int, size: int, root: bytes) -> None:
    """Return if `leaf` is at `index` in the tree of `size` leaves with this root (RFC 9162, section 2.1.3.2).

    Raises InvalidProof if not.
    """
    _check_hashes(leaf, *proof)
    if not 0 <= index < size:
        raise InvalidProof("there is no such leaf")
    here, last = index, size - 1
    hash = leaf
    for sibling in proof:
        if last == 0:
            raise InvalidProof("the inclusion proof is too long")
        if here & 1 or here == last:
            hash = node_hash(sibling, hash)
            here, last = _up_to_right_child(here, last)
        else:
            hash = node_hash(hash, sibling)
        here >>= 1
        last >>= 1
    if last or hash != root:
        raise InvalidProof("the inclusion proof does not lead to the root")


def verify_consistency(proof: Sequence[bytes], *, old: int, new: int, old_root: bytes, new_root: bytes) -> None:
    """Return if the tree (new, new_root) extends the tree (old, old_root) (RFC 9162, section 2.1.4.2).

    Raises InvalidProof if not, and for old = 0: every tree extends the empty one, so that would say nothing.
    """
    _check_hashes(*proof)
    if not 0 < old <= new:
        raise InvalidProof("a tree is consistent with one that is at least as large, and not with the empty tree")
    if old == new:
        if proof or old_root != new_root:
            raise InvalidProof("two trees of one size are the same or not, without proof")
        return
    # An old tree that is one complete subtree is left out of the proof: its root is known.
    path = proof if old & (old - 1) else [old_root, *proof]
    if not path:
        raise InvalidProof("the consistency proof is too short")
    here, last = old - 1, new - 1
    while here & 1:
        here >>= 1
        last >>= 1
    old_hash = new_hash = path[0]
    for hash in path[1:]:
        if last == 0:
            raise InvalidProof("the consistency proof is too long")
        if here & 1 or here == last:
            old_hash = node_hash(hash, old_hash)
            new_hash = node_hash(hash, new_hash)
            here, last = _up_to_right_child(here, last)
        else:
            new_hash = node_hash(new_hash, hash)
        here >>= 1
        last >>= 1
    if last or old_hash != old_root or new_hash != new_root:
        raise InvalidProof("the consistency proof does not lead to the two roots")


def _up_to_right_child(here: int, last: int) -> tuple[int, int]:
    # A last node without sibling is not hashed at its level but moves up, until it is a right child or the root.
    while here and not here & 1:
        here >>= 1
        last >>= 1
    return here, last

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


class Edge:
    """The right edge of a growing tree: what is needed to append and to know the root, and no more (≤ 2 KiB).

    For each one in the binary form of `size` it holds the root of a complete subtree that has no sibling yet.
    """

    __slots__ = ("_waiting", "size")

    def __init__(self, size: int = 0, waiting: Sequence[bytes | None] = ()) -> None:
        """The empty tree. (`waiting`: by level, the left child whose right sibling is not there yet.)"""
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

"""S11 and S12 of the protocol's model, and what no enumeration reaches: seeded walks of steps, faults and attacks.

At each moment one of all that can happen is drawn, until nothing is left. After every step the facts are judged.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from keyvault_lite.model.requests import Request
from tests.protocol.conftest import Scene
from tests.protocol.site import CREATE, DEMOTE_1, DEMOTE_2, ENCRYPT, REVOKE, ROTATE, STEPS, Furniture, Node, Site, site

Step = tuple[str, Callable[[], object]]
EVERY: Final = ("roll back", "rows", "forge", "abort", "fork")
LAG: Final = frozenset(
    {
        # What is left open while an anchor lags: data entries, at power loss and rollback together.
        "DATA ROLLBACK ACCEPTED AT START",
        "SERVED ON A DATABASE THAT LOST ACKNOWLEDGED ENTRIES",
        "EQUIVOCATION",
    }
)


@dataclass(frozen=True)
class Walk:
    """What may happen, how often, and what may be violated by it."""

    requests: tuple[Request, ...]
    how: dict[str, Any] = field(default_factory=dict)
    moves: tuple[str, ...] = ()
    attacks: int = 0
    kills: int = 0
    powers: int = 0
    unknowns: int = 0
    flushes: int = 2
    batch: int = 1
    allowed: frozenset[str] = frozenset()


MANY: Final = (ENCRYPT, REVOKE, ROTATE, CREATE, ENCRYPT, DEMOTE_1, DEMOTE_2, ENCRYPT)
FAULTS: Final[dict[str, Any]] = {"kills": 2, "powers": 2, "unknowns": 2, "batch": 2}
WALKS: Final[dict[str, Walk]] = {
    "honest, one anchor": Walk(MANY, **FAULTS),
    "honest, an anchor each": Walk(MANY, {"own_anchors": True}, **FAULTS),
    "S11": Walk((REVOKE, ENCRYPT, CREATE, ENCRYPT), {}, EVERY, attacks=1, kills=1, powers=1, unknowns=1, allowed=LAG),
    "S11, always flushed": Walk(
        (REVOKE, ENCRYPT, CREATE, ENCRYPT), {"always": True}, EVERY, attacks=1, kills=1, powers=1, unknowns=1
    ),
    "S11b": Walk((REVOKE, ENCRYPT, ENCRYPT, ENCRYPT), {}, EVERY, attacks=2, unknowns=1),
    "S12": Walk(
        (REVOKE, ENCRYPT, ROTATE, ENCRYPT),
        {"nodes": 1},
        EVERY[:4],
        attacks=2,
        kills=1,
        powers=1,
        unknowns=1,
        batch=2,
        allowed=LAG,
    ),
    "S12, always flushed": Walk(
        (REVOKE, ENCRYPT, ROTATE, ENCRYPT),
        {"nodes": 1, "always": True},
        EVERY[:4],
        attacks=2,
        kills=1,
        powers=1,
        unknowns=1,
        batch=2,
    ),
    "many, always flushed": Walk(MANY, {"always": True}, EVERY, attacks=3, **FAULTS),
}


class Walker:
    """One walk, and what happened on it."""

    def __init__(self, site: Site, walk: Walk, seed: int) -> None:
        self.site, self.walk = site, walk
        self.chance = random.Random(seed)
        self.left = list(walk.requests)
        self.budget = {name: getattr(walk, name) for name in ("attacks", "kills", "powers", "unknowns", "flushes")}
        self.trace: list[str] = []

    def run(self) -> None:
        while steps := [*self.steps()]:
            label, step = self.chance.choice(steps)
            self.trace.append(label)
            step()
            wrong = set(self.site.violations) - self.walk.allowed
            assert not wrong, "\n".join([*self.trace, *sorted(wrong)])

    def steps(self) -> Iterator[Step]:
        for node in self.site.nodes:
            yield from self.steps_of(node)
        if self.budget["attacks"]:
            yield from self.attacks()

    def steps_of(self, node: Node) -> Iterator[Step]:
        locked = any(one.stage == "committed" and one.path == node.path for one in self.site.nodes if one is not node)
        name = node.name
        # Who is no ADMIN any more makes the node look for news, which waits for the lock.
        waits = locked and DEMOTE_1 not in self.left and DEMOTE_1 in self.walk.requests
        if node.stage == "idle" and self.left and not waits:
            yield f"{name} computes", lambda: self.compute(node, 1)
            if self.walk.batch > 1 and len(self.left) > 1:
                yield f"{name} computes two", lambda: self.compute(node, 2)
        if node.stage == "computed" and not locked:
            yield f"{name} commits", node.commit
            if self.budget["unknowns"]:
                for fault in ("applied", "aborted"):
                    yield f"{name} commits, {fault}, outcome unknown", partial(self.fail, node, fault)
        if node.stage in {"committed", "anchored"}:
            yield f"{name}: {STEPS[node.stage]}", getattr(node, STEPS[node.stage])
        if node.stage == "down" and not locked:
            yield f"{name} starts", node.start
        yield from self.faults(node)

    def faults(self, node: Node) -> Iterator[Step]:
        up = node.stage not in {"down", "refused"}
        if up and self.budget["kills"]:
            yield f"{node.name} is killed", lambda: self.spend("kills", node.kill)
        if node.stage != "refused" and self.budget["powers"]:
            slots = self.chance.choices(("old", "new", "torn"), k=2)
            yield (
                f"{node.name} loses power: {slots}",
                lambda: self.spend("powers", lambda: self.site.lose_power(node, slots=slots)),
            )
        if node.stage in {"idle", "computed"} and self.budget["flushes"]:
            yield f"{node.name} flushes the anchor", lambda: self.spend("flushes", node.flush)

    def compute(self, node: Node, count: int) -> None:
        chosen = [self.left.pop(self.chance.randrange(len(self.left))) for _ in range(count)]
        self.trace.append("    " + ", ".join(type(one).__name__ for one in chosen))
        node.compute(*chosen)

    def fail(self, node: Node, fault: str) -> None:
        self.budget["unknowns"] -= 1
        node.fail_commit(fault)
        node.commit()

    def spend(self, what: str, step: Callable[[], object]) -> None:
        self.budget[what] -= 1
        step()

    def attacks(self) -> Iterator[Step]:
        where = self.chance.choice([node.path for node in self.site.nodes])
        which = self.chance.randrange(len(self.site.history))
        moves: dict[str, Callable[[], object]] = {
            "roll back": lambda: self.site.roll_back(which, where),
            "rows": lambda: self.site.put_back_rows(which, where),
            "forge": lambda: self.site.forge(which, with_head=self.chance.random() < 0.5, path=where),
        }
        seen = [number for number, copy in enumerate(self.site.leaked) if copy.exists()]
        if seen:
            moves["abort"] = lambda: self.site.complete_aborted(seen[-1], where)
        if len({node.path for node in self.site.nodes}) < len(self.site.nodes):
            moves["fork"] = self.fork
        for name, move in moves.items():
            if name in self.walk.moves:
                yield f"ATTACKER: {name}, {which} in {where.name}", partial(self.spend, "attacks", move)

    def fork(self) -> None:
        node = self.site.nodes[-1]
        if node.stage in {"idle", "computed", "down"}:
            node.move(self.site.folder / "fork.db")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", WALKS)
def test_walk(scene: Scene, name: str, seed: int) -> None:
    walk = WALKS[name]
    Walker(scene(**walk.how), walk, seed).run()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", WALKS)
def test_many_walks(tmp_path: Path, furniture: Furniture, name: str) -> None:
    walk = WALKS[name]
    for seed in range(1000, 1200):
        with site(tmp_path / str(seed), furniture, **walk.how) as made:
            Walker(made, walk, seed).run()


def test_a_walk_finds_what_a_missing_rule_lets_through(tmp_path: Path, furniture: Furniture) -> None:
    """The walks can fail: without R1 honest nodes contradict themselves within a few of them."""
    walk = WALKS["honest, one anchor"]
    found: set[str] = set()
    for seed in range(40):
        with site(tmp_path / str(seed), furniture, removed=["R1"], **walk.how) as made:
            try:
                Walker(made, walk, seed).run()
            except AssertionError:
                found |= set(made.violations)
        if found:
            return
    pytest.fail("nothing was found")

"""S11 and S12 of the protocol's model, and what no enumeration reaches: seeded schedules of steps, faults and attacks.

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
from tests.suites.protocol.cluster import (
    CREATE,
    DEMOTE_1,
    DEMOTE_2,
    ENCRYPT,
    REVOKE,
    ROTATE,
    STEPS,
    Cluster,
    Node,
    TemplateVaults,
    cluster,
)
from tests.suites.protocol.conftest import MakeCluster

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
class Schedule:
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
SCHEDULES: Final[dict[str, Schedule]] = {
    "honest, one anchor": Schedule(MANY, **FAULTS),
    "honest, an anchor each": Schedule(MANY, {"own_anchors": True}, **FAULTS),
    "S11": Schedule(
        (REVOKE, ENCRYPT, CREATE, ENCRYPT), {}, EVERY, attacks=1, kills=1, powers=1, unknowns=1, allowed=LAG
    ),
    "S11, always flushed": Schedule(
        (REVOKE, ENCRYPT, CREATE, ENCRYPT), {"always": True}, EVERY, attacks=1, kills=1, powers=1, unknowns=1
    ),
    "S11b": Schedule((REVOKE, ENCRYPT, ENCRYPT, ENCRYPT), {}, EVERY, attacks=2, unknowns=1),
    "S12": Schedule(
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
    "S12, always flushed": Schedule(
        (REVOKE, ENCRYPT, ROTATE, ENCRYPT),
        {"nodes": 1, "always": True},
        EVERY[:4],
        attacks=2,
        kills=1,
        powers=1,
        unknowns=1,
        batch=2,
    ),
    "many, always flushed": Schedule(MANY, {"always": True}, EVERY, attacks=3, **FAULTS),
}


class RandomRun:
    """One schedule, and what happened on it."""

    def __init__(self, cluster: Cluster, schedule: Schedule, seed: int) -> None:
        self.cluster, self.schedule = cluster, schedule
        self.chance = random.Random(seed)
        self.left = list(schedule.requests)
        self.budget = {name: getattr(schedule, name) for name in ("attacks", "kills", "powers", "unknowns", "flushes")}
        self.trace: list[str] = []

    def run(self) -> None:
        while steps := [*self.steps()]:
            label, step = self.chance.choice(steps)
            self.trace.append(label)
            step()
            wrong = set(self.cluster.violations) - self.schedule.allowed
            assert not wrong, "\n".join([*self.trace, *sorted(wrong)])

    def steps(self) -> Iterator[Step]:
        for node in self.cluster.nodes:
            yield from self.steps_of(node)
        if self.budget["attacks"]:
            yield from self.attacks()

    def steps_of(self, node: Node) -> Iterator[Step]:
        locked = any(
            one.stage == "committed" and one.path == node.path for one in self.cluster.nodes if one is not node
        )
        name = node.name
        # Who is no ADMIN any more makes the node look for news, which waits for the lock.
        waits = locked and DEMOTE_1 not in self.left and DEMOTE_1 in self.schedule.requests
        if node.stage == "idle" and self.left and not waits:
            yield f"{name} computes", lambda: self.compute(node, 1)
            if self.schedule.batch > 1 and len(self.left) > 1:
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
                lambda: self.spend("powers", lambda: self.cluster.lose_power(node, slots=slots)),
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
        where = self.chance.choice([node.path for node in self.cluster.nodes])
        which = self.chance.randrange(len(self.cluster.history))
        moves: dict[str, Callable[[], object]] = {
            "roll back": lambda: self.cluster.roll_back(which, where),
            "rows": lambda: self.cluster.put_back_rows(which, where),
            "forge": lambda: self.cluster.forge(which, with_head=self.chance.random() < 0.5, path=where),
        }
        seen = [number for number, copy in enumerate(self.cluster.leaked) if copy.exists()]
        if seen:
            moves["abort"] = lambda: self.cluster.complete_aborted(seen[-1], where)
        if len({node.path for node in self.cluster.nodes}) < len(self.cluster.nodes):
            moves["fork"] = self.fork
        for name, move in moves.items():
            if name in self.schedule.moves:
                yield f"ATTACKER: {name}, {which} in {where.name}", partial(self.spend, "attacks", move)

    def fork(self) -> None:
        node = self.cluster.nodes[-1]
        if node.stage in {"idle", "computed", "down"}:
            node.move(self.cluster.folder / "fork.db")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SCHEDULES)
def test_walk(make_cluster: MakeCluster, name: str, seed: int) -> None:
    schedule = SCHEDULES[name]
    RandomRun(make_cluster(**schedule.how), schedule, seed).run()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SCHEDULES)
def test_many_walks(tmp_path: Path, template_vaults: TemplateVaults, name: str) -> None:
    schedule = SCHEDULES[name]
    for seed in range(1000, 1200):
        with cluster(tmp_path / str(seed), template_vaults, **schedule.how) as made:
            RandomRun(made, schedule, seed).run()


def test_a_walk_finds_what_a_missing_rule_lets_through(tmp_path: Path, template_vaults: TemplateVaults) -> None:
    """The schedules can fail: without R1 honest nodes contradict themselves within a few of them."""
    schedule = SCHEDULES["honest, one anchor"]
    found: set[str] = set()
    for seed in range(40):
        with cluster(tmp_path / str(seed), template_vaults, removed=["R1"], **schedule.how) as made:
            try:
                RandomRun(made, schedule, seed).run()
            except AssertionError:
                found |= set(made.violations)
        if found:
            return
    pytest.fail("nothing was found")

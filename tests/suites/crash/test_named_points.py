"""Processes that kill themselves at named points, under mixed load, at a start, at a stop."""

from collections.abc import Callable, Mapping

import pytest

from tests.suites.crash import invariants
from tests.suites.crash.child import Order
from tests.suites.crash.workload import ORDERS, Told, encoded
from tests.support.failpoints import CLOSING, LOAD, OPENING, Point
from tests.support.harness import Harness
from tests.support.processes import ChildProcess, ProcessSpawner


def places(points: Mapping[str, Point]) -> pytest.MarkDecorator:
    """Each point on each of its ways."""
    return pytest.mark.parametrize(
        ("point", "way"),
        [pytest.param(point, way, id=f"{name}-{way}") for name, point in points.items() for way in point.ways],
    )


def order(harness: Harness, job: str, point: Point | None = None, way: str = "any", **more: object) -> Order:
    assert harness.settings.master_key is not None
    place = None if point is None else (point.target, point.when)
    master = harness.settings.master_key.get_secret_value()
    return Order(job, str(harness.path.parent), master, harness.admin, point=place, way=way, **more)  # type: ignore[arg-type]


def die(spawner: ProcessSpawner, what: Order) -> ChildProcess:
    """A process that has died where it was to, and nowhere else."""
    life = spawner.spawn(what)
    assert life.was_killed, (life.ended, life.lines[-3:])
    assert life.died_at is not None, "the point was not reached"
    assert what.way in {"any", life.died_at}
    return life


@places(LOAD)
def test_under_load(left: Harness, spawner: ProcessSpawner, point: Point, way: str) -> None:
    life = die(spawner, order(left, "load", point, way, call=4))
    invariants.check(left, life)


@places(OPENING)
def test_at_a_start_after_another_death(left: Harness, spawner: ProcessSpawner, point: Point, way: str) -> None:
    before = die(spawner, order(left, "load", LOAD["before the anchor"], "loop", call=4))
    invariants.check(left, before, die(spawner, order(left, "open", point, way)))


@places(CLOSING)
def test_while_it_closes(left: Harness, spawner: ProcessSpawner, point: Point, way: str) -> None:
    invariants.check(left, die(spawner, order(left, "close", point, way, most=10)))


def invented(kind: str) -> list[Told]:
    """An acknowledged operation that never was."""
    return [{"asked": {"op": "x", "kind": kind, "key": ORDERS}}, {"op": "x", "done": {}, "audit": 10**6}]


def elsewhere(line: Told) -> Told:
    return line | {"audit": line["audit"] - 1}


def changed(line: Told) -> Told:
    return line | {"done": line["done"] | {"dek": encoded(bytes(64))}}


BROKEN: dict[str, Callable[[list[Told], Told], list[Told]]] = {
    "acknowledged, not recorded": lambda lines, _: lines + invented("read"),
    "acknowledged, not revoked": lambda lines, _: lines + invented("revoke"),
    "recorded elsewhere": lambda lines, one: [elsewhere(line) if line is one else line for line in lines],
    "released, of no use": lambda lines, one: [changed(line) if line is one else line for line in lines],
    "recorded, not asked": lambda lines, one: [
        line for line in lines if one["op"] not in {line.get("op"), line.get("asked", {}).get("op")}
    ],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_promise_is_noticed(left: Harness, spawner: ProcessSpawner, broken: str) -> None:
    life = die(spawner, order(left, "load", LOAD["before the answers"], call=9))
    encrypted = next(line for line in life.lines if "ciphertext" in line.get("done", {}))
    with pytest.raises(AssertionError):
        invariants.check(left, ChildProcess(life.ended, BROKEN[broken](life.lines, encrypted)))

"""Processes that kill themselves at named points, under mixed load, at a start, at a stop."""

from collections.abc import Callable, Mapping

import pytest

from tests.crash import promises
from tests.crash.child import Order
from tests.crash.nursery import Life, Nursery
from tests.crash.points import CLOSING, LOAD, OPENING, Point
from tests.crash.work import ORDERS, Told, encoded
from tests.house import House


def places(points: Mapping[str, Point]) -> pytest.MarkDecorator:
    """Each point on each of its ways."""
    return pytest.mark.parametrize(
        ("point", "way"),
        [pytest.param(point, way, id=f"{name}-{way}") for name, point in points.items() for way in point.ways],
    )


def order(house: House, job: str, point: Point | None = None, way: str = "any", **more: object) -> Order:
    assert house.chosen.master_key is not None
    place = None if point is None else (point.target, point.moment)
    master = house.chosen.master_key.get_secret_value()
    return Order(job, str(house.path.parent), master, house.admin, point=place, way=way, **more)  # type: ignore[arg-type]


def die(nursery: Nursery, what: Order) -> Life:
    """A process that has died where it was to, and nowhere else."""
    life = nursery.bear(what)
    assert life.was_killed, (life.ended, life.lines[-3:])
    assert life.died_at is not None, "the point was not reached"
    assert what.way in {"any", life.died_at}
    return life


@places(LOAD)
def test_under_load(left: House, nursery: Nursery, point: Point, way: str) -> None:
    life = die(nursery, order(left, "load", point, way, call=4))
    promises.check(left, life)


@places(OPENING)
def test_at_a_start_after_another_death(left: House, nursery: Nursery, point: Point, way: str) -> None:
    before = die(nursery, order(left, "load", LOAD["before the anchor"], "loop", call=4))
    promises.check(left, before, die(nursery, order(left, "open", point, way)))


@places(CLOSING)
def test_while_it_closes(left: House, nursery: Nursery, point: Point, way: str) -> None:
    promises.check(left, die(nursery, order(left, "close", point, way, most=10)))


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
def test_a_broken_promise_is_noticed(left: House, nursery: Nursery, broken: str) -> None:
    life = die(nursery, order(left, "load", LOAD["before the answers"], call=9))
    encrypted = next(line for line in life.lines if "ciphertext" in line.get("done", {}))
    with pytest.raises(AssertionError):
        promises.check(left, Life(life.ended, BROKEN[broken](life.lines, encrypted)))

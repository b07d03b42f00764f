"""Processes that kill themselves at named points, under mixed load, at a start, at a stop."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.crash import promises
from tests.crash.child import Order
from tests.crash.nursery import Life, Nursery
from tests.crash.points import CLOSING, LOAD, OPENING, Point
from tests.crash.work import ORDERS, encoded
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


@pytest.mark.parametrize("broken", ["forgotten", "elsewhere", "changed", "unsolicited", "never revoked"])
def test_a_broken_promise_is_noticed(left: House, nursery: Nursery, broken: str) -> None:
    life = die(nursery, order(left, "load", LOAD["before the answers"], call=9))
    lines: list[dict[str, Any]] = [dict(line) for line in life.lines]
    done = next(line for line in lines if "ciphertext" in line.get("done", {}))
    match broken:
        case "forgotten":  # an acknowledged operation that has no entry
            lines += [{"asked": {"op": "x", "kind": "read", "key": ORDERS}}, {"op": "x", "done": {}, "audit": 10**6}]
        case "elsewhere":
            done["audit"] -= 1
        case "changed":
            done["done"] = done["done"] | {"dek": encoded(bytes(64))}
        case "unsolicited":  # an entry that nobody has asked for
            lines = [line for line in lines if done["op"] not in {line.get("op"), line.get("asked", {}).get("op")}]
        case "never revoked":
            lines += [{"asked": {"op": "x", "kind": "revoke", "key": ORDERS}}, {"op": "x", "done": {}, "audit": 10**6}]
    with pytest.raises((AssertionError, AttributeError)):
        promises.check(left, Life(life.ended, list(lines)))

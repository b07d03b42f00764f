"""Processes that kill themselves at named points, under mixed load, at a start, at a stop."""

from collections.abc import Mapping

import pytest

from tests.crash import promises
from tests.crash.child import Order
from tests.crash.nursery import Life, Nursery
from tests.crash.points import CLOSING, LOAD, OPENING, Point
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

"""A process at its limit of connections: who holds the most makes room, and no request under way is given up."""

import math
from dataclasses import dataclass, field

from keyvault_lite.model.intake import RequestConnection
from keyvault_lite.model.names import ServiceId
from keyvault_lite.server.connection_limit import AT_ONCE, SHARES, leaving
from keyvault_lite.server.discarded_bodies import BURST, DiscardedBodies

LIMIT = 10 * SHARES


@dataclass(eq=False)
class Connection:
    owner: str | None = None
    state: str = "waiting"
    since: float = 0.0
    conn: RequestConnection = field(default_factory=RequestConnection)

    def __post_init__(self) -> None:
        self.conn.owner = None if self.owner is None else ServiceId(self.owner)
        self.idle_since = self.since if self.state == "idle" else math.inf
        self.deadline = self.since if self.state in {"waiting", "silent"} else math.inf

    def is_silent(self, now: float) -> bool:
        return self.state == "silent" and now > self.since

    def is_seated(self) -> bool:
        return self.state != "silent"

    def is_waiting(self) -> bool:
        return self.state == "waiting"

    def give_way(self) -> None:
        raise AssertionError("it is the caller who closes")


def many(count: int, owner: str | None = None, state: str = "waiting") -> list[Connection]:
    return [Connection(owner, state, float(number)) for number in range(1, count + 1)]


def test_one_that_never_asked_goes_first() -> None:
    silent = many(2, state="silent")
    assert leaving([*many(LIMIT, "a"), *many(3, "b", "idle"), *silent], LIMIT, 9.0) == [silent[0]]


def test_whoever_holds_the_most_makes_room_and_not_the_idle_of_others() -> None:
    taking, good = many(LIMIT - 20, "a"), many(20, "b", "idle")
    assert leaving([*good, *taking], LIMIT, 9.0) == taking[:AT_ONCE]
    idle = Connection("a", "idle", 5.0)
    assert leaving([*good, *taking, idle], LIMIT, 9.0) == [idle], "its own idle ones before its requests"


def test_strangers_are_one_caller() -> None:
    strangers, good = many(LIMIT - 20, None), many(20, "b", "idle")
    assert set(leaving([*good, *strangers], LIMIT, 9.0)) <= set(strangers)


def test_a_caller_keeps_its_part() -> None:
    part = LIMIT // SHARES
    assert len(leaving(many(part + 2, "a"), LIMIT, 9.0)) == 2
    assert leaving(many(part, "a"), LIMIT, 9.0) == []
    other = many(3, "b", "idle")
    assert leaving([*many(part, "a"), *other], LIMIT, 9.0) == other[:1], "nobody has too many: the longest idle"


def test_no_request_that_is_being_done_is_given_up() -> None:
    working = many(LIMIT, "a", "working")
    assert leaving(working, LIMIT, 9.0) == []
    idle = many(2, "b", "idle")
    assert leaving([*working, *idle], LIMIT, 9.0) == idle[:1]


def test_what_is_thrown_away_is_read_at_a_rate_of_all_together() -> None:
    rate = 1000
    remainders = DiscardedBodies(rate)
    assert remainders.read(int(BURST * rate), 100.0) == 0
    assert remainders.read(500, 100.0) == 0.5
    assert remainders.read(500, 100.0) == 1.0
    assert remainders.read(0, 101.0) == 0
    assert remainders.read(int(BURST * rate), 200.0) == 0, "it is not saved for longer"
    assert remainders.read(500, 200.0) == 0.5

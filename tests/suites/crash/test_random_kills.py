"""Processes that are killed from outside, at whatever they are doing, one after the other on the same vault.

The short form runs with the suite, the long form (`make crash`) kills hundreds. A failure prints the seed, which
`CRASH_SEED` repeats: the load is the same then, the moment nearly.
"""

import os
import random

import pytest

from tests.suites.crash import invariants
from tests.suites.crash.test_named_points import order
from tests.support.harness import Harness
from tests.support.processes import ChildProcess, ProcessSpawner

SHORT, LONG = 5, 300
PAGES = (4, 16, 64, 1000)
"""After how many pages of the write-ahead log SQLite copies it: seldom, and all the time."""
TOGETHER = 10
"""Deaths of one vault."""


def kill_one_after_the_other(harness: Harness, spawner: ProcessSpawner, seeds: list[int]) -> int:
    """Returns how many operations were acknowledged."""
    lives: list[ChildProcess] = []
    for seed in seeds:
        chance = random.Random(seed)
        seconds, pages = chance.uniform(0.02, 0.6), chance.choice(PAGES)
        lives.append(spawner.spawn(order(harness, "load", seed=seed, seconds=seconds, pages=pages, most=10_000)))
        assert lives[-1].was_killed
        try:
            invariants.check(harness, *lives)
        except BaseException:
            print(f"CRASH_SEED={seed}, behind {seeds[: seeds.index(seed)]}")  # noqa: T201
            raise
        # What the check itself has asked is no process's word: the next ones go on from here.
        harness.vault.close()
    return sum("done" in line for life in lives for line in life.lines)


def test_nothing_acknowledged_is_lost(left: Harness, spawner: ProcessSpawner) -> None:
    seed = int(os.environ.get("CRASH_SEED", "0"))
    assert kill_one_after_the_other(left, spawner, [seed] if seed else list(range(1, 1 + SHORT))) > 0
    left.open()


@pytest.mark.crash
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(1000, 1000 + LONG, TOGETHER))
def test_nothing_acknowledged_is_lost_by_hundreds(left: Harness, spawner: ProcessSpawner, first: int) -> None:
    kill_one_after_the_other(left, spawner, list(range(first, first + TOGETHER)))
    left.open()

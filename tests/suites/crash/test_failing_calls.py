"""System calls that fail now and then, under mixed load: the long form (`make crash`), where libfiu is installed.

Nothing but the calls of the commit path is made to fail, in the processes that are killed: writes, flushes, cuts.
"""

import shutil
from collections.abc import Iterator

import pytest

from keyvault_lite.operator.verify import verify_vault
from tests.suites.crash import invariants
from tests.suites.crash.test_named_points import order
from tests.support.harness import Harness
from tests.support.processes import ProcessSpawner

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("fiu-run") is None, reason="libfiu (the package fiu-utils) is not installed"),
]
FAULTS = {
    "fsync": ("posix/io/sync/fsync", "posix/io/sync/fdatasync"),
    "write": ("posix/io/rw/pwrite",),
    "truncate": ("posix/io/oc/ftruncate",),
    "all": ("posix/io/sync/fsync", "posix/io/sync/fdatasync", "posix/io/rw/pwrite"),
}
ROUNDS = 10


@pytest.fixture(params=FAULTS)
def failing(request: pytest.FixtureRequest) -> Iterator[ProcessSpawner]:
    enabled = [f"enable_random name={name},probability=0.02" for name in FAULTS[request.param]]
    with ProcessSpawner(["fiu-run", "-f", "", "-x", *(word for one in enabled for word in ("-c", one))]) as opened:
        yield opened


def test_nothing_acknowledged_is_lost(left: Harness, failing: ProcessSpawner) -> None:
    refused = 0
    lives = []
    for seed in range(1, 1 + ROUNDS):
        life = failing.spawn(order(left, "load", seed=seed, seconds=1.0, most=10_000, pages=16))
        assert life.was_killed or "not_opened" in life.lines[-1]
        lives.append(life)
        refused += sum("refused" in line and line["audit"] is None for line in life.lines)
        invariants.check(left, *lives)
        left.vault.close()
    print("refused unrecorded:", refused)  # noqa: T201
    assert verify_vault(left.settings).findings == ()
    left.open()

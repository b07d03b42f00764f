"""OpenBao and we, asked the same: every answer is the same in form, or differs as it is meant to."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

import pytest

from tests.clients.conftest import Served
from tests.suites.differential import vault_import
from tests.suites.differential.vault import INTENDED, Asked, Difference, Generator, Side, compare, prepare
from tests.suites.differential.vault_import import Imports
from tests.suites.differential.vault_roles import ROLES
from tests.support.openbao import running
from tests.support.paths import ROOT

SEEDS = (1, 2, 3)
REQUESTS = 500


@pytest.fixture(scope="module")
def sides(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    with running(tmp_path_factory.mktemp("openbao")) as openbao:
        pair = (Side(openbao.url, openbao.token, "diff"), Side(served.url, served.admin, "diff"))
        for side in pair:
            assert side.ask(Asked("POST", "sys/mounts/diff", {"type": "transit"})).status == 204
        for asked in chain(prepare(), vault_import.prepare()):
            answers = [side.ask(asked) for side in pair]
            assert {one.status for one in answers} in ({200}, {204}), (asked, answers)
        yield pair


@pytest.mark.parametrize("requests", [Generator, Imports])
@pytest.mark.parametrize("seed", SEEDS)
def test_generated_requests(sides: tuple[Side, Side], seed: int, requests: type[Generator | Imports]) -> None:
    theirs, ours = sides
    found: Counter[str | None] = Counter()
    failures = []
    for asked in islice(requests(seed), REQUESTS):
        try:
            found[compare(asked, theirs.ask(asked), ours.ask(asked))] += 1
        except AssertionError as difference:
            failures.append(str(difference))
    assert not failures, f"{len(failures)} differences that nobody means:\n" + "\n".join(failures[:40])
    assert found[None] > REQUESTS * (0.8 if requests is Generator else 0.5)


def test_roles_and_logins(sides: tuple[Side, Side]) -> None:
    """One test: each request builds on those before it."""
    theirs, ours = sides
    failures = []
    for asked in ROLES:
        try:
            compare(asked, theirs.ask(asked), ours.ask(asked))
        except AssertionError as difference:
            failures.append(str(difference))
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("meant", INTENDED, ids=lambda one: one.name)
def test_every_difference_that_is_meant_is_real(sides: tuple[Side, Side], meant: Difference) -> None:
    """One that OpenBao no longer shows has to go, from the table and from docs/vault.md."""
    theirs, ours = sides
    assert compare(meant.example, theirs.ask(meant.example), ours.ask(meant.example)) == meant.name


def test_every_difference_that_is_meant_is_told() -> None:
    text = (ROOT / "docs" / "vault.md").read_text()
    assert [one.name for one in INTENDED if one.name not in text] == []

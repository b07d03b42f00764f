"""The tamper campaign: whatever is done to the stored bytes is found, and nothing is found where nothing was done.

The short form runs with the suite, the long form (`make tamper`) draws 10 000 mutations. A failure prints the seed of
the one mutation, which `TAMPER_SEED` repeats.
"""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.suites.tamper.mutations import MUTATIONS, Done, Impossible
from tests.suites.tamper.sample_vault import SampleVault, VaultCopy

SHORT, LONG = 120, 10_000
START_EVERY = 10
"""Which share of the mutations is also shown to a starting server, which takes longer."""


def campaign(vault: SampleVault, folder: Path, first_seed: int, count: int) -> Counter[str]:
    """Draw mutations until `count` of them have changed something; every miss is collected."""
    untouched = vault.copy(folder / "untouched").content()
    told: Counter[str] = Counter()
    missed: list[str] = []
    seed = first_seed
    while told["mutations"] < count:
        seed += 1
        rng = random.Random(seed)
        copy_of = vault.copy(folder / "copy_of")
        try:
            done = rng.choices(list(MUTATIONS), list(MUTATIONS.values()))[0](vault, copy_of, rng)
        except Impossible:
            told["impossible"] += 1
        else:
            if copy_of.content() == untouched:
                told["without effect"] += 1
            else:
                told["mutations"] += 1
                missed += judge(copy_of, done, seed, told)
        shutil.rmtree(copy_of.folder)
    assert not missed, "\n".join(missed)
    return told


def judge(copy_of: VaultCopy, done: Done, seed: int, told: Counter[str]) -> list[str]:
    """What is to be said against the verification, and now and then the start, of a vault that was tampered with."""
    found = copy_of.verify()
    missed = []
    if found.valid:
        missed.append(f"TAMPER_SEED={seed}: not found: {done.what}")
    elif done.row is not None and (done.table, done.row) not in {(one.table, one.row) for one in found.findings}:
        missed.append(f"TAMPER_SEED={seed}: {done.what}: named {found.findings[:3]} instead")
    elif done.table and done.table not in {one.table for one in found.findings}:
        told[f"named by another table: {done.table}"] += 1
    if seed % START_EVERY == 0 and not found.valid and not only_pages(found.findings) and copy_of.starts():
        missed.append(f"TAMPER_SEED={seed}: starts in spite of {found.findings[:3]}: {done.what}")
    return missed


def only_pages(findings: object) -> bool:
    """Whether indexes and free pages alone are damaged: a start reads what they lead to, not the pages themselves."""
    return all(one.table in {"database", "audit_index"} for one in findings)  # type: ignore[attr-defined]


def test_everything_is_found(vault: SampleVault, tmp_path: Path) -> None:
    seed = int(os.environ.get("TAMPER_SEED", "0"))
    if seed:
        campaign(vault, tmp_path, seed - 1, 1)
    else:
        campaign(vault, tmp_path, 1_000_000, SHORT)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_everything_is_found_ten_thousand_times(vault: SampleVault, tmp_path: Path) -> None:
    print(campaign(vault, tmp_path, int(os.environ.get("TAMPER_FIRST", "0")), LONG))  # noqa: T201

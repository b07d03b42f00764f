"""Several processes on one file, and processes that die: one chain, no gap, nothing acknowledged lost, always fresh."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from keyvault_lite.ledger.state.root import RowMacs
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.verify import inspection
from keyvault_lite.model.errors import IntegrityViolation, InvalidState, Unauthenticated
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import (
    CreateService,
    Decrypt,
    Encrypt,
    ListKeys,
    ReadKey,
    RenewToken,
    RevokeKey,
    UpdateService,
    VerifyAudit,
)
from tests.support.harness import Harness
from tests.support.paths import ROOT, SOURCE

pytestmark = pytest.mark.both


@contextmanager
def process(harness: Harness, name: str, *, rounds: int, callers: int) -> Iterator[subprocess.Popen[str]]:
    assert harness.settings.master_key is not None
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KEYVAULT_")}
    running = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.unit.ledger.commit.load",
            harness.admin,
            name,
            str(rounds),
            str(callers),
        ],
        cwd=ROOT,
        env={
            **environment,
            "PYTHONPATH": os.pathsep.join((str(SOURCE), str(ROOT))),
            "KEYVAULT_MASTER_KEY": harness.settings.master_key.get_secret_value(),
            "KEYVAULT_DATABASE_URL": harness.settings.database_url,
            "KEYVAULT_ANCHOR": harness.settings.anchor or "",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()
        if running.stdout is not None:
            running.stdout.close()


def said(running: subprocess.Popen[str]) -> list[list[str]]:
    assert running.stdout is not None
    return [line.split() for line in running.stdout.read().splitlines() if not line.startswith("ready")]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_one_chain(harness: Harness, count: int) -> None:
    name = harness.key("orders").id
    before = harness.size
    with (
        process(harness, name, rounds=30, callers=4) as first,
        process(harness, name, rounds=30, callers=4) as second,
        process(harness, name, rounds=30 if count > 2 else 1, callers=4) as third,
    ):
        # This one is asked meanwhile, and is no worse off than the others.
        waits = []
        while first.poll() is None or second.poll() is None:
            began = time.monotonic()
            harness.ask(Encrypt(KeyRef(name), plaintext=b"x"))
            waits.append(time.monotonic() - began)
        told = [said(one) for one in (first, second, third)]
        assert [one.wait() for one in (first, second, third)] == [0, 0, 0]
    everything = [line for lines in told for line in lines]
    assert {line[0] for line in everything} == {"done"}
    ids = [int(line[2]) for line in everything]
    assert len(set(ids)) == len(ids)
    entries = harness.log(before)
    assert [entry.id for entry in entries] == list(range(before + 1, before + len(ids) + len(waits) + 1))
    assert max(waits) < 2
    actions = {entry.id: entry.draft.action for entry in entries}
    assert all(actions[int(line[2])] == line[1] for line in everything)
    rotations = sum(line[1] == "rotate" for line in everything)
    assert len(harness.ask(ReadKey(KeyRef(name))).versions) == 1 + rotations
    assert harness.ask(VerifyAudit()).findings == ()
    harness.reopen()
    assert harness.ask(VerifyAudit()).valid


def neighbours(harness: Harness) -> Harness:
    """The same vault, opened once more: as another process has it."""
    return Harness(harness.settings, harness.admin)


def test_what_one_process_revokes_no_other_uses(harness: Harness) -> None:
    other = neighbours(harness)
    try:
        name = KeyRef(harness.key("orders").id)
        made = other.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
        for here, there in ((harness, other), (other, harness)):
            one = here.key()
            sealed = there.ask(Encrypt(KeyRef(one.id), plaintext=b"x"))
            here.ask(RevokeKey(KeyRef(one.id)))
            there.refusal(Decrypt(KeyRef(one.id), None, sealed.ciphertext, sealed.encrypted_dek), InvalidState)
            there.refusal(Encrypt(KeyRef(one.id), plaintext=b"x"), InvalidState)
        assert harness.ask(Decrypt(name, None, made.ciphertext, made.encrypted_dek)).plaintext == b"x"
    finally:
        other.close()


def test_a_new_token_is_good_everywhere_at_once(harness: Harness) -> None:
    other = neighbours(harness)
    try:
        for number in range(5):
            # A refusal just before must not make the next caller's answer an old one.
            other.refusal(ListKeys(), Unauthenticated, None)
            token = harness.ask(CreateService(f"worker-{number}", Role.SERVICE)).token
            other.ask(ListKeys(), token)
            renewed = other.ask(RenewToken(f"worker-{number}")).token
            harness.refusal(ListKeys(), Unauthenticated, token)
            harness.ask(ListKeys(), renewed)
            harness.ask(UpdateService(f"worker-{number}", active=False))
            other.refusal(ListKeys(), Unauthenticated, renewed)
    finally:
        other.close()


def test_another_process_is_caught_up_with_from_far_behind(harness: Harness) -> None:
    other = neighbours(harness)
    try:
        name = KeyRef(harness.key("orders").id)
        harness.rotated(harness.ask(ReadKey(name)), 3)
        for _ in range(6):
            harness.together(*(harness.perform(Encrypt(name, plaintext=b"x")) for _ in range(500)))
        assert other.ask(Encrypt(KeyRef("orders"), plaintext=b"x")).key_version == 4
        assert other.ask(VerifyAudit()).valid
        assert other.ledger._writer.replica.tree.root() == harness.ledger._writer.replica.tree.root()
    finally:
        other.close()


@pytest.mark.sqlite_only
def test_what_a_check_has_found_is_set_aside_although_another_process_writes(harness: Harness) -> None:
    other = neighbours(harness)
    try:
        name = KeyRef(harness.key("orders").id)
        harness.key("others")
        for one in (other, harness):
            one.ask(Encrypt(KeyRef("others"), plaintext=b"x"))
        with closing(driver.connect(str(harness.path), isolation_level=None)) as edits:
            edits.execute("UPDATE keys SET description = 'edited' WHERE name = 'orders'")
        harness.ledger.scrub()
        other.ask(Encrypt(KeyRef("others"), plaintext=b"x"))
        harness.refusal(Encrypt(name, plaintext=b"x"), IntegrityViolation)
        other.ask(Encrypt(KeyRef("others"), plaintext=b"x"))
        other.refusal(Encrypt(name, plaintext=b"x"), IntegrityViolation)
        for one in (harness, other):  # and neither wakes the other again and again
            size = one.size
            one.ask(Encrypt(KeyRef("others"), plaintext=b"x"))
            assert one.size == size + 1
    finally:
        other.close()


def test_rows_are_compared_with_memory_if_it_is_of_the_same_state(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RowMacs] = []

    def noted() -> RowMacs:
        made.append(RowMacs())
        return made[-1]

    other = neighbours(harness)
    try:
        monkeypatch.setattr(inspection, "RowMacs", noted)
        harness.key("orders")
        for look in (harness.ledger.scrub, harness.ledger.scrub_log):
            look()
            assert (made, harness.ledger._writer.replica.suspect) == ([], False)
        other.key("others")
        for look in (harness.ledger.scrub, harness.ledger.scrub_log):
            look()
            assert (len(made), harness.ledger._writer.replica.suspect) == (1, False)
            made.clear()
    finally:
        other.close()


def kill_at_random(harness: Harness, seed: int) -> None:
    chance = random.Random(seed)
    name = harness.key().id
    with process(harness, name, rounds=0, callers=8) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.01, 0.4))
        running.kill()
        told = said(running)
    harness.reopen()
    entries = {entry.id: entry.draft for entry in harness.log()}
    for line in told:
        if len(line) < 4:
            continue  # the line it died on
        draft = entries[int(line[2])]
        assert draft.action == line[1]
        if line[1] == "generate":
            assert harness.ask(ReadKey(KeyRef(line[3]))).id == line[3]
    found = harness.ask(VerifyAudit())
    assert found.findings == ()
    harness.ask(Encrypt(KeyRef(name), plaintext=b"x"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_loses_nothing_it_acknowledged(harness: Harness, seed: int) -> None:
    kill_at_random(harness, seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_killed_processes_lose_nothing(harness: Harness) -> None:
    for seed in range(100, 160):
        kill_at_random(harness, seed)


@pytest.mark.timeout(60)
def test_a_process_killed_beside_another_leaves_it_serving(harness: Harness) -> None:
    name = harness.key().id
    for seed in range(3):
        with process(harness, name, rounds=0, callers=8) as running:
            assert running.stdout is not None
            running.stdout.readline()
            for _ in range(10 + seed):
                harness.ask(Encrypt(KeyRef(name), plaintext=b"x"))
            running.kill()
            running.wait()
            for _ in range(10):
                harness.ask(Encrypt(KeyRef(name), plaintext=b"x"))
    assert harness.ask(VerifyAudit()).valid
    harness.reopen()

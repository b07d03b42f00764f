"""Several nodes on one PostgreSQL: what one revokes no other uses, one chain, and nothing acknowledged is ever lost."""

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from keyvault_lite.model.errors import InvalidState, KeyVaultError, OutcomeUnknown
from keyvault_lite.model.keys import VersionStatus
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import CreateKey, Decrypt, Encrypt, ReadKey, RevokeKey, RotateKey, VerifyAudit
from tests.support.faults import FaultyConnection
from tests.support.harness import AES, Harness, create_vault, settings_for
from tests.support.postgres import Databases, run
from tests.unit.ledger.commit.test_processes import process, said
from tools.postgres_server import Server


@pytest.fixture
def second(postgres: Harness) -> Iterator[Harness]:
    """The same vault on another node of the host: it shares the anchor."""
    node = Harness(postgres.settings, postgres.admin)
    yield node
    node.close()


def test_what_one_node_has_revoked_no_other_decrypts(postgres: Harness, second: Harness) -> None:
    for here, there in ((postgres, second), (second, postgres)):
        key = here.key()
        sealed = there.ask(Encrypt(KeyRef(key.id), plaintext=b"x"))
        opened = Decrypt(KeyRef(key.id), None, sealed.ciphertext, sealed.encrypted_dek)
        assert there.ask(opened).plaintext == b"x"
        here.ask(RevokeKey(KeyRef(key.id)))
        there.refusal(opened, InvalidState)


def test_a_revocation_under_load_is_followed_by_no_success(postgres: Harness, second: Harness) -> None:
    key = KeyRef(postgres.key().id)
    sealed = postgres.ask(Encrypt(key, plaintext=b"x"))
    opened = Decrypt(key, None, sealed.ciphertext, sealed.encrypted_dek)
    answered: list[int] = []
    stop = threading.Event()

    def decrypt() -> None:
        while not stop.is_set():
            results = second.together(*(second.perform(opened) for _ in range(16)))
            answered.extend(one.audit_id for one in results if not isinstance(one, BaseException))

    running = threading.Thread(target=decrypt)
    running.start()
    while len(answered) < 100:
        time.sleep(0.01)
    revoked = postgres.answer(RevokeKey(key)).audit_id
    before = len(answered)
    time.sleep(0.2)
    stop.set()
    running.join()
    assert revoked is not None
    # A success that was committed before may be told a moment later; none was committed after.
    assert max(answered) < revoked
    assert len(answered) <= before + 16


def test_rotating_on_two_nodes_loses_and_doubles_no_version(postgres: Harness, second: Harness) -> None:
    key = KeyRef(postgres.key().id)
    made: dict[str, list[object]] = {}

    def rotate(node: Harness, name: str) -> None:
        made[name] = [one for _ in range(5) for one in node.together(*(node.perform(RotateKey(key)) for _ in range(6)))]

    threads = [threading.Thread(target=rotate, args=one) for one in ((postgres, "a"), (second, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes = made["a"] + made["b"]
    assert [one for one in outcomes if isinstance(one, BaseException)] == []
    versions = postgres.ask(ReadKey(key)).versions
    assert [one.version for one in versions] == list(range(1, 62))
    assert [one.status for one in versions].count(VersionStatus.ACTIVE) == 1
    assert second.ask(ReadKey(key)).versions == versions
    log = postgres.log()
    assert [entry.id for entry in log] == list(range(1, len(log) + 1))
    assert postgres.ask(VerifyAudit()).findings == ()


def test_who_frees_space_gives_the_writers_lock_back_afterwards(postgres: Harness, second: Harness) -> None:
    key = KeyRef(postgres.key().id)
    for clean in (postgres.ledger.empty_write_ahead_log, postgres.ledger.give_space_back):
        clean()
        postgres.ask(Encrypt(key, plaintext=b"x"))
        second.ask(Encrypt(key, plaintext=b"x"))


def test_one_node_leads_and_another_takes_over(postgres: Harness, second: Harness) -> None:
    first, other = postgres.vault.database, second.vault.database
    assert [first.is_leader(), first.is_leader(), other.is_leader()] == [True, True, False]
    postgres.vault.close()
    assert other.is_leader()
    run(second.settings.database_url, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE classid = 1802923010")
    time.sleep(0.1)
    assert other.is_leader(), "the lock is asked for again after its session was lost"
    postgres.open()


# Servers and sessions that go away


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that may be crashed: nobody else's."""
    made = Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
def own(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    folder, url = tmp_path_factory.mktemp("own"), Databases(server.url).make()
    master, token = create_vault(folder, url)
    opened = Harness(settings_for(folder, master, url), token)
    yield opened
    opened.close()
    Databases(server.url).drop(url)


def check_acknowledged(harness: Harness, told: list[list[str]]) -> None:
    """Everything that a process was told of stands in the log, and everything verifies."""
    entries = {entry.id: entry.draft for entry in harness.log()}
    done = [line for line in told if len(line) == 4 and line[0] == "done"]
    assert done
    for _, action, number, made in done:
        assert entries[int(number)].action == action
        if action == "generate":
            assert harness.ask(ReadKey(KeyRef(made))).id == made
    assert harness.ask(VerifyAudit()).findings == ()
    assert sorted(entries) == list(range(1, len(entries) + 1))


def crash(server: Server, _: Harness) -> None:
    server.restart(signal.SIGQUIT)


def restart(server: Server, _: Harness) -> None:
    server.restart()


def hang_up(_: Server, harness: Harness) -> None:
    run(
        harness.settings.database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


@pytest.mark.timeout(90)
@pytest.mark.parametrize("disturb", [crash, restart, hang_up])
def test_a_database_that_goes_away_under_load_comes_back_without_a_hand(
    server: Server, own: Harness, disturb: Callable[[Server, Harness], None]
) -> None:
    name = own.key().id
    with process(own, name, rounds=0, callers=8) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        told: list[list[str]] = []
        # Read all along: a process whose output nobody takes stands still.
        reading = threading.Thread(target=lambda: told.extend(said(running)))
        reading.start()
        time.sleep(0.3)
        for _ in range(3):
            disturb(server, own)
            time.sleep(0.4)
        # Both nodes go on by themselves.
        deadline = time.monotonic() + 60
        while True:
            try:
                own.ask(Encrypt(KeyRef(name), plaintext=b"x"))
                break
            except KeyVaultError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        seen = own.size
        while own.size < seen + 50:
            assert time.monotonic() < deadline, "the other node does not write any more"
            time.sleep(0.1)
        running.kill()
        reading.join()
    refusals = {line[1] for line in told if line[0] == "refused" and len(line) > 1}
    assert refusals <= {"audit_unavailable", "outcome_unknown"}
    check_acknowledged(own, told)
    own.reopen()


@pytest.mark.timeout(120)
def test_a_node_that_is_killed_under_load_loses_nothing_and_holds_nobody_up(own: Harness) -> None:
    name = own.key().id
    for seconds in (0.15, 0.3):
        with process(own, name, rounds=0, callers=8) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            for _ in range(10):
                own.ask(Encrypt(KeyRef(name), plaintext=b"x"))
            time.sleep(seconds)
            running.kill()
            began = time.monotonic()
            own.ask(CreateKey(AES))
            assert time.monotonic() - began < 2
            told = said(running)
        check_acknowledged(own, told)
    own.reopen()


def test_a_restart_while_nothing_is_asked_is_not_even_noticed(server: Server, own: Harness) -> None:
    name = KeyRef(own.key().id)
    own.log()
    server.restart()
    assert own.log()
    own.ask(Encrypt(name, plaintext=b"x"))
    assert own.ledger.fault is None


def test_a_session_that_is_lost_at_commit_is_an_unknown_outcome(postgres: Harness) -> None:
    name = KeyRef(postgres.key().id)
    writer = postgres.ledger._writer
    faulty = FaultyConnection(writer.connection)
    others = "datname = current_database() AND pid <> pg_backend_pid()"

    def lose(sql: str) -> None:
        if sql == "COMMIT":
            run(
                postgres.settings.database_url,
                f"SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE {others}",
            )

    faulty.before = lose
    writer.connection = faulty
    postgres.refusal(RotateKey(name), OutcomeUnknown)
    assert len(postgres.ask(ReadKey(name)).versions) == 1
    assert postgres.ledger.fault is None
    assert postgres.ask(VerifyAudit()).findings == ()

"""Vaults with a witness, and with one as their shared anchor: what an attacker who has the whole database is told."""

import asyncio
import base64
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from keyvault_lite import app
from keyvault_lite.app import Vault
from keyvault_lite.audit.checkpoint import verify_cosignature, verify_note
from keyvault_lite.audit.receipt import parse_receipt, verify_receipt
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.state.outcome import Outcome
from keyvault_lite.ledger.verify.trust import AcceptedHead
from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.errors import AuditUnavailable, Conflict, IntegrityViolation, KeyVaultError, OutcomeUnknown
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.operator.anchor import trust_anchor
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.operator.migrate import migrate_vault
from keyvault_lite.settings import InvalidSettings, Settings
from keyvault_lite.witness.anchor import SharedAnchor
from keyvault_lite.witness.client import Confirmed, Prove, WitnessClient
from keyvault_lite.witness.register import Register
from tests.support.witness import KEY, client, register, served, vkey

FILES = ("keyvault.db", "keyvault.db-wal", "keyvault.db-shm", "keyvault.db.anchor")


def record(vault: Vault) -> int:
    """One entry; its number."""
    draft = Draft(action=Action.AUTHENTICATE, result=Result.DENIED, request_id=os.urandom(16), reason="unauthenticated")
    outcome = Outcome((draft,), None)

    async def commit() -> int:
        return (
            await vault.ledger.commit(outcome, vault.ledger.snapshot().snapshot_version, lambda _: outcome)
        ).first_id

    return asyncio.run(commit())


def refusal(vault: Vault) -> KeyVaultError:
    with pytest.raises(KeyVaultError) as raised:
        record(vault)
    return raised.value


class Site:
    """A vault's files, a witness that trusts its log, and a way to open it on any copy."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.master = SecretStr(base64.b64encode(os.urandom(32)).decode())
        (folder / "a").mkdir()
        initialise_vault(self.settings("a"))
        mark = FileAnchor(folder / "a" / "keyvault.db.anchor").read()
        assert mark is not None
        self.first: AnchorRecord = mark
        self.url = ""
        self.stop = ExitStack()

    def settings(self, host: str, **more: object) -> Settings:
        return Settings.model_validate(
            {
                "master_key": self.master,
                "database_url": f"sqlite:///{self.folder}/{host}/keyvault.db",
                "log_level": "error",
                **({"witness_key": vkey(KEY)} if {"witness", "anchor"} & more.keys() else {}),
                **more,
            }
        )

    def witness(self, name: str = "w", *, logs: tuple[str, ...] = ()) -> Register:
        """Start the witness (again, on the same port), with the memory in the folder of that name."""
        self.stop.close()
        made = register(self.folder / name, *(logs or (self.first.verifier_key,)))
        port = int(self.url.rsplit(":", 1)[1]) if self.url else 0
        self.url = self.stop.enter_context(served(made, port=port))
        return made

    def open(self, host: str = "a", **more: object) -> Vault:
        vault = app.open_vault(self.settings(host, **more))
        self.stack.callback(vault.close)
        return vault

    def share(self) -> dict[str, str]:
        """Make the witness the anchor; the settings that say so."""
        self.open().close()
        mark = FileAnchor(self.folder / "a" / "keyvault.db.anchor").read()
        assert mark is not None
        vault = self.open()
        anchor = SharedAnchor(
            client(self.url),
            instance_id=vault.keyring.instance_id,
            public_key=vault.keyring.log_public_key,
            verify=verify_ed25519,
        )
        vault.close()
        assert not anchor.exists()
        anchor.check_trusted(0)
        with pytest.raises(Conflict, match=r"give it the key keyvault-lite/[0-9a-f]{32}/1\+"):
            anchor.check_trusted(1)
        anchor.replace(mark)
        assert anchor.exists()
        with pytest.raises(IntegrityViolation, match="takes none back"):
            anchor.replace(mark)
        anchor.close()
        return {"anchor": self.url}

    def copy(self, source: str, target: str) -> None:
        """The files of a vault as they are, also while it is open: an attacker's copy."""
        (self.folder / target).mkdir(exist_ok=True)
        for name in FILES:
            (self.folder / target / name).unlink(missing_ok=True)
            if (self.folder / source / name).exists():
                shutil.copy(self.folder / source / name, self.folder / target / name)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        made = Site(tmp_path, stack)
        made.witness()
        stack.callback(made.stop.close)
        yield made


def rounds(*vaults: Vault) -> None:
    for vault in vaults:
        assert vault.watch is not None
        vault.watch.round()


# ------------------------------------------------------------------------------------------------- KEYVAULT_WITNESS


def test_evidence_carries_the_witness(site: Site) -> None:
    vault = site.open(witness=site.url)
    last = record(vault)
    rounds(vault)
    checkpoint = vault.ledger.evidence.checkpoint()
    assert verify_cosignature(checkpoint, vkey(KEY), verify_ed25519)[0].size == last
    assert verify_note(checkpoint, vault.ledger.evidence.log_key().verifier_key, verify_ed25519).size == last
    entry = vault.ledger.evidence.entry(last)
    assert entry is not None
    record(vault)  # not confirmed yet, by the time the receipt is asked for
    receipt = vault.ledger.evidence.receipt(entry)
    verify_receipt(receipt, entry.hash, vkey=vault.ledger.evidence.log_key().verifier_key, verify=verify_ed25519)
    assert verify_cosignature(parse_receipt(receipt).checkpoint, vkey(KEY), verify_ed25519)[0].size == last
    health = vault.engine.health()
    assert health.serving
    facts = health.details["witness"]
    assert isinstance(facts, dict)
    assert "size" not in facts, "a stranger learns nothing of the log, its length neither"
    assert 0 <= facts["age_seconds"] < 5


def test_a_witness_that_is_away_stops_service_when_it_is_required(site: Site) -> None:
    site.stop.close()
    assert record(site.open(witness=site.url, witness_max_age=0)) > 0
    vault = site.open(witness=site.url, witness_max_age=60)
    assert isinstance(refusal(vault), AuditUnavailable)
    health = vault.engine.health()
    assert (health.serving, health.status) == (False, "audit_unavailable")
    site.witness()
    rounds(vault)
    assert record(vault) > 0


def test_two_nodes_that_fork_one_database_are_exposed(site: Site, tmp_path: Path) -> None:
    site.copy("a", "b")
    one, other = site.open("a", witness=site.url), site.open("b", witness=site.url)
    for vault in (one, other):
        record(vault)
    rounds(one, other)
    assert record(one) > 0
    found = refusal(other)
    assert isinstance(found, IntegrityViolation)
    assert "another history of this log" in found.detail
    assert other.engine.health().status == "integrity_violation"
    other.close()
    with pytest.raises(IntegrityViolation):
        site.open("b", witness=site.url)
    assert [file.read_text() for file in (tmp_path / "w" / "evidence").iterdir()], "signed by the log: a proof"


def test_a_database_put_back_with_its_anchor_is_refused(site: Site) -> None:
    vault = site.open(witness=site.url)
    record(vault)
    vault.close()
    site.copy("a", "old")
    vault = site.open(witness=site.url)
    record(vault)
    rounds(vault)
    vault.close()
    site.copy("old", "a")
    with pytest.raises(IntegrityViolation, match=r"the database has \d+: it was put back"):
        site.open(witness=site.url)
    site.open().close()  # without the witness nothing tells


def test_processes_of_one_vault_share_a_witness(site: Site) -> None:
    vaults = [site.open(witness=site.url) for _ in range(2)]
    for turn in (0, 0, 1, 1, 0, 1):
        record(vaults[turn])
        rounds(vaults[turn])
    rounds(*vaults)
    assert [vault.ledger.fault for vault in vaults] == [None, None]


def test_a_witness_put_back_is_noticed_and_refuses_nothing_wrongly(site: Site, tmp_path: Path) -> None:
    vault = site.open(witness=site.url)
    shutil.copytree(tmp_path / "w", tmp_path / "old")
    record(vault)
    rounds(vault)
    site.witness("old")
    record(vault)
    rounds(vault)
    assert record(vault) > 0
    facts = vault.engine.health().details["witness"]
    assert isinstance(facts, dict)
    assert facts["put_back"] is True


def test_settings_that_make_no_sense(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="KEYVAULT_WITNESS_KEY"):
        site.open(witness=site.url, witness_key=None)
    with pytest.raises(InvalidSettings, match=r"KEYVAULT_WITNESS: .* https only"):
        site.open(witness="http://192.0.2.1")
    with pytest.raises(InvalidSettings, match="KEYVAULT_WITNESS_CACERT"):
        site.open(witness="https://127.0.0.1:1", witness_cacert=tmp_path / "absent.pem")


# --------------------------------------------------------------------------------- KEYVAULT_ANCHOR, shared by hosts


def test_a_vault_does_not_begin_with_a_shared_anchor(site: Site) -> None:
    for name in ("new", "newer"):
        (site.folder / name).mkdir()
    with pytest.raises(IntegrityViolation, match="does not begin with a shared anchor"):
        initialise_vault(site.settings("new", anchor=site.url))
    with pytest.raises(IntegrityViolation, match="does not begin with a shared anchor"):
        site.open("newer", anchor=site.url)


def test_a_vault_moves_to_a_shared_anchor_once_it_was_trusted(site: Site) -> None:
    with pytest.raises(IntegrityViolation, match="is missing beside a vault of"):
        site.open(anchor=site.url)
    shared = site.share()
    vault = site.open(**shared)
    last = record(vault)
    assert verify_cosignature(vault.ledger.evidence.checkpoint(), vkey(KEY), verify_ed25519)[0].size == last
    entry = vault.ledger.evidence.entry(last)
    assert entry is not None
    assert vkey(KEY).split("+", 1)[0] in vault.ledger.evidence.receipt(entry)
    assert vault.ledger.verify().valid
    vault.close()
    assert record(site.open(**shared)) == last + 1


def test_the_first_mark_and_a_new_epoch_are_the_operators_word(site: Site, tmp_path: Path) -> None:
    """`kvl anchor trust` with a witness: accepted once, and after a restore only under a name that it was told."""
    shared = site.settings("a", anchor=site.url)
    assert trust_anchor(shared).epoch == 0
    site.copy("a", "old")
    vault = site.open(anchor=site.url)
    record(vault)
    vault.close()
    site.copy("old", "a")
    with pytest.raises(IntegrityViolation, match="--acknowledge-rollback --size") as raised:
        site.open(anchor=site.url)
    found = re.search(r"--size (\d+) --root (\S+?)`", str(raised.value))
    assert found is not None
    accepted = AcceptedHead(int(found[1]), decode_base64(found[2]))
    with pytest.raises(Conflict, match="give it the key") as refused:
        trust_anchor(shared, accepted)
    later = re.search(r"the key (\S+) first", str(refused.value))
    assert later is not None
    site.witness(logs=(site.first.verifier_key, later[1]))
    assert trust_anchor(shared, accepted).epoch == 1
    vault = site.open(anchor=site.url)
    assert record(vault) == accepted.size + 2
    assert vault.ledger.evidence.log_key().verifier_key == later[1]
    vault.close()
    site.copy("old", "a")
    with pytest.raises(IntegrityViolation, match="it was put back or replaced"):
        site.open(anchor=site.url)


def test_a_rollback_is_refused_although_every_file_of_the_host_went_back(site: Site) -> None:
    shared = site.share()
    vault = site.open(**shared)
    record(vault)
    vault.close()
    site.copy("a", "old")
    vault = site.open(**shared)
    record(vault)
    vault.close()
    site.copy("old", "a")
    with pytest.raises(IntegrityViolation, match="it was put back or replaced"):
        site.open(**shared)
    (site.folder / "a" / "keyvault.db").unlink()
    with pytest.raises(IntegrityViolation, match="the database is empty"):
        site.open(**shared)


def test_a_rollback_under_a_running_server_is_refused_at_the_next_commit(site: Site) -> None:
    """The model's S8 with a shared anchor: a node that knows less than the anchor does not serve the old copy."""
    shared = site.share()
    site.copy("a", "b")
    stale = site.open("b", **shared)
    vault = site.open("a", **shared)
    record(vault)
    found = refusal(stale)
    assert isinstance(found, IntegrityViolation)
    assert "put back" in found.detail
    assert isinstance(refusal(stale), IntegrityViolation), "until a restart"
    stale.close()
    with pytest.raises(IntegrityViolation):
        site.open("b", **shared)


def test_of_two_forked_copies_one_is_never_answered_from(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's S9 in its worst order: both have asked the anchor when the first of them writes to it."""
    shared = site.share()
    site.copy("a", "b")
    one, other = site.open("a", **shared), site.open("b", **shared)
    read = SharedAnchor.read

    def read_then_be_overtaken(anchor: SharedAnchor, *, blocking: bool = True) -> AnchorRecord | None:
        mark = read(anchor, blocking=blocking)
        if anchor is other.anchor:
            monkeypatch.undo()
            record(one)
        return mark

    monkeypatch.setattr(SharedAnchor, "read", read_then_be_overtaken)
    found = refusal(other)
    assert isinstance(found, IntegrityViolation)
    assert "another history" in found.detail
    assert record(one) > 0


def test_a_shared_anchor_says_of_no_entry_that_it_was_checked(site: Site) -> None:
    anchor = site.open(**site.share()).anchor
    assert anchor is not None
    mark = anchor.read()
    assert mark is not None
    assert mark.size > mark.scrubbed == 0


def test_processes_share_a_shared_anchor(site: Site) -> None:
    shared = site.share()
    vaults = [site.open(**shared) for _ in range(2)]
    entries = [record(vaults[turn]) for turn in (0, 0, 1, 1, 0, 1)]
    assert entries == list(range(entries[0], entries[0] + 6))


def test_nothing_is_done_while_the_shared_anchor_is_away(site: Site) -> None:
    shared = site.share()
    vault = site.open(**shared)
    last = record(vault)
    site.stop.close()
    assert isinstance(refusal(vault), AuditUnavailable)
    with pytest.raises(AuditUnavailable):
        site.open(**shared)
    site.witness()
    for _ in range(100):
        if vault.ledger.fault is None:
            break
        asyncio.run(asyncio.sleep(0.05))
    assert record(vault) == last + 1, "it recovers by itself, and nothing was written meanwhile"


@pytest.mark.parametrize("reached", [False, True])
def test_a_lost_answer_is_an_unknown_outcome(site: Site, monkeypatch: pytest.MonkeyPatch, *, reached: bool) -> None:
    """Whether the witness got it or not: the entry is there, its result is withheld, and the vault goes on."""
    shared = site.share()
    vault = site.open(**shared)
    last = record(vault)
    submit = WitnessClient.submit

    def lost(witness: WitnessClient, note: str, *, size: int, old: int, prove: Prove) -> Confirmed:
        if reached:
            submit(witness, note, size=size, old=old, prove=prove)
        raise AuditUnavailable("the witness does not answer")

    monkeypatch.setattr(WitnessClient, "submit", lost)
    assert isinstance(refusal(vault), OutcomeUnknown)
    monkeypatch.undo()
    assert record(vault) == last + 2


def test_a_shared_anchor_put_back_is_brought_forward(site: Site, tmp_path: Path) -> None:
    shared = site.share()
    vault = site.open(**shared)
    shutil.copytree(tmp_path / "w", tmp_path / "old")
    shutil.copytree(tmp_path / "w", tmp_path / "lost")
    shutil.rmtree(tmp_path / "lost" / "state")
    last = record(vault)
    for name in ("old", "lost"):
        made = site.witness(name)
        last += 1
        assert record(vault) == last
        known = made.newest(site.first.checkpoint.split("\n", 1)[0])
        assert known is not None
        assert known.split("\n")[1] == str(last)
    vault.close()
    assert record(site.open(**shared)) == last + 1


def test_an_old_answer_is_not_believed_at_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sits between vault and witness can play back an old answer to a read, but none to a write."""
    shared = site.share()
    vault = site.open(**shared)
    vault.close()
    site.copy("a", "old")
    played = client(site.url)
    answer = played.newest(site.first.checkpoint.split("\n", 1)[0])
    played.close()
    vault = site.open(**shared)
    record(vault)
    vault.close()
    site.copy("old", "a")
    monkeypatch.setattr("keyvault_lite.witness.client.WitnessClient.newest", lambda *_: answer)
    with pytest.raises(IntegrityViolation, match="this database has"):
        site.open(**shared)


def test_a_note_of_another_vault_is_no_anchor(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = site.share()
    played = client(site.url)
    answer = played.newest(site.first.checkpoint.split("\n", 1)[0])
    played.close()
    assert answer is not None
    for spoiled in (answer.note.replace("state-seq ", "state-sex "), answer.note.replace("\nkey", "\nKey")[1:]):
        changed = type(answer)(spoiled, answer.lines, answer.size, answer.time)
        monkeypatch.setattr("keyvault_lite.witness.client.WitnessClient.newest", lambda *_, note=changed: note)
        with pytest.raises(IntegrityViolation, match="not one of this vault"):
            site.open(**shared)


def test_a_vault_that_moves_under_a_shared_anchor_is_never_served_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = site.share()
    (site.folder / "b").mkdir()
    here, there = site.settings("a", **shared), site.settings("b", **shared)

    def opens(chosen: Settings) -> bool:
        try:
            app.open_vault(chosen).close()
        except KeyVaultError:
            return False
        return True

    def lost(*_: object, **__: object) -> None:
        raise OutcomeUnknown("the connection is gone")

    for method, expected in (("write", (True, False)), ("flush", (False, False))):
        with monkeypatch.context() as patched:
            patched.setattr(SharedAnchor, method, lost)
            with pytest.raises(OutcomeUnknown):
                migrate_vault(here, there.database_url)
        assert (opens(here), opens(there)) == expected
    assert migrate_vault(here, there.database_url).anchor == site.url
    assert (opens(here), opens(there)) == (False, True)
    with pytest.raises(Conflict, match="moved already"):
        migrate_vault(here, there.database_url)

"""`kvl root` on devices: one root more, one less, and at every step, killed or not, the vault opens."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.suites.sealed.server import KVL, SECONDS, Place
from tests.support.devices import SoftwareToken, SoftwareTpm, needs_token, needs_tpm


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A vault under a master key file."""
    made = Place(tmp_path, "file:master.key")
    assert made.kvl("master-key", "generate", "--out", "master.key").returncode == 0
    made.extra["ADMIN"] = made.init()
    return made


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[str]:
    with SoftwareTpm(tmp_path / "tpm").running() as device:
        yield f"tpm2:{device}?pcrs=7"


def slots(place: Place) -> dict[str, str]:
    """Kind by id."""
    found = place.kvl("root", "ls", "-o", "json")
    assert found.returncode == 0, found.stderr
    return {one["id"]: one["kind"] for one in json.loads(found.stdout)}


def slot_of(place: Place, kind: str) -> str:
    [found] = [slot for slot, one in slots(place).items() if one == kind]
    return found


def opens(place: Place, root: str) -> bool:
    """Whether a root alone opens the vault, and everything in it verifies."""
    ran = Place(place.folder, root, extra=place.extra).kvl("verify", "-o", "json")
    assert ran.returncode in {0, 2}, ran.stdout + ran.stderr
    return ran.returncode == 0


def done(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


@needs_tpm
def test_from_a_file_to_a_chip_and_back(place: Place, tpm: str) -> None:
    done(place.kvl("root", "add", tpm))
    assert sorted(slots(place).values()) == ["file", "tpm2"]
    assert opens(place, "file:master.key")
    assert opens(place, tpm)
    refused = place.kvl("root", "rm", slot_of(place, "file"), "--yes")
    assert refused.returncode == 2
    assert "if it is lost, so is the vault" in refused.stderr
    on_chip = Place(place.folder, tpm, extra=place.extra)
    done(on_chip.kvl("root", "rm", slot_of(place, "file"), "--yes", "--no-recovery"))
    assert not opens(place, "file:master.key")
    assert opens(place, tpm)
    refused = on_chip.kvl("root", "rm", slot_of(place, "tpm2"), "--yes", "--no-recovery")
    assert refused.returncode == 2
    assert list(slots(place).values()) == ["tpm2"], "the last one stays"
    done(on_chip.kvl("master-key", "generate", "--out", "next.key"))
    done(on_chip.kvl("root", "add", f"file:{place.folder}/next.key"))
    assert opens(place, "file:next.key")


@needs_tpm
def test_a_vault_that_begins_under_a_chip_has_a_recovery_key(tmp_path: Path, tpm: str) -> None:
    place = Place(tmp_path, tpm)
    refused = place.kvl("init")
    assert refused.returncode == 2
    assert "--recovery-out" in refused.stderr
    assert not (tmp_path / "vault.db").exists()
    place.init("--recovery-out", "recovery.key")
    assert (tmp_path / "recovery.key").stat().st_mode & 0o777 == 0o600
    assert sorted(slots(place).values()) == ["file", "tpm2"]
    assert opens(place, "file:recovery.key")
    with place.serve() as server:
        assert server.wait_open()["root"] == "tpm2"


@needs_tpm
def test_reseal_makes_a_new_slot_of_the_kind(place: Place, tpm: str) -> None:
    done(place.kvl("root", "add", tpm))
    before = slot_of(place, "tpm2")
    assert place.kvl("root", "reseal", slot_of(place, "file"), tpm).returncode == 2
    assert place.kvl("root", "reseal", "zz", tpm).returncode == 2
    done(place.kvl("root", "reseal", before[:8], tpm))
    assert slot_of(place, "tpm2") != before
    assert opens(place, tpm)


@needs_token
def test_a_token_that_is_lost_is_no_loss(place: Place, tmp_path: Path) -> None:
    token = SoftwareToken(tmp_path / "softhsm")
    place.extra |= token.environment
    root = f"pkcs11:{token.uri()}"
    done(place.kvl("root", "create", root))
    done(place.kvl("root", "add", root))
    assert opens(place, root)
    both = Place(place.folder, f"{root} file:master.key", extra=place.extra)
    checked = json.loads(done(both.kvl("root", "check", "-o", "json")).splitlines()[0])
    assert [one["opens"] for one in checked] == [True, True]
    shutil.rmtree(token.folder / "tokens")
    ran = both.kvl("root", "check", "-o", "json")
    assert [one["opens"] for one in json.loads(ran.stdout)] == [False, True]
    with both.serve() as server:
        assert server.wait_open()["root"] == "file"
        log = server.log
    said = f"{log}{ran.stdout}{ran.stderr}"
    stored = b"".join(one.read_bytes() for one in place.folder.glob("vault.db*"))
    assert token.pin not in said
    assert token.pin.encode() not in stored


@needs_token
def test_a_wrong_pin_costs_one_try_at_a_start(place: Place, tmp_path: Path) -> None:
    token = SoftwareToken(tmp_path / "softhsm")
    place.extra |= token.environment
    root = f"pkcs11:{token.uri()}"
    done(place.kvl("root", "create", root))
    done(place.kvl("root", "add", root))
    token.pin_file.write_text("not-the-pin\n")
    alone = Place(place.folder, root, extra=place.extra)
    ran = alone.kvl("serve")
    assert ran.returncode == 2
    assert "The PIN is wrong" in ran.stderr
    assert "not-the-pin" not in ran.stderr
    token.pin_file.write_text(token.pin + "\n")
    assert "--use-last-tries" in alone.kvl("serve").stderr
    done(alone.kvl("root", "check", "--use-last-tries"))
    assert opens(place, root)


@needs_tpm
def test_a_share_of_a_chip_and_one_of_a_person(place: Place, tpm: str) -> None:
    done(
        place.kvl("root", "add", "shares:", "--threshold", "2", "--shares", "2", "--of", tpm, "--out", "shares"),
    )
    mixed = Place(place.folder, f"shares: {tpm}", extra=place.extra)
    person = mixed.shares()[0]
    with mixed.serve() as server:
        assert server.wait_sealed()["progress"] == 1, "the chip has given its share"
        assert server.unseal(share=person)[1]["sealed"] is False
        assert server.wait_open()["root"] == "shares"
    without = Place(place.folder, "shares:", extra=place.extra)
    with without.serve() as server:
        assert server.wait_sealed()["progress"] == 0
        for share in without.shares():
            server.unseal(share=share)
        server.wait_open()


def test_old_shares_open_nothing_after_a_reseal(place: Place) -> None:
    done(place.kvl("root", "add", "shamir:", "--shares", "2", "--threshold", "2", "--out", "old"))
    done(
        place.kvl(
            "root",
            "reseal",
            slot_of(place, "shamir"),
            "shamir:",
            *["--shares", "2", "--threshold", "2", "--out", "new"],
        )
    )
    people = Place(place.folder, "shamir:", extra=place.extra)
    with people.serve() as server:
        server.wait_sealed()
        status, problem = server.unseal(share=people.shares("old")[0])
        assert (status, "replaced" in problem["detail"]) == (422, True)
        for share in people.shares("new"):
            server.unseal(share=share)
        server.wait_open()


def test_an_entry_says_what_was_done(place: Place) -> None:
    done(place.kvl("root", "add", "shamir:", "--shares", "2", "--threshold", "2", "--out", "shares"))
    done(place.kvl("root", "rm", slot_of(place, "shamir"), "--yes"))
    done(place.kvl("root", "check"))
    with place.serve() as server:
        server.wait_open()
        status, found = server.ask("GET", "/audit?limit=100", token=place.extra["ADMIN"])
    assert status == 200
    told: list[Any] = [one["action"] for one in found["items"]]
    assert sorted(told) == sorted(["initialise", "master_key_rotate", "master_key_rotate", "root_check", "unseal"])


@pytest.mark.parametrize("command", ["add", "reseal"])
def test_killed_at_any_moment_the_vault_opens(place: Place, command: str) -> None:
    options = ["--shares", "2", "--threshold", "2", "--out"]
    done(place.kvl("root", "add", "shamir:", *options, "first"))

    def arguments(number: int) -> list[str]:
        slot = [min(one for one, kind in slots(place).items() if kind == "shamir")] if command == "reseal" else []
        return ["root", command, *slot, "shamir:", *options, f"shares-{number}"]

    began = time.monotonic()
    done(place.kvl(*arguments(0)))
    takes = time.monotonic() - began
    for number in range(1, 7):
        process = subprocess.Popen(
            [sys.executable, str(KVL), *arguments(number)],
            env=place.environment,
            cwd=place.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(takes * (0.4 + number / 10))
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
        assert opens(place, "file:master.key")
        assert "shamir" in slots(place).values(), "the new one is there before the old one goes"

"""`kvl serve` on a vault that is not open: what it answers, how it comes to be open, and that it can be sealed."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.suites.sealed.server import Place, Server

ORDERS = {"name": "orders", "type": "AES", "size": 256, "purpose": "ENCRYPT"}


@pytest.fixture
def shared(tmp_path: Path) -> tuple[Place, str]:
    """A vault under shares of people, two of three, and its ADMIN's token."""
    place = Place(tmp_path, "shamir:")
    token = place.init("--shares", "3", "--threshold", "2", "--out", "shares", "--no-recovery")
    return place, token


def entries(server: Server, token: str, action: str) -> list[Any]:
    status, found = server.ask("GET", f"/audit?action={action}", token=token)
    assert status == 200
    return list(found["items"])


def test_shares_open_it_one_by_one(shared: tuple[Place, str]) -> None:
    place, token = shared
    first, second, third = place.shares()
    with place.serve() as server:
        assert server.wait_sealed() == {
            "sealed": True,
            "root": "shamir",
            "threshold": 2,
            "shares": 3,
            "progress": 0,
            "nonce": "",
            "passphrase": False,
            "reason": None,
        }
        assert server.ask("GET", "/keys", token=token)[0] == 503
        assert server.ask("GET", "/keys", token=token)[1]["code"] == "sealed"
        assert server.ask("GET", "/v1/sys/seal-status")[1]["sealed"] is True
        assert server.ask("PUT", "/v1/transit/encrypt/k", {}, **{"X-Vault-Token": token})[0] == 503
        assert server.ask("GET", "/health")[1]["progress"] == "0 of 2"

        wrong = second[:-1] + ("q" if second[-1] != "q" else "p")
        status, problem = server.unseal(share=wrong)
        assert (status, problem["code"]) == (422, "invalid_request")
        assert wrong not in str(problem)
        status, found = server.unseal(share=first)
        assert (status, found["progress"]) == (200, 1)
        assert server.unseal(share=first)[1]["progress"] == 1, "a repeated share does not count"
        assert server.unseal(share=third, nonce="0" * 32)[0] == 409
        assert server.unseal(share=third, nonce=found["nonce"])[1]["sealed"] is False

        assert server.wait_open()["threshold"] == 2
        assert server.ask("POST", "/keys", ORDERS, token)[0] in {200, 201}
        [opened] = entries(server, token, "unseal")
        assert "shamir" in opened["comment"]
        assert "wrong attempts before: 1 from 127.0.0.1" in opened["comment"]
        written = server.log + str(entries(server, token, "unseal"))
    stored = b"".join(one.read_bytes() for one in place.folder.glob("vault.db*"))
    for share in (first, third, wrong):
        assert share not in written
        assert share.encode() not in stored


def test_a_reset_forgets_the_shares(shared: tuple[Place, str]) -> None:
    place, _ = shared
    with place.serve() as server:
        server.wait_sealed()
        assert server.unseal(share=place.shares()[0])[1]["progress"] == 1
        assert server.unseal(reset=True)[1]["progress"] == 0
        assert server.unseal(share=place.shares()[1])[1]["sealed"] is True


def test_it_ends_on_a_signal_while_it_is_sealed(shared: tuple[Place, str]) -> None:
    with shared[0].serve() as server:
        server.wait_sealed()
        assert server.stop() == 0


def test_a_worker_that_dies_needs_no_people(shared: tuple[Place, str]) -> None:
    place, token = shared
    with place.serve("--workers", "2") as server:
        server.wait_sealed()
        for share in place.shares()[:2]:
            server.unseal(share=share)
        server.wait_open()
        before = server.workers()
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        late = time.monotonic() + 30
        while (len(server.workers()) < 2 or before[0] in server.workers()) and time.monotonic() < late:
            time.sleep(0.1)
        os.kill(before[1], signal.SIGKILL)  # only the one that came later is left
        server.wait_open()
        assert len(entries(server, token, "unseal")) == 1, "one start, one entry"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_admin_seals_it(shared: tuple[Place, str], workers: str) -> None:
    place, token = shared
    with place.serve("--workers", workers) as server:
        server.wait_sealed()
        for share in place.shares()[:2]:
            server.unseal(share=share)
        server.wait_open()
        body = {"name": "app", "role": "SERVICE"}
        service = server.ask("POST", "/services", body, token)[1]["token"]
        assert server.ask("POST", "/seal", {}, service)[0] == 403
        assert server.status()["sealed"] is False
        assert server.ask("POST", "/seal", {}, token) == (200, {"sealed": True})
        assert server.wait_sealed()["reason"] == "sealed by an operator"
        assert server.ask("GET", "/keys", token=token)[0] == 503
        for share in place.shares()[1:]:
            server.unseal(share=share)
        server.wait_open()
        assert len(entries(server, token, "seal")) == 2, "the refused attempt, and the other"


def test_a_sealed_file_waits_for_a_restart(tmp_path: Path) -> None:
    place = Place(tmp_path, "")
    assert place.kvl("master-key", "generate", "--out", "master.key").returncode == 0
    place.extra["KEYVAULT_MASTER_KEY"] = (tmp_path / "master.key").read_text().strip()
    token = place.init()
    with place.serve() as server:
        assert server.wait_open()["root"] == "file"
        assert entries(server, token, "unseal") == [], "nothing new for a vault without KEYVAULT_ROOT"
        assert server.ask("PUT", "/v1/sys/seal", token=None, **{"X-Vault-Token": token})[0] == 204
        found = server.wait_sealed()
        assert found["reason"] == "sealed by an operator: restart the server to open it"
        environment = Path(f"/proc/{server.process.pid}/environ")
        if os.access(environment, os.R_OK):
            assert place.extra["KEYVAULT_MASTER_KEY"].encode() not in environment.read_bytes()
    with place.serve() as server:
        server.wait_open()


def test_another_vault_as_the_root_is_awaited(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "outer").mkdir()
    outer = Place(tmp_path / "outer", "file:master.key")
    assert outer.kvl("master-key", "generate", "--out", "master.key").returncode == 0
    token_file = tmp_path / "inner" / "token"
    admin = outer.init()
    url = f"http://127.0.0.1:{outer.port}/transit/keys/kvl"
    inner = Place(tmp_path / "inner", f"vault:{url}?token-file={token_file}")
    with outer.serve() as server:
        server.wait_open()
        assert server.ask("POST", "/v1/transit/keys/kvl", {}, **{"X-Vault-Token": admin})[0] in {200, 204}
        token_file.write_text(admin)
        token_file.chmod(0o600)
        token = inner.init("--recovery-out", "recovery.key")
    with inner.serve() as server:
        found = server.wait(lambda found: found["sealed"] and found["reason"])
        assert found["reason"] == "the root vault cannot be reached"
        assert str(outer.port) not in str(server.ask("GET", "/health")[1]), "callers are told no host"
        with outer.serve() as again:
            again.wait_open()
            assert server.wait_open()["root"] == "vault"
        assert server.ask("POST", "/keys", ORDERS, token)[0] in {200, 201}, "open is open, whatever becomes of the root"
        [opened] = entries(server, token, "unseal")
        assert "by vault" in opened["comment"]
    recovered = Place(inner.folder, "file:recovery.key", port=inner.port)
    with recovered.serve() as server:
        assert server.wait_open()["root"] == "file"


def test_the_first_root_that_opens_wins(tmp_path: Path) -> None:
    place = Place(tmp_path, "file:master.key")
    assert place.kvl("master-key", "generate", "--out", "master.key").returncode == 0
    assert place.kvl("master-key", "generate", "--out", "other.key").returncode == 0
    place.init()
    place.root = "file:absent.key file:master.key"
    with place.serve() as server:
        server.wait_open()
    place.root = "file:other.key"
    ran = place.kvl("serve")
    assert ran.returncode == 2
    assert "belongs to another vault" in ran.stderr


def test_a_passphrase_opens_it(tmp_path: Path) -> None:
    passphrase = "correct-horse-battery-staple-42"
    (tmp_path / "words").write_text(passphrase + "\n")
    (tmp_path / "words").chmod(0o600)
    place = Place(tmp_path, f"passphrase:file={tmp_path / 'words'}")
    place.init("--no-recovery")
    place.root = "passphrase:"
    with place.serve() as server:
        assert server.wait_sealed()["passphrase"] is True
        status, problem = server.unseal(passphrase="wrong-horse-battery-staple-42")
        assert (status, problem["detail"]) == (422, "the passphrase does not open the vault")
        assert server.unseal(passphrase=passphrase)[1]["sealed"] is False
        server.wait_open()
        assert passphrase not in server.log


def test_another_vault_is_the_root_by_its_aws_dialect(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "outer").mkdir()
    outer = Place(tmp_path / "outer", "file:master.key")
    assert outer.kvl("master-key", "generate", "--out", "master.key").returncode == 0
    admin = outer.init()
    endpoint = f"http://127.0.0.1:{outer.port}"
    with outer.serve() as server:
        server.wait_open()
        body = {"name": "inner", "role": "ADMIN"}
        service = server.ask("POST", "/services", body, admin)[1]["id"]
        made = server.ask("POST", f"/services/{service}/aws-credentials", {}, admin)[1]
        kms = boto3.client(
            "kms",
            endpoint_url=endpoint,
            region_name="eu-central-1",
            aws_access_key_id=made["access_key_id"],
            aws_secret_access_key=made["secret_access_key"],
        )
        arn = kms.create_key()["KeyMetadata"]["Arn"]
        inner = Place(tmp_path / "inner", f"awskms:{arn}?endpoint={endpoint}")
        inner.extra["AWS_ACCESS_KEY_ID"] = made["access_key_id"]
        inner.extra["AWS_SECRET_ACCESS_KEY"] = made["secret_access_key"]
        inner.init("--no-recovery")
        with inner.serve() as opened:
            assert opened.wait_open()["root"] == "awskms"
        kms.disable_key(KeyId=arn)
        refused = inner.kvl("serve")
        assert refused.returncode == 2
        assert "awskms" in refused.stderr or "refuse" in refused.stderr
        assert made["secret_access_key"] not in refused.stderr
        kms.enable_key(KeyId=arn)
        with inner.serve() as opened:
            opened.wait_open()

"""`kvl` as people run it: real processes, a real server, real files."""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import pytest
from typer.testing import CliRunner

from keyvault_lite.cli.main import app
from tests.support.paths import SOURCE

OWN_PROCESS = {"init", "serve", "verify", "master-key", "quickstart", "status"}
SIGNING = [
    ("RSA", "3072", "SIGN"),
    ("EC", "256", "SIGN"),
    ("EC", "384", "SIGN"),
    ("EC", "521", "SIGN"),
    ("ED25519", None, "SIGN"),
    ("HMAC", "256", "MAC"),
    ("ML-DSA", "65", "SIGN"),
]


@dataclass(frozen=True)
class Ran:
    code: int
    stdout: bytes
    stderr: bytes


class Vault:
    """A vault in a folder, and `kvl` on it as one of its services."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")} | {
            "PYTHONPATH": str(SOURCE),
            "COLUMNS": "300",
            "KEYVAULT_MASTER_KEY_FILE": "master.key",
            "KEYVAULT_DATABASE_URL": "sqlite:///vault.db",
            "KEYVAULT_ADDR": f"http://127.0.0.1:{self.port}",
            "KEYVAULT_TOKEN_FILE": "admin.token",
        }

    def kvl(
        self, *arguments: str, code: int = 0, stdin: bytes = b"", settings: Mapping[str, str] = MappingProxyType({})
    ) -> Ran:
        """Run a command that must end with `code`: in this process if it only talks to the server, which is quicker."""
        environment = {**self.environment, **settings}
        if arguments[0] in OWN_PROCESS:
            ran = self._process(arguments, environment, stdin)
        else:
            with contextlib.chdir(self.folder), mock.patch.dict(os.environ, environment, clear=True):
                result = CliRunner().invoke(app, arguments, input=stdin, prog_name="kvl")
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            ran = Ran(result.exit_code, result.stdout_bytes, result.stderr_bytes)
        assert ran.code == code, (arguments, ran)
        assert b"Traceback" not in ran.stderr
        return ran

    def _process(self, arguments: Sequence[str], environment: dict[str, str], stdin: bytes) -> Ran:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "keyvault_lite", *arguments],
            cwd=self.folder,
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str, settings: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        found = json.loads(self.kvl(*arguments, "-o", "json", settings=settings).stdout)
        assert isinstance(found, dict)
        return found

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "keyvault_lite", "serve", "--port", self.port, *options],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(self.port))) == 0:
                    return server
            time.sleep(0.05)
        server.kill()
        server.wait()
        raise AssertionError("the server did not start")


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    made = Vault(tmp_path_factory.mktemp("vault"))
    made.kvl("master-key", "generate", "--out", "master.key")
    made.kvl("init", "--token-out", "admin.token")
    server = made.start()
    try:
        for name, more in {"orders": (), "orders-rsa": ("--type", "RSA", "--purpose", "ENCRYPT")}.items():
            made.kvl("key", "create", name, *more)
        yield made
    finally:
        server.terminate()
        server.wait(30)


def test_status_knows_the_token(vault: Vault) -> None:
    assert vault.json("status")["token"] == "accepted"
    assert b"refuses the token" in vault.kvl("status", code=1, settings={"KEYVAULT_TOKEN": "kvl_nobody"}).stderr


@pytest.mark.parametrize("key", ["orders", "orders-rsa"])
@pytest.mark.parametrize("size", [0, 1, 49152, 1_500_000])
def test_files_of_any_size_there_and_back(vault: Vault, key: str, size: int) -> None:
    plain = os.urandom(size)
    (vault.folder / "plain").write_bytes(plain)
    vault.kvl("encrypt", key, "plain", "-O", "sealed", "--context", "tenant=Ärzte", "--context", "a=b")
    assert vault.kvl("decrypt", key, "sealed", "--context", "a=b", "--context", "tenant=Ärzte").stdout == plain
    refused = vault.kvl("decrypt", key, "sealed", "-O", "back", "--context", "a=b", code=1)
    assert b"invalid_ciphertext" in refused.stderr
    assert not (vault.folder / "back").exists()


def test_a_rotated_key_opens_old_files_and_rewrap_brings_them_along(vault: Vault) -> None:
    vault.kvl("key", "create", "turning")
    plain = os.urandom(200_000)
    sealed = vault.kvl("encrypt", "turning", "-O", "-", stdin=plain).stdout
    (vault.folder / "old").write_bytes(sealed)
    (vault.folder / "new").write_bytes(sealed)
    assert vault.json("key", "rotate", "turning")["active_version"] == 2
    assert vault.kvl("decrypt", "turning", "old").stdout == plain
    assert b"version 2" in vault.kvl("rewrap", "turning", "new").stderr
    vault.kvl("key", "revoke", "turning", "--version", "1", "--reason", "test", "--yes")
    assert vault.kvl("decrypt", "turning", "new").stdout == plain
    assert b"invalid_state" in vault.kvl("decrypt", "turning", "old", code=1).stderr
    assert b"--yes" in vault.kvl("key", "revoke", "turning", code=2).stderr
    vault.kvl("key", "revoke", "turning", "--yes")
    assert b"invalid_state" in vault.kvl("decrypt", "turning", "new", code=1).stderr


def test_a_changed_file_is_refused(vault: Vault) -> None:
    sealed = vault.kvl("encrypt", "orders", stdin=os.urandom(120_000)).stdout
    for changed in (sealed[:-1], sealed + b"x", sealed[:70_000] + bytes([sealed[70_000] ^ 1]) + sealed[70_001:]):
        vault.kvl("decrypt", "orders", code=1, stdin=changed)


@pytest.mark.parametrize(("type", "size", "purpose"), SIGNING)
def test_signatures_of_every_type(vault: Vault, type: str, size: str | None, purpose: str) -> None:
    name = f"sign-{type}-{size}".lower()
    vault.kvl("key", "create", name, "--type", type, *(["--size", size] if size else []), "--purpose", purpose)
    (vault.folder / "small").write_bytes(b"hello")
    vault.kvl("sign", name, "small", "-O", "sig")
    vault.kvl("verify-signature", name, "small", "--signature", "sig")
    vault.kvl("verify-signature", name, "-", "--signature", "sig", code=1, stdin=b"hellO")
    large = os.urandom(70_000)
    if type in {"RSA", "EC"}:
        (vault.folder / "raw").write_bytes(vault.kvl("sign", name, "--raw", stdin=large).stdout)
        vault.kvl("verify-signature", name, "-", "--signature", "raw", "--raw", stdin=large)
    else:
        assert b"signs the file itself" in vault.kvl("sign", name, code=2, stdin=large).stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_checks_a_signature_of_a_large_file(vault: Vault) -> None:
    vault.kvl("key", "create", "release", "--type", "EC")
    (vault.folder / "large").write_bytes(os.urandom(300_000))
    vault.kvl("sign", "release", "large", "--raw", "-O", "large.sig")
    vault.kvl("key", "public-key", "release", "-O", "release.pem")
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "release.pem", "-signature", "large.sig", "large"],
        cwd=vault.folder,
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"Verified OK\n"


def test_public_keys_in_every_format(vault: Vault) -> None:
    vault.kvl("key", "create", "published", "--type", "EC")
    der = vault.kvl("key", "public-key", "published", "-f", "der").stdout
    pem = vault.kvl("key", "public-key", "published").stdout.decode()
    assert base64.b64decode("".join(pem.splitlines()[1:-1])) == der
    assert json.loads(vault.kvl("key", "public-key", "published", "-f", "jwk").stdout)["crv"] == "P-256"
    assert der.endswith(vault.kvl("key", "public-key", "published", "-f", "raw").stdout)


def test_the_life_of_a_key(vault: Vault) -> None:
    vault.kvl("key", "create", "life", "-d", "a key", "--tag", "a=b")
    assert vault.json("key", "update", "life", "--tag", "c=d", "--rotate-every", "30")["tags"] == {"c": "d"}
    assert vault.json("key", "show", "life")["rotation"] != {"period_days": None, "next_at": None}
    vault.kvl("key", "update", "life", "--rotate-every", "0", "--no-tags")
    assert vault.json("key", "show", "life")["rotation"] == {"period_days": None, "next_at": None}
    for command, status in (("disable", "DISABLED"), ("enable", "ACTIVE"), ("rotate", "ACTIVE")):
        assert vault.json("key", command, "life")["status"] == status
    assert vault.json("key", "destroy", "life", "--days", "7", "--yes")["status"] == "PENDING_DESTRUCTION"
    assert b"to be destroyed" in vault.kvl("key", "show", "life").stdout
    assert vault.json("key", "restore", "life")["status"] == "DISABLED"
    assert b"DEPRECATED" in vault.kvl("key", "versions", "life").stdout
    assert b"life" in vault.kvl("key", "ls").stdout


def test_services_and_what_they_may(vault: Vault) -> None:
    vault.kvl("service", "create", "app", "--grant", "orders*=encrypt", "--expires", "90d", "--token-out", "app.token")
    caller = {"KEYVAULT_TOKEN_FILE": "app.token"}
    sealed = vault.kvl("encrypt", "orders", stdin=b"x", settings=caller).stdout
    assert b"forbidden" in vault.kvl("decrypt", "orders", code=1, stdin=sealed, settings=caller).stderr
    vault.kvl("service", "grant", "app", "orders*=decrypt", "sealed-*=encrypt")
    assert vault.kvl("decrypt", "orders", stdin=sealed, settings=caller).stdout == b"x"
    vault.kvl("service", "revoke", "app", "orders*")
    assert b"not_found" in vault.kvl("decrypt", "orders", code=1, stdin=sealed, settings=caller).stderr
    vault.kvl("service", "update", "app", "--role", "AUDITOR")
    assert vault.json("audit", "verify", settings=caller)["valid"] is True
    vault.kvl("service", "deactivate", "app")
    assert b"unauthenticated" in vault.kvl("audit", "ls", code=1, settings=caller).stderr
    vault.kvl("service", "activate", "app")
    vault.kvl("service", "token", "app", "--token-out", "app2.token")
    assert b"unauthenticated" in vault.kvl("audit", "ls", code=1, settings=caller).stderr
    vault.kvl("audit", "ls", settings={"KEYVAULT_TOKEN_FILE": "app2.token"})
    assert b"app" in vault.kvl("service", "ls").stdout


def test_a_service_renews_its_own_token_with_an_overlap(vault: Vault) -> None:
    vault.kvl("service", "create", "replica", "--ttl", "1h", "--max-ttl", "2h", "--token-out", "replica.token")
    caller = {"KEYVAULT_TOKEN_FILE": "replica.token"}
    before = vault.json("whoami", settings=caller)
    assert (before["name"], before["role"], before["token"]["kind"]) == ("replica", "SERVICE", "native")
    assert before["token"]["expires_at"] < before["token"]["renewable_until"]
    renewed = vault.json("service", "token", "self", "--token-out", "replica2.token", settings=caller)
    assert renewed["token_expires_at"] >= before["token"]["expires_at"]
    assert renewed["token_renewable_until"] == before["token"]["renewable_until"]
    old, new = (vault.json("whoami", settings={"KEYVAULT_TOKEN_FILE": f"replica{n}.token"}) for n in ("", "2"))
    assert old["token"]["expires_at"] < before["token"]["expires_at"] <= new["token"]["expires_at"]
    vault.kvl("service", "token", "replica", "--token-out", "replica3.token")
    for file in ("replica.token", "replica2.token"):
        vault.kvl("whoami", code=1, settings={"KEYVAULT_TOKEN_FILE": file})
        assert vault.json("audit", "ls", "--action", "authenticate", "--limit", "1")["items"][0]["reason"] == "replaced"


def test_the_record(vault: Vault) -> None:
    vault.kvl("key", "show", "absent", code=1)
    denied = vault.json("audit", "ls", "--result", "denied", "--limit", "0")["items"]
    error = vault.json("audit", "ls", "--result", "error", "--limit", "0")["items"]
    assert [e for e in (*denied, *error) if e["key_ref"] == "absent"]
    vault.kvl("encrypt", "orders", stdin=b"x")
    mine = vault.json("audit", "ls", "--key", "orders", "--service", "admin", "--action", "encrypt", "--since", "1h")
    assert mine["items"]
    tail = vault.kvl("audit", "tail", "-n", "5", "-o", "json").stdout.splitlines()
    numbers = [json.loads(line)["id"] for line in tail]
    assert numbers == sorted(numbers)
    assert len(numbers) == 5


def test_evidence_convinces_a_stranger(vault: Vault) -> None:
    key = json.loads(vault.kvl("key", "create", "evident", "-o", "json").stdout)["id"]
    vault.kvl("key", "rotate", "evident")
    vault.kvl("audit", "export", "evidence", "--key", "evident")
    folder = vault.folder / "evidence"
    entries = [json.loads(path.read_text()) for path in (folder / "entries").iterdir()]
    assert {one["action"] for one in entries} >= {"generate", "rotate"}
    assert {one["key_id"] for one in entries} == {key}
    lines = (folder / "README.txt").read_text().splitlines()
    script = "\n".join(line for line in lines if line.startswith("    "))
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.count("valid: ") == len(entries)
    forged = folder / "entries" / f"{entries[0]['id']}.json"
    forged.write_text(forged.read_text().replace(key, key[::-1]))
    receipt, vkey = folder / "receipts" / f"{forged.stem}.txt", (folder / "log.vkey").read_text().strip()
    command = [sys.executable, "verify_receipt.py", "--key", vkey, str(receipt), "--entry", str(forged)]
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 1


def test_the_vault_itself(vault: Vault) -> None:
    assert vault.json("verify")["ok"] is True
    assert b"admin.token exists" in vault.kvl("init", "--token-out", "admin.token", code=2).stderr
    assert vault.kvl("init", code=2).stdout == b""


def test_without_a_vault_or_a_key_nothing_runs(tmp_path: Path) -> None:
    empty = Vault(tmp_path)
    assert empty.kvl("verify", code=2).stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert empty.kvl("init", code=2).stderr.count(b"\n") == 1
    assert empty.kvl("serve", code=2).stderr.count(b"\n") == 1
    empty.environment["KEYVAULT_TOKEN"] = "kvl_x"
    assert b"no answer" in empty.kvl("key", "ls", code=2).stderr


def test_a_lost_token_and_a_new_master_key(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.kvl("master-key", "generate", "--out", "master.key")
    first = vault.json("init")["token"]
    second = vault.json("init", "--recover-admin")["token"]
    assert first != second
    vault.kvl("master-key", "generate", "--out", "new.key")
    vault.kvl("master-key", "rotate", "--new-key-file", "new.key")
    assert vault.kvl("verify", code=2).stderr.count(b"\n") == 1
    vault.environment["KEYVAULT_MASTER_KEY_FILE"] = "new.key"
    assert vault.json("verify")["ok"] is True
    server = vault.start()
    try:
        del vault.environment["KEYVAULT_TOKEN_FILE"]
        vault.kvl("key", "ls", code=1, settings={"KEYVAULT_TOKEN": str(first)})
        vault.kvl("key", "ls", settings={"KEYVAULT_TOKEN": str(second)})
    finally:
        server.terminate()
        assert server.wait(30) in {0, -15}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_is_checked(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=vault", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.pem"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )  # fmt: skip
    vault.kvl("master-key", "generate", "--out", "master.key")
    vault.kvl("init", "--token-out", "admin.token")
    vault.environment |= {"KEYVAULT_TLS_CERT": "tls.pem", "KEYVAULT_TLS_KEY": "tls.key"}
    vault.environment["KEYVAULT_ADDR"] = f"https://127.0.0.1:{vault.port}"
    server = vault.start()
    try:
        assert b"CERTIFICATE_VERIFY_FAILED" in vault.kvl("key", "ls", code=2).stderr
        vault.kvl("key", "ls", settings={"KEYVAULT_CACERT": "tls.pem"})
    finally:
        server.terminate()
        server.wait(30)


def test_the_tour(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    done = vault.kvl("quickstart", settings={"TMPDIR": str(tmp_path)})
    assert b"All shown" in done.stdout
    assert b"   export KEYVAULT_MASTER_KEY_FILE=master.key\n" in done.stdout
    assert (b"   export PATH=" in done.stdout) is (shutil.which("kvl") is None)
    assert b"Verified OK" in done.stdout or shutil.which("openssl") is None
    assert list(tmp_path.iterdir()) == []

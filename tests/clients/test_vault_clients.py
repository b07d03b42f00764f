"""Clients of Vault and OpenBao as they come: the `bao` command line, SOPS, Tink, and an OpenBao sealed by us."""

import base64
import io
import itertools
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.clients.conftest import Served, free_port
from tests.support.openbao import clean_environment, stop, tool, wait_for

_count = itertools.count()


def run(
    *arguments: str, code: int = 0, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        arguments,
        cwd=cwd,
        env=clean_environment(**(env or {})),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture
def name() -> str:
    return f"cli-{next(_count)}"


# The command line


class Bao:
    """`bao`, pointed at a server."""

    def __init__(self, served: Served, home: Path, token: str) -> None:
        self._environment = {"BAO_ADDR": served.url, "BAO_TOKEN": token, "HOME": str(home), "BAO_FORMAT": "json"}
        self._program = tool("bao")

    def __call__(self, *arguments: str, code: int = 0) -> dict[str, object]:
        done = run(self._program, *arguments, code=code, env=self._environment)
        found: dict[str, object] = json.loads(done.stdout) if done.stdout.strip().startswith((b"{", b"[")) else {}
        return found

    def data(self, *arguments: str) -> Mapping[str, object]:
        found = self(*arguments)["data"]
        assert isinstance(found, dict)
        return found


@pytest.fixture
def bao(served: Served, tmp_path: Path) -> Bao:
    return Bao(served, tmp_path, served.admin)


def test_the_command_line(bao: Bao, name: str) -> None:
    assert bao("status")["sealed"] is False
    bao("secrets", "enable", f"-path=cli/{name}", "transit")
    assert f"cli/{name}/" in bao("secrets", "list")
    bao("write", "-f", f"cli/{name}/keys/first")
    sealed = bao.data("write", f"cli/{name}/encrypt/first", "plaintext=aGVsbG8=")["ciphertext"]
    assert bao.data("write", f"cli/{name}/decrypt/first", f"ciphertext={sealed}") == {"plaintext": "aGVsbG8="}
    bao("write", "-f", f"cli/{name}/keys/first/rotate")
    assert bao.data("read", f"cli/{name}/keys/first")["latest_version"] == 2
    assert run_list(bao, f"cli/{name}/keys") == ["first"]
    bao("write", f"cli/{name}/keys/first/config", "deletion_allowed=true", "auto_rotate_period=24h")
    assert bao.data("read", f"cli/{name}/keys/first")["auto_rotate_period"] == 86400
    bao("delete", f"cli/{name}/keys/first")
    bao("read", f"cli/{name}/keys/first", code=2)
    bao("secrets", "disable", f"cli/{name}")
    assert f"cli/{name}/" not in bao("secrets", "list")


def run_list(bao: Bao, path: str) -> object:
    done = run(bao._program, "list", path, env=bao._environment)
    return json.loads(done.stdout)


def test_tokens_and_policies_of_the_command_line(bao: Bao, served: Served, name: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.hcl"
    rules.write_text(f'# what the service needs\npath "transit/encrypt/{name}" {{\n  capabilities = ["update"]\n}}\n')
    bao("policy", "write", name, str(rules))
    bao("write", "-f", f"transit/keys/{name}")
    made = bao("token", "create", f"-policy={name}", "-ttl=10m")["auth"]
    assert isinstance(made, dict)
    assert made["policies"] == sorted(["default", name])
    service = Bao(served, tmp_path, made["client_token"])
    assert service.data("token", "lookup")["ttl"] in range(1, 601)
    service("write", f"transit/encrypt/{name}", "plaintext=aGVsbG8=")
    service("write", "-f", f"transit/keys/{name}/rotate", code=2)
    service("token", "renew")
    assert service_capabilities(service, f"transit/encrypt/{name}") == ["update"]
    service("token", "revoke", "-self")
    service("token", "lookup", code=2)
    rules.write_text('path "transit/*" { capabilities = ["update"] }')
    bao("policy", "write", name, str(rules), code=2)


def service_capabilities(bao: Bao, path: str) -> object:
    done = run(bao._program, "token", "capabilities", path, env=bao._environment)
    return json.loads(done.stdout)


# SOPS


def test_sops_encrypts_and_opens_a_file(served: Served, tmp_path: Path, name: str) -> None:
    sops = tool("sops")
    assert served.ask("POST", f"/v1/transit/keys/{name}", {}).status == 200
    token = served.service(f"sops-{name}", grants=[{"key": f"vault:transit/{name}", "actions": ["encrypt", "decrypt"]}])
    plain = tmp_path / "secret.json"
    plain.write_text('{"password": "correct horse"}')
    where = {"VAULT_TOKEN": token, "HOME": str(tmp_path)}
    uri = f"{served.url}/v1/transit/keys/{name}"
    sealed = run(sops, "encrypt", "--hc-vault-transit", uri, str(plain), cwd=tmp_path, env=where).stdout
    assert b"correct horse" not in sealed
    (tmp_path / "sealed.json").write_bytes(sealed)
    opened = run(sops, "decrypt", "sealed.json", cwd=tmp_path, env=where).stdout
    assert json.loads(opened) == {"password": "correct horse"}
    other = served.service(f"sops-other-{name}")
    run(sops, "decrypt", "sealed.json", cwd=tmp_path, code=128, env={"VAULT_TOKEN": other, "HOME": str(tmp_path)})


# Tink


def test_tink_wraps_its_keysets_with_us(served: Served, name: str) -> None:
    hvac, tink = pytest.importorskip("hvac"), pytest.importorskip("tink")
    aead, hcvault = tink.aead, pytest.importorskip("tink.integration.hcvault")
    assert served.ask("POST", f"/v1/transit/keys/{name}", {}).status == 200
    aead.register()
    remote = hcvault.new_aead(f"transit/keys/{name}", hvac.Client(url=served.url, token=served.admin))
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    out = io.StringIO()
    handle.write(tink.JsonKeysetWriter(out), remote)
    again = tink.read_keyset_handle(tink.JsonKeysetReader(out.getvalue()), remote)
    sealed = handle.primitive(aead.Aead).encrypt(b"hello", b"data")
    assert again.primitive(aead.Aead).decrypt(sealed, b"data") == b"hello"


# OpenBao, whose seal is a key of ours


@pytest.fixture
def sealed_by_us(served: Served, tmp_path: Path, name: str) -> tuple[Path, str, str]:
    """The configuration of an OpenBao that seals itself with a key of ours; its program, and the token it has."""
    program = tool("bao")
    assert served.ask("POST", f"/v1/transit/keys/{name}", {}).status == 200
    token = served.service(f"seal-{name}", grants=[{"key": f"vault:transit/{name}", "actions": ["encrypt", "decrypt"]}])
    child = served.ask("POST", "/v1/auth/token/create", {"period": "24h"}, token=token)
    assert child.status == 400  # only an ADMIN makes tokens without end
    leased = served.ask("POST", "/v1/auth/token/create", {"ttl": "24h"}, token=token).body["auth"]["client_token"]
    port = free_port()
    configuration = tmp_path / "bao.hcl"
    configuration.write_text(
        f"""
        storage "raft" {{
          path = "{tmp_path}"
          node_id = "one"
        }}
        listener "tcp" {{ address = "127.0.0.1:{port}" tls_disable = true }}
        api_addr = "http://127.0.0.1:{port}"
        cluster_addr = "http://127.0.0.1:{free_port()}"
        seal "transit" {{
          address = "{served.url}"
          token = "{leased}"
          key_name = "{name}"
          mount_path = "transit/"
        }}
        """
    )
    return configuration, program, str(port)


def test_openbao_unseals_itself_with_our_key(
    sealed_by_us: tuple[Path, str, str], served: Served, tmp_path: Path, name: str
) -> None:
    configuration, program, port = sealed_by_us
    home = {"HOME": str(tmp_path), "BAO_ADDR": f"http://127.0.0.1:{port}"}

    def serve() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [program, "server", f"-config={configuration}"],
            env=clean_environment(**home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(int(port), process)
        return process

    def unsealed() -> bool:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            done = subprocess.run(
                [program, "status", "-format=json"], env=clean_environment(**home), capture_output=True, check=False
            )
            if done.stdout and json.loads(done.stdout).get("sealed") is False:
                return True
            time.sleep(0.2)
        return False

    first = serve()
    try:
        run(program, "operator", "init", "-format=json", "-recovery-shares=1", "-recovery-threshold=1", env=home)
        assert unsealed()
    finally:
        stop(first)
    assert served.ask("POST", f"/v1/transit/keys/{name}/rotate", {}).status == 200
    second = serve()
    try:
        assert unsealed()
    finally:
        stop(second)


def test_bytes_of_any_kind(bao: Bao, name: str) -> None:
    bao("write", "-f", f"transit/keys/{name}")
    raw = base64.b64encode(bytes(range(256))).decode()
    sealed = bao.data("write", f"transit/encrypt/{name}", f"plaintext={raw}")["ciphertext"]
    assert bao.data("write", f"transit/decrypt/{name}", f"ciphertext={sealed}")["plaintext"] == raw

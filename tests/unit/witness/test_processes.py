"""`kvl witness` and `kvl serve` as processes: killed, over TLS, on copies of one database."""

import base64
import datetime as dt
import http.client
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner, Result

from keyvault_lite.cli import main
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.server import serve_witness
from keyvault_lite.settings import Settings
from keyvault_lite.witness.client import WitnessClient
from tests.support.paths import SOURCE
from tests.support.witness import ORIGIN, VKEY, Tree

Start = Callable[..., subprocess.Popen[bytes]]


def environment(**settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
    return {**clean, "PYTHONPATH": str(SOURCE), **{f"KEYVAULT_{name}": value for name, value in settings.items()}}


def kvl(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "keyvault_lite", *arguments],
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, port: int, **settings: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "keyvault_lite", *arguments, "--port", str(port)],
            cwd=tmp_path,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            time.sleep(0.02)
        return process

    yield begin
    for process in running:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main.app, ["witness", *arguments], prog_name="kvl")


def test_the_commands_of_a_witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = run("init", "--name", "w.example/1")
    assert made.exit_code == 0
    assert made.stdout.startswith("w.example/1+")
    assert run("key").stdout == made.stdout
    assert Path("witness").stat().st_mode & 0o777 == 0o700
    assert Path("witness/key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init",), "has a key already"),
        (("init", "--dir", "x", "--name", "a b"), "the name of a witness is"),
        (("key", "--dir", "y"), "run `kvl witness init`"),
        (("serve", "--log", "nonsense"), "not a verifier key"),
        (("serve", "--logs", "absent"), "absent"),
        (("serve", "--log", VKEY, "--host", "192.0.2.1"), "Plain HTTP is served on loopback addresses only"),
    ],
)
def test_what_keeps_a_witness_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    run("init")
    try:
        ran = run(*arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ran.exit_code == 2
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_the_key_of_a_witness_gets_into_no_core_file(tmp_path: Path, start: Start) -> None:
    kvl(tmp_path, "witness", "init")
    (tmp_path / "witness" / "key").chmod(0o644)
    process = start("witness", "serve", "--log", VKEY, port=free_port())
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)
    process.terminate()
    assert b"open to other users; run: chmod 600 witness/key" in process.communicate(timeout=20)[1]


def test_a_kill_makes_a_witness_forget_nothing(tmp_path: Path, start: Start) -> None:
    """Whatever it had confirmed when it was killed, it knows when it is there again; and it made its key by itself."""
    tree, port = Tree(400), free_port()
    (tmp_path / "logs").write_text(f"# ours\n{VKEY}  # the vault\n\n")
    confirmed, keys = 0, set()
    for _ in range(2):
        process = start("witness", "serve", "--logs", "logs", port=port)
        keys.add(serve_witness.witness_verifier_key(tmp_path / "witness"))
        witness = WitnessClient(f"http://127.0.0.1:{port}", list(keys), verify=verify_ed25519)
        newest = witness.newest(ORIGIN)
        assert (0 if newest is None else newest.size) >= confirmed
        for size in range(confirmed + 1, confirmed + 30):
            prove = partial(tree.prove, new=size)
            confirmed = witness.submit(tree.note(size), size=size, old=size - 1, prove=prove).size
        process.kill()
        process.communicate()
        witness.close()
        assert not witness.was_put_back
    assert len(keys) == 1


def test_two_processes_cannot_be_one_witness(tmp_path: Path, start: Start) -> None:
    start("witness", "serve", "--log", VKEY, port=free_port())
    second = kvl(tmp_path, "witness", "serve", "--log", VKEY, "--port", str(free_port()))
    assert second.returncode == 2
    assert "another process is the witness of this folder" in second.stderr


def certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "witness")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class Api:
    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def until(self, wanted: Callable[[tuple[int, str]], bool], method: str, path: str) -> tuple[int, str]:
        deadline = time.monotonic() + 20
        while not wanted(answer := self.ask(method, path)):
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        return answer


def test_servers_on_copies_of_one_database_are_exposed(tmp_path: Path, start: Start) -> None:
    """Over TLS, as in production: the witness confirms the one that was first, the other stops and says why."""
    certificate(tmp_path)
    master = base64.b64encode(os.urandom(32)).decode()
    (tmp_path / "a").mkdir()
    url = "sqlite:///{}/keyvault.db".format
    token = initialise_vault(
        Settings(master_key=master, database_url=url(tmp_path / "a"), log_level="error")  # type: ignore[arg-type]
    ).token
    mark = FileAnchor(tmp_path / "a" / "keyvault.db.anchor").read()
    assert mark is not None
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    vkey = serve_witness.make_witness(tmp_path / "witness", "witness.example/1")
    port = free_port()
    start("witness", "serve", "--log", mark.verifier_key, port=port, TLS_CERT="cert.pem", TLS_KEY="key.pem")
    settings = {
        "MASTER_KEY": master,
        "WITNESS": f"https://127.0.0.1:{port}",
        "WITNESS_KEY": vkey,
        "WITNESS_CACERT": "cert.pem",
        "LOG_LEVEL": "error",
    }
    nodes = {}
    for name in ("a", "b"):
        nodes[name] = Api(free_port(), token)
        start("serve", port=nodes[name].port, DATABASE_URL=url(tmp_path / name), **settings)
    key = {"type": "AES", "purpose": "ENCRYPT"}
    assert nodes["a"].ask("POST", "/keys", {"name": "of-a", **key})[0] == 201
    size = re.compile(r"^keyvault_witness_size ([2-9]|\d\d+)$", re.MULTILINE)
    nodes["a"].until(lambda answer: size.search(answer[1]) is not None, "GET", "/metrics")
    assert nodes["b"].ask("POST", "/keys", {"name": "of-b", **key})[0] == 201, "alone it cannot know"
    status, body = nodes["b"].until(lambda answer: answer[0] == 503, "GET", "/health")
    assert (status, json.loads(body)["status"]) == (503, "integrity_violation")
    refused = nodes["b"].ask("GET", "/keys")
    assert refused[0] == 503
    assert re.search("another history of this log|knows more of the log than the database has", refused[1])
    assert nodes["a"].ask("GET", "/keys")[0] == 200
    status, text = nodes["a"].ask("GET", "/audit/2/receipt")
    assert status == 200
    assert f"\n— {vkey.split('+', 1)[0]} " in text

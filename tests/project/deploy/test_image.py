"""The image, built and run. Needs an engine, its base image and the package index: `make image`."""

import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

ENGINE = shutil.which("docker")
IMAGE = "keyvault-lite:tested"
CONFINED = (
    "--init", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
    "--ulimit", "core=0", "--stop-timeout", "20", "--env", "KEYVAULT_ALLOW_PLAIN_HTTP=1",
)  # fmt: skip
BUILDING = 900

pytestmark = [pytest.mark.image, pytest.mark.timeout(BUILDING)]


def docker(*words: str, code: int = 0) -> str:
    assert ENGINE is not None
    done = subprocess.run(
        [ENGINE, *words], cwd=ROOT, capture_output=True, text=True, timeout=BUILDING, check=False, encoding="utf-8"
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if ENGINE is None or subprocess.run([ENGINE, "info"], capture_output=True, check=False).returncode:
        pytest.skip("no container engine answers")
    docker("build", "-f", "deploy/Dockerfile", "-t", IMAGE, ".")
    yield IMAGE
    docker("image", "rm", IMAGE)


@pytest.fixture
def name() -> Iterator[str]:
    """Of a container, and with a suffix of its volumes. They are gone afterwards."""
    chosen = f"keyvault-test-{uuid.uuid4().hex[:12]}"
    yield chosen
    docker("rm", "--force", "--volumes", chosen)
    docker("volume", "rm", "--force", *(f"{chosen}-{one}" for one in ("data", "anchor")))


def test_what_is_in_it(image: str) -> None:
    found = docker("run", "--rm", "--entrypoint", "sh", image, "-c", "id -u; command -v gcc cc make; true").split()
    assert found == ["10001"]
    history = docker("history", "--no-trunc", image)
    assert not [word for word in ("MASTER_KEY=", "TOKEN=", "PASSWORD") if word in history]
    docker("run", "--rm", image, code=2)


def test_a_vault_in_it_from_its_making_to_its_stop(image: str, name: str) -> None:
    volumes = ("-v", f"{name}-data:/var/lib/keyvault", "-v", f"{name}-anchor:/var/lib/keyvault-anchor")
    # Not where they belong: a folder of this machine would have to be owned by 10001.
    key = ("-e", "KEYVAULT_MASTER_KEY_FILE=/var/lib/keyvault/key")
    docker("run", "--rm", *volumes, image, "master-key", "generate", "--out", "/var/lib/keyvault/key")
    docker("run", "--rm", *volumes, *key, image, "init", "--token-out", "/var/lib/keyvault/token")
    docker("run", "--detach", "--name", name, *CONFINED, *volumes, *key, image)
    until = time.monotonic() + 60
    while (health := docker("inspect", "--format", "{{.State.Health.Status}}", name).strip()) != "healthy":
        assert (health, time.monotonic() < until) == ("starting", True), docker("logs", name)
        time.sleep(1)
    assert "clean: 1 entries" in docker("exec", name, "kvl", "verify")
    token, secret = docker("exec", name, "cat", "/var/lib/keyvault/token", "/var/lib/keyvault/key").split()
    docker("stop", name)
    state = json.loads(docker("inspect", "--format", "{{json .State}}", name))
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    told = docker("logs", name) + docker("inspect", name)
    assert '"message": "stopped"' in told
    assert token not in told
    assert secret not in told
    docker("start", name)
    assert "clean:" in docker("exec", name, "kvl", "verify")

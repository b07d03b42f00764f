"""What `deploy/` has to say. Nothing of it is run here; test_image.py runs the image."""

import configparser
import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with the tests of the OpenAPI document

from keyvault_lite.settings import PREFIX, Settings
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
UNITS = ("keyvault-lite.service", "keyvault-lite-init.service")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
SAFE = {"HOME": "/nonexistent", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
"""No module, and no file of a library, is taken from a folder that the vault writes."""
STATE = ("/var/lib/keyvault", "/var/lib/keyvault-anchor", "/var/lib/keyvault-token", "/tmp")
KNOWN = {PREFIX + name.upper() for name in Settings.model_fields}


class Repeating(dict[str, Any]):
    """A section whose directives may stand several times."""

    def __setitem__(self, name: str, value: object) -> None:
        if isinstance(value, list) and name in self:
            self[name].extend(value)
        else:
            super().__setitem__(name, value)


def unit(name: str) -> Mapping[str, list[str]]:
    parser = configparser.RawConfigParser(dict_type=Repeating, strict=False, delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / name, encoding="utf-8")
    return {key: value.split("\n") for key, value in parser["Service"].items()}


def assignments(service: Mapping[str, list[str]]) -> dict[str, str]:
    """The environment that a unit sets."""
    return dict(one.split("=", 1) for line in service["Environment"] for one in line.split())


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_confines_what_it_runs(name: str) -> None:
    service = unit(name)
    for directive in (
        "NoNewPrivileges", "MemoryDenyWriteExecute", "PrivateTmp", "PrivateDevices", "PrivateUsers", "ProtectHome",
        "ProtectKernelTunables", "ProtectKernelModules", "ProtectControlGroups", "RestrictNamespaces",
        "LockPersonality",
    ):  # fmt: skip
        assert service[directive] == ["yes"], directive
    assert service["ProtectSystem"] == ["strict"]
    assert service["LimitCORE"] == ["0"]
    assert service["CapabilityBoundingSet"] == [""]
    assert service["User"] == ["keyvault"]
    assert {"keyvault", "keyvault-anchor"} <= set(service["StateDirectory"][0].split())


@pytest.mark.parametrize("name", UNITS)
def test_the_master_key_is_a_credential_and_the_anchor_stands_apart(name: str) -> None:
    service = unit(name)
    environment = assignments(service)
    assert {name for name in environment if name not in SAFE} <= KNOWN
    assert service["LoadCredential"] == ["master.key:/etc/keyvault/master.key"]
    assert environment["KEYVAULT_MASTER_KEY_FILE"] == "%d/master.key"
    database = Path(environment["KEYVAULT_DATABASE_URL"].removeprefix("sqlite:///"))
    assert database.parent != Path(environment["KEYVAULT_ANCHOR"]).parent


def test_no_token_reaches_the_journal() -> None:
    serving, making = (unit(name)["ExecStart"][0] for name in UNITS)
    assert serving.endswith("kvl serve --no-init")
    assert "kvl init --token-out /var/lib/keyvault-token/" in making
    assert "keyvault-token" in unit(UNITS[1])["StateDirectory"][0]
    assert unit(UNITS[0])["RestartPreventExitStatus"] == ["2"]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_fails_aloud_and_a_reload_does_not_end_it(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    assert not re.search("(?m)^(Condition|Documentation)", text), (
        "skipped is success for systemctl; no page is installed"
    )
    assert "ExecReload" not in unit(name), "SIGHUP ends a server without workers, and exit code 0 is not restarted"


def test_a_command_beside_the_service_has_its_settings() -> None:
    text = (DEPLOY / "keyvault-lite-run").read_text(encoding="utf-8")
    assert os.access(DEPLOY / "keyvault-lite-run", os.X_OK)
    service = unit(UNITS[0])
    for directive in ("User", "UMask", "WorkingDirectory", "LimitCORE", "EnvironmentFile"):
        assert f"--property={directive}={service[directive][0]} " in text, directive
    assert f"\nkey=LoadCredential={service['LoadCredential'][0]}\n" in text
    for name, value in assignments(service).items():
        if name != "KEYVAULT_MASTER_KEY_FILE":
            assert f"--setenv={name}={value} " in text
    assert service["ExecStart"][0].split()[0] in text


def stands_apart(folder: str, state: Iterable[str]) -> bool:
    """Whether a working directory is none of these folders, nor inside of one."""
    here = Path(folder)
    return here.is_absolute() and not {here, *here.parents} & set(map(Path, state))


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_where_nobody_but_root_writes(name: str) -> None:
    service = unit(name)
    state = [
        f"/var/lib/{one}"
        for kind in ("StateDirectory", "CacheDirectory", "RuntimeDirectory", "LogsDirectory")
        for one in " ".join(service.get(kind, [])).split()
    ]
    assert state
    assert stands_apart(service["WorkingDirectory"][0], [*state, *STATE])
    assert SAFE.items() <= assignments(service).items()


def test_the_service_user_has_no_home_that_it_writes() -> None:
    [line] = [
        line for line in (DEPLOY / "keyvault-lite.sysusers.conf").read_text().splitlines() if not line.startswith("#")
    ]
    assert shlex.split(line)[4] == SAFE["HOME"]


def test_the_container_runs_where_nobody_but_root_writes() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    [folder] = re.findall(r"(?m)^WORKDIR (.+)$", final)
    [volumes] = re.findall(r"(?m)^VOLUME (.+)$", final)
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    mounts = [
        one.split(":")[-1 if kind == "volumes" else 0]
        for service in composed["services"].values()
        for kind in ("volumes", "tmpfs")
        for one in service.get(kind, ())
        if service.get("build")
    ]
    assert mounts
    assert stands_apart(folder, [*json.loads(volumes), *mounts, *STATE])
    assert not [one for one in composed["services"].values() if "working_dir" in one]
    assert SAFE.items() <= dict(re.findall(r"([A-Z]+)=(\S+)", final)).items()
    assert f"--home-dir {SAFE['HOME']} " in final
    [check] = re.findall(r"(?m)^ +CMD (.+)$", final)
    assert json.loads(check)[:2] == ["python", "-I"]


def test_both_units_are_confined_alike() -> None:
    one, other = (
        {k: v for k, v in unit(name).items() if re.match("Pro|Pri|Res|Sys|Cap|Mem|Limit", k)} for name in UNITS
    )
    assert {k: v for k, v in one.items() if not k.startswith("Restart")} == other


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for name in UNITS:
        text = (DEPLOY / name).read_text(encoding="utf-8").replace("/opt/keyvault/bin/kvl", sys.executable)
        (tmp_path / name).write_text(re.sub("(?m)^(User|Group)=.*", r"\1=daemon", text), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not [line for line in done.stderr.splitlines() if str(tmp_path) in line], done.stderr
    level = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(tmp_path / UNITS[0])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert level.returncode == 0, level.stdout[-400:]


def test_the_image_is_run_by_nobody_special() -> None:
    assert re.findall(r"(?m)^FROM python:3\.\d+-slim-\w+( AS build)?$", DOCKERFILE) == [" AS build", ""]
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    instructions = dict(line.split(" ", 1) for line in final.splitlines() if re.match("[A-Z]+ ", line))
    assert instructions["USER"] == "10001:10001"
    assert instructions["ENTRYPOINT"] == '["kvl"]'
    assert instructions["CMD"] == '["serve", "--no-init"]'
    assert instructions["STOPSIGNAL"] == "SIGTERM"
    assert "HEALTHCHECK" in final
    assert set(re.findall(r"KEYVAULT_\w+", DOCKERFILE)) <= KNOWN
    assert not re.search(r"KEYVAULT_MASTER_KEY=|kvl_|TOKEN=", DOCKERFILE)
    assert not re.search("(?im)^# *syntax *=", DOCKERFILE), "no program from elsewhere reads this file"


def test_the_image_gets_what_it_is_built_of_and_nothing_else() -> None:
    copied = {
        file
        for files in re.findall(r"(?m)^COPY (?:--chmod=\d+ )?(?!--from)(.+) \S+$", DOCKERFILE)
        for file in files.split()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {"pyproject.toml", "src", project["project"]["readme"], *project["project"]["license-files"]}
    install = {"tools/install", "requirements.lock", "requirements-build.lock"}
    assert copied == wanted | wheel["force-include"].keys() | install | {"deploy/healthcheck.py"}
    assert all((ROOT / one).exists() for one in copied)
    assert "COPY --chmod=0644 deploy/healthcheck.py" in DOCKERFILE, (
        "a checkout under umask 077 is readable by root alone"
    )
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*", "what is not named does not get in"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_health_check() -> None:
    statuses = iter((200, 503))

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/health"
            assert self.headers["Authorization"] is None
            self.send_response(next(statuses))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script = [sys.executable, str(DEPLOY / "healthcheck.py")]
        environment = {"KEYVAULT_PORT": str(server.server_port)}
        codes = [subprocess.run(script, env=environment, timeout=30, check=False).returncode for _ in range(2)]
        server.shutdown()
    assert codes == [0, 1]
    closed = subprocess.run(script, env=environment, timeout=30, check=False)
    assert closed.returncode == 1


def test_the_composition() -> None:
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    vault, postgres = composed["services"]["vault"], composed["services"]["postgres"]
    assert vault["read_only"] is True
    assert vault["cap_drop"] == ["ALL"]
    assert vault["ulimits"]["core"] == 0
    assert "no-new-privileges:true" in vault["security_opt"]
    assert vault["command"] == ["serve", "--no-init"]
    assert all(port.startswith("127.0.0.1:") for port in vault["ports"])
    assert {name for name in vault["environment"] if name.startswith(PREFIX)} <= KNOWN
    assert vault["environment"]["KEYVAULT_DATABASE_URL"].startswith("postgresql://keyvault@")
    volumes = {one.split(":")[1]: one.split(":")[0] for one in vault["volumes"]}
    assert Path(vault["environment"]["KEYVAULT_ANCHOR"]).parent == Path("/var/lib/keyvault-anchor")
    assert volumes["/var/lib/keyvault-anchor"] not in {one.split(":")[0] for one in postgres["volumes"]}
    assert postgres["environment"]["POSTGRES_USER"] != "keyvault", "that one is a superuser"
    assert "./postgres-init.sh:/docker-entrypoint-initdb.d/keyvault.sh:ro" in postgres["volumes"]
    assert composed["networks"]["store"]["internal"] is True
    assert postgres["networks"] == ["store"]
    assert "ports" not in postgres
    assert "--host 127.0.0.1" in " ".join(postgres["healthcheck"]["test"]), "the server of its making has but a socket"
    assert vault["restart"] == postgres["restart"] == "unless-stopped", "on-failure is not for a restart of the host"
    secrets = set(vault["secrets"]) | set(postgres["secrets"])
    assert secrets == composed["secrets"].keys()
    assert all(one["file"].startswith("./secrets/") for one in composed["secrets"].values())
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for name, value in (vault["environment"] | postgres["environment"]).items():
        if name.endswith(("_FILE", "_CERT", "_KEY")) or name == "PGPASSFILE":
            assert value.removeprefix("/run/secrets/") in secrets
    assert not {"KEYVAULT_MASTER_KEY", "POSTGRES_PASSWORD", "PGPASSWORD"} & (
        vault["environment"].keys() | postgres["environment"].keys()
    )


def test_the_page_names_every_metric_and_bound() -> None:
    page = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("deployment.md", "witness.md"))
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    names = set(re.findall(r'"(keyvault_[a-z_]+|process_start_time_seconds)"', sources)) - {"keyvault_lite"}
    assert names
    assert [name for name in sorted(names) if name not in page] == []

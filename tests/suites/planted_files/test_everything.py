"""A server and the commands, started in a folder and with a HOME where a file lies for everybody who looks there."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.suites.overload.server import Vault
from tests.suites.planted_files.plants import KVL, Modules, environment, user_site, write_all

GARBAGE = "planted: neither a certificate nor a setting\n"
ROOT_OF_TRUST = {
    # libpq, OpenSSL, LDAP, Kerberos
    ".postgresql/root.crt": GARBAGE,
    ".postgresql/root.crl": GARBAGE,
    ".postgresql/postgresql.crt": GARBAGE,
    ".postgresql/postgresql.key": GARBAGE,
    ".pg_service.conf": "[planted]\nhost=192.0.2.1\n",
    ".pgpass": "*:*:*:*:planted\n",
    "openssl.cnf": "openssl_conf = planted\n[planted]\nengines = planted\n[engines]\n",
    "cert.pem": GARBAGE,
    "ldaprc": "TLS_REQCERT never\n",
    ".ldaprc": "TLS_REQCERT never\n",
    "krb5.conf": "[libdefaults]\n",
    ".k5identity": "planted\n",
    # Clients of HTTP
    ".netrc": "default login planted password planted\n",
    ".curlrc": "insecure\n",
    ".config/pip/pip.conf": "[global]\nindex-url = http://192.0.2.1/\n",
    # Settings of programs and libraries
    ".env": "KEYVAULT_ANCHOR=off\nKEYVAULT_LOG_LEVEL=error\nUVICORN_HOST=0.0.0.0\n",
    "alembic.ini": "[alembic]\nscript_location = planted\n",
    "logging.conf": "[loggers]\nkeys = root\n",
    "uvicorn.json": "{}",
    "pyproject.toml": "[tool.pydantic-settings]\nanchor = 'off'\n",
    "setup.cfg": "[metadata]\n",
    "pyvenv.cfg": "home = /nonexistent\ninclude-system-site-packages = true\n",
    "python._pth": "planted\n",
    ".config/rich.toml": GARBAGE,
    ".inputrc": "set planted on\n",
    ".pdbrc": "import os\n",
    # Translations and time zones
    "locale/xx/LC_MESSAGES/messages.mo": GARBAGE,
    "locale/xx/LC_MESSAGES/click.mo": GARBAGE,
    "zoneinfo/UTC": GARBAGE,
    # Completion of shells
    ".bash_completions/kvl.sh": "touch planted\n",
    ".zfunc/_kvl": "touch planted\n",
}


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    folder = tmp_path / "vault"
    folder.mkdir()
    made = Vault.make(folder)
    yield made
    made.kill()


def test_nothing_that_lies_about_is_used(vault: Vault, tmp_path: Path) -> None:
    planted = Modules(vault.folder, tmp_path / "trace")
    user_site(vault.folder, planted.statement())
    write_all(vault.folder, ROOT_OF_TRUST)
    (vault.folder / ".pythonrc").write_text(planted.statement())
    before = {name: (vault.folder / name).read_text() for name in ROOT_OF_TRUST}
    vault.settings |= {"HOME": str(vault.folder), "LANGUAGE": "xx", "LC_ALL": "C.UTF-8"}
    vault.start("--no-init", "--workers", "2")
    log = [json.loads(line) for line in vault.log.splitlines()]
    assert any(line["message"].startswith("listens on http://127.0.0.1:") for line in log)
    for arguments in (
        ("key", "create", "orders"),
        ("status",),
        ("audit", "ls"),
        ("verify",),
        ("anchor", "show"),
        ("--show-completion", "bash"),
    ):
        done = subprocess.run(
            [*KVL, *arguments],
            cwd=vault.folder,
            env=environment(
                **vault.settings, KEYVAULT_ADDR=f"http://127.0.0.1:{vault.port}", KEYVAULT_TOKEN=vault.admin
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stderr)
        assert "planted" not in done.stdout + done.stderr
    assert vault.client().encrypt().status == 200
    assert vault.stop() == 0
    assert planted.imported() == []
    assert {name: (vault.folder / name).read_text() for name in ROOT_OF_TRUST} == before
    assert not (vault.folder / "planted").exists()


def test_no_file_of_the_working_directory_or_home_is_opened(vault: Vault, tmp_path: Path) -> None:
    """Told by Python itself of every file that its code opens, other than the vault's own."""
    write_all(vault.folder, ROOT_OF_TRUST)
    trace = tmp_path / "opened"
    script = tmp_path / "traced.py"
    script.write_text(
        "import os, sys\n"
        f"descriptor = os.open({str(trace)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)\n"
        "def hook(event, arguments):\n"
        "    if event in {'open', 'os.listdir', 'os.scandir', 'import'} and arguments:\n"
        "        os.write(descriptor, (str(arguments[0]) + chr(10)).encode(errors='replace'))\n"
        "sys.addaudithook(hook)\n"
        "from keyvault_lite.__main__ import main\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    done = subprocess.run(
        [KVL[0], str(script), "verify"],
        cwd=vault.folder,
        env=environment(**vault.settings, HOME=str(vault.folder)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {Path(line) for line in trace.read_text().splitlines()}
    opened = {
        path.name
        for path in ((vault.folder / one) for one in found if os.fspath(one) != ".")
        if path.parent == vault.folder and path.is_file()
    }
    assert opened <= {"vault.db", "vault.db.anchor", "vault.db-wal", "vault.db-shm", "master.key"}

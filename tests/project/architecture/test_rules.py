"""Rules of the harness that a reader would otherwise have to remember. Each names what breaks it."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from keyvault_lite.dialects.aws.handlers import aws
from keyvault_lite.dialects.vault.handlers import VAULT
from keyvault_lite.engine.dialect import Operations
from keyvault_lite.engine.handler import HandlerContext
from keyvault_lite.engine.log_reader import EvidenceReader, LogReader
from keyvault_lite.engine.native import NATIVE
from keyvault_lite.model import errors
from keyvault_lite.model.actions import RULES
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.operation import Authority, Cost
from keyvault_lite.model.requests import Batch, Rejected, Request
from keyvault_lite.settings import PREFIX, Settings
from tests.support.paths import ROOT

PACKAGE = ROOT / "src" / "keyvault_lite"
SOURCES = {file.relative_to(PACKAGE).as_posix(): file.read_text() for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in SOURCES.items()}
MAX_LINES = 400
CLIENTS = {"KEYVAULT_ADDR", "KEYVAULT_CACERT", "KEYVAULT_TOKEN", "KEYVAULT_TOKEN_FILE", "KEYVAULT_CONFIG"}
"""Settings of `kvl` as a client, and what names the file of all others."""
LONG = {
    # Tables of words: one class or route after the other.
    "dialects/aws/requests.py",
    "model/requests.py",
    "dialects/vault/requests.py",
    "wire/native/routes.py",
    # To be divided.
    "ledger/storage/postgresql/database.py",
}


def calls(name: str) -> set[str]:
    """The modules that call something of this name."""
    return {
        path
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    }


def children(root: type[Any]) -> list[type[Any]]:
    """The classes of the product directly under another; not those that a dataclass with slots was made from."""
    return [
        child
        for child in root.__subclasses__()
        if child.__module__.startswith("keyvault_lite.")
        and vars(sys.modules[child.__module__]).get(child.__name__) is child
    ]


def concrete(root: type[Request]) -> Iterator[type[Request]]:
    """What a caller can ask for: the requests with an action that are no base of others."""
    for child in children(root):
        yield from concrete(child)
        if hasattr(child, "action") and not children(child):
            yield child


OPERATIONS = Operations((NATIVE, aws(), VAULT))
REQUESTS = [one for one in concrete(Request) if not issubclass(one, (Batch, Rejected))]


def test_every_request_has_exactly_one_handler() -> None:
    assert set(REQUESTS) - set(OPERATIONS.handlers) == set(), "no handler"
    assert set(OPERATIONS.handlers) - set(REQUESTS) == set(), "no such request"
    # One mapping would hide another's handler of the same request: each is named once in the tables of the modules.
    tables = [
        vars(module)["HANDLERS"]
        for name, module in sys.modules.items()
        if name.startswith(("keyvault_lite.engine.", "keyvault_lite.dialects."))
        if "HANDLERS" in vars(module) and not name.endswith(".handlers")
    ]
    assert sum(map(len, tables)) == len(OPERATIONS.handlers)


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_request_declares_what_it_is(kind: type[Request]) -> None:
    declared = {name for one in kind.__mro__ if one not in Request.__mro__ for name in vars(one)}
    assert {"action", "cost"} <= declared, "no default is right for all"
    assert kind.cost in Cost
    assert kind.action in RULES
    # What a role or a grant is needed for cannot be asked for by nobody's authority, and the reverse.
    assert (not RULES[kind.action].roles) <= (kind.authority is Authority.VAULT)
    if kind.idempotent:
        assert kind.authority is Authority.CALLER


def test_every_action_has_a_rule() -> None:
    assert RULES.keys() == set(Action)
    assert all(rule.permissions is None or rule.roles for rule in RULES.values())


CORE = ("access/", "audit/", "crypto/", "engine/", "ledger/", "model/", "observe/", "witness/")
PRODUCTS = re.compile(r"\baws\b|sigv4|kms:|approle|hashicorp|openbao|\bvault dialect|\bhvac\b|boto", re.IGNORECASE)
NAMED_ON_PURPOSE = {
    # Stored values and labels, which never change.
    'ACCESS_KEY = "aws"',
    'APPROLE = "auth.approle."',
    '_STORED: Final = "aws"',
    'frame = ContainerLayout("access-key", instance_id=self._instance_id, id=place[:16], version=0, purpose="AWS")',
    'if row[_SUBJECT] is not None and not str(row[_OPERATION] or "").startswith(APPROLE):',
    '"""With its separator: `vault:transit/`, `aws:eu-central-1/`, `gcp:`."""',
    # What a caller of the native API reads.
    'raise InvalidRequest("a key of purpose TRANSIT is used through the Vault dialect")',
    'raise InvalidRequest(f"a key of purpose {spec.purpose} is not one of the Vault dialect")',
}


def test_the_core_has_no_word_of_a_product() -> None:
    found = [
        f"{path}:{number}: {line.strip()}"
        for path, text in SOURCES.items()
        if path.startswith(CORE)
        for number, line in enumerate(text.splitlines(), 1)
        if PRODUCTS.search(line.replace("`aws-full`", "")) and line.strip() not in NAMED_ON_PURPOSE
    ]
    assert found == []


def test_only_access_makes_a_principal() -> None:
    assert calls("Principal")
    assert {path for path in calls("Principal") if not path.startswith("access/")} == set()


def test_only_the_composition_root_and_the_jobs_have_the_vaults_own_authority() -> None:
    assert calls("SystemCredential") == {"app.py", "engine/jobs.py"}


def test_key_bytes_are_opened_in_crypto_only() -> None:
    # What makes wrapped material plain: the containers, and the records of the keyring.
    for name in ("KeySealer", "KeyringSecrets", "Cipher", "Signer"):
        assert {path for path in calls(name) if not path.startswith("crypto/")} == set()
    private = re.compile(r"\b_bundle\b|\b_loaded\b|\bprivate_bytes|\bfrom_private_bytes\b|\bload_der_private_key\b")
    assert {path for path, text in SOURCES.items() if private.search(text) and not path.startswith("crypto/")} == set()


def handlers_of_everything() -> Iterator[tuple[str, int, str, str]]:
    """Every `except Exception` and the like: module, line, the line itself and the one after it."""
    for path, tree in TREES.items():
        lines = SOURCES[path].splitlines()
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = node.type.id if isinstance(node.type, ast.Name) else None
            if node.type is None or caught in {"Exception", "BaseException"}:
                yield path, node.lineno, lines[node.lineno - 1], lines[node.lineno]


def test_whoever_catches_everything_says_why_or_raises_it_again() -> None:
    nameless = []
    for path, line, text, after in handlers_of_everything():
        reason = re.search(r"#.*\(.{8,}\)|# (?!noqa).{8,}", text) or after.strip().startswith("# ")
        tree = next(
            node for node in ast.walk(TREES[path]) if isinstance(node, ast.ExceptHandler) and node.lineno == line
        )
        again = any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(tree))
        if not (reason or again):
            nameless.append(f"{path}:{line}")
    assert nameless == []


def test_modules_are_of_a_size_to_be_read() -> None:
    long = {path for path, text in SOURCES.items() if text.count("\n") > MAX_LINES}
    assert long - LONG == set(), "divide it"
    assert LONG - long == set(), "take it off the list"


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc"}
    assert {path for path in SOURCES if drawers & set(Path(path).with_suffix("").parts)} == set()


def test_the_first_line_of_a_module_says_why_it_exists() -> None:
    silent = {
        path for path, tree in TREES.items() if not (ast.get_docstring(tree) or "").strip() and SOURCES[path].strip()
    }
    assert silent == set()


def test_every_error_code_is_documented() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    rows = {line.split("|")[1].strip().strip("`") for line in page.splitlines() if line.startswith("| `")}
    # Dialects have their own words, in their own documentation.
    codes = {one.code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "code")}
    assert codes - rows == set()


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    names = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert {name for name in names if f"`{name}`" not in page} == set()
    told = set(re.findall(rf"`({PREFIX}[A-Z_]+)`", page)) - names
    assert {name for name in told if name not in CLIENTS} == set()


UNRECORDED = {"AuditUnavailable", "OutcomeUnknown", "IntegrityViolation", "StoreFull", "StoreBusy"}
"""Errors that any caller can be told, also one without a credential."""
OPERATORS_ALONE = {
    "anchors.py",
    # What commands and starts do: nobody is told over HTTP.
    "app.py",
    "ledger/archive/archived.py",
    "ledger/migrate/copy.py",
    "ledger/migrate/move.py",
    "ledger/storage/sqlite/offline.py",
    "ledger/opening.py",
    "ledger/log/kept_replies.py",  # names a fault of the record, no place
    "ledger/log/retention.py",  # names a tile
    # A witness answers in its own form.
    "witness/client.py",
    "witness/record.py",
    "witness/register.py",
}


def test_what_any_caller_may_be_told_names_no_host_path_or_row() -> None:
    composed = []
    for path, tree in TREES.items():
        if path in OPERATORS_ALONE:
            continue
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNRECORDED):
                continue
            said = node.args[0] if node.args else ast.Constant("")
            fixed = isinstance(said, ast.Constant) or (isinstance(said, ast.Name) and said.id.isupper())
            if not fixed and not any(word.arg == "shown" for word in node.keywords):
                composed.append(f"{path}:{node.lineno}")
    assert composed == [], "say with `shown` what callers are told"


def test_refusals_are_written_from_what_is_shown() -> None:
    for path in ("wire/problems.py", "wire/aws/errors.py", "wire/vault/errors.py"):
        assert "error.shown" in SOURCES[path]
        assert "error.detail" not in SOURCES[path]


def test_handlers_see_of_the_ledger_no_more_than_a_reader() -> None:
    """A handler returns what changes and writes nothing: the type that it is given has no method that does."""
    core = {f"engine/{name}.py" for name in ("attempt", "clock", "engine", "jobs", "reading")}
    naming = {
        path
        for path, text in SOURCES.items()
        if path.startswith(("engine/", "dialects/")) and re.search(r"\bledger\.ledger import\b", text)
    }
    assert naming == core
    assert get_type_hints(HandlerContext)["log"] is LogReader
    offered = {name for kind in (LogReader, EvidenceReader) for name in vars(kind) if not name.startswith("_")}
    writing = {"begin", "close", "commit", "forget_replies", "mend_index", "refresh", "scrub", "scrub_log", "snapshot"}
    assert offered & writing == set()

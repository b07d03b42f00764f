"""What an operator is told of stored grants and policies that mean less than they did in version 0.1.0."""

import json
from collections.abc import Callable

import pytest

from keyvault_lite.dialects import changed_meaning
from keyvault_lite.dialects.aws import keys
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.dialects.changed_meaning import ChangedMeaning
from keyvault_lite.dialects.vault.requests import CreateTransitKey
from keyvault_lite.model.identity import Role, Service
from keyvault_lite.model.names import KeyRef, ServiceId
from keyvault_lite.operator.verify import verify_vault
from keyvault_lite.server.serve import open_to_serve
from tests.support.harness import Harness, grant

HERE = AccountRegion("000000000000", "eu-central-1")
DENY = {"Effect": "Deny", "Principal": "*", "Action": "kms:Hush", "Resource": "*"}
TWICE = f'{{"Statement": [{json.dumps(DENY)}], "Statement": []}}'


@pytest.fixture
def told(harness: Harness, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    def tell() -> list[str]:
        """What both say: a check offline, and a start."""
        harness.close()
        found = verify_vault(harness.settings)
        assert found.valid
        capsys.readouterr()
        harness.vault = open_to_serve(harness.settings)
        shown = capsys.readouterr().err
        assert all(note in shown for note in found.notes)
        return list(found.notes)

    return tell


def aws_key(harness: Harness, alias: str) -> KeyRef:
    key = KeyRef(harness.key().id)
    harness.ask(words.CreateAlias(key, HERE, alias_name=f"alias/{alias}"))
    return key


def test_grants_that_covered_names_of_dialects(harness: Harness, told: Callable[[], list[str]]) -> None:
    aws_key(harness, "payments-prod")
    harness.ask(CreateTransitKey("transit", "ledger"))
    for name, pattern in (
        ("a", "a*"),
        ("b", "v*ledger"),
        ("c", "*-prod"),
        ("d", "*"),
        ("e", "orders-*"),
        ("f", "aws:*"),
        ("g", "vault:transit/*"),
        ("h", "a*-test"),
    ):
        harness.service(name, grant(pattern, "encrypt"))
    notes = told()
    assert [note.split(" covers ")[0] for note in notes] == [
        "the grant a* of service a",
        "the grant v*ledger of service b",
        "the grant *-prod of service c",
    ]
    assert all("add grants whose prefix" in note for note in notes)


def test_policies_that_are_not_read_any_more(
    harness: Harness, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = aws_key(harness, "good"), harness.key("orders")
    put = words.PutKeyPolicy
    harness.ask(put(good, HERE, policy=json.dumps({"Statement": [DENY]}), bypass_policy_lockout_safety_check=True))
    with monkeypatch.context() as earlier:
        earlier.setattr(keys, "check_policy", lambda *_: None)
        earlier.setattr(keys, "locks_out", lambda *_: False)
        harness.ask(put(KeyRef(bad.id), HERE, policy=TWICE, bypass_policy_lockout_safety_check=True))
    (note,) = told()
    assert "key orders" in note
    assert "PutKeyPolicy" in note
    assert "Hush" not in note


def test_nothing_is_said_of_a_vault_without_either(harness: Harness, told: Callable[[], list[str]]) -> None:
    harness.key("orders")
    harness.service("shop", grant("orders*", "encrypt"))
    assert told() == []


def test_what_is_looked_at_and_what_is_named_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed_meaning, "MAX_MATCHES", 1000)
    monkeypatch.setattr(changed_meaning, "MAX_POLICIES", 100)
    found = ChangedMeaning()
    for number in range(50):
        found.name(f"aws:eu-central-1/alias/{number}")
        service = Service(ServiceId(str(number)), f"s{number}", Role.SERVICE, active=True, created_at=0)
        found.service(service.__replace__(grants=(grant(f"a*{number}", "encrypt"),)))
    for number in range(200):
        found.key(str(number), None, {"aws": {"policy": f"{{{number}"}})
    notes = found.notes()
    assert len(notes) <= 2 * (changed_meaning.MAX_NAMED + 1) + 2
    assert any("too many grants" in one for one in notes)
    assert "100 more key policies were not read" in notes

"""A denied request is in the history of the key that it was about, and tells its caller nothing of that key."""

import base64
from typing import Any, Final

import pytest

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.dialects.vault import requests
from keyvault_lite.model import requests as native
from keyvault_lite.model.errors import KeyVaultError, NotFound
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import KeyRef
from tests.support.harness import Harness, grant

HERE: Final = AccountRegion("000000000000", "eu-central-1")
VAULT: Final = "vault:transit/orders"
DENIED: Final[dict[str, tuple[Role, Any]]] = {
    "rotate": (Role.SERVICE, native.RotateKey(KeyRef("orders"))),
    "destroy": (Role.SERVICE, native.DestroyKey(KeyRef("orders"), days=7)),
    "revoke": (Role.SERVICE, native.RevokeKey(KeyRef("orders"))),
    "encrypt": (Role.AUDITOR, native.Encrypt(KeyRef("orders"), plaintext=b"x")),
    "batch": (Role.AUDITOR, native.Batch(KeyRef("orders"), items=(native.Encrypt(KeyRef("orders"), plaintext=b"x"),))),
    "Vault rotate": (Role.SERVICE, requests.RotateTransitKey(KeyRef(VAULT))),
    "ScheduleKeyDeletion": (Role.SERVICE, words.ScheduleKeyDeletion(KeyRef("alias/orders"), HERE)),
    "ScheduleKeyDeletion by an AUDITOR": (Role.AUDITOR, words.ScheduleKeyDeletion(KeyRef("alias/orders"), HERE)),
    "DisableKey": (Role.SERVICE, words.DisableKey(KeyRef("alias/orders"), HERE)),
    "CreateAlias": (Role.SERVICE, words.CreateAlias(KeyRef("alias/orders"), HERE, alias_name="alias/more")),
}


def create_vault(harness: Harness, name: str) -> str:
    """The id of the key that the request names."""
    if name.startswith("Vault"):
        harness.ask(requests.CreateTransitKey("transit", name="orders"))
        return str(harness.ask(native.ReadKey(KeyRef(VAULT))).id)
    key = harness.key("orders")
    harness.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/orders"))
    return key.id


def told(harness: Harness, request: Any, token: str) -> tuple[str, str]:  # noqa: ANN401
    with pytest.raises(KeyVaultError) as refused:
        harness.ask(request, token)
    return refused.value.code, refused.value.detail


@pytest.mark.parametrize("name", DENIED)
@pytest.mark.parametrize("granted", [False, True])
def test_the_entry_names_the_key_and_the_answer_does_not(harness: Harness, name: str, granted: bool) -> None:
    role, request = DENIED[name]
    _, token = harness.service("caller", *([grant("*")] if granted and role is Role.SERVICE else []), role=role)
    before = told(harness, request, token)
    assert harness.last.draft.key_id is None
    key_id = create_vault(harness, name)
    assert told(harness, request, token) == before or granted
    draft = harness.last.draft
    assert (draft.result, draft.key_id, draft.key_ref) == (Result.DENIED, key_id, None)


@pytest.mark.parametrize("kind", ["role", "hidden", "malformed"])
def test_no_receipt_tells_a_service_whether_a_key_exists(harness: Harness, kind: str) -> None:
    made = harness.key("orders")
    _, token = harness.service("caller", grant("other"))
    for name in ("orders", "absent"):
        ref = KeyRef(name)
        asked: dict[str, native.Request] = {
            "role": native.RotateKey(ref),
            "hidden": native.Encrypt(ref, plaintext=b"x"),
            "malformed": native.Rejected(Action.ENCRYPT, NotFound(), key=ref),
        }
        told(harness, asked[kind], token)
        entry = harness.last.id
        assert told(harness, native.ReadReceipt(entry), token)[0] == "not_found"
        if name == "orders" and kind != "malformed":
            assert made.id in decoded(harness.ask(native.ReadReceipt(entry))), "so the caller must not have it"


def decoded(receipt: str) -> str:
    """The entry that a receipt holds, as text."""
    return base64.b64decode(receipt.splitlines()[1].removeprefix("extra ")).decode("latin-1")

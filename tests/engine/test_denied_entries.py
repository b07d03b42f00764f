"""A denied request is in the history of the key that it was about, and tells its caller nothing of that key."""

import base64
from typing import Any, Final

import pytest

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.model import Place
from keyvault_lite.dialects.vault import requests
from keyvault_lite.model import requests as native
from keyvault_lite.model.errors import KeyVaultError, NotFound
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import KeyRef
from tests.house import House, grant

HERE: Final = Place("000000000000", "eu-central-1")
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


def furnish(house: House, name: str) -> str:
    """The id of the key that the request names."""
    if name.startswith("Vault"):
        house.ask(requests.CreateTransitKey("transit", name="orders"))
        return str(house.ask(native.ReadKey(KeyRef(VAULT))).id)
    key = house.key("orders")
    house.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/orders"))
    return key.id


def told(house: House, request: Any, token: str) -> tuple[str, str]:  # noqa: ANN401
    with pytest.raises(KeyVaultError) as refused:
        house.ask(request, token)
    return refused.value.code, refused.value.detail


@pytest.mark.parametrize("name", DENIED)
@pytest.mark.parametrize("granted", [False, True])
def test_the_entry_names_the_key_and_the_answer_does_not(house: House, name: str, granted: bool) -> None:
    role, request = DENIED[name]
    _, token = house.service("caller", *([grant("*")] if granted and role is Role.SERVICE else []), role=role)
    before = told(house, request, token)
    assert house.last.draft.key_id is None
    key_id = furnish(house, name)
    assert told(house, request, token) == before or granted
    draft = house.last.draft
    assert (draft.result, draft.key_id, draft.key_ref) == (Result.DENIED, key_id, None)


@pytest.mark.parametrize("kind", ["role", "hidden", "malformed"])
def test_no_receipt_tells_a_service_whether_a_key_exists(house: House, kind: str) -> None:
    made = house.key("orders")
    _, token = house.service("caller", grant("other"))
    for name in ("orders", "absent"):
        ref = KeyRef(name)
        asked: dict[str, native.Request] = {
            "role": native.RotateKey(ref),
            "hidden": native.Encrypt(ref, plaintext=b"x"),
            "malformed": native.Rejected(Action.ENCRYPT, NotFound(), key=ref),
        }
        told(house, asked[kind], token)
        entry = house.last.id
        assert told(house, native.ReadReceipt(entry), token)[0] == "not_found"
        if name == "orders" and kind != "malformed":
            assert made.id in decoded(house.ask(native.ReadReceipt(entry))), "so the caller must not have it"


def decoded(receipt: str) -> str:
    """The entry that a receipt holds, as text."""
    return base64.b64decode(receipt.splitlines()[1].removeprefix("extra ")).decode("latin-1")

"""Services, tokens and credentials: secrets stay out of sight, records do not change."""

import dataclasses
from typing import Any

import pytest

from keyvault_lite.model.identity import BearerCredential, Grant, Permission, Principal, Role, Service, Token, TokenKind
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import ServiceId, TokenId
from keyvault_lite.model.replies import DataKey, Decrypted, NewService

SERVICE = Service(ServiceId("id"), "billing", Role.SERVICE, True, 0)
SHOWN: list[Any] = [
    Token(TokenId("t" * 16), ServiceId("id"), TokenKind.NATIVE, b"hidden", 0),
    BearerCredential("kvl_hidden"),
    Slot("id", 1, bytes(16), "none", b"hidden"),
    NewService(SERVICE, "hidden"),
    Decrypted(b"hidden", 1),
    DataKey(b"hidden", None, 1),
]


@pytest.mark.parametrize("record", SHOWN, ids=lambda record: type(record).__name__)
def test_secrets_stay_out_of_repr(record: object) -> None:
    assert "hidden" not in repr(record)


def test_records_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SERVICE.active = False  # type: ignore[misc]


def test_words_of_the_wire() -> None:
    assert [role.value for role in Role] == ["ADMIN", "SERVICE", "AUDITOR"]
    assert [permission.value for permission in Permission] == ["encrypt", "decrypt", "sign", "verify"]


def test_a_principal_has_no_grants_unless_given() -> None:
    assert Principal(ServiceId("id"), "n", Role.SERVICE).grants == SERVICE.grants == ()
    assert Grant("*", frozenset({Permission.SIGN})) == Grant("*", frozenset({Permission.SIGN}))

"""Requests and credentials show nothing of what they carry, and do not change."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import defstruct, structs
from rich.pretty import pretty_repr

from keyvault_lite import dialects, model
from keyvault_lite.dialects.aws.credentials import AwsCredential
from keyvault_lite.dialects.vault.credentials import AppRoleCredential
from keyvault_lite.model import requests as r
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.identity import BearerCredential, SystemCredential
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.opaque import Opaque

CANARY = "canary"


def tree(root: type[Opaque]) -> Iterator[type[Opaque]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


for package in (model, dialects):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
KINDS = [kind for kind in tree(Opaque) if kind.__module__.startswith("keyvault_lite.")]


def filled(kind: type[Opaque]) -> Opaque:
    """One with the canary in every field, whatever it would check."""
    unchecked = {"__post_init__": lambda _: None}
    child: Any = defstruct(kind.__name__, (), bases=(kind,), namespace=unchecked, module=__name__, frozen=True)
    made: Opaque = child(**dict.fromkeys(kind.__struct_fields__, CANARY))
    return made


def test_requests_and_credentials_are_among_them() -> None:
    credentials = {AppRoleCredential, AwsCredential, BearerCredential, SystemCredential}
    assert credentials <= set(KINDS)
    assert {kind.__module__.removeprefix("keyvault_lite.") for kind in KINDS if issubclass(kind, r.Request)} == {
        "model.requests",
        "dialects.aws.requests",
        "dialects.vault.requests",
        "dialects.vault.role_requests",
        "dialects.vault.system_requests",
        "dialects.vault.token_requests",
    }
    assert len(KINDS) > 150


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_it_shows_its_kind_alone_and_does_not_change(kind: type[Opaque]) -> None:
    one = filled(kind)
    assert all(getattr(one, name) == CANARY for name in kind.__struct_fields__)
    assert repr(one) == str(one) == f"{one}" == f"<{kind.__name__}>"
    assert CANARY not in pretty_repr(one)
    for name in kind.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(one, name, "other")


def test_what_is_equal_is_of_one_kind() -> None:
    one, same, other = (kind(KeyRef("orders")) for kind in (r.ReadKey, r.ReadKey, r.RotateKey))
    assert one == same != other
    assert len({one, same, other}) == 2


def test_a_changed_copy_is_checked_as_the_first_was() -> None:
    with pytest.raises(InvalidRequest, match="bits"):
        structs.replace(r.GenerateDataKey(KeyRef("orders")), bits=100)

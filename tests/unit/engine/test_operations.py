"""What the dialects come to together: no operation is there twice, and what none has of its own is the vault's."""

import pytest

from keyvault_lite.access.authenticate import of_service
from keyvault_lite.dialects.aws.handlers import aws
from keyvault_lite.dialects.vault.authority import authority
from keyvault_lite.dialects.vault.handlers import VAULT
from keyvault_lite.dialects.vault.requests import RotateDueTransitKey
from keyvault_lite.engine.dialect import Operations
from keyvault_lite.engine.native import NATIVE
from keyvault_lite.model.keys import Key, KeySpec, KeyStatus, KeyType, Purpose
from keyvault_lite.model.names import KeyId, KeyRef
from keyvault_lite.model.requests import RotateDueKey
from tests.support.harness import AES


def test_two_dialects_have_no_operation_in_common() -> None:
    with pytest.raises(ValueError, match="another dialect has a handler"):
        Operations((NATIVE, aws(), NATIVE))


def test_a_key_is_rotated_by_its_dialect_or_by_the_vault() -> None:
    own = Key(KeyId("a"), None, AES, KeyStatus.ACTIVE, 0)
    transit = Key(KeyId("b"), None, KeySpec(KeyType.AES, 256, Purpose.TRANSIT), KeyStatus.ACTIVE, 0)
    everything = Operations((NATIVE, aws(), VAULT))
    assert everything.rotation(own) == RotateDueKey(KeyRef("a"))
    assert everything.rotation(transit) == RotateDueTransitKey(KeyRef("b"))
    # Without its dialect it is asked for all the same, and its refusal is recorded.
    assert Operations((NATIVE,)).rotation(transit) == RotateDueKey(KeyRef("b"))


def test_without_a_dialect_that_makes_tokens_they_act_as_their_service() -> None:
    assert Operations((NATIVE, aws(), VAULT)).authority is authority
    assert Operations((NATIVE, aws())).authority is of_service

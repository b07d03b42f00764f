"""Which work waits behind which: only what takes long waits for new RSA keys, and a damaged key holds up nobody."""

import pytest

from keyvault_lite.model import aws_requests as words
from keyvault_lite.model.aws import Place
from keyvault_lite.model.keys import KeySpec, KeyType, Purpose
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import CreateKey, Request, RotateDueKey, RotateKey
from tests.house import House

HERE = Place("000000000000", "eu-central-1")
KEY = KeyRef("k")
RSA = KeySpec(KeyType.RSA, 3072, Purpose.SIGN)


def aws_key(spec: str) -> Request:
    return words.CreateKey(HERE, key_spec=spec, key_usage="SIGN_VERIFY")


def parameters() -> Request:
    return words.GetParametersForImport(
        KEY, HERE, wrapping_algorithm="RSAES_OAEP_SHA_256", wrapping_key_spec="RSA_2048"
    )


@pytest.mark.parametrize(
    ("request_", "long"),
    [
        (aws_key("RSA_4096"), True),
        (aws_key("ECC_NIST_P256"), False),
        (words.GenerateDataKeyPair(KEY, HERE, key_pair_spec="RSA_3072"), True),
        (words.GenerateDataKeyPair(KEY, HERE, key_pair_spec="ECC_NIST_P521"), False),
        (words.GenerateDataKeyPairWithoutPlaintext(KEY, HERE, key_pair_spec="RSA_2048"), True),
        (words.GenerateDataKeyPairWithoutPlaintext(KEY, HERE, key_pair_spec="ECC_NIST_P256"), False),
        (parameters(), True),
    ],
    ids=repr,
)
def test_only_rsa_keys_wait_for_each_other(house: House, request_: Request, *, long: bool) -> None:
    lanes = house.engine._lanes
    assert (lanes.choose(request_, lambda _: None) is lanes.making) is long


@pytest.mark.parametrize("kind", [RotateKey, RotateDueKey])
def test_what_a_rotation_costs_is_what_its_key_is(house: House, kind: type[RotateKey | RotateDueKey]) -> None:
    lanes, find = house.engine._lanes, house.engine._named_key
    rsa, aes = KeyRef(house.key("rsa", RSA).id), KeyRef(house.key("aes").id)
    assert lanes.choose(kind(rsa), find) is lanes.making
    assert lanes.choose(kind(aes), find) is lanes.changing
    assert lanes.choose(kind(KeyRef("absent")), find) is lanes.changing
    assert lanes.choose(CreateKey(RSA), find) is lanes.making
    house.ledger.snapshot().quarantine(rsa)
    assert lanes.choose(kind(rsa), find) is lanes.changing

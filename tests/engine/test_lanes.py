"""Which work waits behind which: only what takes long waits for new RSA keys, and a damaged key holds up nobody."""

import asyncio
import threading
from types import SimpleNamespace
from typing import cast

import pytest

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.model import Place
from keyvault_lite.engine.scene import Scene
from keyvault_lite.model.errors import Forbidden, NotFound, Unauthenticated
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keys import Key, KeySpec, KeyType, Purpose
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import (
    Batch,
    CreateKey,
    ListKeys,
    Request,
    RotateDueKey,
    RotateKey,
    Sign,
    Verify,
)
from tests.house import House, grant

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
    assert (lanes.choose(request_, admitted(None)) is lanes.making) is long


def admitted(key: Key | None, role: Role = Role.ADMIN) -> Scene:
    scene = SimpleNamespace(named_key=key, principal=SimpleNamespace(role=role))
    return cast(Scene, scene)


@pytest.mark.parametrize("kind", [RotateKey, RotateDueKey])
def test_what_a_rotation_costs_is_what_its_key_is(house: House, kind: type[RotateKey | RotateDueKey]) -> None:
    lanes, rsa, aes = house.engine._lanes, house.key("rsa", RSA), house.key("aes")
    for key, lane in ((rsa, lanes.making), (aes, lanes.changing)):
        assert lanes.choose(kind(KeyRef(key.id)), admitted(key)) is lane
    assert lanes.choose(CreateKey(RSA), admitted(None)) is lanes.making


def test_a_signature_that_is_tried_with_many_versions_leaves_the_loop(house: House) -> None:
    lanes, key = house.engine._lanes, house.key("signer", KeySpec(KeyType.ED25519, None, Purpose.SIGN))
    many = house.rotated(key, 8)
    for request, costly in (
        (Verify(KeyRef(key.id), message=b"x", signature=b"y"), True),
        (Verify(KeyRef(key.id), message=b"x", signature=b"y", key_version=3), False),
        (Sign(KeyRef(key.id), message=b"x"), False),
    ):
        assert (lanes.choose(request, admitted(many)) is lanes.costly) is costly
        batch = Batch(KeyRef(key.id), request.action, (request,))
        assert (lanes.choose(batch, admitted(many)) is lanes.costly) is costly
        assert lanes.choose(request, admitted(key)) is None


def test_the_list_of_who_has_grants_leaves_the_loop(house: House) -> None:
    lanes = house.engine._lanes
    assert lanes.choose(ListKeys(), admitted(None, Role.SERVICE)) is lanes.reading
    assert lanes.choose(ListKeys(), admitted(None)) is None


def test_who_may_not_waits_in_no_queue(house: House) -> None:
    """So a key that is there takes no longer to be refused than one that is not, and strangers keep nobody waiting."""
    rsa = house.key("rsa", RSA)
    _, token = house.service("app", grant("other"))
    release, lanes = threading.Event(), house.engine._lanes

    async def run() -> None:
        holding = [asyncio.create_task(one.run(release.wait)) for one in (lanes.costly, lanes.costly, lanes.making)]
        await asyncio.sleep(0.01)
        busy = lanes.costly.busy, lanes.making.busy
        try:
            for caller, error in ((token, NotFound), (None, Unauthenticated)):
                for name in (KeyRef(rsa.id), KeyRef("absent")):
                    with pytest.raises(error):
                        await asyncio.wait_for(house.perform(Sign(name, message=b"x"), caller), 5)
            for caller, refused in ((token, Forbidden), (None, Unauthenticated)):
                with pytest.raises(refused):
                    await asyncio.wait_for(house.perform(CreateKey(RSA), caller), 5)
            assert (lanes.costly.busy, lanes.making.busy) == busy
        finally:
            release.set()
            await asyncio.gather(*holding)

    house.run(run())

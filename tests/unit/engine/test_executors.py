"""Which work waits behind which: only what takes long waits for new RSA keys, and a damaged key holds up nobody."""

import asyncio
import threading
from types import SimpleNamespace
from typing import cast

import pytest

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.engine.handler import HandlerContext
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
from tests.support.harness import Harness, grant

HERE = AccountRegion("000000000000", "eu-central-1")
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
def test_only_rsa_keys_wait_for_each_other(harness: Harness, request_: Request, *, long: bool) -> None:
    executors = harness.engine._executors
    assert (executors.choose(request_, admitted(None)) is executors.making) is long


def admitted(key: Key | None, role: Role = Role.ADMIN) -> HandlerContext:
    ctx = SimpleNamespace(named_key=key, principal=SimpleNamespace(role=role))
    return cast(HandlerContext, ctx)


@pytest.mark.parametrize("kind", [RotateKey, RotateDueKey])
def test_what_a_rotation_costs_is_what_its_key_is(harness: Harness, kind: type[RotateKey | RotateDueKey]) -> None:
    executors, rsa, aes = harness.engine._executors, harness.key("rsa", RSA), harness.key("aes")
    for key, executor in ((rsa, executors.making), (aes, executors.changing)):
        assert executors.choose(kind(KeyRef(key.id)), admitted(key)) is executor
    assert executors.choose(CreateKey(RSA), admitted(None)) is executors.making


def test_a_signature_that_is_tried_with_many_versions_leaves_the_loop(harness: Harness) -> None:
    executors, key = harness.engine._executors, harness.key("signer", KeySpec(KeyType.ED25519, None, Purpose.SIGN))
    many = harness.rotated(key, 8)
    for request, costly in (
        (Verify(KeyRef(key.id), message=b"x", signature=b"y"), True),
        (Verify(KeyRef(key.id), message=b"x", signature=b"y", key_version=3), False),
        (Sign(KeyRef(key.id), message=b"x"), False),
    ):
        assert (executors.choose(request, admitted(many)) is executors.costly) is costly
        batch = Batch(KeyRef(key.id), request.action, (request,))
        assert (executors.choose(batch, admitted(many)) is executors.costly) is costly
        assert executors.choose(request, admitted(key)) is None


def test_the_list_of_who_has_grants_leaves_the_loop(harness: Harness) -> None:
    executors = harness.engine._executors
    assert executors.choose(ListKeys(), admitted(None, Role.SERVICE)) is executors.reading
    assert executors.choose(ListKeys(), admitted(None)) is None


def test_who_may_not_waits_in_no_queue(harness: Harness) -> None:
    """So a key that is there takes no longer to be refused than one that is not, and strangers keep nobody waiting."""
    rsa = harness.key("rsa", RSA)
    _, token = harness.service("app", grant("other"))
    release, executors = threading.Event(), harness.engine._executors

    async def run() -> None:
        holding = [
            asyncio.create_task(one.run(release.wait)) for one in (executors.costly, executors.costly, executors.making)
        ]
        await asyncio.sleep(0.01)
        busy = executors.costly.busy, executors.making.busy
        try:
            for caller, error in ((token, NotFound), (None, Unauthenticated)):
                for name in (KeyRef(rsa.id), KeyRef("absent")):
                    with pytest.raises(error):
                        await asyncio.wait_for(harness.perform(Sign(name, message=b"x"), caller), 5)
            for caller, refused in ((token, Forbidden), (None, Unauthenticated)):
                with pytest.raises(refused):
                    await asyncio.wait_for(harness.perform(CreateKey(RSA), caller), 5)
            assert (executors.costly.busy, executors.making.busy) == busy
        finally:
            release.set()
            await asyncio.gather(*holding)

    harness.run(run())

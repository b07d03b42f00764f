"""Canaries: what must not leave is planted everywhere it comes in, and looked for everywhere something goes out."""

import io
import logging
import traceback
from collections.abc import Iterator

import pytest

from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.engine.handler import HandlerResult
from keyvault_lite.engine.jobs import Jobs
from keyvault_lite.ledger.state.outcome import Outcome
from keyvault_lite.model.errors import InternalError, KeyVaultError
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.keys import Algorithm
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import (
    Batch,
    CreateKey,
    Decrypt,
    Encrypt,
    GenerateDataKey,
    GenerateRandom,
    OpenDataKey,
    ReadKey,
    Rejected,
    RenewToken,
    Request,
    Rewrap,
    RotateKey,
    Sign,
    Verify,
)
from keyvault_lite.observe import JsonLines
from tests.support.harness import AES, ED25519, Harness, grant, idempotent

CANARY = "c4nary-7f3a9b"
CONTEXT = {f"{CANARY}-name": f"{CANARY}-value"}
RAW = f"{CANARY}-bytes".encode()


def everything(harness: Harness) -> list[Request]:
    """Requests full of canaries: good ones, and bad ones of each kind."""
    cipher, signer = KeyRef(harness.key("cipher").id), KeyRef(harness.key("signer", ED25519).id)
    made = harness.ask(Encrypt(cipher, CONTEXT, RAW))
    wrapped = harness.ask(GenerateDataKey(cipher, CONTEXT))
    signed = harness.ask(Sign(signer, RAW))
    return [
        Encrypt(cipher, CONTEXT, RAW),
        Decrypt(cipher, CONTEXT, made.ciphertext, made.encrypted_dek),
        Decrypt(cipher, CONTEXT, RAW, RAW),
        Decrypt(cipher, {CANARY: CANARY}, made.ciphertext, made.encrypted_dek),
        Rewrap(cipher, CONTEXT, made.encrypted_dek),
        Rewrap(cipher, CONTEXT, RAW),
        OpenDataKey(cipher, CONTEXT, wrapped.encrypted_key),
        OpenDataKey(cipher, CONTEXT, RAW),
        Sign(signer, RAW),
        Sign(signer, RAW, prehashed=True),
        Sign(signer, RAW, Algorithm.ECDSA_SHA256),
        Verify(signer, RAW, signed.signature),
        Verify(signer, RAW, RAW),
        Encrypt(KeyRef(f"{CANARY} {CANARY}"), CONTEXT, RAW),
        Batch(cipher, Action.ENCRYPT, (Encrypt(cipher, CONTEXT, RAW),) * 3),
        RotateKey(cipher),
        GenerateRandom(16),
    ]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the log of the process would say, at its most talkative."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield out
    root.setLevel(before)
    root.removeHandler(handler)


def test_no_canary_leaves(harness: Harness, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server that an earlier test configured in this process may have turned this off.
    monkeypatch.setattr(logging.getLogger("keyvault_lite"), "propagate", True)
    _, token = harness.service("worker", grant("*"))
    told: list[str] = []
    requests = everything(harness)
    for request in requests:
        for caller in (harness.admin, token, f"kvl_{'A' * 16}_{CANARY}", CANARY):
            try:
                harness.ask(request, caller, idempotency=idempotent(f"key-{len(told)}", CANARY))
            except KeyVaultError as error:
                told += [error.detail, str(error), repr(error), *error.args]

    # Defects too: what a library puts into its message stays with us.
    def defective(*_: object, **__: object) -> None:
        raise ValueError(f"cannot handle {CANARY}")

    with monkeypatch.context() as broken:
        broken.setattr(Keyring, "encrypt", defective)
        told.append(harness.refusal(requests[0], InternalError).detail)
    harness.run(Jobs(harness.engine, harness.ledger).round())
    entries = repr(harness.log())
    told += [entries, lines.getvalue()]
    assert "a handler failed" in lines.getvalue()
    renewed = harness.ask(RenewToken("worker"), idempotency=idempotent("renewal")).token
    for secret in (CANARY, harness.admin, token, renewed, token.rsplit("_")[-1]):
        assert not [text for text in told if secret in text], secret
        stored = harness.files()
        assert secret.encode() not in stored
        assert secret.encode("utf-16-le") not in stored
    harness.vault.close()
    assert CANARY.encode() not in harness.files()
    harness.open()


def test_requests_and_replies_do_not_show_what_they_carry(harness: Harness) -> None:
    shown = [repr(request) for request in everything(harness) if CANARY not in getattr(request, "key", "")]
    made = harness.ask(Encrypt(KeyRef("cipher"), CONTEXT, RAW))
    shown.append(repr(harness.answer(Decrypt(KeyRef("cipher"), CONTEXT, made.ciphertext, made.encrypted_dek))))
    assert not [text for text in shown if CANARY in text]


def test_an_unexpected_error_is_an_entry_and_says_nothing(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    key = harness.key()

    def defective(*_: object, **__: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(Keyring, "encrypt", defective)
    error = harness.refusal(Encrypt(KeyRef(key.id), CONTEXT, RAW), InternalError)
    assert error.audit_id == harness.size
    assert (harness.last.draft.reason, harness.last.draft.key_id) == ("internal_error", key.id)
    assert CANARY not in "".join(traceback.format_exception_only(error))


def test_what_a_front_end_could_not_read_is_recorded_as_it_says(harness: Harness) -> None:
    from keyvault_lite.model.errors import Forbidden, InvalidRequest, TooLarge, Unauthenticated

    key = harness.key("orders")
    _, token = harness.service("worker")
    broken = InvalidRequest("plaintext is not base64")
    harness.refusal(Rejected(Action.ENCRYPT, broken, key=KeyRef("orders")), InvalidRequest)
    assert (harness.last.draft.action, harness.last.draft.key_id) == (Action.ENCRYPT, key.id)
    harness.refusal(Rejected(Action.GENERATE, broken), Forbidden, token)
    harness.refusal(Rejected(Action.GENERATE, TooLarge("big"), early=True), TooLarge, token)
    harness.refusal(Rejected(Action.GENERATE, TooLarge("big"), early=True), Unauthenticated, None)
    # A key that does not verify does not change what is wrong with the request.
    harness.ledger.snapshot().quarantine("orders")
    harness.refusal(Rejected(Action.ENCRYPT, broken, key=KeyRef("orders")), InvalidRequest)
    assert harness.ask(CreateKey(AES, "bills")).name == "bills"
    assert harness.ask(ReadKey(KeyRef("bills"))).name == "bills"


def test_what_a_handler_did_is_shown_without_its_result() -> None:
    assert "canary" not in repr(HandlerResult("canary", key_version=1))
    assert "canary" not in repr(Outcome((), "canary"))
    assert "canary" not in repr(Answer("canary", 1))

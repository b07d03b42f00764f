"""Requests: well-formed or refused when they are made, and secrets stay out of sight."""

from collections.abc import Callable
from functools import partial

import pytest

from keyvault_lite.dialects.vault.token_requests import CreateSecretId, CreateToken, WriteRole
from keyvault_lite.model import requests as r
from keyvault_lite.model.errors import InvalidCiphertext, InvalidRequest, TooLarge
from keyvault_lite.model.evidence import Action, Draft, Entry, Result
from keyvault_lite.model.identity import Grant, Permission, Role
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import KeySpec, KeyType, Purpose
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import BatchReply, Rewrapped

AES = KeySpec(KeyType.AES, 256, Purpose.ENCRYPT)
K = KeyRef("orders")
SLOT = Slot("0f8fad5b-d9cb-469f-a165-70867728950e", 1, bytes(16), "none", b"")
BIG = b"x" * (64 * 1024 + 1)
FULL = BIG[1:]
GRANT = Grant("orders-*", frozenset({Permission.ENCRYPT}))

GOOD: list[Callable[[], object]] = [
    lambda: r.CreateKey(AES),
    lambda: r.CreateKey(AES, "orders", "d" * 8192, {str(i): "v" * 256 for i in range(50)}),
    lambda: r.CreateKey(AES, tags={"n" * 128: ""}),
    lambda: r.ListKeys(limit=1),
    lambda: r.ListKeys(limit=1000),
    lambda: r.ReadKey(K),
    lambda: r.ListVersions(K),
    lambda: r.ReadPublicKey(K, version=1),
    lambda: r.ReadPublicKey(K, version=2**31 - 1),
    lambda: r.UpdateKey(K),
    lambda: r.UpdateKey(K, description="", tags={}, rotation_days=0),
    lambda: r.UpdateKey(K, rotation_days=3650),
    lambda: r.RotateKey(K),
    lambda: r.RevokeKey(K),
    lambda: r.RevokeKey(K, version=1, reason="r" * 512),
    lambda: r.DestroyKey(K),
    lambda: r.DestroyKey(K, days=7),
    lambda: r.Encrypt(K),
    lambda: r.Encrypt(K, {"a": "b"}, FULL),
    lambda: r.Decrypt(K, {"a": "b"}, b"c", b"d"),
    lambda: r.Rewrap(K, None, b"d"),
    lambda: r.GenerateDataKey(K, bits=512),
    lambda: r.OpenDataKey(K, {}, b"k"),
    lambda: r.Sign(K, FULL),
    lambda: r.Verify(K, FULL, b"s", key_version=1),
    lambda: r.Batch(K, Action.SIGN, (r.Sign(K),) * 1000),
    lambda: r.GenerateRandom(1),
    lambda: r.GenerateRandom(1024),
    lambda: r.CreateService("billing", Role.SERVICE, (GRANT,) * 1000),
    r.ListServices,
    lambda: r.UpdateService("billing"),
    lambda: r.UpdateService("billing", grants=(GRANT,)),
    r.ListAudit,
    lambda: r.Initialise(SLOT),
    lambda: r.Initialise(SLOT, "root"),
    lambda: r.ReadConsistency(0, 0),
    lambda: r.ReadConsistency(1, 2**63 - 1),
    lambda: r.Idempotency("k" * 128, b"", lambda _reply: b""),
]
BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: r.CreateKey(AES, "Orders"), "a name is"),
    (lambda: r.CreateKey(AES, ""), "a name is"),
    (lambda: r.CreateKey(AES, description="d" * 8193), "at most 8192"),
    (lambda: r.CreateKey(AES, tags={str(i): "" for i in range(51)}), "at most 50 tags"),
    (lambda: r.CreateKey(AES, tags={"": "v"}), "a tag's name"),
    (lambda: r.CreateKey(AES, tags={"n" * 129: "v"}), "a tag's name"),
    (lambda: r.CreateKey(AES, tags={"n": "v" * 257}), "a tag's name"),
    (lambda: r.ListKeys(limit=0), "limit is 1 to 1000"),
    (lambda: r.ListKeys(limit=1001), "limit is 1 to 1000"),
    (lambda: r.ListVersions(K, limit=0), "limit is"),
    (lambda: r.ReadPublicKey(K, version=0), "a version is"),
    (lambda: r.ReadPublicKey(K, version=2**31), "a version is"),
    (lambda: r.UpdateKey(K, description="d" * 8193), "at most 8192"),
    (lambda: r.UpdateKey(K, tags={"": ""}), "a tag's name"),
    (lambda: r.UpdateKey(K, rotation_days=-1), "rotation_period_days is 0 to 3650"),
    (lambda: r.UpdateKey(K, rotation_days=3651), "rotation_period_days is 0 to 3650"),
    (lambda: r.RevokeKey(K, version=0), "a version is"),
    (lambda: r.RevokeKey(K, reason="r" * 513), "at most 512"),
    (lambda: r.DestroyKey(K, days=6), "days is 7 to 30"),
    (lambda: r.DestroyKey(K, days=31), "days is 7 to 30"),
    (lambda: r.Encrypt(K, {"e\u0301": ""}), "NFC"),
    (lambda: r.Decrypt(K, {"k": "v" * 8192}), "8 KiB"),
    (lambda: r.Rewrap(K, {"e\u0301": ""}), "NFC"),
    (lambda: r.GenerateDataKey(K, {"e\u0301": ""}), "NFC"),
    (lambda: r.GenerateDataKey(K, bits=192), "bits is 128, 256 or 512"),
    (lambda: r.OpenDataKey(K, {str(i): "" for i in range(33)}), "32 pairs"),
    (lambda: r.Verify(K, key_version=0), "a version is"),
    (lambda: r.Batch(K, Action.SIGN), "at least one item"),
    (lambda: r.GenerateRandom(0), "bytes is 1 to 1024"),
    (lambda: r.GenerateRandom(1025), "bytes is 1 to 1024"),
    (lambda: r.CreateService("Billing", Role.SERVICE), "a name is"),
    (lambda: r.CreateService("b", Role.SERVICE, (GRANT,) * 1001), "at most 1000 grants"),
    (lambda: r.CreateService("b", Role.SERVICE, (Grant("é", GRANT.actions),)), "a grant's key"),
    (lambda: r.CreateService("b", Role.SERVICE, (Grant("*", frozenset()),)), "at least one action"),
    (lambda: r.UpdateService("b", grants=(Grant("", GRANT.actions),)), "a grant's key"),
    (lambda: r.ListServices(limit=0), "limit is"),
    (lambda: r.ListAudit(limit=1001), "limit is"),
    (lambda: r.Initialise(SLOT, "Root"), "a name is"),
    (lambda: r.ReadConsistency(-1, 2), "sizes of the log"),
    (lambda: r.ReadConsistency(3, 2), "sizes of the log"),
    (lambda: r.ReadConsistency(0, 2**63), "sizes of the log"),
    (lambda: r.Idempotency("", b"", lambda _reply: b""), "Idempotency-Key"),
    (lambda: r.Idempotency("k" * 129, b"", lambda _reply: b""), "Idempotency-Key"),
    (lambda: r.Idempotency("é", b"", lambda _reply: b""), "Idempotency-Key"),
    (lambda: r.Idempotency("a\n", b"", lambda _reply: b""), "Idempotency-Key"),
]
LARGE: list[Callable[[], object]] = [
    lambda: r.Encrypt(K, None, BIG),
    lambda: r.Sign(K, BIG),
    lambda: r.Verify(K, BIG),
    lambda: r.Batch(K, Action.SIGN, (r.Sign(K),) * 1001),
]


@pytest.mark.parametrize("make", GOOD)
def test_within_the_limits(make: Callable[[], object]) -> None:
    assert make() == make() or isinstance(make(), r.Idempotency)


@pytest.mark.parametrize(("make", "says"), BAD)
def test_beyond_the_limits(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        make()


@pytest.mark.parametrize("make", LARGE)
def test_too_large(make: Callable[[], object]) -> None:
    with pytest.raises(TooLarge):
        make()


def test_every_request_names_its_action() -> None:
    everything = {cls for cls in vars(r).values() if isinstance(cls, type) and issubclass(cls, r.Request)}
    leaves = {cls for cls in everything if not any(issubclass(other, cls) for other in everything - {cls})}
    assert len(leaves) > 35
    for request in leaves - {r.Rejected, r.Batch}:
        assert isinstance(request.action, Action), request


def test_plaintexts_messages_and_contexts_stay_out_of_repr() -> None:
    requests = [
        r.Encrypt(K, {"a": "hidden"}, b"hidden"),
        r.Decrypt(K, {"a": "hidden"}, b"hidden", b"hidden"),
        r.Rewrap(K, {"a": "hidden"}, b"hidden"),
        r.GenerateDataKey(K, {"a": "hidden"}),
        r.OpenDataKey(K, {"a": "hidden"}, b"hidden"),
        r.Sign(K, b"hidden"),
        r.Verify(K, b"hidden", b"hidden"),
    ]
    assert all("hidden" not in repr(request) for request in requests)


def test_a_batch_reply_knows_its_errors() -> None:
    refusal = InvalidCiphertext()
    reply = BatchReply((Rewrapped(b"", 1), refusal))
    assert [reply.error(index) for index in range(2)] == [None, refusal]


def test_an_entry_holds_its_draft() -> None:
    draft = Draft(action=Action.ENCRYPT, result=Result.SUCCESS, request_id=bytes(16))
    entry = Entry(1, 0, 0, 0, None, draft, bytes(32), bytes(32))
    assert entry.draft.count == 1


TEN_YEARS = 10 * 365 * 86400


@pytest.mark.parametrize("kind", [CreateToken, partial(CreateSecretId, "app")])
def test_what_is_kept_beside_each_token_is_bounded(kind: Callable[..., object]) -> None:
    for meta in (
        {str(one): "" for one in range(64)},
        {"n" * 128: "v" * 512},
        {str(one): "v" * 511 for one in range(8)},
    ):
        kind(meta=meta)
    for meta in (
        {str(one): "" for one in range(65)},
        {"n" * 129: ""},
        {"n": "v" * 513},
        {str(one): "v" * 511 for one in range(9)},
    ):
        with pytest.raises(InvalidRequest, match="metadata is at most"):
            kind(meta=meta)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (CreateToken, ("ttl", "explicit_max_ttl", "period")),
        (partial(CreateSecretId, "app"), ("ttl",)),
        (
            partial(WriteRole, "app"),
            ("token_ttl", "token_max_ttl", "token_explicit_max_ttl", "token_period", "secret_id_ttl"),
        ),
    ],
)
def test_no_lease_is_longer_than_ten_years(kind: Callable[..., object], names: tuple[str, ...]) -> None:
    for name in names:
        for good in (0, 1, TEN_YEARS):
            kind(**{name: good})
        for bad in (-1, TEN_YEARS + 1, 10**18):
            with pytest.raises(InvalidRequest, match="ten years"):
                kind(**{name: bad})


@pytest.mark.parametrize(("kind", "name"), [(CreateSecretId, "uses"), (WriteRole, "secret_id_uses")])
def test_uses_are_counted_from_nothing_to_what_a_number_holds(kind: Callable[..., object], name: str) -> None:
    for good in (None, 0, 1, 2**31 - 1):
        kind("app", **{name: good})
    for bad in (-1, 2**31):
        with pytest.raises(InvalidRequest, match="num_uses is 0 to"):
            kind("app", **{name: bad})

"""The life of a key through the one door: every status, every operation, and the order in which it is judged."""

import pytest
from msgspec import structs

from keyvault_lite.model.errors import (
    Forbidden,
    InvalidCiphertext,
    InvalidRequest,
    InvalidState,
    NotFound,
)
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keys import Key, KeySpec, KeyStatus, KeyType, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId, KeyRef, new_id
from keyvault_lite.model.replies import DataKey, Encrypted, Page, Signed, Verified
from keyvault_lite.model.requests import (
    Batch,
    CreateKey,
    Decrypt,
    DestroyKey,
    DisableKey,
    EnableKey,
    Encrypt,
    EraseDueKey,
    GenerateDataKey,
    KeyRequest,
    ListKeys,
    ListServices,
    ListVersions,
    OpenDataKey,
    ReadKey,
    ReadPublicKey,
    RestoreKey,
    RevokeKey,
    Rewrap,
    RotateDueKey,
    RotateKey,
    Sign,
    UpdateKey,
    Verify,
)
from tests.support.harness import AES, DAY, ED25519, HMAC, Harness, grant

RSA_ENCRYPT = KeySpec(KeyType.RSA, 3072, Purpose.ENCRYPT)


def ref(key: Key) -> KeyRef:
    return KeyRef(key.id)


def bring(harness: Harness, key: Key, status: KeyStatus) -> Key:
    """Lead a key into a status the way its owners would."""
    if status is KeyStatus.DISABLED:
        return harness.ask(DisableKey(ref(key)))  # type: ignore[no-any-return]
    if status is KeyStatus.REVOKED:
        return harness.ask(RevokeKey(ref(key)))  # type: ignore[no-any-return]
    if status is KeyStatus.PENDING_DESTRUCTION:
        return harness.ask(DestroyKey(ref(key)))  # type: ignore[no-any-return]
    if status is KeyStatus.DESTROYED:
        harness.ask(DestroyKey(ref(key), days=7))
        return erase(harness, key)
    return key


def erase(harness: Harness, key: Key) -> Key:
    """Let the waiting period pass: the clock that judges it is moved, not the record."""
    real = harness.ledger.now
    harness.ledger.now = lambda: real() + 31 * DAY  # type: ignore[method-assign]
    try:
        return harness.system(EraseDueKey(ref(key)))  # type: ignore[no-any-return]
    finally:
        del harness.ledger.now


ALLOWED: dict[type[KeyRequest], dict[KeyStatus, KeyStatus]] = {
    # request -> status before: status after. Everything else is 409.
    DisableKey: {KeyStatus.ACTIVE: KeyStatus.DISABLED, KeyStatus.DISABLED: KeyStatus.DISABLED},
    EnableKey: {KeyStatus.ACTIVE: KeyStatus.ACTIVE, KeyStatus.DISABLED: KeyStatus.ACTIVE},
    RotateKey: {KeyStatus.ACTIVE: KeyStatus.ACTIVE},
    RevokeKey: {KeyStatus.ACTIVE: KeyStatus.REVOKED, KeyStatus.DISABLED: KeyStatus.REVOKED},
    DestroyKey: {
        KeyStatus.ACTIVE: KeyStatus.PENDING_DESTRUCTION,
        KeyStatus.DISABLED: KeyStatus.PENDING_DESTRUCTION,
        KeyStatus.REVOKED: KeyStatus.PENDING_DESTRUCTION,
    },
    RestoreKey: {KeyStatus.PENDING_DESTRUCTION: KeyStatus.DISABLED},
    ReadKey: {status: status for status in KeyStatus},
    UpdateKey: {status: status for status in KeyStatus if status is not KeyStatus.DESTROYED},
}


@pytest.mark.parametrize("status", KeyStatus)
@pytest.mark.parametrize("request_type", ALLOWED)
def test_every_transition(harness: Harness, request_type: type[KeyRequest], status: KeyStatus) -> None:
    key = bring(harness, harness.key(), status)
    expected = ALLOWED[request_type].get(status)
    if expected is None:
        error = harness.refusal(request_type(ref(key)), InvalidState)
        assert status in error.detail, "the detail names the state"
        assert harness.last.draft.result is Result.ERROR
        assert harness.last.draft.key_id == key.id
    else:
        changed = harness.ask(request_type(ref(key)))
        assert changed.status is expected
        assert harness.ask(ReadKey(ref(key))) == changed
    harness.reopen()
    assert harness.ask(ReadKey(ref(key))).status is (expected or status)


USES: dict[str, Purpose] = {
    "encrypt": Purpose.ENCRYPT,
    "decrypt": Purpose.ENCRYPT,
    "rewrap": Purpose.ENCRYPT,
    "data_key": Purpose.ENCRYPT,
    "data_key_open": Purpose.ENCRYPT,
    "sign": Purpose.SIGN,
    "verify": Purpose.SIGN,
}


def use(harness: Harness, key: Key, action: str) -> KeyRequest:
    """A request that succeeds while the key is ACTIVE."""
    name = ref(key)
    if action in {"decrypt", "rewrap"}:
        made: Encrypted = harness.ask(Encrypt(name, plaintext=b"text"))
        if action == "rewrap":
            return Rewrap(name, encrypted_dek=made.encrypted_dek)
        return Decrypt(name, ciphertext=made.ciphertext, encrypted_dek=made.encrypted_dek)
    if action == "data_key_open":
        wrapped: DataKey = harness.ask(GenerateDataKey(name))
        return OpenDataKey(name, encrypted_key=wrapped.encrypted_key or b"")
    if action == "verify":
        signed: Signed = harness.ask(Sign(name, b"text"))
        return Verify(name, b"text", signed.signature)
    return {
        "encrypt": Encrypt(name, plaintext=b"text"),
        "data_key": GenerateDataKey(name),
        "sign": Sign(name, b"text"),
    }[action]


@pytest.mark.parametrize("status", KeyStatus)
@pytest.mark.parametrize("action", USES)
def test_a_key_is_used_while_active_only(harness: Harness, action: str, status: KeyStatus) -> None:
    key = harness.key(spec=AES if USES[action] is Purpose.ENCRYPT else ED25519)
    request = use(harness, key, action)
    bring(harness, key, status)
    if status is KeyStatus.ACTIVE:
        answer = harness.answer(request)
        assert answer.audit_id == harness.size
        assert harness.last.draft.action is Action(action)
        assert harness.last.draft.key_version == 1
    else:
        assert status in harness.refusal(request, InvalidState).detail


@pytest.mark.parametrize("status", [KeyStatus.DISABLED, KeyStatus.PENDING_DESTRUCTION])
def test_what_is_enabled_or_restored_works_again(harness: Harness, status: KeyStatus) -> None:
    key = harness.key()
    request = use(harness, key, "decrypt")
    bring(harness, key, status)
    if status is KeyStatus.PENDING_DESTRUCTION:
        restored = harness.ask(RestoreKey(ref(key)))
        assert restored.destroy_at is None
    harness.ask(EnableKey(ref(key)))
    assert harness.ask(request).plaintext == b"text"


def test_restore_returns_to_revoked_what_was_revoked(harness: Harness) -> None:
    key = harness.key()
    harness.ask(RevokeKey(ref(key)))
    pending = harness.ask(DestroyKey(ref(key), days=7))
    assert pending.status is KeyStatus.PENDING_DESTRUCTION
    assert 6 * DAY < pending.destroy_at - harness.ledger.now() <= 7 * DAY
    restored = harness.ask(RestoreKey(ref(key)))
    assert (restored.status, restored.was_revoked, restored.destroy_at) == (KeyStatus.REVOKED, False, None)
    assert {one.status for one in restored.versions} == {VersionStatus.REVOKED}
    harness.refusal(EnableKey(ref(key)), InvalidState)


@pytest.mark.parametrize("status", [KeyStatus.DISABLED, KeyStatus.PENDING_DESTRUCTION, KeyStatus.REVOKED])
def test_public_keys_stay_readable_until_destruction(harness: Harness, status: KeyStatus) -> None:
    key = harness.key(spec=ED25519)
    bring(harness, key, status)
    assert harness.ask(ReadPublicKey(ref(key))).version == 1


def test_a_destroyed_key_has_no_material_and_keeps_its_name(harness: Harness) -> None:
    key = harness.key("gone", ED25519)
    material = key.versions[0].encrypted_key
    harness.ask(DestroyKey(ref(key), days=7))
    gone = erase(harness, key)
    assert gone.status is KeyStatus.DESTROYED
    assert [(one.status, one.encrypted_key, one.public_key) for one in gone.versions] == [
        (VersionStatus.DESTROYED, b"", None)
    ]
    assert (harness.last.draft.action, harness.last.draft.service_id) == (
        Action.DESTROY,
        "00000000-0000-0000-0000-000000000000",
    )
    harness.refusal(ReadPublicKey(ref(key)), InvalidState)
    from keyvault_lite.model.errors import Conflict

    harness.refusal(CreateKey(AES, "gone"), Conflict)
    harness.vault.close()
    assert material not in harness.files()
    harness.open()


def test_erasing_needs_the_time_to_have_come(harness: Harness) -> None:
    from keyvault_lite.model.errors import Conflict

    key = harness.key()
    harness.ask(DestroyKey(ref(key), days=7))
    with pytest.raises(Conflict):
        harness.system(EraseDueKey(ref(key)))
    assert harness.ask(ReadKey(ref(key))).status is KeyStatus.PENDING_DESTRUCTION


# Versions


def test_rotation_deprecates_and_the_deprecated_still_opens(harness: Harness) -> None:
    key = harness.key()
    old = use(harness, key, "decrypt")
    rotated = harness.rotated(key, 2)
    assert [one.status for one in rotated.versions] == [
        VersionStatus.DEPRECATED,
        VersionStatus.DEPRECATED,
        VersionStatus.ACTIVE,
    ]
    assert harness.last.draft.key_version == 3
    assert harness.ask(old).key_version == 1
    assert harness.ask(Encrypt(ref(key), plaintext=b"new")).key_version == 3


def test_a_revoked_version_does_nothing_and_the_others_go_on(harness: Harness) -> None:
    key = harness.key()
    opened, wrapped = use(harness, key, "decrypt"), use(harness, key, "data_key_open")
    assert isinstance(opened, Decrypt)
    kept = Rewrap(ref(key), encrypted_dek=opened.encrypted_dek)
    harness.rotated(key)
    rewrapped = harness.ask(kept)
    revoked = harness.ask(RevokeKey(ref(key), version=1, reason="lost"))
    assert [one.status for one in revoked.versions] == [VersionStatus.REVOKED, VersionStatus.ACTIVE]
    assert revoked.status is KeyStatus.ACTIVE
    assert (harness.last.draft.key_version, harness.last.draft.comment) == (1, "lost")
    for request in (opened, wrapped, kept):
        assert "REVOKED" in harness.refusal(request, InvalidState).detail
    # A message that was wrapped anew in time outlives its first version.
    again = Decrypt(ref(key), ciphertext=opened.ciphertext, encrypted_dek=rewrapped.encrypted_dek)
    assert (harness.ask(again).plaintext, rewrapped.key_version) == (b"text", 2)


@pytest.mark.parametrize(("version", "state"), [(2, "ACTIVE"), (1, "REVOKED")])
def test_versions_that_cannot_be_revoked(harness: Harness, version: int, state: str) -> None:
    key = harness.rotated(harness.key())
    harness.ask(RevokeKey(ref(key), version=1))
    assert state in harness.refusal(RevokeKey(ref(key), version=version), InvalidState).detail


def test_after_revoking_the_key_every_version_is_revoked(harness: Harness) -> None:
    key = harness.rotated(harness.key(spec=ED25519), 2)
    signed: Signed = harness.ask(Sign(ref(key), b"m"))
    revoked = harness.ask(RevokeKey(ref(key), reason="over"))
    assert {one.status for one in revoked.versions} == {VersionStatus.REVOKED}
    assert (harness.last.draft.key_version, harness.last.draft.comment) == (None, "over")
    harness.refusal(Verify(ref(key), b"m", signed.signature), InvalidState)
    assert harness.ask(ReadPublicKey(ref(key), version=2)).version == 2


def test_revoking_the_key_leaves_destroyed_versions_destroyed(harness: Harness) -> None:
    from keyvault_lite.engine.keys import _revoked

    version = harness.key().versions[0]

    gone = structs.replace(version, status=VersionStatus.DESTROYED)
    assert _revoked(gone) is gone


def test_versions_are_listed_in_pages(harness: Harness) -> None:
    key = harness.rotated(harness.key(), 4)
    first: Page = harness.ask(ListVersions(ref(key), limit=2))  # type: ignore[type-arg]
    second: Page = harness.ask(ListVersions(ref(key), limit=2, after=first.next))  # type: ignore[type-arg]
    third: Page = harness.ask(ListVersions(ref(key), limit=2, after=second.next))  # type: ignore[type-arg]
    assert [one.version for page in (first, second, third) for one in page.items] == [1, 2, 3, 4, 5]
    assert third.next is None
    assert harness.ask(ListVersions(ref(key), after="99")).items == ()


def test_verify_tries_every_version_newest_first(harness: Harness) -> None:
    key = harness.key(spec=HMAC)
    old: Signed = harness.ask(Sign(ref(key), b"m"))
    harness.rotated(key, 2)
    assert harness.ask(Verify(ref(key), b"m", old.signature)) == Verified(valid=True, key_version=1)
    assert harness.ask(Verify(ref(key), b"m", old.signature, key_version=1)) == Verified(valid=True, key_version=1)
    assert harness.ask(Verify(ref(key), b"m", old.signature, key_version=2)) == Verified(valid=False, key_version=None)
    assert harness.ask(Verify(ref(key), b"x", old.signature)) == Verified(valid=False, key_version=None)
    harness.ask(RevokeKey(ref(key), version=1))
    assert harness.ask(Verify(ref(key), b"m", old.signature)) == Verified(valid=False, key_version=None)
    assert "REVOKED" in harness.refusal(Verify(ref(key), b"m", old.signature, key_version=1), InvalidState).detail


@pytest.mark.parametrize("named", [2, 7])
def test_a_named_version_must_be_the_one_of_the_ciphertext(harness: Harness, named: int) -> None:
    key = harness.key()
    request = use(harness, key, "decrypt")
    harness.rotated(key)
    assert isinstance(request, Decrypt)
    wrong = Decrypt(ref(key), ciphertext=request.ciphertext, encrypted_dek=request.encrypted_dek, key_version=named)
    harness.refusal(wrong, InvalidCiphertext)
    right = Decrypt(ref(key), ciphertext=request.ciphertext, encrypted_dek=request.encrypted_dek, key_version=1)
    assert harness.ask(right).plaintext == b"text"


def test_every_failure_to_decrypt_is_the_same(harness: Harness) -> None:
    key, other = harness.key(), harness.key()
    made: Encrypted = harness.ask(Encrypt(ref(key), {"a": "b"}, b"text"))
    dek, text = made.encrypted_dek, made.ciphertext
    absent = dek[:25] + bytes([dek[25] + 1]) + dek[26:]  # the header of a version that there is not
    failures = [
        Decrypt(ref(key), {"a": "c"}, text, dek),
        Decrypt(ref(key), None, text, dek),
        Decrypt(ref(other), {"a": "b"}, text, dek),
        Decrypt(ref(key), {"a": "b"}, text[:-1] + bytes([text[-1] ^ 1]), dek),
        Decrypt(ref(key), {"a": "b"}, text, dek[:-1] + bytes([dek[-1] ^ 1])),
        Decrypt(ref(key), {"a": "b"}, b"", b""),
        Decrypt(ref(key), {"a": "b"}, text, absent),
        Decrypt(ref(key), {"a": "b"}, dek, text),
    ]
    details = {harness.refusal(request, InvalidCiphertext).detail for request in failures}
    assert len(details) == 1
    harness.refusal(OpenDataKey(ref(key), {"a": "b"}, dek), InvalidCiphertext)


def test_bytes_that_are_no_text_are_refused_as_text(harness: Harness) -> None:
    key = harness.key()
    made: Encrypted = harness.ask(Encrypt(ref(key), plaintext=b"\xff"))
    asked = Decrypt(ref(key), ciphertext=made.ciphertext, encrypted_dek=made.encrypted_dek, as_text=True)
    assert "base64" in harness.refusal(asked, InvalidRequest).detail
    made = harness.ask(Encrypt(ref(key), plaintext="ä".encode()))
    assert (
        harness.ask(Decrypt(ref(key), None, made.ciphertext, made.encrypted_dek, as_text=True)).plaintext
        == "ä".encode()
    )


def test_data_keys(harness: Harness) -> None:
    key = harness.key()
    for bits in (128, 256, 512):
        made: DataKey = harness.ask(GenerateDataKey(ref(key), {"c": "d"}, bits))
        assert made.plaintext_key is not None
        assert len(made.plaintext_key) == bits // 8
        opened: DataKey = harness.ask(OpenDataKey(ref(key), {"c": "d"}, made.encrypted_key or b""))
        assert (opened.plaintext_key, opened.encrypted_key) == (made.plaintext_key, None)
    hidden: DataKey = harness.ask(GenerateDataKey(ref(key), reveal=False))
    assert hidden.plaintext_key is None
    wrapped = hidden.encrypted_key or b""
    harness.refusal(Decrypt(ref(key), ciphertext=wrapped, encrypted_dek=wrapped), InvalidCiphertext)


def test_rsa_wraps_the_data_encryption_key(harness: Harness) -> None:
    key = harness.key(spec=RSA_ENCRYPT)
    made: Encrypted = harness.ask(Encrypt(ref(key), {"a": "b"}, b"text"))
    assert harness.ask(Decrypt(ref(key), {"a": "b"}, made.ciphertext, made.encrypted_dek)).plaintext == b"text"


# The order of the checks: 403 by role, 404 or 403 by key and grant, 422 by purpose or algorithm, 409 by state


def test_a_service_is_told_nothing_of_keys_it_has_no_grant_on(harness: Harness) -> None:
    key = harness.key("secret-plans")
    _, token = harness.service("worker", grant("orders-*"))
    absent = harness.refusal(Encrypt(KeyRef("no-such-key"), plaintext=b"x"), NotFound, token)
    assert harness.last.draft.key_ref == "no-such-key"
    for name in ("secret-plans", key.id):
        hidden = harness.refusal(Encrypt(KeyRef(name), plaintext=b"x"), NotFound, token)
        assert hidden.detail == absent.detail
        assert (harness.last.draft.result, harness.last.draft.key_id) == (Result.DENIED, key.id)
    bring(harness, key, KeyStatus.REVOKED)
    harness.refusal(Encrypt(KeyRef("secret-plans"), plaintext=b"x"), NotFound, token)


def test_grant_before_purpose_before_state(harness: Harness) -> None:
    key = harness.key("orders-1")
    _, token = harness.service("worker", grant("orders-*", "decrypt"))
    bring(harness, key, KeyStatus.DISABLED)
    harness.refusal(Encrypt(KeyRef("orders-1"), plaintext=b"x"), Forbidden, token)
    assert harness.last.draft.result is Result.DENIED
    harness.refusal(Sign(KeyRef("orders-1"), b"x"), Forbidden, token)
    harness.refusal(Sign(KeyRef("orders-1"), b"x"), InvalidRequest)
    harness.refusal(Encrypt(KeyRef("orders-1"), plaintext=b"x"), InvalidState)


def test_role_before_key(harness: Harness) -> None:
    _, auditor = harness.service("eye", role=Role.AUDITOR)
    _, worker = harness.service("worker")
    for name in ("absent", harness.key("present").id):
        harness.refusal(Encrypt(KeyRef(name), plaintext=b"x"), Forbidden, auditor)
        harness.refusal(RotateKey(KeyRef(name)), Forbidden, worker)
        assert harness.last.draft.result is Result.DENIED


def test_fields_before_key(harness: Harness) -> None:
    with pytest.raises(InvalidRequest):
        ListVersions(KeyRef("absent"), after="not-a-cursor")
    with pytest.raises(InvalidRequest):
        ListVersions(KeyRef("absent"), after="9" * 30)


def test_algorithm_before_state(harness: Harness) -> None:
    from keyvault_lite.model.keys import Algorithm

    key = harness.key(spec=ED25519)
    ecdsa = harness.key(spec=KeySpec(KeyType.EC, 256, Purpose.SIGN))
    for one in (key, ecdsa):
        bring(harness, one, KeyStatus.DISABLED)
    harness.refusal(Sign(ref(key), b"x", Algorithm.ECDSA_SHA256), InvalidRequest)
    harness.refusal(Sign(ref(key), bytes(32), prehashed=True), InvalidRequest)
    harness.refusal(Verify(ref(key), bytes(32), b"s", prehashed=True), InvalidRequest)
    harness.refusal(Sign(ref(ecdsa), bytes(31), prehashed=True), InvalidRequest)
    harness.refusal(Sign(ref(ecdsa), bytes(32), prehashed=True), InvalidState)


def test_version_before_state(harness: Harness) -> None:
    key = harness.key(spec=ED25519)
    bring(harness, key, KeyStatus.DISABLED)
    harness.refusal(Verify(ref(key), b"x", b"s", key_version=9), InvalidCiphertext)
    harness.refusal(ReadPublicKey(ref(key), version=9), NotFound)
    bring(harness, key, KeyStatus.REVOKED)
    harness.refusal(RevokeKey(ref(key), version=9), NotFound)


@pytest.mark.parametrize("kind", [Sign, Verify])
def test_an_encrypting_key_does_not_sign(harness: Harness, kind: type[Sign | Verify]) -> None:
    harness.refusal(kind(ref(harness.key())), InvalidRequest)


@pytest.mark.parametrize("kind", [Encrypt, Decrypt, Rewrap, GenerateDataKey, OpenDataKey])
@pytest.mark.parametrize("spec", [ED25519, HMAC])
def test_a_signing_key_does_not_encrypt(harness: Harness, kind: type[KeyRequest], spec: KeySpec) -> None:
    harness.refusal(kind(ref(harness.key(spec=spec))), InvalidRequest)


@pytest.mark.parametrize("spec", [AES, HMAC])
def test_a_secret_key_has_no_public_key(harness: Harness, spec: KeySpec) -> None:
    harness.refusal(ReadPublicKey(ref(harness.key(spec=spec))), InvalidRequest)


def test_a_key_is_found_by_id_and_name(harness: Harness) -> None:
    key = harness.key("orders")
    assert harness.ask(ReadKey(KeyRef("orders"))) == harness.ask(ReadKey(ref(key))) == key
    assert harness.last.draft.key_id == key.id
    harness.refusal(ReadKey(KeyRef(new_id())), NotFound)
    assert harness.last.draft.result is Result.ERROR
    harness.refusal(ReadKey(KeyRef("kvl_" + "A" * 16 + "_" + "b" * 43)), NotFound)
    assert "kvl_" not in (harness.last.draft.key_ref or ""), "what may be a token is kept as a digest"


# Descriptions, rotation by period, lists


def test_update_changes_what_is_named(harness: Harness) -> None:
    key = harness.key()
    changed = harness.ask(UpdateKey(ref(key), description="orders", tags={"team": "a"}, rotation_days=30))
    assert (changed.description, changed.tags, changed.rotation_days) == ("orders", {"team": "a"}, 30)
    assert 29 * DAY < changed.rotate_at - harness.ledger.now() <= 30 * DAY
    harness.reopen()
    assert harness.ask(ReadKey(ref(key))) == changed
    cleared = harness.ask(UpdateKey(ref(key), rotation_days=0))
    assert (cleared.description, cleared.rotation_days, cleared.rotate_at) == ("orders", None, None)
    before = harness.size
    assert harness.ask(UpdateKey(ref(key))) == cleared
    assert harness.last.state_root is None, "nothing changed, and that is on record"
    assert harness.size == before + 1


def test_a_revoked_key_does_not_rotate_and_says_no_date(harness: Harness) -> None:
    key = harness.key()
    harness.ask(UpdateKey(ref(key), rotation_days=30))
    harness.ask(RevokeKey(ref(key)))
    for begin in (DestroyKey(ref(key)), None):
        assert harness.ask(ReadKey(ref(key))).rotate_at is None
        harness.refusal(UpdateKey(ref(key), rotation_days=1, description="x"), InvalidState)
        assert harness.ask(ReadKey(ref(key))).description == ""
        harness.ask(UpdateKey(ref(key), rotation_days=0))
        if begin is not None:
            harness.ask(begin)
    assert harness.ask(RestoreKey(ref(key))).rotate_at is None
    waiting = harness.key()
    harness.ask(DestroyKey(ref(waiting)))
    assert harness.ask(UpdateKey(ref(waiting), rotation_days=1)).rotate_at, "it may yet be restored"


def test_a_service_lists_the_keys_it_has_grants_on(harness: Harness) -> None:
    keys = [harness.key(name) for name in ("orders-1", "orders-2", "other", None)]
    _, token = harness.service("worker", grant("orders-*", "verify"), grant(keys[3].id, "encrypt"))
    page: Page = harness.ask(ListKeys(), token)  # type: ignore[type-arg]
    assert [key.id for key in page.items] == [keys[0].id, keys[1].id, keys[3].id]
    first: Page = harness.ask(ListKeys(limit=2), token)  # type: ignore[type-arg]
    rest: Page = harness.ask(ListKeys(limit=2, after=first.next), token)  # type: ignore[type-arg]
    assert [key.id for key in (*first.items, *rest.items)] == [key.id for key in page.items]
    assert rest.next is None
    assert len(harness.ask(ListKeys()).items) == 4
    for cursor in ("x", "1", "-1.x", "9" * 19 + ".x"):
        harness.refusal(ListKeys(after=cursor), InvalidRequest)


def test_what_is_set_aside_is_in_no_list(harness: Harness) -> None:
    keys, services = [harness.key() for _ in range(3)], [harness.service(name)[0] for name in ("a", "b")]
    harness.ledger.snapshot().quarantine(keys[1].id)
    harness.ledger.snapshot().quarantine(services[0].id)
    assert [key.id for key in harness.ask(ListKeys()).items] == [keys[0].id, keys[2].id]
    first = harness.ask(ListKeys(limit=1))
    assert [key.id for key in harness.ask(ListKeys(limit=1, after=first.next)).items] == [keys[2].id]
    after = f"{keys[1].created_at}.{keys[1].id}"
    assert [key.id for key in harness.ask(ListKeys(after=after)).items] == [keys[2].id], "it still has its place"
    assert [service.name for service in harness.ask(ListServices()).items] == ["admin", "b"]


def test_rotation_by_period_needs_its_time(harness: Harness) -> None:
    from keyvault_lite.model.errors import Conflict

    key = harness.key()
    with pytest.raises(Conflict):
        harness.system(RotateDueKey(ref(key)))
    harness.ask(UpdateKey(ref(key), rotation_days=1))
    with pytest.raises(Conflict):
        harness.system(RotateDueKey(ref(key)))
    harness.refusal(RotateDueKey(ref(key)), Forbidden)


def test_batches_answer_item_by_item(harness: Harness) -> None:
    key = harness.key()
    made = use(harness, key, "decrypt")
    before = harness.size
    broken = InvalidRequest("plaintext is not base64")
    items = (made, broken, Decrypt(ref(key), ciphertext=b"x", encrypted_dek=b"y"))
    answer = harness.answer(Batch(ref(key), Action.DECRYPT, items))
    reply = answer.result
    assert reply.items[0].plaintext == b"text"  # type: ignore[attr-defined]
    assert reply.error(1) is broken  # type: ignore[attr-defined]
    assert reply.error(2).code == "invalid_ciphertext"  # type: ignore[attr-defined]
    assert reply.audit_ids == (before + 1, before + 2, before + 3)  # type: ignore[attr-defined]
    assert answer.audit_id == before + 3
    drafts = [entry.draft for entry in harness.log(before)]
    assert [draft.result for draft in drafts] == [Result.SUCCESS, Result.ERROR, Result.ERROR]
    assert {draft.action for draft in drafts} == {Action.DECRYPT}
    assert {draft.key_id for draft in drafts} == {key.id}


def test_a_batch_holds_one_kind_of_request(harness: Harness) -> None:
    # Grants are judged on what the batch says it is.
    key = harness.key()
    with pytest.raises(InvalidRequest):
        Batch(ref(key), Action.ENCRYPT, (Decrypt(ref(key)),))


def test_batches_are_judged_as_their_operation(harness: Harness) -> None:
    harness.key("orders")
    _, token = harness.service("worker", grant("orders", "encrypt"))
    name = KeyRef("orders")
    assert len(harness.ask(Batch(name, Action.ENCRYPT, (Encrypt(name, plaintext=b"a"),) * 3), token).items) == 3
    harness.refusal(Batch(name, Action.DECRYPT, (Decrypt(name),)), Forbidden, token)
    harness.refusal(Batch(name, Action.REWRAP, (Rewrap(name),)), Forbidden, token)
    harness.refusal(Batch(KeyRef("x"), Action.ENCRYPT, (Encrypt(name),)), NotFound, token)
    assert harness.size == harness.last.id


def test_ids_that_are_not_ids_find_nothing(harness: Harness) -> None:
    key = harness.key()
    for odd in (key.id.upper(), key.id.replace("-", ""), key.id + " ", ""):
        harness.refusal(ReadKey(KeyRef(odd)), NotFound)
    assert KeyId(key.id) == key.id


def test_a_key_without_active_version_protects_nothing() -> None:
    # No operation leaves an ACTIVE key so; if one did, nothing would be protected by a wrong version.
    from keyvault_lite.engine.cipher import protecting
    from keyvault_lite.model.keys import KeyVersion

    revoked = KeyVersion(KeyId(new_id()), 1, VersionStatus.REVOKED, 0, b"")
    with pytest.raises(InvalidState):
        protecting(Key(revoked.key_id, None, AES, KeyStatus.ACTIVE, 0, versions=(revoked,)))


def test_a_scene_has_the_key_that_was_named(harness: Harness) -> None:
    from keyvault_lite.engine.handler import HandlerContext
    from keyvault_lite.model.identity import Principal
    from keyvault_lite.model.names import SYSTEM

    ctx = HandlerContext(
        Principal(SYSTEM, "system", None), harness.ledger.snapshot(), harness.vault.keyring, harness.ledger, 0, {}
    )
    with pytest.raises(LookupError):
        _ = ctx.key

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
from tests.house import AES, DAY, ED25519, HMAC, House, grant

RSA_ENCRYPT = KeySpec(KeyType.RSA, 3072, Purpose.ENCRYPT)


def ref(key: Key) -> KeyRef:
    return KeyRef(key.id)


def bring(house: House, key: Key, status: KeyStatus) -> Key:
    """Lead a key into a status the way its owners would."""
    if status is KeyStatus.DISABLED:
        return house.ask(DisableKey(ref(key)))  # type: ignore[no-any-return]
    if status is KeyStatus.REVOKED:
        return house.ask(RevokeKey(ref(key)))  # type: ignore[no-any-return]
    if status is KeyStatus.PENDING_DESTRUCTION:
        return house.ask(DestroyKey(ref(key)))  # type: ignore[no-any-return]
    if status is KeyStatus.DESTROYED:
        house.ask(DestroyKey(ref(key), days=7))
        return erase(house, key)
    return key


def erase(house: House, key: Key) -> Key:
    """Let the waiting period pass: the clock that judges it is moved, not the record."""
    real = house.ledger.now
    house.ledger.now = lambda: real() + 31 * DAY  # type: ignore[method-assign]
    try:
        return house.system(EraseDueKey(ref(key)))  # type: ignore[no-any-return]
    finally:
        del house.ledger.now


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
def test_every_transition(house: House, request_type: type[KeyRequest], status: KeyStatus) -> None:
    key = bring(house, house.key(), status)
    expected = ALLOWED[request_type].get(status)
    if expected is None:
        error = house.refusal(request_type(ref(key)), InvalidState)
        assert status in error.detail, "the detail names the state"
        assert house.last.draft.result is Result.ERROR
        assert house.last.draft.key_id == key.id
    else:
        changed = house.ask(request_type(ref(key)))
        assert changed.status is expected
        assert house.ask(ReadKey(ref(key))) == changed
    house.reopen()
    assert house.ask(ReadKey(ref(key))).status is (expected or status)


USES: dict[str, Purpose] = {
    "encrypt": Purpose.ENCRYPT,
    "decrypt": Purpose.ENCRYPT,
    "rewrap": Purpose.ENCRYPT,
    "data_key": Purpose.ENCRYPT,
    "data_key_open": Purpose.ENCRYPT,
    "sign": Purpose.SIGN,
    "verify": Purpose.SIGN,
}


def use(house: House, key: Key, action: str) -> KeyRequest:
    """A request that succeeds while the key is ACTIVE."""
    name = ref(key)
    if action in {"decrypt", "rewrap"}:
        made: Encrypted = house.ask(Encrypt(name, plaintext=b"text"))
        if action == "rewrap":
            return Rewrap(name, encrypted_dek=made.encrypted_dek)
        return Decrypt(name, ciphertext=made.ciphertext, encrypted_dek=made.encrypted_dek)
    if action == "data_key_open":
        wrapped: DataKey = house.ask(GenerateDataKey(name))
        return OpenDataKey(name, encrypted_key=wrapped.encrypted_key or b"")
    if action == "verify":
        signed: Signed = house.ask(Sign(name, b"text"))
        return Verify(name, b"text", signed.signature)
    return {
        "encrypt": Encrypt(name, plaintext=b"text"),
        "data_key": GenerateDataKey(name),
        "sign": Sign(name, b"text"),
    }[action]


@pytest.mark.parametrize("status", KeyStatus)
@pytest.mark.parametrize("action", USES)
def test_a_key_is_used_while_active_only(house: House, action: str, status: KeyStatus) -> None:
    key = house.key(spec=AES if USES[action] is Purpose.ENCRYPT else ED25519)
    request = use(house, key, action)
    bring(house, key, status)
    if status is KeyStatus.ACTIVE:
        answer = house.answer(request)
        assert answer.audit_id == house.size
        assert house.last.draft.action is Action(action)
        assert house.last.draft.key_version == 1
    else:
        assert status in house.refusal(request, InvalidState).detail


@pytest.mark.parametrize("status", [KeyStatus.DISABLED, KeyStatus.PENDING_DESTRUCTION])
def test_what_is_enabled_or_restored_works_again(house: House, status: KeyStatus) -> None:
    key = house.key()
    request = use(house, key, "decrypt")
    bring(house, key, status)
    if status is KeyStatus.PENDING_DESTRUCTION:
        restored = house.ask(RestoreKey(ref(key)))
        assert restored.destroy_at is None
    house.ask(EnableKey(ref(key)))
    assert house.ask(request).plaintext == b"text"


def test_restore_returns_to_revoked_what_was_revoked(house: House) -> None:
    key = house.key()
    house.ask(RevokeKey(ref(key)))
    pending = house.ask(DestroyKey(ref(key), days=7))
    assert pending.status is KeyStatus.PENDING_DESTRUCTION
    assert 6 * DAY < pending.destroy_at - house.ledger.now() <= 7 * DAY
    restored = house.ask(RestoreKey(ref(key)))
    assert (restored.status, restored.was_revoked, restored.destroy_at) == (KeyStatus.REVOKED, False, None)
    assert {one.status for one in restored.versions} == {VersionStatus.REVOKED}
    house.refusal(EnableKey(ref(key)), InvalidState)


@pytest.mark.parametrize("status", [KeyStatus.DISABLED, KeyStatus.PENDING_DESTRUCTION, KeyStatus.REVOKED])
def test_public_keys_stay_readable_until_destruction(house: House, status: KeyStatus) -> None:
    key = house.key(spec=ED25519)
    bring(house, key, status)
    assert house.ask(ReadPublicKey(ref(key))).version == 1


def test_a_destroyed_key_has_no_material_and_keeps_its_name(house: House) -> None:
    key = house.key("gone", ED25519)
    material = key.versions[0].encrypted_key
    house.ask(DestroyKey(ref(key), days=7))
    gone = erase(house, key)
    assert gone.status is KeyStatus.DESTROYED
    assert [(one.status, one.encrypted_key, one.public_key) for one in gone.versions] == [
        (VersionStatus.DESTROYED, b"", None)
    ]
    assert (house.last.draft.action, house.last.draft.service_id) == (
        Action.DESTROY,
        "00000000-0000-0000-0000-000000000000",
    )
    house.refusal(ReadPublicKey(ref(key)), InvalidState)
    from keyvault_lite.model.errors import Conflict

    house.refusal(CreateKey(AES, "gone"), Conflict)
    house.vault.close()
    assert material not in house.files()
    house.open()


def test_erasing_needs_the_time_to_have_come(house: House) -> None:
    from keyvault_lite.model.errors import Conflict

    key = house.key()
    house.ask(DestroyKey(ref(key), days=7))
    with pytest.raises(Conflict):
        house.system(EraseDueKey(ref(key)))
    assert house.ask(ReadKey(ref(key))).status is KeyStatus.PENDING_DESTRUCTION


# Versions


def test_rotation_deprecates_and_the_deprecated_still_opens(house: House) -> None:
    key = house.key()
    old = use(house, key, "decrypt")
    rotated = house.rotated(key, 2)
    assert [one.status for one in rotated.versions] == [
        VersionStatus.DEPRECATED,
        VersionStatus.DEPRECATED,
        VersionStatus.ACTIVE,
    ]
    assert house.last.draft.key_version == 3
    assert house.ask(old).key_version == 1
    assert house.ask(Encrypt(ref(key), plaintext=b"new")).key_version == 3


def test_a_revoked_version_does_nothing_and_the_others_go_on(house: House) -> None:
    key = house.key()
    opened, wrapped = use(house, key, "decrypt"), use(house, key, "data_key_open")
    assert isinstance(opened, Decrypt)
    kept = Rewrap(ref(key), encrypted_dek=opened.encrypted_dek)
    house.rotated(key)
    rewrapped = house.ask(kept)
    revoked = house.ask(RevokeKey(ref(key), version=1, reason="lost"))
    assert [one.status for one in revoked.versions] == [VersionStatus.REVOKED, VersionStatus.ACTIVE]
    assert revoked.status is KeyStatus.ACTIVE
    assert (house.last.draft.key_version, house.last.draft.comment) == (1, "lost")
    for request in (opened, wrapped, kept):
        assert "REVOKED" in house.refusal(request, InvalidState).detail
    # A message that was wrapped anew in time outlives its first version.
    again = Decrypt(ref(key), ciphertext=opened.ciphertext, encrypted_dek=rewrapped.encrypted_dek)
    assert (house.ask(again).plaintext, rewrapped.key_version) == (b"text", 2)


@pytest.mark.parametrize(("version", "state"), [(2, "ACTIVE"), (1, "REVOKED")])
def test_versions_that_cannot_be_revoked(house: House, version: int, state: str) -> None:
    key = house.rotated(house.key())
    house.ask(RevokeKey(ref(key), version=1))
    assert state in house.refusal(RevokeKey(ref(key), version=version), InvalidState).detail


def test_after_revoking_the_key_every_version_is_revoked(house: House) -> None:
    key = house.rotated(house.key(spec=ED25519), 2)
    signed: Signed = house.ask(Sign(ref(key), b"m"))
    revoked = house.ask(RevokeKey(ref(key), reason="over"))
    assert {one.status for one in revoked.versions} == {VersionStatus.REVOKED}
    assert (house.last.draft.key_version, house.last.draft.comment) == (None, "over")
    house.refusal(Verify(ref(key), b"m", signed.signature), InvalidState)
    assert house.ask(ReadPublicKey(ref(key), version=2)).version == 2


def test_revoking_the_key_leaves_destroyed_versions_destroyed(house: House) -> None:
    from keyvault_lite.engine.keys import _revoked

    version = house.key().versions[0]

    gone = structs.replace(version, status=VersionStatus.DESTROYED)
    assert _revoked(gone) is gone


def test_versions_are_listed_in_pages(house: House) -> None:
    key = house.rotated(house.key(), 4)
    first: Page = house.ask(ListVersions(ref(key), limit=2))  # type: ignore[type-arg]
    second: Page = house.ask(ListVersions(ref(key), limit=2, after=first.next))  # type: ignore[type-arg]
    third: Page = house.ask(ListVersions(ref(key), limit=2, after=second.next))  # type: ignore[type-arg]
    assert [one.version for page in (first, second, third) for one in page.items] == [1, 2, 3, 4, 5]
    assert third.next is None
    assert house.ask(ListVersions(ref(key), after="99")).items == ()


def test_verify_tries_every_version_newest_first(house: House) -> None:
    key = house.key(spec=HMAC)
    old: Signed = house.ask(Sign(ref(key), b"m"))
    house.rotated(key, 2)
    assert house.ask(Verify(ref(key), b"m", old.signature)) == Verified(valid=True, key_version=1)
    assert house.ask(Verify(ref(key), b"m", old.signature, key_version=1)) == Verified(valid=True, key_version=1)
    assert house.ask(Verify(ref(key), b"m", old.signature, key_version=2)) == Verified(valid=False, key_version=None)
    assert house.ask(Verify(ref(key), b"x", old.signature)) == Verified(valid=False, key_version=None)
    house.ask(RevokeKey(ref(key), version=1))
    assert house.ask(Verify(ref(key), b"m", old.signature)) == Verified(valid=False, key_version=None)
    assert "REVOKED" in house.refusal(Verify(ref(key), b"m", old.signature, key_version=1), InvalidState).detail


@pytest.mark.parametrize("named", [2, 7])
def test_a_named_version_must_be_the_one_of_the_ciphertext(house: House, named: int) -> None:
    key = house.key()
    request = use(house, key, "decrypt")
    house.rotated(key)
    assert isinstance(request, Decrypt)
    wrong = Decrypt(ref(key), ciphertext=request.ciphertext, encrypted_dek=request.encrypted_dek, key_version=named)
    house.refusal(wrong, InvalidCiphertext)
    right = Decrypt(ref(key), ciphertext=request.ciphertext, encrypted_dek=request.encrypted_dek, key_version=1)
    assert house.ask(right).plaintext == b"text"


def test_every_failure_to_decrypt_is_the_same(house: House) -> None:
    key, other = house.key(), house.key()
    made: Encrypted = house.ask(Encrypt(ref(key), {"a": "b"}, b"text"))
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
    details = {house.refusal(request, InvalidCiphertext).detail for request in failures}
    assert len(details) == 1
    house.refusal(OpenDataKey(ref(key), {"a": "b"}, dek), InvalidCiphertext)


def test_bytes_that_are_no_text_are_refused_as_text(house: House) -> None:
    key = house.key()
    made: Encrypted = house.ask(Encrypt(ref(key), plaintext=b"\xff"))
    asked = Decrypt(ref(key), ciphertext=made.ciphertext, encrypted_dek=made.encrypted_dek, as_text=True)
    assert "base64" in house.refusal(asked, InvalidRequest).detail
    made = house.ask(Encrypt(ref(key), plaintext="ä".encode()))
    assert (
        house.ask(Decrypt(ref(key), None, made.ciphertext, made.encrypted_dek, as_text=True)).plaintext == "ä".encode()
    )


def test_data_keys(house: House) -> None:
    key = house.key()
    for bits in (128, 256, 512):
        made: DataKey = house.ask(GenerateDataKey(ref(key), {"c": "d"}, bits))
        assert made.plaintext_key is not None
        assert len(made.plaintext_key) == bits // 8
        opened: DataKey = house.ask(OpenDataKey(ref(key), {"c": "d"}, made.encrypted_key or b""))
        assert (opened.plaintext_key, opened.encrypted_key) == (made.plaintext_key, None)
    hidden: DataKey = house.ask(GenerateDataKey(ref(key), reveal=False))
    assert hidden.plaintext_key is None
    wrapped = hidden.encrypted_key or b""
    house.refusal(Decrypt(ref(key), ciphertext=wrapped, encrypted_dek=wrapped), InvalidCiphertext)


def test_rsa_wraps_the_data_encryption_key(house: House) -> None:
    key = house.key(spec=RSA_ENCRYPT)
    made: Encrypted = house.ask(Encrypt(ref(key), {"a": "b"}, b"text"))
    assert house.ask(Decrypt(ref(key), {"a": "b"}, made.ciphertext, made.encrypted_dek)).plaintext == b"text"


# The order of the checks: 403 by role, 404 or 403 by key and grant, 422 by purpose or algorithm, 409 by state


def test_a_service_is_told_nothing_of_keys_it_has_no_grant_on(house: House) -> None:
    key = house.key("secret-plans")
    _, token = house.service("worker", grant("orders-*"))
    absent = house.refusal(Encrypt(KeyRef("no-such-key"), plaintext=b"x"), NotFound, token)
    assert house.last.draft.key_ref == "no-such-key"
    for name in ("secret-plans", key.id):
        hidden = house.refusal(Encrypt(KeyRef(name), plaintext=b"x"), NotFound, token)
        assert hidden.detail == absent.detail
        assert (house.last.draft.result, house.last.draft.key_id) == (Result.DENIED, key.id)
    bring(house, key, KeyStatus.REVOKED)
    house.refusal(Encrypt(KeyRef("secret-plans"), plaintext=b"x"), NotFound, token)


def test_grant_before_purpose_before_state(house: House) -> None:
    key = house.key("orders-1")
    _, token = house.service("worker", grant("orders-*", "decrypt"))
    bring(house, key, KeyStatus.DISABLED)
    house.refusal(Encrypt(KeyRef("orders-1"), plaintext=b"x"), Forbidden, token)
    assert house.last.draft.result is Result.DENIED
    house.refusal(Sign(KeyRef("orders-1"), b"x"), Forbidden, token)
    house.refusal(Sign(KeyRef("orders-1"), b"x"), InvalidRequest)
    house.refusal(Encrypt(KeyRef("orders-1"), plaintext=b"x"), InvalidState)


def test_role_before_key(house: House) -> None:
    _, auditor = house.service("eye", role=Role.AUDITOR)
    _, worker = house.service("worker")
    for name in ("absent", house.key("present").id):
        house.refusal(Encrypt(KeyRef(name), plaintext=b"x"), Forbidden, auditor)
        house.refusal(RotateKey(KeyRef(name)), Forbidden, worker)
        assert house.last.draft.result is Result.DENIED


def test_fields_before_key(house: House) -> None:
    with pytest.raises(InvalidRequest):
        ListVersions(KeyRef("absent"), after="not-a-cursor")
    with pytest.raises(InvalidRequest):
        ListVersions(KeyRef("absent"), after="9" * 30)


def test_algorithm_before_state(house: House) -> None:
    from keyvault_lite.model.keys import Algorithm

    key = house.key(spec=ED25519)
    ecdsa = house.key(spec=KeySpec(KeyType.EC, 256, Purpose.SIGN))
    for one in (key, ecdsa):
        bring(house, one, KeyStatus.DISABLED)
    house.refusal(Sign(ref(key), b"x", Algorithm.ECDSA_SHA256), InvalidRequest)
    house.refusal(Sign(ref(key), bytes(32), prehashed=True), InvalidRequest)
    house.refusal(Verify(ref(key), bytes(32), b"s", prehashed=True), InvalidRequest)
    house.refusal(Sign(ref(ecdsa), bytes(31), prehashed=True), InvalidRequest)
    house.refusal(Sign(ref(ecdsa), bytes(32), prehashed=True), InvalidState)


def test_version_before_state(house: House) -> None:
    key = house.key(spec=ED25519)
    bring(house, key, KeyStatus.DISABLED)
    house.refusal(Verify(ref(key), b"x", b"s", key_version=9), InvalidCiphertext)
    house.refusal(ReadPublicKey(ref(key), version=9), NotFound)
    bring(house, key, KeyStatus.REVOKED)
    house.refusal(RevokeKey(ref(key), version=9), NotFound)


@pytest.mark.parametrize("kind", [Sign, Verify])
def test_an_encrypting_key_does_not_sign(house: House, kind: type[Sign | Verify]) -> None:
    house.refusal(kind(ref(house.key())), InvalidRequest)


@pytest.mark.parametrize("kind", [Encrypt, Decrypt, Rewrap, GenerateDataKey, OpenDataKey])
@pytest.mark.parametrize("spec", [ED25519, HMAC])
def test_a_signing_key_does_not_encrypt(house: House, kind: type[KeyRequest], spec: KeySpec) -> None:
    house.refusal(kind(ref(house.key(spec=spec))), InvalidRequest)


@pytest.mark.parametrize("spec", [AES, HMAC])
def test_a_secret_key_has_no_public_key(house: House, spec: KeySpec) -> None:
    house.refusal(ReadPublicKey(ref(house.key(spec=spec))), InvalidRequest)


def test_a_key_is_found_by_id_and_name(house: House) -> None:
    key = house.key("orders")
    assert house.ask(ReadKey(KeyRef("orders"))) == house.ask(ReadKey(ref(key))) == key
    assert house.last.draft.key_id == key.id
    house.refusal(ReadKey(KeyRef(new_id())), NotFound)
    assert house.last.draft.result is Result.ERROR
    house.refusal(ReadKey(KeyRef("kvl_" + "A" * 16 + "_" + "b" * 43)), NotFound)
    assert "kvl_" not in (house.last.draft.key_ref or ""), "what may be a token is kept as a digest"


# Descriptions, rotation by period, lists


def test_update_changes_what_is_named(house: House) -> None:
    key = house.key()
    changed = house.ask(UpdateKey(ref(key), description="orders", tags={"team": "a"}, rotation_days=30))
    assert (changed.description, changed.tags, changed.rotation_days) == ("orders", {"team": "a"}, 30)
    assert 29 * DAY < changed.rotate_at - house.ledger.now() <= 30 * DAY
    house.reopen()
    assert house.ask(ReadKey(ref(key))) == changed
    cleared = house.ask(UpdateKey(ref(key), rotation_days=0))
    assert (cleared.description, cleared.rotation_days, cleared.rotate_at) == ("orders", None, None)
    before = house.size
    assert house.ask(UpdateKey(ref(key))) == cleared
    assert house.last.state_root is None, "nothing changed, and that is on record"
    assert house.size == before + 1


def test_a_revoked_key_does_not_rotate_and_says_no_date(house: House) -> None:
    key = house.key()
    house.ask(UpdateKey(ref(key), rotation_days=30))
    house.ask(RevokeKey(ref(key)))
    for begin in (DestroyKey(ref(key)), None):
        assert house.ask(ReadKey(ref(key))).rotate_at is None
        house.refusal(UpdateKey(ref(key), rotation_days=1, description="x"), InvalidState)
        assert house.ask(ReadKey(ref(key))).description == ""
        house.ask(UpdateKey(ref(key), rotation_days=0))
        if begin is not None:
            house.ask(begin)
    assert house.ask(RestoreKey(ref(key))).rotate_at is None
    waiting = house.key()
    house.ask(DestroyKey(ref(waiting)))
    assert house.ask(UpdateKey(ref(waiting), rotation_days=1)).rotate_at, "it may yet be restored"


def test_a_service_lists_the_keys_it_has_grants_on(house: House) -> None:
    keys = [house.key(name) for name in ("orders-1", "orders-2", "other", None)]
    _, token = house.service("worker", grant("orders-*", "verify"), grant(keys[3].id, "encrypt"))
    page: Page = house.ask(ListKeys(), token)  # type: ignore[type-arg]
    assert [key.id for key in page.items] == [keys[0].id, keys[1].id, keys[3].id]
    first: Page = house.ask(ListKeys(limit=2), token)  # type: ignore[type-arg]
    rest: Page = house.ask(ListKeys(limit=2, after=first.next), token)  # type: ignore[type-arg]
    assert [key.id for key in (*first.items, *rest.items)] == [key.id for key in page.items]
    assert rest.next is None
    assert len(house.ask(ListKeys()).items) == 4
    for cursor in ("x", "1", "-1.x", "9" * 19 + ".x"):
        house.refusal(ListKeys(after=cursor), InvalidRequest)


def test_what_is_set_aside_is_in_no_list(house: House) -> None:
    keys, services = [house.key() for _ in range(3)], [house.service(name)[0] for name in ("a", "b")]
    house.ledger.snapshot().quarantine(keys[1].id)
    house.ledger.snapshot().quarantine(services[0].id)
    assert [key.id for key in house.ask(ListKeys()).items] == [keys[0].id, keys[2].id]
    first = house.ask(ListKeys(limit=1))
    assert [key.id for key in house.ask(ListKeys(limit=1, after=first.next)).items] == [keys[2].id]
    after = f"{keys[1].created_at}.{keys[1].id}"
    assert [key.id for key in house.ask(ListKeys(after=after)).items] == [keys[2].id], "it still has its place"
    assert [service.name for service in house.ask(ListServices()).items] == ["admin", "b"]


def test_rotation_by_period_needs_its_time(house: House) -> None:
    from keyvault_lite.model.errors import Conflict

    key = house.key()
    with pytest.raises(Conflict):
        house.system(RotateDueKey(ref(key)))
    house.ask(UpdateKey(ref(key), rotation_days=1))
    with pytest.raises(Conflict):
        house.system(RotateDueKey(ref(key)))
    house.refusal(RotateDueKey(ref(key)), Forbidden)


def test_batches_answer_item_by_item(house: House) -> None:
    key = house.key()
    made = use(house, key, "decrypt")
    before = house.size
    broken = InvalidRequest("plaintext is not base64")
    items = (made, broken, Decrypt(ref(key), ciphertext=b"x", encrypted_dek=b"y"))
    answer = house.answer(Batch(ref(key), Action.DECRYPT, items))
    reply = answer.result
    assert reply.items[0].plaintext == b"text"  # type: ignore[attr-defined]
    assert reply.error(1) is broken  # type: ignore[attr-defined]
    assert reply.error(2).code == "invalid_ciphertext"  # type: ignore[attr-defined]
    assert reply.audit_ids == (before + 1, before + 2, before + 3)  # type: ignore[attr-defined]
    assert answer.audit_id == before + 3
    drafts = [entry.draft for entry in house.log(before)]
    assert [draft.result for draft in drafts] == [Result.SUCCESS, Result.ERROR, Result.ERROR]
    assert {draft.action for draft in drafts} == {Action.DECRYPT}
    assert {draft.key_id for draft in drafts} == {key.id}


def test_a_batch_holds_one_kind_of_request(house: House) -> None:
    # Grants are judged on what the batch says it is.
    key = house.key()
    with pytest.raises(InvalidRequest):
        Batch(ref(key), Action.ENCRYPT, (Decrypt(ref(key)),))


def test_batches_are_judged_as_their_operation(house: House) -> None:
    house.key("orders")
    _, token = house.service("worker", grant("orders", "encrypt"))
    name = KeyRef("orders")
    assert len(house.ask(Batch(name, Action.ENCRYPT, (Encrypt(name, plaintext=b"a"),) * 3), token).items) == 3
    house.refusal(Batch(name, Action.DECRYPT, (Decrypt(name),)), Forbidden, token)
    house.refusal(Batch(name, Action.REWRAP, (Rewrap(name),)), Forbidden, token)
    house.refusal(Batch(KeyRef("x"), Action.ENCRYPT, (Encrypt(name),)), NotFound, token)
    assert house.size == house.last.id


def test_ids_that_are_not_ids_find_nothing(house: House) -> None:
    key = house.key()
    for odd in (key.id.upper(), key.id.replace("-", ""), key.id + " ", ""):
        house.refusal(ReadKey(KeyRef(odd)), NotFound)
    assert KeyId(key.id) == key.id


def test_a_key_without_active_version_protects_nothing() -> None:
    # No operation leaves an ACTIVE key so; if one did, nothing would be protected by a wrong version.
    from keyvault_lite.engine.cipher import protecting
    from keyvault_lite.model.keys import KeyVersion

    revoked = KeyVersion(KeyId(new_id()), 1, VersionStatus.REVOKED, 0, b"")
    with pytest.raises(InvalidState):
        protecting(Key(revoked.key_id, None, AES, KeyStatus.ACTIVE, 0, versions=(revoked,)))


def test_a_scene_has_the_key_that_was_named(house: House) -> None:
    from keyvault_lite.engine.scene import Scene
    from keyvault_lite.model.identity import Principal
    from keyvault_lite.model.names import SYSTEM

    scene = Scene(Principal(SYSTEM, "system", None), house.ledger.snapshot(), house.vault.keyring, house.ledger, 0, {})
    with pytest.raises(LookupError):
        _ = scene.key

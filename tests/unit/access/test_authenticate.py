"""Who is calling: every failure is the same refusal at the same cost, and only a genuine caller becomes a Principal."""

import hmac
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from keyvault_lite.access.authenticate import REFUSAL, AuthenticationFailed, Authenticator
from keyvault_lite.crypto.access_keys import ChainedMac
from keyvault_lite.crypto.credentials import format_token, new_token, parse_token
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.dialects.aws.credentials import SKEW, AwsCredential, SignatureFault, SignatureScheme
from keyvault_lite.dialects.aws.errors import (
    IncompleteSignature,
    MissingSignature,
    SignatureExpired,
    SignatureMismatch,
    UnknownAccessKey,
)
from keyvault_lite.dialects.vault.authority import authority
from keyvault_lite.model.errors import Unauthenticated
from keyvault_lite.model.identity import (
    BearerCredential,
    Principal,
    Role,
    Service,
    Setting,
    SystemCredential,
    Token,
    TokenKind,
)
from keyvault_lite.model.names import SYSTEM, ServiceId, TokenId, new_id
from keyvault_lite.model.native_tokens import Lifetime
from tests.support.harness import grant

NOW = 1_000_000


@dataclass
class Counting:
    """The keyring's check, counted: the cost of an answer."""

    ring: Keyring
    asked: list[bytes | None] = field(default_factory=list)

    def token_matches(self, token_id: TokenId, secret: str, stored: bytes | None) -> bool:
        self.asked.append(stored)
        return self.ring.token_matches(token_id, secret, stored)


class Folk:
    """One service with one token."""

    def __init__(self) -> None:
        ring = Keyring.create()
        self.verifier = Counting(ring)
        self.authenticator = Authenticator(
            self.verifier, parse_token, {AwsCredential: SignatureScheme(ring.access_keys)}, authority
        )
        self.service = Service(
            ServiceId(new_id()), "worker", Role.SERVICE, active=True, created_at=0, grants=(grant("*"),)
        )
        self.token_id, self.secret = new_token()
        digest = ring.token_digest(self.token_id, self.secret)
        self.stored = Token(self.token_id, self.service.id, TokenKind.NATIVE, digest, created_at=0)

    def token(self, token_id: TokenId) -> Token | None:
        return self.stored if token_id == self.token_id else None

    def find_service(self, ref: str) -> Service | None:
        return self.service if ref == self.service.id else None

    def setting(self, _name: str) -> Setting | None:
        return None

    def present(self, *text: str | None) -> Principal:
        """Show a text for a token; without one, the genuine token."""
        shown = text[0] if text else format_token(self.token_id, self.secret)
        return self.authenticator.authenticate(BearerCredential(shown), self, NOW)

    def refused(self, *text: str | None) -> AuthenticationFailed:
        with pytest.raises(AuthenticationFailed) as refusal:
            self.present(*text)
        return refusal.value


@pytest.fixture
def folk() -> Folk:
    return Folk()


def test_a_genuine_token_is_its_service(folk: Folk) -> None:
    found = folk.present()
    assert (found.service_id, found.name) == (folk.service.id, "worker")
    assert (found.role, found.grants) == (Role.SERVICE, (grant("*"),))


def test_the_vault_itself_needs_no_token(folk: Folk) -> None:
    found = folk.authenticator.authenticate(SystemCredential(), folk, NOW)
    assert (found.service_id, found.role) == (SYSTEM, None)


def test_every_refusal_is_the_same(folk: Folk) -> None:
    details = {folk.refused(text).detail for text in (None, "", "x", "kvl_", format_token(*new_token()))}
    details.add(folk.refused(format_token(folk.token_id, new_token()[1])).detail)
    genuine = folk.stored
    for change in ({"ended_at": 1}, {"expires_at": NOW}, {"service_id": ServiceId(new_id())}):
        folk.stored = replace(genuine, **change)
        details.add(folk.refused().detail)
    folk.stored, folk.service = genuine, replace(folk.service, active=False)
    details.add(folk.refused().detail)
    assert len(details) == 1


def test_unknown_ids_cost_what_wrong_secrets_cost(folk: Folk) -> None:
    folk.refused(format_token(*new_token()))
    folk.refused(format_token(folk.token_id, new_token()[1]))
    assert folk.verifier.asked == [None, folk.stored.digest], "one keyed digest each"


@pytest.mark.parametrize(
    ("token", "service"),
    [
        ({"expires_at": NOW}, {}),
        ({"expires_at": NOW - 1}, {}),
        ({}, {"expires_at": NOW}),
        ({}, {"active": False}),
    ],
)
def test_a_genuine_caller_who_may_not_act_is_known_to_the_log(
    folk: Folk, token: dict[str, Any], service: dict[str, Any]
) -> None:
    folk.stored, folk.service = replace(folk.stored, **token), replace(folk.service, **service)
    assert folk.refused().service_id == folk.service.id


@pytest.mark.parametrize(("token", "service"), [({"expires_at": NOW + 1}, {}), ({}, {"expires_at": NOW + 1})])
def test_until_its_end_a_token_is_good(folk: Folk, token: dict[str, Any], service: dict[str, Any]) -> None:
    folk.stored, folk.service = replace(folk.stored, **token), replace(folk.service, **service)
    assert folk.present().name == "worker"


def test_who_is_not_genuine_is_nobody_to_the_log(folk: Folk) -> None:
    assert folk.refused(format_token(*new_token())).service_id is None
    genuine = folk.stored
    folk.stored = replace(genuine, service_id=ServiceId(new_id()))
    assert folk.refused().service_id is None


def test_the_secret_of_another_services_access_key_signs_nothing(folk: Folk) -> None:
    ring, token_id = folk.verifier.ring, TokenId("AKIA" + "A" * 16)
    credential = AwsCredential(token_id, "20260102", "eu-central-1", "kms", b"to sign", "00" * 32, NOW)
    for holder in (folk.service.id, ServiceId(new_id())):
        sealed = ring.access_keys.seal(token_id, holder, "secret")
        stored = Token(token_id, folk.service.id, TokenKind.ACCESS_KEY, sealed, created_at=0)
        folk.token_id, folk.stored = token_id, stored
        with pytest.raises(AuthenticationFailed) as refused:
            folk.authenticator.authenticate(credential, folk, NOW)
        assert type(refused.value.cause) is SignatureMismatch
        assert refused.value.service_id is None


class Signer:
    """An access key of the one service, and requests signed with it."""

    ID = TokenId("AKIA" + "A" * 16)
    GENUINE = AwsCredential(ID, "20260102", "eu-central-1", "kms", b"to sign", "", NOW)

    def __init__(self, folk: Folk) -> None:
        self.folk = folk
        self.refusals: list[ChainedMac] = []
        sealed = folk.verifier.ring.access_keys.seal(self.ID, folk.service.id, "secret")
        folk.token_id = self.ID
        folk.stored = Token(self.ID, folk.service.id, TokenKind.ACCESS_KEY, sealed, created_at=0)
        key = b"AWS4secret"
        for step in (self.GENUINE.date, self.GENUINE.region, self.GENUINE.service, "aws4_request"):
            key = hmac.digest(key, step.encode(), "sha256")
        self.signed = structs.replace(self.GENUINE, signature=hmac.digest(key, b"to sign", "sha256").hex())

    def holds(self, signed: ChainedMac, service_id: ServiceId, sealed: bytes) -> bool:
        return self.folk.verifier.ring.access_keys.holds(signed, service_id, sealed)

    def refuse(self, signed: ChainedMac) -> None:
        self.refusals.append(signed)

    def present(self, now: int = NOW, **change: Any) -> Principal:  # noqa: ANN401
        authenticator = Authenticator(self.folk.verifier, parse_token, {AwsCredential: SignatureScheme(self)})
        return authenticator.authenticate(structs.replace(self.signed, **change), self.folk, now)

    def cause(self, now: int = NOW, **change: Any) -> tuple[type[Unauthenticated], ServiceId | None]:  # noqa: ANN401
        """Why it is refused, and whom the log says it was."""
        with pytest.raises(AuthenticationFailed) as refused:
            self.present(now, **change)
        assert refused.value.detail == REFUSAL
        assert refused.value.cause is not None
        return type(refused.value.cause), refused.value.service_id


class TestSignedRequests:
    @pytest.fixture
    def signer(self, folk: Folk) -> Signer:
        return Signer(folk)

    def test_a_genuine_signature_is_its_service(self, signer: Signer) -> None:
        found = signer.present()
        assert found == Principal(signer.folk.service.id, "worker", Role.SERVICE, (grant("*"),))
        assert signer.refusals == []

    @pytest.mark.parametrize(
        ("fault", "cause"),
        [
            (SignatureFault.MISSING, MissingSignature),
            (SignatureFault.INCOMPLETE, IncompleteSignature),
            (SignatureFault.OTHER_SERVICE, SignatureMismatch),
            (SignatureFault.SESSION, UnknownAccessKey),
        ],
    )
    def test_what_cannot_be_judged(self, signer: Signer, fault: SignatureFault, cause: type[Unauthenticated]) -> None:
        assert signer.cause(fault=fault) == (cause, None)

    @pytest.mark.parametrize("change", [{"id": TokenId("other")}, {"kind": TokenKind.NATIVE}, {"ended_at": 1}])
    def test_what_is_no_access_key_costs_what_a_wrong_signature_costs(
        self, signer: Signer, change: dict[str, Any]
    ) -> None:
        signer.folk.stored = replace(signer.folk.stored, **change)
        signer.folk.token_id = signer.folk.stored.id
        assert signer.cause() == (UnknownAccessKey, None)
        assert signer.refusals == [signer.signed.mac]

    def test_a_signature_of_something_else(self, signer: Signer) -> None:
        assert signer.cause(string_to_sign=b"another") == (SignatureMismatch, None)

    def test_an_access_key_whose_service_is_not_there(self, signer: Signer) -> None:
        signer.folk.service = replace(signer.folk.service, id=ServiceId(new_id()))
        assert signer.cause() == (SignatureMismatch, None)

    @pytest.mark.parametrize(
        ("token", "service"), [({"expires_at": NOW}, {}), ({}, {"active": False}), ({}, {"expires_at": NOW})]
    )
    def test_who_may_not_act_is_known_to_the_log(
        self, signer: Signer, token: dict[str, Any], service: dict[str, Any]
    ) -> None:
        signer.folk.stored = replace(signer.folk.stored, **token)
        signer.folk.service = replace(signer.folk.service, **service)
        assert signer.cause() == (UnknownAccessKey, signer.folk.service.id)

    @pytest.mark.parametrize(
        ("lifetime", "first", "last"),
        [(None, NOW - SKEW, NOW + SKEW), (1, NOW - SKEW, NOW + 1_000_000), (900, NOW - SKEW, NOW + 900_000_000)],
    )
    def test_a_signature_is_good_for_its_time(
        self, signer: Signer, lifetime: int | None, first: int, last: int
    ) -> None:
        for now in (first, last):
            assert signer.present(now, lifetime=lifetime).name == "worker"
        for now in (first - 1, last + 1):
            assert signer.cause(now, lifetime=lifetime) == (SignatureExpired, signer.folk.service.id)

    def test_a_signature_is_judged_by_the_wall_clock_and_not_by_the_log(self, signer: Signer) -> None:
        month = 31 * 24 * 3600 * 1_000_000
        for wall, log, fresh in ((NOW, NOW + month, True), (NOW + month, NOW, False)):
            scheme = SignatureScheme(signer, partial(int, wall))
            authenticator = Authenticator(signer.folk.verifier, parse_token, {AwsCredential: scheme})
            if fresh:
                assert authenticator.authenticate(signer.signed, signer.folk, log).name == "worker"
            else:
                with pytest.raises(AuthenticationFailed) as refused:
                    authenticator.authenticate(signer.signed, signer.folk, log)
                assert isinstance(refused.value.cause, SignatureExpired)

    def test_clocks_may_differ_by_five_minutes(self) -> None:
        assert SKEW == 300_000_000


@pytest.mark.parametrize(
    ("token", "service", "reason"),
    [
        ({"ended_at": 1}, {}, "replaced"),
        ({"ended_at": 1, "kind": TokenKind.LEASED}, {}, "revoked"),
        ({"expires_at": NOW}, {}, "expired"),
        ({"expires_at": NOW, "attributes": Lifetime(replaced_at=1).attributes()}, {}, "replaced"),
        ({"expires_at": NOW, "attributes": Lifetime(ttl=1).attributes()}, {}, "expired"),
        ({}, {"active": False}, "inactive"),
        ({}, {"expires_at": NOW}, "service_expired"),
        ({"parent": TokenId("gone")}, {}, "parent_ended"),
        ({"ended_at": 1, "expires_at": NOW}, {"active": False}, "replaced"),
    ],
)
def test_the_log_is_told_why_and_the_caller_is_not(
    folk: Folk, token: dict[str, Any], service: dict[str, Any], reason: str
) -> None:
    folk.stored, folk.service = replace(folk.stored, **token), replace(folk.service, **service)
    refused = folk.refused()
    assert (refused.fault.value, refused.service_id, refused.detail) == (reason, folk.service.id, REFUSAL)
    assert (refused.cause, refused.code) == (None, Unauthenticated.code)
    assert folk.verifier.asked == [folk.stored.digest], "one keyed digest, whatever the reason"


@pytest.mark.parametrize(("text", "reason"), [(None, "missing"), ("", "unknown"), ("kvl_x", "unknown")])
def test_what_is_no_token_has_a_reason_too(folk: Folk, text: str | None, reason: str) -> None:
    assert (folk.refused(text).fault.value, folk.refused(text).service_id) == (reason, None)
    assert folk.refused(format_token(folk.token_id, new_token()[1])).fault.value == "unknown"
    assert folk.refused(format_token(*new_token())).fault.value == "unknown"

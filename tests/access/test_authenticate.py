"""Who is calling: every failure is the same refusal at the same cost, and only a genuine caller becomes a Principal."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from keyvault_lite.access.authenticate import Authenticator, Refused
from keyvault_lite.crypto.credentials import format_token, new_token, parse_token
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.model.aws_errors import SignatureMismatch
from keyvault_lite.model.identity import (
    AwsCredential,
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
from tests.house import grant

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
        self.authenticator = Authenticator(self.verifier, parse_token, ring.access_keys)
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

    def refused(self, *text: str | None) -> Refused:
        with pytest.raises(Refused) as refusal:
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
    folk.stored = replace(genuine, ended_at=1)
    assert folk.refused().service_id is None, "a renewed token is dead"
    folk.stored = replace(genuine, service_id=ServiceId(new_id()))
    assert folk.refused().service_id is None


def test_the_secret_of_another_services_access_key_signs_nothing(folk: Folk) -> None:
    ring, token_id = folk.verifier.ring, TokenId("AKIA" + "A" * 16)
    credential = AwsCredential(token_id, "20260102", "eu-central-1", "kms", b"to sign", "00" * 32, NOW)
    for holder in (folk.service.id, ServiceId(new_id())):
        sealed = ring.access_keys.seal(token_id, holder, "secret")
        stored = Token(token_id, folk.service.id, TokenKind.AWS, sealed, created_at=0)
        folk.token_id, folk.stored = token_id, stored
        with pytest.raises(Refused) as refused:
            folk.authenticator.authenticate(credential, folk, NOW)
        assert type(refused.value.cause) is SignatureMismatch
        assert refused.value.service_id is None

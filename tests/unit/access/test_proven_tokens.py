"""A token's secret is checked once against each record of it, and a wrong one every time."""

from dataclasses import replace

import pytest

from keyvault_lite.access import authenticate
from keyvault_lite.access.authenticate import AuthenticationFailed, Authenticator
from keyvault_lite.model.identity import BearerCredential, Principal, Role, Service, Setting, Token, TokenKind
from keyvault_lite.model.names import ServiceId, TokenId

SERVICE = Service(id=ServiceId("service"), name="orders", role=Role.SERVICE, active=True, created_at=1)
TOKEN = Token(id=TokenId("id"), service_id=SERVICE.id, kind=TokenKind.NATIVE, digest=b"stored", created_at=1)
NOW = 1_000


class Directory:
    def __init__(self) -> None:
        self.tokens = {TOKEN.id: TOKEN}
        self.service: Service | None = SERVICE

    def token(self, token_id: TokenId) -> Token | None:
        return self.tokens.get(token_id)

    def find_service(self, ref: str) -> Service | None:
        return self.service if ref == SERVICE.id else None

    def setting(self, _name: str) -> Setting | None:
        return None


class Verifier:
    def __init__(self) -> None:
        self.asked: list[tuple[TokenId, str, bytes | None]] = []

    def token_matches(self, token_id: TokenId, secret: str, stored: bytes | None) -> bool:
        self.asked.append((token_id, secret, stored))
        return secret == "right" and stored == b"stored"


def parse(text: str) -> tuple[TokenId, str]:
    token_id, _, secret = text.partition("_")
    return TokenId(token_id), secret


@pytest.fixture
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
def authenticator(verifier: Verifier) -> Authenticator:
    return Authenticator(verifier, parse)


def login(authenticator: Authenticator, directory: Directory, text: str) -> str:
    return authenticator.authenticate(BearerCredential(text), directory, NOW).name


def test_a_proven_token_is_not_proven_again(
    authenticator: Authenticator, verifier: Verifier, directory: Directory
) -> None:
    assert [login(authenticator, directory, "id_right") for _ in range(3)] == ["orders"] * 3
    assert len(verifier.asked) == 1


def test_a_wrong_secret_of_a_proven_token_is_checked_and_refused(
    authenticator: Authenticator, verifier: Verifier, directory: Directory
) -> None:
    login(authenticator, directory, "id_right")
    for _ in range(2):
        with pytest.raises(AuthenticationFailed):
            login(authenticator, directory, "id_wrong")
    assert [secret for _, secret, _ in verifier.asked] == ["right", "wrong", "wrong"]
    assert login(authenticator, directory, "id_right") == "orders"


def test_proof_is_of_one_record_not_of_an_equal_one(
    authenticator: Authenticator, verifier: Verifier, directory: Directory
) -> None:
    login(authenticator, directory, "id_right")
    directory.tokens[TOKEN.id] = replace(TOKEN)
    login(authenticator, directory, "id_right")
    assert len(verifier.asked) == 2


@pytest.mark.parametrize("change", [{"ended_at": 5}, {"digest": b"renewed"}, {"expires_at": NOW}])
def test_a_proven_token_that_changed_is_refused(
    authenticator: Authenticator, directory: Directory, change: dict[str, object]
) -> None:
    login(authenticator, directory, "id_right")
    directory.tokens[TOKEN.id] = replace(TOKEN, **change)  # type: ignore[arg-type]
    with pytest.raises(AuthenticationFailed):
        login(authenticator, directory, "id_right")


def test_a_proven_token_that_is_gone_is_refused(
    authenticator: Authenticator, verifier: Verifier, directory: Directory
) -> None:
    login(authenticator, directory, "id_right")
    directory.tokens.clear()
    with pytest.raises(AuthenticationFailed):
        login(authenticator, directory, "id_right")
    assert verifier.asked[-1] == (TOKEN.id, "right", None)


def test_an_unknown_token_proves_nothing_for_later(
    authenticator: Authenticator, verifier: Verifier, directory: Directory
) -> None:
    for _ in range(2):
        with pytest.raises(AuthenticationFailed):
            login(authenticator, directory, "other_right")
    assert len(verifier.asked) == 2


def test_only_so_many_are_remembered(
    authenticator: Authenticator, verifier: Verifier, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticate, "REMEMBERED", 1)
    directory.tokens[TokenId("more")] = replace(TOKEN, id=TokenId("more"))
    for text in ("id_right", "more_right", "more_right", "id_right"):
        login(authenticator, directory, text)
    assert [token_id for token_id, _, _ in verifier.asked] == ["id", "more", "id"]


def test_who_a_token_turned_out_to_be_counts_for_the_same_service_record_alone(
    authenticator: Authenticator, directory: Directory
) -> None:
    def who() -> Principal:
        return authenticator.authenticate(BearerCredential("id_right"), directory, NOW)

    first = who()
    assert who() is first
    directory.service = replace(SERVICE, role=Role.AUDITOR)
    assert who().role is Role.AUDITOR
    directory.service = replace(SERVICE, active=False)
    with pytest.raises(AuthenticationFailed):
        who()
    directory.service = replace(SERVICE, expires_at=NOW)
    with pytest.raises(AuthenticationFailed):
        who()
    directory.service = None
    with pytest.raises(AuthenticationFailed):
        who()


def test_the_end_of_a_token_that_is_remembered_is_its_end(authenticator: Authenticator, directory: Directory) -> None:
    directory.tokens = {TOKEN.id: replace(TOKEN, expires_at=NOW + 1)}
    who = authenticator.authenticate(BearerCredential("id_right"), directory, NOW)
    assert authenticator.authenticate(BearerCredential("id_right"), directory, NOW) is who
    with pytest.raises(AuthenticationFailed):
        authenticator.authenticate(BearerCredential("id_right"), directory, NOW + 1)


def test_what_is_remembered_is_not_shown(authenticator: Authenticator, directory: Directory) -> None:
    login(authenticator, directory, "id_right")
    assert "_proven=" not in repr(authenticator)

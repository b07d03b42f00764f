"""Tokens: their form, their randomness and their keyed digests."""

import hmac
import itertools
import re

import pytest

from keyvault_lite.crypto.container import expand, prk
from keyvault_lite.crypto.credentials import format_token, new_token, parse_token
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.names import TokenId

ID, SECRET = TokenId("0123456789abcdeF"), "Z" * 43


def test_form_and_round_trip() -> None:
    token_id, secret = new_token()
    text = format_token(token_id, secret)
    assert re.fullmatch(r"kvl_[0-9A-Za-z]{16}_[0-9A-Za-z]{43}", text)
    assert parse_token(text) == (token_id, secret)
    assert len({new_token() for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kvl_",
        f"kvl_{ID}_{SECRET}\n",
        f" kvl_{ID}_{SECRET}",
        f"KVL_{ID}_{SECRET}",
        f"kvl_{ID}_{SECRET}Z",
        f"kvl_{ID[:-1]}_{SECRET}",
        f"kvl_{ID[:-1]}é_{SECRET}",
        f"kvl_{ID[:-1]}٣_{SECRET}",
        f"kvl_{ID}-{SECRET}",
        f"kvl_{ID}_{SECRET[:-1]}_",
    ],
)
def test_anything_else_is_no_token(text: str) -> None:
    assert parse_token(text) is None


def test_biased_bytes_are_dropped() -> None:
    bytes_ = itertools.cycle([255, 248, 247, 0, 61, 62])
    token_id, secret = new_token(lambda size: bytes(next(bytes_) for _ in range(size)))
    assert token_id + secret == ("z0z0" * 15)[:59]


class TestDigest:
    def test_is_keyed_and_bound(self, ring: Keyring) -> None:
        digests = {
            ring.token_digest(ID, SECRET),
            ring.token_digest(TokenId("1" + ID[1:]), SECRET),
            ring.token_digest(ID, "Y" + SECRET[1:]),
            Keyring.create().token_digest(ID, SECRET),
        }
        assert len(digests) == 4
        assert {len(digest) for digest in digests} == {32}

    def test_is_the_documented_one(self, ring: Keyring) -> None:
        key = expand(prk(ring._bundle.root), pae("kvl/v1/derive", "token", ring.instance_id))[:32]
        assert ring.token_digest(ID, SECRET) == hmac.digest(key, pae("token", ring.instance_id, ID, SECRET), "sha256")

    def test_matches_the_right_secret_only(self, ring: Keyring) -> None:
        stored = ring.token_digest(ID, SECRET)
        assert ring.token_matches(ID, SECRET, stored)
        assert not ring.token_matches(ID, "Y" + SECRET[1:], stored)
        assert not ring.token_matches(TokenId("1" + ID[1:]), SECRET, stored)

    def test_an_unknown_id_never_matches_and_is_digested_all_the_same(
        self, ring: Keyring, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not ring.token_matches(ID, SECRET, None)
        monkeypatch.setattr(Keyring, "token_digest", lambda *_: bytes(32))
        assert not ring.token_matches(ID, SECRET, None)

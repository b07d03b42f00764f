"""HMAC with its key blocks hashed once is HMAC."""

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyvault_lite.crypto.hmac_key import HmacKey, OneUseKey


@settings(deadline=None)
@given(key=st.binary(max_size=300), parts=st.lists(st.binary(max_size=300), min_size=2, max_size=2))
@pytest.mark.parametrize("digest", [hashlib.sha256, hashlib.sha512])
def test_it_is_hmac_for_keys_and_messages_of_any_length(digest: Any, key: bytes, parts: list[bytes]) -> None:  # noqa: ANN401
    whole = HmacKey(key, digest)
    beginning, rest = parts
    begun = whole.begun(beginning)
    for message in (rest, beginning + rest, b""):  # each call begins anew
        assert OneUseKey(key, digest().name).mac(message) == whole.mac(message)
        assert whole.mac(message) == hmac.digest(key, message, digest().name)
        assert begun.mac(message) == hmac.digest(key, beginning + message, digest().name)


@pytest.mark.parametrize("digest", [hashlib.sha256, hashlib.sha512])
def test_keys_around_the_size_of_a_block(digest: Any) -> None:  # noqa: ANN401
    for size in (0, 1, 63, 64, 65, 127, 128, 129, 300):
        key = bytes(range(256))[:size].ljust(size, b"k")
        assert HmacKey(key, digest).mac(b"message") == hmac.digest(key, b"message", digest().name)


def test_it_shows_nothing_of_its_key() -> None:
    assert repr(HmacKey(b"key", hashlib.sha256)) == "<HmacKey>"
    assert not hasattr(HmacKey(b"key", hashlib.sha256), "__dict__")

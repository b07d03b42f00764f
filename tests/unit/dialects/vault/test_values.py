"""Values as clients send them: what is read of them, and with which words the rest is refused."""

import pytest

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.wire.vault.values import optional_period
from tests.support.vault_client import Asker


def period(value: object) -> int | None:
    return optional_period({"ttl": value}, "ttl")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        (0, 0),
        (3600, 3600),
        ("0", 0),
        ("5", 5),
        ("+5", 5),
        ("5s", 5),
        ("+5s", 5),
        ("00005s", 5),
        ("1h30m", 5400),
        ("1m1h", 3660),
        ("1.5h", 5400),
        (".5h", 1800),
        ("1.h", 3600),
        ("1h30m5.5s", 5405),
        ("5.9s", 5),
        ("1500ms", 1),
        ("2000000us", 2),
        ("2000000\N{MICRO SIGN}s", 2),
        ("2000000\N{GREEK SMALL LETTER MU}s", 2),
        ("3000000000ns", 3),
        ("0.0000000000000000001h3s", 3),
        ("2d", 172_800),
        ("+1d", 86_400),
        ("0d", 0),
        ("-0s", 0),
        ("0h0m", 0),
        ("0.0s", 0),
        ("9223372036s", 9_223_372_036),
        (9_223_372_036, 9_223_372_036),
    ],
)
def test_periods(value: object, seconds: int | None) -> None:
    assert period(value) == seconds


@pytest.mark.parametrize("value", ["500ms", "1us", "100ns", "0.5s", "999999999ns"])
def test_more_than_nothing_is_not_nothing(value: str) -> None:
    """Where 0 is "without end", a lease of half a second would have had none."""
    assert period(value) == 1


@pytest.mark.parametrize(
    "value",
    [
        *(
            "1d12h",
            "1h1d",
            "1.5d",
            "0.5d",
            "d",
            "1D",
            "1w",
            "h",
            "s",
            ".",
            ".s",
            "5.",
            "5.5",
            "1e3",
            "1h 30m",
            " 5s",
            "5s ",
        ),
        *("-1", "-5s", "-1d", "-500ms", "-1ns", "--1s", "+-1s", "\N{ARABIC-INDIC DIGIT ONE}s", "1s" * 33),
        *(-1, 1.5, 1000.0, True, [], {}),
    ],
)
def test_what_is_no_period(value: object) -> None:
    with pytest.raises(InvalidRequest, match="ttl is not a period"):
        period(value)


@pytest.mark.parametrize("value", ["9223372037s", "9999999999h", "9" * 18 + "d", "9" * 18, 10**18, "9" * 62 + "h"])
def test_what_is_too_long_a_period(value: object) -> None:
    with pytest.raises(InvalidRequest, match="ttl is too long a period"):
        period(value)


def test_too_long_a_period_is_told_its_limit(ask: Asker) -> None:
    assert ask.post("transit/keys/k", {"auto_rotate_period": "87601h"}).error == (
        "auto rotate period must be at most ten years"
    )
    assert ask.post("transit/keys/k", {"auto_rotate_period": "30m"}).error == (
        "auto rotate period must be 0 to disable or at least an hour"
    )
    assert ask.post("auth/approle/role/web", {"secret_id_ttl": "3651d"}).error == "a lease is at most ten years"
    assert ask.post("transit/keys/k", {"auto_rotate_period": "87600h"}).data["auto_rotate_period"] == 87_600 * 3600

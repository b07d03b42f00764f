import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.wire.times import format_time, parse_time


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_round_trip(moment: int) -> None:
    text = format_time(moment)
    assert parse_time(text) == moment
    assert parse_time(text.replace("Z", "+00:00")) == moment
    assert len(text) == len("2026-01-31T12:00:00.000000Z")


def test_fewer_decimals() -> None:
    assert parse_time("1970-01-01T00:00:01Z") == 1_000_000
    assert parse_time("1970-01-01T00:00:00.5Z") == 500_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00+01:00",
        "2026-01-31T12:00:00-00:00",
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00:00.1234567Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:00:60Z",
        "٢٠٢٦-01-31T12:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-01-31T12:00:00Z\n",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_time(text)

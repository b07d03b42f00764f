"""Files for the tour that look like people's files: a table of orders, a picture and a contract."""

import struct
import zlib
from collections.abc import Mapping
from typing import Final

ROWS: Final = 3000
EDGE: Final = 256

_CITIES: Final = ("Lisbon", "Oslo", "Nairobi", "Osaka", "Bogotá", "Tallinn", "Accra")
_GOODS: Final = ("lamp", "bicycle", "teapot", "desk", "kite", "radio", "globe", "clock")
_CLAUSE: Final = (
    "{number}. The supplier delivers {goods} to {city} by the agreed day; risk passes on delivery, title on payment. "
    "A delay of more than {days} days lets the buyer withdraw without giving a reason.\n"
)


def samples() -> Mapping[str, bytes]:
    """File names and their contents, always the same."""
    return {"orders.csv": _orders(), "photo.png": _photo(), "contract.txt": _contract()}


def _orders() -> bytes:
    rows = (
        f"{100_000 + row},{_GOODS[row * 7 % len(_GOODS)]},{1 + row % 9},{(row * 7919 % 50_000) / 100:.2f},"
        f"{_CITIES[row * 5 % len(_CITIES)]},2026-{1 + row % 12:02}-{1 + row % 28:02}\n"
        for row in range(ROWS)
    )
    return ("order,item,quantity,price,city,date\n" + "".join(rows)).encode()


def _photo() -> bytes:
    """A PNG of three colour channels (W3C PNG, third edition)."""
    lines = (
        b"\x00" + bytes(value & 0xFF for x in range(EDGE) for value in (x ^ y, x * y >> 3, (x * x + y * y) >> 5))
        for y in range(EDGE)
    )
    header = struct.pack(">IIBBBBB", EDGE, EDGE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _contract() -> bytes:
    clauses = (
        _CLAUSE.format(number=n, goods=_GOODS[n % 8] + "s", city=_CITIES[n % 7], days=5 + n) for n in range(1, 21)
    )
    return ("CONTRACT OF SUPPLY\n\n" + "\n".join(clauses)).encode()

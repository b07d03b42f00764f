"""Many entries as one statement: each column of the log goes over as one array, in the server's binary form.

One statement with always the same types is prepared once, however many entries a transaction has and whichever of
their columns are empty. The form is that of array_send (src/backend/utils/adt/arrayfuncs.c): dimensions, a flag, the
element's type, length and lower bound; then each element's length and bytes, -1 for NULL.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from struct import Struct, pack
from typing import Any, Final

import sqlalchemy as sa
from psycopg import Connection
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

from keyvault_lite.audit.entry import ENTRY_COLUMNS
from keyvault_lite.ledger.storage.schema import Row
from keyvault_lite.ledger.storage.tables import audit_logs

_HEAD: Final = Struct(">iiIii")
_LENGTH: Final = Struct(">i")
_NULL: Final = _LENGTH.pack(-1)
_INT8: Final = 20
_TEXT: Final = 25
_BYTEA: Final = 17


class _Packed:
    """An array in the server's binary form."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Integers(_Packed):
    """An int8[]."""


class Texts(_Packed):
    """A text[]."""


class Blobs(_Packed):
    """A bytea[]."""


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> Buffer | None:  # noqa: ANN401  (what it is registered for)
        """The bytes as they are."""
        data: bytes = obj.data
        return data


class _IntegersDumper(_PackedDumper):
    oid = 1016


class _TextsDumper(_PackedDumper):
    oid = 1009


class _BlobsDumper(_PackedDumper):
    oid = 1001


def register(connection: Connection[Any]) -> None:
    """Let a connection take packed arrays as values."""
    for kind, dumper in ((Integers, _IntegersDumper), (Texts, _TextsDumper), (Blobs, _BlobsDumper)):
        connection.adapters.register_dumper(kind, dumper)


def _integers(values: Sequence[int | None]) -> Integers:
    if None in values:
        return Integers(_array(_INT8, values, lambda value: pack(">iq", 8, value)))
    return Integers(
        _HEAD.pack(1, 0, _INT8, len(values), 1)
        + pack(">" + "iq" * len(values), *chain.from_iterable(zip(repeat(8), values, strict=False)))
    )


def _texts(values: Sequence[str | None]) -> Texts:
    return Texts(_array(_TEXT, values, lambda value: _framed(value.encode())))


def _blobs(values: Sequence[bytes | None]) -> Blobs:
    return Blobs(_array(_BYTEA, values, _framed))


def _framed(raw: bytes) -> bytes:
    return _LENGTH.pack(len(raw)) + raw


def _array(element: int, values: Sequence[Any], form: Callable[[Any], bytes]) -> bytes:
    body = b"".join([_NULL if value is None else form(value) for value in values])
    return _HEAD.pack(1, None in values, element, len(values), 1) + body


def _forms() -> Iterator[tuple[Callable[[Any], _Packed], str]]:
    for column in audit_logs.columns:
        if isinstance(column.type, sa.Integer):
            yield _integers, "int8[]"
        elif isinstance(column.type, sa.LargeBinary):
            yield _blobs, "bytea[]"
        else:
            yield _texts, "text[]"


_FORMS: Final = tuple(_forms())
APPEND: Final = (
    f"INSERT INTO audit_logs ({', '.join(ENTRY_COLUMNS)}) "  # noqa: S608
    f"SELECT * FROM unnest({', '.join(f'?::{kind}' for _, kind in _FORMS)})"
)

PUT_INDEX: Final = (
    "INSERT INTO audit_index (object_id, block) SELECT * FROM unnest(?::text[], ?::int8[]) ON CONFLICT DO NOTHING"
)


def index_columns_of(rows: Sequence[tuple[str, int]]) -> list[_Packed]:
    """The values of PUT_INDEX. There has to be at least one row."""
    names, blocks = zip(*rows, strict=True)
    return [_texts(names), _integers(blocks)]


def columns_of(entries: Sequence[Row]) -> list[_Packed]:
    """The values of APPEND. There has to be at least one entry."""
    return [form(column) for (form, _), column in zip(_FORMS, zip(*entries, strict=True), strict=True)]

"""Which types of values are taken from a server: those of the vault's columns and of what it asks besides.

The server says of each column which type its values have, and the driver has a parser for each of some seventy types. A
server that lies chooses the parser, and a value that does not parse raises whatever that parser does. So there is a
parser for a few types alone, and a value of any other is damage, as a damaged page of a file is.
"""

from functools import cache
from typing import Any, Final

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format
from psycopg.types.string import TextLoader

from keyvault_lite.ledger.storage import driver

_UNKNOWN: Final = 0
"""Under this number is the loader of types that have none."""
_VOID: Final = 2278
_INTEGERS: Final = frozenset({"int2", "int4", "int8"})
_TAKEN: Final = frozenset({"bool", "bytea", '"char"', "name", "text", "varchar"}) | _INTEGERS
_MOST_DIGITS: Final = 20


class _Refuse(Loader):
    def load(self, _data: Buffer) -> Any:  # noqa: ANN401  (as the driver has it)
        """Raise driver.Error."""
        raise driver.Error("the database server answers with a type of value that was not asked for")


class _RefuseBinary(_Refuse):
    format = Format.BINARY


class _Integer(Loader):
    """An integer as text."""

    def load(self, data: Buffer) -> int:
        """The number. Raises driver.Error for anything else."""
        text = bytes(data)
        if len(text) > _MOST_DIGITS or not text.removeprefix(b"-").isdigit():
            raise driver.Error("the database server answered with a malformed number")
        return int(text)


@cache
def adapters() -> AdaptersMap:
    """The driver's adapters, with loaders of the types that are taken."""
    made = AdaptersMap(psycopg.adapters)
    for info in psycopg.adapters.types:
        if info.name in _INTEGERS:
            made.register_loader(info.oid, _Integer)
        elif info.name not in _TAKEN:
            _refuse(made, info.oid)
        if info.array_oid:
            _refuse(made, info.array_oid)
    _refuse(made, _UNKNOWN)
    made.register_loader(_VOID, TextLoader)
    return made


def _refuse(made: AdaptersMap, oid: int) -> None:
    made.register_loader(oid, _Refuse)
    made.register_loader(oid, _RefuseBinary)

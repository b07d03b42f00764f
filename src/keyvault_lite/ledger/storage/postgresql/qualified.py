"""Statements that name the vault's schema, so that the search path of a session need not have it.

PostgreSQL chooses among functions and operators of one name the one whose argument types match exactly, wherever it
is in the search path. An overload in the vault's schema would be preferred to a built-in one that is reached by a
conversion, and would run with the vault's rights. So the search path holds PostgreSQL's own schema alone, and every
table is qualified.
"""

import re
from functools import cache
from typing import Final

from keyvault_lite.ledger.storage.tables import metadata

SEARCH_PATH: Final = b"SET search_path = pg_catalog, pg_temp"
"""The search path of every session. Unless it is named last, the schema of temporary tables is searched first."""
VERSION_TABLE: Final = "alembic_version"
REFUSE: Final = "kvl_refuse"
"""The function that the triggers call."""
SCHEMA: Final = "@schema@"
"""Stands in a statement for the number of the vault's schema."""
_OURS: Final = "|".join((*metadata.tables, VERSION_TABLE, REFUSE))
_NAMED: Final = re.compile(rf"\b(FROM|INTO|UPDATE|JOIN|ON|VACUUM|TRUNCATE|TABLE|FUNCTION) ((?:{_OURS})\b)")


def quote(name: str) -> str:
    """The name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


@cache
def qualified(sql: str, schema: str) -> str:
    """The statement with the vault's schema before each of its tables, and in the place of SCHEMA."""
    name = quote(schema)
    literal = name.replace("'", "''")
    # A function as replacement: the name may hold a backslash.
    text = _NAMED.sub(lambda found: f"{found[1]} {name}.{found[2]}", sql)
    return text.replace(SCHEMA, f"'{literal}'::pg_catalog.regnamespace")


def search_path_of(schema: str) -> bytes:
    """The search path for statements that are made elsewhere and name no schema: those of the migrations."""
    return f"SET search_path = {quote(schema)}, pg_temp".encode()

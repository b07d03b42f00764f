"""The SQLite library, imported in one place: the `pysqlite3` wheel where there is one, else the interpreter's if it is safe.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL database written by several connections, so an older library is refused.
"""

import sqlite3 as _standard
from types import ModuleType
from typing import TYPE_CHECKING

try:
    from pysqlite3 import dbapi2 as _bundled
except ImportError:
    _bundled = None

FIRST_SAFE = (3, 51, 3)
_driver: ModuleType = _standard if _bundled is None else _bundled

if TYPE_CHECKING:
    from sqlite3 import Connection as Connection
    from sqlite3 import Error as Error
    from sqlite3 import IntegrityError as IntegrityError
else:
    Connection, Error, IntegrityError = _driver.Connection, _driver.Error, _driver.IntegrityError

connect = _driver.connect
dbapi = _driver
version: str = _driver.sqlite_version
is_safe: bool = _driver.sqlite_version_info >= FIRST_SAFE


def is_full(error: Exception) -> bool:
    """Whether the store had no space left."""
    return "full" in str(error)

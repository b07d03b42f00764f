"""A real PostgreSQL for tests: what KEYVAULT_TEST_PG_URL names, else a server of our own (tools/postgres_server.py)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tools.postgres_server import Server

_names = count(1)


class Databases:
    """Makes and removes databases on a server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def make(self, template: str | None = None) -> str:
        """The URL of a new database, a copy of the one that `template` names."""
        name = f"kvl_{os.getpid()}_{next(_names)}"
        copied = "" if template is None else f' TEMPLATE "{conninfo_to_dict(template)["dbname"]}"'
        self.run(f'CREATE DATABASE "{name}"{copied}')
        return self.of(name)

    def of(self, name: str, **other: str) -> str:
        """The URL of a database of this server."""
        parts = {**conninfo_to_dict(self.url), "dbname": name, **other}
        words = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in parts.items() if value is not None)
        return f"postgresql:///?{words}"

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected."""
        self.run(f'DROP DATABASE "{conninfo_to_dict(url)["dbname"]}" WITH (FORCE)')

    def run(self, *statements: str) -> None:
        with psycopg.connect(make_conninfo(self.url), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


def run(url: str, *statements: str) -> list[Any]:
    """Run statements as somebody who is at the database; what the last one gives."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = None
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor is not None and cursor.description else []


@contextmanager
def serving() -> Iterator[Databases]:
    """Databases on the server that the environment names, or on one of our own."""
    url = os.environ.get("KEYVAULT_TEST_PG_URL")
    if url:
        yield Databases(url)
        return
    server = Server()
    try:
        server.start()
        yield Databases(server.url)
    finally:
        server.remove()

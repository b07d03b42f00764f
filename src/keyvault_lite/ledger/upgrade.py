"""Bringing a database to the schema of this version, in one transaction, with the triggers made anew at the end."""

from importlib.resources import files
from typing import Final

import sqlalchemy as sa

from keyvault_lite.ledger import driver
from keyvault_lite.ledger.schema import TRIGGERS

REVISION: Final = "0001"
"""The revision this version works with."""
OLDER: Final[frozenset[str]] = frozenset()
"""The revisions it can bring up to date."""


def revision_of(connection: driver.Connection) -> str | None:
    """The revision a database is at; None for one without tables of ours."""
    tables = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
    ).fetchone()
    if tables is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def upgrade(connection: driver.Connection) -> None:
    """Run what is missing. The connection is in autocommit mode; a failure leaves the database as it was."""
    # Imported here: it costs a third of a second, and a start on a current database does not need it.
    from alembic import command
    from alembic.config import Config

    engine = sa.create_engine(
        "sqlite://",
        module=driver.dbapi,
        creator=lambda: connection,
        poolclass=sa.StaticPool,
        pool_reset_on_return=None,
    )
    # The driver is in autocommit mode, so that a transaction covers the statements of the schema too.
    sa.event.listen(engine, "begin", lambda handed: handed.exec_driver_sql("BEGIN IMMEDIATE"))
    config = Config()
    config.set_main_option("script_location", str(files("keyvault_lite.ledger").joinpath("migrations")))
    with engine.begin() as handed:
        config.attributes["connection"] = handed
        command.upgrade(config, "head")
        for name, statement in TRIGGERS.items():
            # Alembic's batch mode rebuilds a table and drops its triggers without a word.
            handed.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
            handed.exec_driver_sql(statement)

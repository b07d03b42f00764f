"""Bringing a database to the schema of this version, in one transaction, with the triggers created again at the end."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.model.replies import Finding

REVISION: Final = "0003"
"""The revision this version works with."""
VERSION_TABLE: Final = "alembic_version"
OLDER: Final = frozenset({"0001", "0002"})
"""The revisions it can bring up to date."""
MOVING: Final = "moving"
"""What a copy names instead while a vault is moved: no version opens it, not even one that knows nothing of this."""
UNFINISHED: Final = "holds a copy of a move that was not finished: run the same `kvl migrate` again"


def revision_of(connection: driver.Connection, tables: frozenset[str]) -> str | None:
    """The revision a database is at; None for one without the vault's tables."""
    if VERSION_TABLE not in tables:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def check_revision(connection: driver.Connection, findings: list[Finding]) -> None:
    """Add what is wrong with the revision that a database names."""
    try:
        revisions = driver.fetch(connection, "SELECT version_num FROM alembic_version")
    except driver.Damaged:
        return  # the table is missing, which is found above
    if revisions != [(REVISION,)]:
        problem = f"does not name {REVISION}, the revision of this version, alone"
        if revisions in [[(revision,)] for revision in OLDER]:
            problem += ": if this vault was never served by this version, do that first, which brings it up to date"
        if revisions == [(MOVING,)]:
            problem = UNFINISHED
        findings.append(Finding("alembic_version", "", problem))


def other_tables() -> DamagedVault:
    """The refusal of a database whose tables are not those of the revision that it names."""
    return DamagedVault([Finding(VERSION_TABLE, "", "names a revision whose tables are others than those there are")])


def run_migrations(
    url: str,
    connection: Any,  # noqa: ANN401  (a connection of either driver)
    *,
    begin: str | None,
    after: Sequence[str],
    **how: Any,  # noqa: ANN401  (options of SQLAlchemy)
) -> None:
    """Run what is missing, then the statements `after`. A failure leaves the database as it was: the driver's error.

    `begin` is the statement that opens the transaction on a connection in autocommit mode, so that it covers the
    statements of the schema too; None for a driver that opens transactions by itself.
    """
    # Imported here: it costs a third of a second, and a start on a current database does not need it.
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config

    engine = sa.create_engine(
        url, creator=lambda: connection, poolclass=sa.StaticPool, pool_reset_on_return=None, **how
    )
    if begin is not None:
        sa.event.listen(engine, "begin", lambda handed: handed.exec_driver_sql(begin))
    config = Config()
    config.set_main_option("script_location", str(files("keyvault_lite.ledger.storage").joinpath("migrations")))
    try:
        with engine.begin() as handed:
            config.attributes["connection"] = handed
            command.upgrade(config, "head")
            for statement in after:
                handed.exec_driver_sql(statement)
    except sa.exc.DBAPIError as error:
        if error.orig is None:
            raise
        raise error.orig from error

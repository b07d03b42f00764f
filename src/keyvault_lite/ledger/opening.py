"""Opening: which database a URL names, its schema brought up to date, and the slots that its keyring is opened with."""

from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.ledger.storage.record_types import read_slot
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.storage.sqlite.files import MAGIC, refuse_journal
from keyvault_lite.ledger.storage.upgrade import MOVING, OLDER, REVISION, UNFINISHED, VERSION_TABLE, revision_of
from keyvault_lite.model.errors import AuditUnavailable, Conflict, InvalidRequest
from keyvault_lite.model.keyring import Slot


def open_database(url: str, *, allow_plain: bool = False) -> Database:
    """The database that KEYVAULT_DATABASE_URL names. Raises InvalidRequest for one this version cannot open.

    `allow_plain` lets a database server on another host be used without TLS and its verified name.
    """
    path = sqlite_path(url)
    if path is not None:
        return SqliteDatabase(path)
    try:
        # Imported here: SQLite needs nothing of it, and it takes a while.
        from keyvault_lite.ledger.storage.postgresql.address import read_address
        from keyvault_lite.ledger.storage.postgresql.database import PostgresDatabase
    except ImportError as error:
        raise InvalidRequest("PostgreSQL needs the driver psycopg: pip install 'psycopg[binary]>=3.3,<4'") from error
    return PostgresDatabase(read_address(url, allow_plain=allow_plain))


def sqlite_path(url: str) -> Path | None:
    """The file that a database URL names, None for PostgreSQL. Raises InvalidRequest for a URL of neither."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidRequest("the database URL is malformed") from None
    if parts.scheme in {"postgresql", "postgres"}:
        return None
    if parts.scheme != "sqlite" or parts.netloc or not parts.path.strip("/"):
        raise InvalidRequest(
            "the database URL is sqlite:///relative/path, sqlite:////absolute/path or postgresql://user@host/database"
        )
    if "?" in url or "#" in url:
        raise InvalidRequest("the database URL of a file takes no query and no fragment: write ? as %3F and # as %23")
    path = Path(unquote(parts.path.removeprefix("/")))
    if path.name == ":memory:":
        raise InvalidRequest("the database is a file, and :memory: is none: nothing would be left of the vault")
    return path.absolute()


def check_place(database: Database) -> None:
    """Before anything is made beside a database: raise AuditUnavailable where there can be none, or something else is.

    What could be a damaged database is left to the reader of it. Raises DamagedVault for a rollback journal beside it.
    """
    if not isinstance(database, SqliteDatabase):
        return
    path = database.path
    if not path.parent.is_dir():
        kind = "is not a folder" if path.parent.exists() else "does not exist"
        raise AuditUnavailable(f"the folder of the database, {path.parent}, {kind}")
    if path.exists() and not path.is_file():
        raise AuditUnavailable(f"the database {path} is a folder or device, and not a file")
    refuse_journal(path)
    if _is_foreign(path):
        raise AuditUnavailable(f"{path} is no SQLite database: it is another file, or damaged at its beginning")


def _is_foreign(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) not in {b"", MAGIC}
    except OSError:  # opening it reports why
        return False


def prepare(database: Database) -> tuple[Slot, ...]:
    """Bring the schema up to date, if need be, and return the slots of the keyring; an empty vault has none.

    Slots are not verified yet: the keyring that verifies is opened with them, and their containers verify themselves.
    Raises DamagedVault for a schema in which reading would run something.
    """
    try:
        with database.lock():
            connection = database.writer()
            try:
                _bring_up_to_date(database, connection)
                return stored_slots(database, connection)
            finally:
                connection.close()
    except driver.Damaged as error:
        if database.space_is_low() and database.release_reserve():
            return prepare(database)  # opening takes some room too, and a full disk must not keep anybody from revoking
        raise cannot_open(database) from error


def cannot_open(database: Database) -> AuditUnavailable:
    """The refusal of a database that does not let itself be read."""
    return AuditUnavailable(
        f"the database cannot be opened: {database.name} is locked, read-only or damaged",
        shown="the database cannot be opened",
    )


def _bring_up_to_date(database: Database, connection: driver.Connection) -> None:
    tables = database.tables(connection)
    if VERSION_TABLE in tables:
        refuse_strange(database, connection)
    revision = revision_of(connection, tables)
    if revision is None and tables:
        raise Conflict("the database holds something else: KEYVAULT_DATABASE_URL has to name one of its own")
    if revision == MOVING:
        raise Conflict(f"the database {UNFINISHED}")
    if revision not in {None, *OLDER, REVISION}:
        raise Conflict("the database was written by another version of KeyVault Lite, newer than this one")
    if revision != REVISION:
        database.upgrade(connection)


def refuse_strange(database: Database, connection: driver.Connection) -> None:
    """Raise DamagedVault for a schema in which reading would run something: to be asked before anything is read."""
    if strange := database.check_kinds(connection):
        raise DamagedVault(strange)


def stored_slots(database: Database, connection: driver.Connection) -> tuple[Slot, ...]:
    """The slots that are not removed, unverified: what is read first of a vault. Raises DamagedVault, as `prepare`."""
    refuse_strange(database, connection)
    rows = driver.fetch(connection, statements.SELECT["keyring_slots"])
    slots = []
    for row in rows:
        with suppress(TypeError, ValueError):
            slots.append(read_slot(row[:-2]))
    return tuple(slot for slot in slots if slot.removed_at is None)

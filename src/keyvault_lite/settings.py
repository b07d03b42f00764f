"""All settings, read once: the environment first, then the file that KEYVAULT_CONFIG names."""

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from keyvault_lite import import_path, settings_file
from keyvault_lite.audit.checkpoint import COSIGNATURE, InvalidNote, parse_verifier_key
from keyvault_lite.ledger.opening import sqlite_path
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.observe import announce

PREFIX = "KEYVAULT_"
TESTS: Final = f"{PREFIX}TEST_"
"""The prefix of variables that configure the test suite."""
CLIENT: Final = frozenset(f"{PREFIX}{name}" for name in ("ADDR", "TOKEN", "TOKEN_FILE", "CACERT"))
"""What `kvl` reads besides when it calls a vault."""
Tell = Callable[..., None]
"""Prints a line for the operator that starts the command; see observe.announce."""


class InvalidSettings(Exception):
    """A setting is missing or makes no sense; the message names it and never its value."""


class Settings(BaseSettings):
    """The vault's settings. In the environment each is KEYVAULT_ and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    master_key: SecretStr | None = None
    """Base64 of 32 bytes. The parent process keeps it in its environment: prefer the file."""
    master_key_file: str | None = None
    """A file, or a descriptor path like /dev/fd/3, that holds the base64."""
    root: str | None = Field(default=None, repr=False)
    """The roots of trust that open the vault, as URIs separated by spaces (docs/roots.md); else the master key."""
    database_url: str = Field(default="sqlite:///keyvault.db", repr=False)
    """`sqlite:///path` or `postgresql://user@host/database`; it may hold a password, so it is never shown."""
    allow_plain_database: bool = False
    """Use a PostgreSQL server on another host without verified TLS: only where something else protects the way."""
    migrate_to: str | None = Field(default=None, repr=False)
    """For `kvl migrate` alone: the URL of the empty database that the vault moves into."""
    anchor: str | None = None
    """A file, by default the database file with `.anchor`; `off` does without, visibly; `https://…` a shared one."""
    anchor_sync: Literal["second", "always"] = "second"
    """When the anchor's data entries are flushed; management entries always are before they are answered."""
    tpm_anchor: str | None = None
    """A TPM 2.0 (`/dev/tpmrm0`) whose counter finds a database and an anchor that were put back together."""
    witness: str | None = None
    """The address of a witness (`kvl witness`), https://…, that has to confirm the log."""
    witness_key: str | None = None
    """The verifier keys of the witness and of a shared anchor, separated by spaces."""
    witness_max_age: int = Field(default=60, ge=0)
    """After how many seconds without a confirmation nothing is done any more; 0: never."""
    witness_cacert: Path | None = None
    """Certificates (PEM) with which the witness and a shared anchor are trusted, instead of the system's."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_plain_http: bool = False
    """Serve plain HTTP on an address that is not loopback: only behind something that ends TLS."""
    aws_account_id: str = Field(default="000000000000", pattern=r"^[0-9]{12}$")
    """The account id in the ARNs of the AWS dialect."""
    max_connections: int = Field(default=1000, ge=1, le=100_000)
    """Open connections a process; beyond it the longest idle are closed, then new ones are refused (503)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, host: str) -> str:
        """An IPv6 address may be written as in an address of the web."""
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then file."""
        return (
            init_settings,
            EnvSettingsSource(settings_cls, env_ignore_empty=True),
            InitSettingsSource(settings_cls, _from_file()),
        )


class Purpose(Enum):
    """What settings are loaded for."""

    CHANGE = "change"
    """A command that may change the vault."""
    READ = "read"
    """One that only reads: it goes on beside a settings file that is no longer read."""
    SERVE = "serve"
    DEVELOP = "develop"
    """`uvicorn main:app`, which imports modules from the working directory."""
    WITNESS = "witness"
    """A witness, which has no database."""


_SERVERS: Final = frozenset({Purpose.SERVE, Purpose.DEVELOP, Purpose.WITNESS})


KNOWN: Final = (
    frozenset(f"{PREFIX}{name.upper()}" for name in Settings.model_fields) | CLIENT | {settings_file.VARIABLE}
)
"""Every variable that the vault or its client reads."""


def load(purpose: Purpose = Purpose.CHANGE, /, **given: Any) -> Settings:  # noqa: ANN401
    """The settings, with what the command line gives instead. Raises InvalidSettings in one sentence.

    Warns on standard error of KEYVAULT_… variables that are no setting: a misspelt one is easily missed.
    """
    tell = partial(announce, structured=purpose in _SERVERS)
    warn_of_unknown_variables(tell)
    _mention_ignored_file(purpose, tell)
    try:
        chosen = Settings(**given)
    except ValidationError as error:
        wrong = "; ".join(
            f"{PREFIX}{str(one['loc'][0]).upper()}: {one['msg'][0].lower()}{one['msg'][1:]}"
            for one in error.errors(include_input=False, include_url=False)
        )
        raise InvalidSettings(f"These settings are not valid: {wrong}.") from None
    folders = [] if purpose is Purpose.WITNESS else _state_folders(chosen)
    _check_file(folders, given, tell)
    _check_import_path(folders, purpose, tell)
    return chosen


def _mention_ignored_file(purpose: Purpose, tell: Tell) -> None:
    """Say that settings in the working directory are not read: before, they may have named a database or an anchor."""
    path = settings_file.ignored_file()
    if path is None:
        return
    text = f"{path} is not read: set {settings_file.VARIABLE} to a settings file outside of the database's folder"
    if purpose is not Purpose.READ:
        raise InvalidSettings(f"{text}, or remove it.")
    tell(text, level="warning")


def _state_folders(chosen: Settings) -> list[Path]:
    """The folders of the database and of the anchor: an attacker of the threat model may write them."""
    try:
        database = sqlite_path(chosen.database_url)
    except InvalidRequest:  # told when it is opened
        return []
    folders = [] if database is None else [database.parent, database.resolve().parent]
    if chosen.anchor is not None and chosen.anchor != "off" and not is_shared(chosen.anchor):
        folders.append(Path(chosen.anchor).absolute().parent)
    return folders


def _check_file(folders: list[Path], given: Mapping[str, object], tell: Tell) -> None:
    """Check where the settings file is, and say which settings come from it."""
    path = settings_file.named_file()
    if path is None:
        return
    try:
        settings_file.check_apart(path, folders)
    except settings_file.InvalidFile as error:
        raise InvalidSettings(f"{error}.") from None
    taken = [name for name in _from_file() if name not in given and not os.environ.get(f"{PREFIX}{name.upper()}")]
    if taken:
        tell(f"settings from {path}: {', '.join(sorted(taken))}")


def _check_import_path(folders: list[Path], purpose: Purpose, tell: Tell) -> None:
    """Raise InvalidSettings, or warn, where a writer of the database can write modules that this process imports."""
    if (source := import_path.writable_source(folders)) is not None:
        text = (
            f"Python imports modules from {source}, which whoever writes the database or the anchor can write: start "
            "`kvl` itself or `python -P -m keyvault_lite`, without this folder in PYTHONPATH, or move the database"
        )
        if purpose is not Purpose.DEVELOP:
            raise InvalidSettings(f"{text}.")
        tell(text, level="warning")
    elif (source := import_path.nested_source(folders)) is not None:
        tell(
            f"code is imported from {source}, inside of the folder of the database or the anchor: give these a folder "
            "of their own",
            level="warning",
        )


def warn_of_unknown_variables(tell: Tell) -> None:
    """Name each KEYVAULT_… variable that is not a setting, and the setting that it resembles."""
    for name in unknown_variables(os.environ):
        resembled = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"; did you mean {resembled[0]}?" if resembled else ""
        tell(f"{name} is not a setting and is ignored{hint}", level="warning")


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Names that look like settings and are not."""
    named = (name for name in environment if name.startswith(PREFIX) and not name.startswith(TESTS))
    return sorted(name for name in named if name not in KNOWN)


def _from_file() -> dict[str, Any]:
    """What the named file sets, nothing if none is named. Raises InvalidSettings for what is not a setting."""
    path = settings_file.named_file()
    if path is None:
        return {}
    try:
        found = settings_file.read(path)
    except settings_file.InvalidFile as error:
        raise InvalidSettings(f"{error}.") from None
    for name, value in found.items():
        if name not in Settings.model_fields:
            raise InvalidSettings(f"{path}: {_what_it_is(name, value)}.")
    return found


def _what_it_is(name: str, value: object) -> str:
    meant = name.lower().removeprefix(PREFIX.lower())
    if isinstance(value, dict):
        return f"[{name}] is a table, and settings stand outside of tables"
    if meant in Settings.model_fields:
        return f"{name} is written {meant} in this file"
    return f"{name} is not a setting"


def is_shared(anchor: str | None) -> bool:
    """Whether KEYVAULT_ANCHOR names a shared anchor."""
    return anchor is not None and anchor.startswith(("https://", "http://"))


def check_witness(chosen: Settings) -> None:
    """Raise InvalidSettings for settings of a witness where none is named, and for keys that are no witness's."""
    if chosen.witness is None and not is_shared(chosen.anchor):
        for name in ("witness_key", "witness_cacert", "witness_max_age"):
            if name in chosen.model_fields_set and getattr(chosen, name) is not None:
                raise InvalidSettings(
                    f"{PREFIX}{name.upper()} is set, but no witness is named: it goes with KEYVAULT_WITNESS or with a "
                    "KEYVAULT_ANCHOR that is shared."
                )
    for text in (chosen.witness_key or "").split():
        try:
            key = parse_verifier_key(text)
        except InvalidNote as error:
            raise InvalidSettings(f"KEYVAULT_WITNESS_KEY: {error.detail}.") from None
        if key.algorithm != COSIGNATURE:
            raise InvalidSettings("KEYVAULT_WITNESS_KEY: this is the key of a log, and not that of a witness.")

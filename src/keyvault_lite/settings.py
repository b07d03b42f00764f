"""All settings, read once: the environment first, then `keyvault.toml` in the working directory."""

import ipaddress
import os
import ssl
import sys
import tomllib
from collections.abc import Iterable
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

from keyvault_lite.audit.checkpoint import COSIGNATURE, InvalidNote, parse_verifier_key
from keyvault_lite.wire.tls import UnusablePair, load_pair

PREFIX = "KEYVAULT_"
TESTS: Final = f"{PREFIX}TEST_"
"""How variables begin that the project's own tests are told something by."""
FILE = "keyvault.toml"
CLIENT: Final = frozenset(f"{PREFIX}{name}" for name in ("ADDR", "TOKEN", "TOKEN_FILE", "CACERT"))
"""What `kvl` reads besides when it calls a vault."""


class InvalidSettings(Exception):
    """A setting is missing or makes no sense; the message names it and never its value."""


class Settings(BaseSettings):
    """The vault's settings. In the environment each is KEYVAULT_ and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    master_key: SecretStr | None = None
    """Base64 of 32 bytes. The parent process keeps it in its environment: prefer the file."""
    master_key_file: str | None = None
    """A file, or a descriptor path like /dev/fd/3, that holds the base64."""
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
            InitSettingsSource(settings_cls, _read_file()),
        )


def load(**given: Any) -> Settings:  # noqa: ANN401  (judged by the fields they are for)
    """The settings, with what the command line gives instead. Raises InvalidSettings in one sentence.

    Warns on standard error of KEYVAULT_… variables that are no setting: a misspelt one is easily missed.
    """
    for name in unknown_variables(os.environ):
        print(f"KeyVault Lite: {name} is no setting and is ignored", file=sys.stderr, flush=True)
    try:
        return Settings(**given)
    except ValidationError as error:
        names = ", ".join(
            f"{PREFIX}{str(one['loc'][0]).upper()}" for one in error.errors(include_input=False, include_url=False)
        )
        raise InvalidSettings(f"These settings are not valid: {names}.") from None


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Names that look like settings and are none."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | CLIENT
    named = (name for name in environment if name.startswith(PREFIX) and not name.startswith(TESTS))
    return sorted(name for name in named if name not in known)


def _read_file() -> dict[str, Any]:
    """What the file sets, nothing if there is none. Raises InvalidSettings for whatever in it is no setting."""
    try:
        with Path(FILE).open("rb") as stream:
            found = tomllib.load(stream)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidSettings(f"{FILE} cannot be read: {error.strerror}.") from None
    except ValueError:  # also what is no UTF-8
        raise InvalidSettings(f"{FILE} is not a TOML file of settings.") from None
    for name, value in found.items():
        if name not in Settings.model_fields:
            raise InvalidSettings(f"{FILE}: {_what_it_is(name, value)}.")
    return found


def _what_it_is(name: str, value: object) -> str:
    meant = name.lower().removeprefix(PREFIX.lower())
    if isinstance(value, dict):
        return f"[{name}] is a table, and settings stand outside of tables"
    if meant in Settings.model_fields:
        return f"{name} is written {meant} in this file"
    return f"{name} is no setting"


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


def check_address(chosen: Settings) -> ssl.SSLContext | None:
    """With what to serve TLS; None: plain HTTP.

    Raises InvalidSettings for plain HTTP on an address that others can reach, for TLS by halves, and for files that it
    cannot be served with.
    """
    if (chosen.tls_cert is None) != (chosen.tls_key is None):
        raise InvalidSettings("KEYVAULT_TLS_CERT and KEYVAULT_TLS_KEY go together.")
    for name, path in (("KEYVAULT_TLS_CERT", chosen.tls_cert), ("KEYVAULT_TLS_KEY", chosen.tls_key)):
        if path is not None and not os.access(path, os.R_OK):
            raise InvalidSettings(f"{name} does not name a readable file.")
    if chosen.tls_cert is not None and chosen.tls_key is not None:
        try:
            return load_pair(chosen.tls_cert, chosen.tls_key, names=("KEYVAULT_TLS_CERT", "KEYVAULT_TLS_KEY"))
        except UnusablePair as error:
            raise InvalidSettings(f"{error}.") from None
    if chosen.allow_plain_http:
        return None
    try:
        loopback = ipaddress.ip_address(chosen.host).is_loopback
    except ValueError:
        loopback = chosen.host == "localhost"
    if not loopback:
        raise InvalidSettings(
            "Plain HTTP is served on loopback addresses only: set KEYVAULT_TLS_CERT and KEYVAULT_TLS_KEY, "
            "or KEYVAULT_ALLOW_PLAIN_HTTP=1 behind something that ends TLS."
        )
    return None

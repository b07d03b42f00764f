"""All settings, read once: the environment first, then `keyvault.toml` in the working directory."""

import ipaddress
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "KEYVAULT_"
FILE = "keyvault.toml"


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
            TomlConfigSettingsSource(settings_cls, FILE),
        )


def load(**given: Any) -> Settings:  # noqa: ANN401  (judged by the fields they are for)
    """The settings, with what the command line gives instead. Raises InvalidSettings in one sentence."""
    try:
        return Settings(**given)
    except ValidationError as error:
        names = ", ".join(
            f"{PREFIX}{str(one['loc'][0]).upper()}" for one in error.errors(include_input=False, include_url=False)
        )
        raise InvalidSettings(f"These settings are not valid: {names}.") from None
    except (ValueError, OSError):
        raise InvalidSettings(f"{FILE} is not a TOML file of settings.") from None


def check_address(chosen: Settings) -> None:
    """Raise InvalidSettings for plain HTTP on an address that others can reach, and for TLS by halves."""
    if (chosen.tls_cert is None) != (chosen.tls_key is None):
        raise InvalidSettings("KEYVAULT_TLS_CERT and KEYVAULT_TLS_KEY go together.")
    for name, path in (("KEYVAULT_TLS_CERT", chosen.tls_cert), ("KEYVAULT_TLS_KEY", chosen.tls_key)):
        if path is not None and not os.access(path, os.R_OK):
            raise InvalidSettings(f"{name} does not name a readable file.")
    if chosen.tls_cert is not None or chosen.allow_plain_http:
        return
    try:
        loopback = ipaddress.ip_address(chosen.host).is_loopback
    except ValueError:
        loopback = chosen.host == "localhost"
    if not loopback:
        raise InvalidSettings(
            "Plain HTTP is served on loopback addresses only: set KEYVAULT_TLS_CERT and KEYVAULT_TLS_KEY, "
            "or KEYVAULT_ALLOW_PLAIN_HTTP=1 behind something that ends TLS."
        )

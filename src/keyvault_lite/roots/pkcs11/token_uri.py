"""Which token, key, module and PIN: a PKCS#11 URI (RFC 7512)."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from keyvault_lite.crypto.root import RootError

_PATH: Final = frozenset({"token", "serial", "object", "id", "manufacturer", "model", "type"})
_QUERY: Final = frozenset({"module-path", "pin-source"})
_ATTRIBUTE: Final = re.compile(r"([a-z-]+)=((?:[A-Za-z0-9._~\-:\[\]@!$'()*+,=&/]|%[0-9A-Fa-f]{2})*)")


@dataclass(frozen=True, slots=True)
class TokenUri:
    """What is used of the URI."""

    module: str
    pin_source: str
    token: str | None
    serial: str | None
    object: str | None
    id: str | None
    """Of the key, in hexadecimal."""

    @classmethod
    def parse(cls, uri: str) -> Self:
        """From the text behind `pkcs11:`. Raises RootError for what is missing, unknown or dangerous."""
        path, _, query = uri.partition("?")
        found = _attributes(path, ";", _PATH) | _attributes(query, "&", _QUERY)
        token, serial, label, key_id = (_text(found, name) for name in ("token", "serial", "object", None))
        key_id = found["id"].hex() if "id" in found else None
        if token is None and serial is None:
            raise RootError("A pkcs11: URI names its token or serial; slot numbers change.")
        if label is None and key_id is None:
            raise RootError("A pkcs11: URI names its key: object=LABEL or id=BYTES.")
        module, source = _text(found, "module-path"), _text(found, "pin-source")
        if module is None or not Path(module).is_absolute():
            raise RootError("A pkcs11: URI names the module: ?module-path=/absolute/path.so.")
        if source is None or not source.startswith("file:") or not Path(source.removeprefix("file:")).is_absolute():
            raise RootError("A pkcs11: URI names a file with the PIN: pin-source=file:/absolute/path.")
        return cls(module, source.removeprefix("file:"), token, serial, label, key_id)

    def as_object(self) -> dict[str, str | None]:
        """For the process that loads the module."""
        return asdict(self)


def _attributes(text: str, separator: str, known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in filter(None, text.split(separator)):
        match = _ATTRIBUTE.fullmatch(part)
        if match is None:
            raise RootError("A pkcs11: URI is malformed (RFC 7512).")
        name = match[1]
        if name == "pin-value":
            raise RootError("A PIN does not belong into a setting: use pin-source=file:/path.")
        if name not in known or name in found:
            raise RootError(f"A pkcs11: URI has an attribute that is not supported, or twice: {name}.")
        found[name] = unquote_to_bytes(match[2])
    return found


def _text(found: dict[str, bytes], name: str | None) -> str | None:
    raw = None if name is None else found.get(name)
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        raise RootError("A pkcs11: URI is malformed (RFC 7512).") from None

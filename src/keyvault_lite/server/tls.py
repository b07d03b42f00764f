"""The server's certificate and its key."""

import ssl
from pathlib import Path
from typing import NoReturn


class UnusablePair(Exception):
    """The files are no certificate and its key; the message says what is wrong with which, in words for an operator."""


class _Encrypted(Exception):
    """The key asks for a passphrase."""


def load_pair(certificate: Path, key: Path, *, names: tuple[str, str]) -> ssl.SSLContext:
    """What to serve with. Never asks for a passphrase. Raises UnusablePair, which calls the files by `names`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, _refuse)
    except _Encrypted:
        raise UnusablePair(f"{names[1]} is encrypted: a key without passphrase is needed") from None
    except OSError as error:  # includes ssl.SSLError
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise UnusablePair(f"{names[1]} is not the key of the certificate in {names[0]}") from None
        raise UnusablePair(f"{names[0]} and {names[1]} are not a PEM certificate and its PEM key") from None
    return context


def _refuse() -> NoReturn:
    raise _Encrypted

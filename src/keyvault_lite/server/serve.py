"""`kvl serve`: the vault is checked, then served by this process or by several under its supervision."""

import asyncio
import os
import resource
import sys
import tempfile
import threading
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote, urlsplit

from pydantic import SecretStr

from keyvault_lite import __version__, observe
from keyvault_lite.app import (
    CANNOT_START,
    Vault,
    announce_admin,
    build,
    open_or_begin,
    open_vault,
    perform,
    roots_of,
)
from keyvault_lite.crypto.hygiene import forget_environment_secrets, protect_process
from keyvault_lite.crypto.root import WrongMasterKey, read_text, warned_of
from keyvault_lite.dialects.changed_meaning import tell_changed_meaning
from keyvault_lite.import_path import is_protected, protect_children
from keyvault_lite.ledger.anchor.files import SAME_DIRECTORY, where_it_stands
from keyvault_lite.ledger.commit.edit_detection import tell_quarantine
from keyvault_lite.observe.metrics import METRICS
from keyvault_lite.roots.opening import open_by
from keyvault_lite.server.connection import GRACE_SECONDS
from keyvault_lite.server.connection import serve as server_config
from keyvault_lite.server.lifecycle import Server
from keyvault_lite.server.listeners import CannotListen, address, check_address, listen, take_address
from keyvault_lite.server.sealed import HandedKey, Stopped, Unsealed, start_sealed, unseal
from keyvault_lite.server.supervisor import CANNOT_START as NO_WORKER
from keyvault_lite.server.supervisor import Supervisor
from keyvault_lite.settings import InvalidSettings, Settings
from keyvault_lite.wire.application import Application

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    import uvicorn

SPARE_FILES: Final = 256
"""Descriptors beside those of connections: database, log, lanes."""
INTERRUPTED: Final = 130
STUCK: Final = 4
"""Exit code when the end took too long."""
END_SECONDS: Final = GRACE_SECONDS + 7.0
"""How long the end may take."""
_ANCHOR_ADVICE: Final = {
    SAME_DIRECTORY: "it goes back together with the database; let KEYVAULT_ANCHOR name a file elsewhere",
    "off": "a database that is put back will not be found out",
}
_DESCRIPTORS: Final = ("/dev/fd/", "/dev/stdin", "/proc/")
_log: Final = observe.logger("serving")


def serve(
    chosen: Settings, *, workers: int = 1, quarantine: bool = False, begin: bool = True, sealed: bool = False
) -> int:
    """Serve until stopped; the exit code. What the checks find before that is raised as one of CANNOT_START.

    Without `begin` an empty database is refused and not made a vault. `sealed` is said by a server that an operator
    has sealed, of its next one.
    """
    tls = check_address(chosen)
    observe.configure_logs(chosen.log_level)
    if quarantine and workers > 1:
        raise InvalidSettings("A vault in quarantine is served by one process.")
    chosen = _with_password_at_hand(chosen)
    if workers > 1:
        chosen = _with_key_at_hand(chosen)
    METRICS.gauge("keyvault_build_info", "Which version this is.", lambda: {__version__: 1.0}, label="version")
    shares = _listen(chosen, workers)
    port: int = shares[0][0].getsockname()[1]
    try:
        unsealed = None
        if chosen.root is not None or sealed:
            sealed_server = partial(_serve_sealed, chosen, tls, tuple(chain.from_iterable(shares)))
            unsealed = unseal(chosen, sealed_server, by_operator=sealed)
        vault = open_to_serve(chosen, quarantine=quarantine, begin=begin, unsealed=unsealed)
    except Stopped as stopped:
        return INTERRUPTED if stopped.interrupted else 0
    except BaseException:
        for one in chain.from_iterable(shares):
            one.close()
        raise
    # Connections are counted once their handshake is done: those before it need room too.
    _allow_files(chosen.max_connections * (1 if tls is None else 8) + SPARE_FILES)
    reached = address("http" if tls is None else "https", chosen.host, port)
    observe.announce(f"listens on {reached}")
    if workers == 1:
        late = threading.Timer(END_SECONDS, _give_up)
        late.daemon = True
        server = Server(_config(build(chosen, vault=vault), chosen, tls), on_stop=late.start)
        try:
            server.run(sockets=shares[0])
        finally:
            late.cancel()
        if server.has_ended:
            start_sealed(chosen, port)
        return INTERRUPTED if server.interrupted else 0
    vault.close()
    # The supervisor has no need of key and password but to hand them on; they are not left where /proc shows them.
    forget_environment_secrets()
    protect_process()
    protect_children()
    with tempfile.TemporaryDirectory(prefix="keyvault-") as folder:
        handed = None if unsealed is None else unsealed.hand_on()
        supervisor = Supervisor(
            partial(_worker, chosen, folder, handed), shares, partial(take_address, chosen.host, port, shared=True)
        )
        code = supervisor.run()
    if supervisor.has_ended:
        start_sealed(chosen, port)
    return INTERRUPTED if supervisor.interrupted and code == 0 else code


def open_to_serve(
    chosen: Settings, *, quarantine: bool = False, begin: bool = True, unsealed: Unsealed | None = None
) -> Vault:
    """Open the vault; with `begin`, make an empty database one and print its first token on standard error.

    What has opened it is put on record, if that is given.
    """
    unlock = None if unsealed is None else unsealed.known.open
    if not begin:
        vault, made = open_vault(chosen, unlock=unlock, quarantine=quarantine), None
    else:
        vault, made = asyncio.run(open_or_begin(chosen, unlock=unlock, quarantine=quarantine))
    if unsealed is not None:
        asyncio.run(perform(vault, unsealed.record))
    if made is not None:
        announce_admin(made)
    tell_quarantine(vault.ledger.lost)
    tell_changed_meaning(vault.ledger.snapshot())
    stands = where_it_stands(vault.anchor, vault.database.folder)
    if stands in _ANCHOR_ADVICE:
        observe.announce(f"anchor: {stands}: {_ANCHOR_ADVICE[stands]}", level="warning")
    return vault


def _give_up() -> None:
    """End where the end waits for a lock or a database that does not come. Nobody is owed what was not committed."""
    _log.error("the database or its lock did not come in time: ended without it")
    os._exit(STUCK)


def _serve_sealed(
    chosen: Settings, tls: "ssl.SSLContext | None", sockets: "Sequence[socket.socket]", app: Application
) -> None:
    """Serve an application on copies of the sockets, until it ends its server. Raises Stopped."""
    reached = address("http" if tls is None else "https", chosen.host, sockets[0].getsockname()[1])
    observe.announce(f"the vault is sealed: {reached}/seal-status says what it waits for", level="warning")
    server = Server(_config(app, chosen, tls))
    # A server that ends closes its sockets. The originals listen on, and the kernel holds connections meanwhile.
    server.run(sockets=[one.dup() for one in sockets])
    if not server.has_ended:
        raise Stopped(interrupted=server.interrupted)


def _worker(chosen: Settings, folder: str, handed: HandedKey | None, number: int) -> "uvicorn.Config":
    """What one worker serves. Ends the process if the vault cannot be opened any more."""
    observe.configure_logs(chosen.log_level)
    if not is_protected():
        _log.error("worker would import modules from its working directory", extra={"worker": number})
        sys.exit(NO_WORKER)
    METRICS.share(Path(folder), str(number))
    METRICS.gauge("keyvault_build_info", "Which version this is.", lambda: {__version__: 1.0}, label="version")
    if chosen.master_key_file is not None:
        warned_of(chosen.master_key_file)  # by the supervisor, which has read it first
    try:
        tls = check_address(chosen)
        vault = _open_in_worker(chosen, handed)
    except CANNOT_START as error:
        _log.error("the vault cannot be opened: %s", error, extra={"worker": number})
        sys.exit(NO_WORKER)
    return _config(build(chosen, vault=vault), chosen, tls)


def _open_in_worker(chosen: Settings, handed: HandedKey | None) -> Vault:
    """By the key that has opened the vault at the start; by its roots once that slot was removed."""
    if handed is None:
        return open_vault(chosen)
    try:
        return open_vault(chosen, unlock=handed.known.open)
    except WrongMasterKey:
        return open_vault(chosen, unlock=partial(open_by, roots=roots_of(chosen)))


def _config(app: Application, chosen: Settings, tls: "ssl.SSLContext | None") -> "uvicorn.Config":
    return server_config(
        app,
        host=chosen.host,
        port=chosen.port,
        tls=tls,
        max_connections=chosen.max_connections,
    )


def _listen(chosen: Settings, workers: int) -> "list[list[socket.socket]]":
    """Sockets for each worker."""
    try:
        # Not shared at first: with another server on this address requests would be spread over both, unnoticed.
        first = listen(chosen.host, chosen.port)
        if workers > 1:
            for one in first:
                one.close()
            first = listen(chosen.host, chosen.port, shared=True)
        port = first[0].getsockname()[1]  # where the settings leave it open
        return [first, *(listen(chosen.host, port, shared=True) for _ in range(1, workers))]
    except CannotListen as error:
        raise InvalidSettings(str(error)) from None


def _with_key_at_hand(chosen: Settings) -> Settings:
    """Settings that workers can open the vault with at any time.

    Each reads the file again, so that those that come after a change of master key have the new one. A descriptor can
    be read once and is not theirs: what it holds goes to them through a pipe, as KEYVAULT_MASTER_KEY does.
    """
    path = chosen.master_key_file
    if path is None or (not path.startswith(_DESCRIPTORS) and Path(path).is_file()):
        return chosen
    return chosen.model_copy(update={"master_key": SecretStr(read_text(path)), "master_key_file": None})


def _with_password_at_hand(chosen: Settings) -> Settings:
    """Settings that hold the password of PGPASSWORD, which the driver would look for in the environment each time."""
    password, url = os.environ.get("PGPASSWORD"), chosen.database_url
    if not password or not url.startswith(("postgresql:", "postgres:")):
        return chosen
    parts = urlsplit(url)
    if parts.password is not None or "password" in parse_qs(parts.query, keep_blank_values=True):
        return chosen
    joined = f"{url}{'&' if '?' in url else '?'}password={quote(password, safe='')}"
    return chosen.model_copy(update={"database_url": joined})


def _allow_files(wanted: int) -> None:
    """Raise the soft limit of open files, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

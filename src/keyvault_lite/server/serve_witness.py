"""`kvl witness`: the witness of others' logs, a process of its own on another machine."""

import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from keyvault_lite import observe
from keyvault_lite.audit.checkpoint import COSIGNATURE, verifier_key
from keyvault_lite.crypto.hygiene import protect_process
from keyvault_lite.crypto.keyfile import write_new
from keyvault_lite.crypto.witness import WitnessKey, verify_ed25519
from keyvault_lite.model.errors import Conflict, NotFound
from keyvault_lite.server.connection import serve as server_config
from keyvault_lite.server.lifecycle import Server
from keyvault_lite.server.listeners import CannotListen, address, check_address, listen
from keyvault_lite.settings import InvalidSettings, Settings
from keyvault_lite.wire.witness import WitnessApplication
from keyvault_lite.witness.register import FolderLock, Register

_OF_OTHERS: Final = 0o077
log: Final = observe.logger("witness")
DEFAULT_NAME: Final = "witness.local/1"
"""Under which a witness signs that was given no name."""


def make_witness(folder: Path, name: str) -> str:
    """Make a witness's folder and key. Returns its verifier key.

    Raises Conflict if it has a key already, InvalidRequest for a name that cannot be signed under: nothing is made.
    """
    key = WitnessKey.create(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        write_new(folder / "key", key.write())
    except FileExistsError:
        raise Conflict(f"{folder} has a key already") from None
    return witness_verifier_key(folder)


def _read_witness_key(folder: Path) -> WitnessKey:
    try:
        return WitnessKey.parse((folder / "key").read_text(encoding="ascii", errors="replace"))
    except FileNotFoundError:
        raise NotFound(f"{folder} is not the folder of a witness; run `kvl witness init`") from None


def witness_verifier_key(folder: Path) -> str:
    """By what others verify what the witness of this folder signs."""
    key = _read_witness_key(folder)
    return verifier_key(key.name, key.public_key, COSIGNATURE)


def serve_witness(chosen: Settings, folder: Path, logs: Sequence[str]) -> None:
    """Be the witness of a folder until stopped; a folder without a key is given one. Raises one of CANNOT_START."""
    tls = check_address(chosen)
    observe.configure_logs(chosen.log_level)
    sockets = _listen(chosen)
    if not (folder / "key").exists():
        observe.announce(f"new witness: KEYVAULT_WITNESS_KEY={make_witness(folder, DEFAULT_NAME)}")
    protect_process()
    key = _read_witness_key(folder)
    if (folder / "key").stat().st_mode & _OF_OTHERS:
        log.warning("the key file %s is open to other users; run: chmod 600 %s", folder / "key", folder / "key")
    with FolderLock(folder), closing(Register(folder, key, logs, verify=verify_ed25519)) as register:
        config = server_config(
            WitnessApplication(register),
            host=chosen.host,
            port=chosen.port,
            tls=tls,
        )
        reached = address("http" if tls is None else "https", chosen.host, sockets[0].getsockname()[1])
        observe.announce(f"the witness listens on {reached}")
        Server(config).run(sockets=sockets)


def _listen(chosen: Settings) -> "list[socket.socket]":
    try:
        return listen(chosen.host, chosen.port)
    except CannotListen as error:
        raise InvalidSettings(str(error)) from None

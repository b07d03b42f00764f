"""`kvl witness`: the witness of others' logs, a process of its own on another machine."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from keyvault_lite import observe
from keyvault_lite.audit.checkpoint import COSIGNATURE, verifier_key
from keyvault_lite.crypto.witness import WitnessKey, verify_ed25519
from keyvault_lite.model.errors import Conflict, NotFound
from keyvault_lite.settings import Settings, check_address
from keyvault_lite.wire.server import Server
from keyvault_lite.wire.server import serve as server_config
from keyvault_lite.wire.witness import WitnessApplication
from keyvault_lite.witness.register import FolderLock, Register


def make_witness(folder: Path, name: str) -> str:
    """Make a witness's folder and key. Returns its verifier key; raises Conflict if it has a key already."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(folder / "key", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"{folder} has a key already") from None
    key = WitnessKey.create(name)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(key.write())
        stream.flush()
        os.fsync(stream.fileno())
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
    """Be the witness of a folder until stopped. Raises InvalidSettings, Conflict or NotFound."""
    check_address(chosen)
    observe.configure_logs(chosen.log_level)
    key = _read_witness_key(folder)
    with FolderLock(folder), closing(Register(folder, key, logs, verify=verify_ed25519)) as register:
        config = server_config(
            WitnessApplication(register),
            host=chosen.host,
            port=chosen.port,
            tls_cert=None if chosen.tls_cert is None else str(chosen.tls_cert),
            tls_key=None if chosen.tls_key is None else str(chosen.tls_key),
        )
        scheme = "http" if chosen.tls_cert is None else "https"
        print(f"The witness listens on {scheme}://{chosen.host}:{chosen.port}", file=sys.stderr, flush=True)
        Server(config).run()

"""The anchor of a vault, as its settings name it: a file, perhaps with a counter in a TPM, or a shared one."""

import os
from pathlib import Path

from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor.counter import CounterState
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest
from keyvault_lite.roots.tpm2.counter import TpmCounter
from keyvault_lite.settings import InvalidSettings, Settings, is_shared
from keyvault_lite.witness.anchor import SharedAnchor
from keyvault_lite.witness.client import WitnessClient

AnyAnchor = FileAnchor | SharedAnchor


def open_anchor(chosen: Settings, database: Database, keyring: Keyring) -> AnyAnchor | None:
    """The anchor that KEYVAULT_ANCHOR names, by default a file beside the database."""
    if chosen.tpm_anchor is not None and (chosen.anchor == "off" or is_shared(chosen.anchor)):
        raise InvalidSettings("KEYVAULT_TPM_ANCHOR needs a file as anchor: KEYVAULT_ANCHOR names none.")
    if is_shared(chosen.anchor):
        return shared_anchor(chosen, keyring.instance_id, keyring.log_public_key)
    return file_anchor(chosen, database, keyring=keyring)


def shared_anchor(chosen: Settings, instance_id: bytes, public_key: bytes) -> SharedAnchor:
    """The shared anchor that KEYVAULT_ANCHOR names, of the log with that key."""
    client = witness_client(chosen, str(chosen.anchor), "KEYVAULT_ANCHOR")
    return SharedAnchor(client, instance_id=instance_id, public_key=public_key, verify=verify_ed25519)


def witness_client(chosen: Settings, url: str, setting: str) -> WitnessClient:
    """A client of the witness at the URL, which `setting` names. Raises InvalidSettings."""
    if not chosen.witness_key:
        raise InvalidSettings("KEYVAULT_WITNESS_KEY has to name the key that `kvl witness key` prints.")
    ca_file = None if chosen.witness_cacert is None else str(chosen.witness_cacert)
    try:
        return WitnessClient(url, chosen.witness_key.split(), verify=verify_ed25519, ca_file=ca_file)
    except InvalidRequest as error:
        raise InvalidSettings(f"{setting}: {error.detail}.") from None
    except OSError as error:
        raise InvalidSettings("KEYVAULT_WITNESS_CACERT is not a readable file of certificates.") from error


def file_anchor(
    chosen: Settings, database: Database, *, keyring: Keyring | None = None, to_write: bool = True
) -> FileAnchor | None:
    """The anchor's file, whether there is one or not; None if the anchor is off.

    Without the `keyring`, it has no counter: it is only to be read then. Raises InvalidSettings if it cannot be written
    where that is wanted.
    """
    if chosen.anchor == "off":
        return None
    path = database.anchor_path if chosen.anchor is None else Path(chosen.anchor)
    folder = path.absolute().parent
    if to_write and not os.access(folder, os.W_OK | os.X_OK):
        # Found out before anything is committed: what is committed and cannot be anchored is not answered.
        why = "does not exist" if not folder.exists() else "cannot be written" if folder.is_dir() else "is not a folder"
        raise InvalidSettings(f"The folder of the anchor, {folder}, {why}.")
    counter = None if keyring is None else _counter(chosen, keyring)
    return FileAnchor(path.absolute(), always_flush=chosen.anchor_sync == "always", counter=counter)


def _counter(chosen: Settings, keyring: Keyring) -> CounterState | None:
    """The counter beside the anchor, in the TPM that KEYVAULT_TPM_ANCHOR names."""
    if chosen.tpm_anchor is None:
        return None
    counter = TpmCounter(chosen.tpm_anchor, keyring.instance_id, keyring.counter_auth)
    return CounterState(
        counter, instance_id=keyring.instance_id, log_public_key=keyring.log_public_key, verify=verify_ed25519
    )


def refuse_emptied(chosen: Settings, database: Database) -> None:
    """Raise IntegrityViolation for an empty database beside an anchor that remembers a vault."""
    if is_shared(chosen.anchor):
        raise IntegrityViolation(
            "the database is empty, and a vault does not begin with a shared anchor. If there was a vault, its "
            "database was replaced or removed: restore it. A new one begins with a file as anchor (docs/witness.md)."
        )
    anchor = file_anchor(chosen, database)
    mark = None if anchor is None else anchor.peek()
    if anchor is not None and mark is not None and mark.size:
        raise IntegrityViolation(
            f"the database is empty, but the anchor {anchor.place} remembers a vault: the database was replaced or "
            "removed. Restore it; for a new vault move the anchor away."
        )

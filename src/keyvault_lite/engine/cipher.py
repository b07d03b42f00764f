"""Encrypting and opening: messages, their DEKs, and data keys."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.crypto.container import refusal
from keyvault_lite.engine.keys import require_active
from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.model.errors import InvalidRequest, InvalidState
from keyvault_lite.model.keys import MAY_PROCESS, MAY_PROTECT, Key, KeyVersion, Purpose
from keyvault_lite.model.replies import DataKey, Decrypted, Encrypted, Rewrapped
from keyvault_lite.model.requests import Decrypt, Encrypt, GenerateDataKey, OpenDataKey, Request, Rewrap


def _require_encryption(key: Key, now: int) -> None:
    if key.spec.purpose is not Purpose.ENCRYPT:
        raise InvalidRequest(f"a key of purpose {key.spec.purpose} does not encrypt or decrypt")
    key.spec.check_native()
    require_active(key, now)


def protecting(key: Key) -> KeyVersion:
    """The version that may encrypt and sign now."""
    version = key.active
    if version is None or version.status not in MAY_PROTECT:
        raise InvalidState("the key has no ACTIVE version")
    return version


def _opening(key: Key, wrapped: bytes, scene: Scene) -> KeyVersion:
    """The version that `wrapped` names, if its state lets it open anything."""
    version = key.version(scene.keyring.version_in(key.id, wrapped))
    if version is None:
        raise refusal()
    if version.status not in MAY_PROCESS:
        raise InvalidState(f"the version is {version.status}")
    return version


def encrypt(request: Encrypt, scene: Scene) -> Done:
    """A fresh DEK encrypts the message, the ACTIVE version wraps the DEK."""
    key = scene.key
    _require_encryption(key, scene.now)
    version = protecting(key)
    ciphertext, encrypted_dek = scene.once(
        "encrypt",
        (version,),
        lambda: scene.keyring.encrypt(key.spec, version, request.plaintext, request.context),
    )
    return Done(
        Encrypted(ciphertext, encrypted_dek, version.version),
        key_version=version.version,
        bytes_in=len(request.plaintext),
        bytes_out=len(ciphertext),
    )


def decrypt(request: Decrypt, scene: Scene) -> Done:
    """Open a message: parse, then the version's state, then the cryptography; every failure of it is the same."""
    key = scene.key
    _require_encryption(key, scene.now)
    version = _opening(key, request.encrypted_dek, scene)
    if request.key_version not in {None, version.version}:
        raise refusal()
    plaintext = scene.once(
        "decrypt",
        (version,),
        lambda: scene.keyring.decrypt(key.spec, version, request.ciphertext, request.encrypted_dek, request.context),
    )
    if request.as_text and not _is_text(plaintext):
        raise InvalidRequest('the plaintext is not UTF-8 text; ask for it with "encoding": "base64"')
    return Done(
        Decrypted(plaintext, version.version),
        key_version=version.version,
        bytes_in=len(request.ciphertext),
        bytes_out=len(plaintext),
    )


def _is_text(plaintext: bytes) -> bool:
    try:
        plaintext.decode()
    except UnicodeDecodeError:
        return False
    return True


def rewrap(request: Rewrap, scene: Scene) -> Done:
    """The DEK under the ACTIVE version."""
    key = scene.key
    _require_encryption(key, scene.now)
    old, new = _opening(key, request.encrypted_dek, scene), protecting(key)
    encrypted_dek = scene.once(
        "rewrap",
        (old, new),
        lambda: scene.keyring.rewrap(key.spec, old, new, request.encrypted_dek, request.context),
    )
    return Done(Rewrapped(encrypted_dek, new.version), key_version=new.version)


def generate_data_key(request: GenerateDataKey, scene: Scene) -> Done:
    """A data key for the caller's own use, wrapped by the ACTIVE version."""
    key = scene.key
    _require_encryption(key, scene.now)
    version = protecting(key)
    plaintext, wrapped = scene.once(
        "data_key", (version,), lambda: scene.keyring.data_key(key.spec, version, request.bits, request.context)
    )
    result = DataKey(plaintext if request.reveal else None, wrapped, version.version)
    return Done(result, key_version=version.version, bytes_out=request.bits // 8)


def open_data_key(request: OpenDataKey, scene: Scene) -> Done:
    """Open a data key; the DEK of a message does not open here."""
    key = scene.key
    _require_encryption(key, scene.now)
    version = _opening(key, request.encrypted_key, scene)
    plaintext = scene.once(
        "open",
        (version,),
        lambda: scene.keyring.open_data_key(key.spec, version, request.encrypted_key, request.context),
    )
    return Done(DataKey(plaintext, None, version.version), key_version=version.version, bytes_out=len(plaintext))


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    Decrypt: decrypt,
    Encrypt: encrypt,
    GenerateDataKey: generate_data_key,
    OpenDataKey: open_data_key,
    Rewrap: rewrap,
}

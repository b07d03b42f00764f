"""The AWS dialect as the engine takes it."""

from collections.abc import Iterator, Mapping
from functools import partial
from time import time_ns
from typing import Final

from keyvault_lite.access.authenticate import Scheme
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.dialects.aws import aliases, cipher, grants, import_material, keys, regions, rotation, signing, view
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.credentials import AwsCredential, SignatureScheme
from keyvault_lite.dialects.aws.model import DEFAULT_ACCOUNT
from keyvault_lite.dialects.aws.narrowing import narrow
from keyvault_lite.engine.dialect import Dialect, KeyNames
from keyvault_lite.engine.handler import Handler
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.keys import Key, VersionStatus
from keyvault_lite.model.material import is_expired, is_pending_expired
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Request

HANDLERS: Final[Mapping[type[Request], Handler]] = {
    **aliases.HANDLERS,
    **cipher.HANDLERS,
    **grants.HANDLERS,
    **import_material.HANDLERS,
    **keys.HANDLERS,
    **regions.HANDLERS,
    **rotation.HANDLERS,
    **signing.HANDLERS,
}


def _erasures(key: Key, now: int) -> Iterator[Request]:
    """What erases the imported material of a key that has expired."""
    for version in key.versions:
        if version.status is not VersionStatus.DESTROYED and is_expired(version, now):
            yield words.EraseExpiredMaterial(KeyRef(key.id), version.version)
    if is_pending_expired(key, now):
        yield words.EraseExpiredMaterial(KeyRef(key.id))


def _schemes(keyring: Keyring) -> Mapping[type[Credential], Scheme]:
    return {AwsCredential: SignatureScheme(keyring.access_keys, wall_clock)}


def wall_clock() -> int:
    """The time in microseconds."""
    return time_ns() // 1000


def aws(account: str = DEFAULT_ACCOUNT) -> Dialect:
    """The dialect, with the account id that the ARNs of this vault have."""
    return Dialect(
        name="aws",
        handlers=HANDLERS,
        key_names=KeyNames(
            requests=(words.AwsRequest, words.AwsKeyRequest),
            locate=view.locate,
            admit=view.admit,
            denied=view.entry_key,
        ),
        narrow=partial(narrow, account),
        erasures=_erasures,
        schemes=_schemes,
    )

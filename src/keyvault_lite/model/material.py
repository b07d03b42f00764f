"""Where a key's material comes from and whether it is there: imported material can expire and be deleted.

The facts are stored among those of the dialect that imports material.
"""

from collections.abc import Mapping
from typing import Any, Final

from keyvault_lite.model.keys import Key, KeyVersion, VersionStatus

_STORED: Final = "aws"
"""The attribute that holds these facts. Stored keys have it: it never changes."""
EXTERNAL: Final = "EXTERNAL"
"""The origin of a key whose material is imported."""


def _of_key(key: Key) -> Mapping[str, Any]:
    found: Mapping[str, Any] = key.attributes.get(_STORED, {})
    return found


def _of_version(version: KeyVersion) -> Mapping[str, Any]:
    found: Mapping[str, Any] = version.attributes.get(_STORED, {})
    return found


def is_external(key: Key) -> bool:
    """Whether its material is imported, and never generated here."""
    return _of_key(key).get("origin") == EXTERNAL


def is_waiting(key: Key) -> bool:
    """Whether the key is to go once its replicas are gone: it is used there, and nowhere else."""
    return _of_key(key).get("waits_days") is not None


def is_expired(version: KeyVersion, now: int) -> bool:
    """Whether imported material is past its time."""
    valid_to = _of_version(version).get("valid_to")
    return valid_to is not None and valid_to <= now


def is_present(version: KeyVersion, now: int) -> bool:
    """Whether a version's material is there."""
    return version.status is not VersionStatus.DESTROYED and not is_expired(version, now)


def is_pending_expired(key: Key, now: int) -> bool:
    """Whether imported material that waits for its rotation is past its time."""
    waiting = _of_key(key).get("pending")
    valid_to = None if waiting is None else waiting["facts"].get("valid_to")
    return valid_to is not None and valid_to <= now


def was_revoked(version: KeyVersion) -> bool:
    """Whether a version was revoked, also if its material went afterwards."""
    return version.status is VersionStatus.REVOKED or bool(_of_version(version).get("revoked"))


def awaits_material(key: Key, now: int) -> bool:
    """Whether the key cannot be used because imported material has expired, was deleted or has not come yet."""
    return _of_key(key).get("origin") == EXTERNAL and not all(
        is_present(one, now) or was_revoked(one) for one in key.versions
    )

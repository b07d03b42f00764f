"""What the keys of the Vault dialect allow: which of them are there, and which of their versions may do what.

Two differences from all other keys (ADR 0005): a version that is not the newest may protect if the caller names it and
the key's minimum lets it, and the same key may encrypt, sign and MAC.
"""

from typing import Final

from keyvault_lite.dialects.vault.requests import DeletionKind, Rules
from keyvault_lite.engine.handler import HandlerContext
from keyvault_lite.model.errors import Hidden, InvalidRequest, InvalidState, NotFound
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keys import MAY_PROCESS, Key, KeyStatus, KeyVersion, Purpose

NO_CONTEXT: Final = (
    "missing 'context' for key derivation; the key was created using a derived key, which means additional, "
    "per-request information must be included in order to perform operations with the key"
)
_SOFT: Final = frozenset({KeyStatus.DISABLED, KeyStatus.PENDING_DESTRUCTION})


def is_absent(key: Key) -> bool:
    """Whether the key answers as if it were not there: deleted, and perhaps not yet beyond restoring."""
    if key.status is KeyStatus.DESTROYED:
        return True
    return key.status is KeyStatus.PENDING_DESTRUCTION and Rules.of(key).deleted is DeletionKind.HARD


def is_soft_deleted(key: Key) -> bool:
    """Whether the key is there and refuses all use until it is restored."""
    return key.status in _SOFT


def present(ctx: HandlerContext) -> tuple[Key, Rules]:
    """The key the request names and its rules. Raises NotFound for a deleted one, as for one that never was."""
    key = ctx.key
    if key.spec.purpose is not Purpose.TRANSIT:
        raise InvalidRequest("the key is not one of this dialect")
    if is_absent(key):
        raise (Hidden if ctx.principal.role is Role.SERVICE else NotFound)("no such key")
    return key, Rules.of(key)


def usable(ctx: HandlerContext) -> tuple[Key, Rules]:
    """As `present`, for a key that may be used. Raises InvalidState."""
    key, rules = present(ctx)
    if key.status is not KeyStatus.ACTIVE:
        raise InvalidState("refusing to use soft-deleted key" if is_soft_deleted(key) else f"the key is {key.status}")
    return key, rules


def protecting(key: Key, rules: Rules, number: int, *, what: str) -> KeyVersion:
    """The version that shall encrypt, sign or MAC: the newest for 0, else the one named if the minimum lets it."""
    if number == 0:
        number = len(key.versions)
    if number < 0:
        raise InvalidRequest(f"requested version for {what} is negative")
    version = key.version(number)
    if version is None:
        raise InvalidRequest(f"requested version for {what} is higher than the latest key version")
    if number < max(rules.min_encryption, rules.min_decryption):
        raise InvalidRequest(f"requested version for {what} is less than the minimum encryption key version")
    return sound(version)


def processing(key: Key, rules: Rules, number: int, *, what: str) -> KeyVersion:
    """The version that made what shall be opened or verified; 0 is how old installations wrote 1."""
    version = key.version(max(number, 1))
    if version is None:
        raise InvalidRequest(f"invalid {what}: version is too new")
    if version.version < rules.min_decryption:
        raise InvalidRequest("ciphertext or signature version is disallowed by policy (too old)")
    return sound(version)


def sound(version: KeyVersion) -> KeyVersion:
    """The version, if it may be used at all. Raises InvalidState."""
    # A version that the caller names may protect though it is DEPRECATED; REVOKED and DESTROYED do nothing here either.
    if version.status not in MAY_PROCESS:
        raise InvalidState(f"the version is {version.status}")
    return version


def derivation(rules: Rules, context: bytes | None) -> bytes | None:
    """The context to derive with: none for a key that is not derived, whatever was sent."""
    if not rules.derived:
        return None
    if not context:
        raise InvalidRequest(NO_CONTEXT)
    return context

"""What each action needs: the one table of roles and permissions. What is not allowed here is denied."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Permission, Role

NOBODY: Final[frozenset[Role]] = frozenset()
ANYONE: Final = frozenset(Role)
ADMIN: Final = frozenset({Role.ADMIN})
USERS: Final = frozenset({Role.ADMIN, Role.SERVICE})
READERS: Final = frozenset({Role.ADMIN, Role.AUDITOR})


@dataclass(frozen=True, slots=True)
class Rule:
    """What one action needs."""

    roles: frozenset[Role]
    """Which roles may attempt it at all; none: only the vault itself does."""
    permissions: frozenset[Permission] | None = None
    """What a SERVICE needs on the key that it names: all of these; if empty, any grant on the key.
    None: no grant lets a SERVICE do it."""
    uses_key: bool = False
    """Whether it counts as use of the vault's cryptography. Uses stop first when the store runs out of space."""


RULES: Final[Mapping[Action, Rule]] = {
    Action.AUTHENTICATE: Rule(NOBODY),
    Action.INITIALISE: Rule(NOBODY),
    Action.GENERATE: Rule(ADMIN),
    Action.KEY_READ: Rule(ANYONE, frozenset()),
    Action.KEY_UPDATE: Rule(ADMIN),
    Action.ROTATE: Rule(ADMIN),
    Action.REVOKE: Rule(ADMIN),
    Action.DISABLE: Rule(ADMIN),
    Action.ENABLE: Rule(ADMIN),
    Action.DESTROY: Rule(ADMIN),
    Action.RESTORE: Rule(ADMIN),
    Action.ENCRYPT: Rule(USERS, frozenset({Permission.ENCRYPT}), uses_key=True),
    Action.DECRYPT: Rule(USERS, frozenset({Permission.DECRYPT}), uses_key=True),
    Action.REWRAP: Rule(USERS, frozenset({Permission.DECRYPT, Permission.ENCRYPT}), uses_key=True),
    Action.DATA_KEY: Rule(USERS, frozenset({Permission.ENCRYPT}), uses_key=True),
    Action.DATA_KEY_OPEN: Rule(USERS, frozenset({Permission.DECRYPT}), uses_key=True),
    Action.SIGN: Rule(USERS, frozenset({Permission.SIGN}), uses_key=True),
    Action.VERIFY: Rule(USERS, frozenset({Permission.VERIFY}), uses_key=True),
    Action.RANDOM: Rule(USERS, uses_key=True),
    Action.SELF_READ: Rule(ANYONE),
    Action.SERVICE_CREATE: Rule(ADMIN),
    Action.SERVICE_READ: Rule(READERS),
    Action.SERVICE_UPDATE: Rule(ADMIN),
    Action.TOKEN_RENEW: Rule(ANYONE),  # of others than ADMIN only their own: `may_renew`
    Action.AUDIT_READ: Rule(READERS),
    Action.AUDIT_VERIFY: Rule(READERS),
    Action.METRICS_READ: Rule(READERS),
    Action.RECEIPT_READ: Rule(ANYONE),  # of others than ADMIN and AUDITOR only for their own entries: `may_read_entry`
    Action.LOG_KEY_READ: Rule(ANYONE),
    Action.DERIVE: Rule(USERS, frozenset({Permission.DECRYPT}), uses_key=True),
    Action.ENCAPSULATE: Rule(USERS, frozenset({Permission.ENCRYPT}), uses_key=True),
    Action.DECAPSULATE: Rule(USERS, frozenset({Permission.DECRYPT}), uses_key=True),
    Action.IMPORT: Rule(ADMIN),
    Action.GRANT_RETIRE: Rule(USERS),  # of others than ADMIN only grants that let them: the dialect's `may_retire`
    Action.ACCESS_KEY_CREATE: Rule(ADMIN),
    Action.ACCESS_KEY_REVOKE: Rule(ADMIN),
    Action.INTEGRITY: Rule(NOBODY),
    Action.REPAIR: Rule(NOBODY),
    Action.MASTER_KEY_ROTATE: Rule(NOBODY),
    Action.AUDIT_ARCHIVE: Rule(NOBODY),
    Action.ANCHOR_TRUST: Rule(NOBODY),
    Action.MIGRATE: Rule(NOBODY),
    Action.HASH: Rule(USERS, uses_key=True),
    Action.LOGIN: Rule(ANYONE),  # callers that authenticated with the credentials of a login
    Action.SETTING_READ: Rule(ANYONE),
    Action.SETTING_UPDATE: Rule(ADMIN),
    Action.TOKEN_CREATE: Rule(ANYONE),  # children of the caller's own token
    Action.TOKEN_EXTEND: Rule(ANYONE),  # as TOKEN_CREATE
    Action.TOKEN_READ: Rule(ANYONE),  # of others than ADMIN only what is their own
    Action.TOKEN_REMOVE: Rule(NOBODY),
    Action.TOKEN_REVOKE: Rule(ANYONE),  # as TOKEN_READ
    Action.SEAL: Rule(ADMIN),
    Action.UNSEAL: Rule(NOBODY),
    Action.ROOT_CHECK: Rule(NOBODY),
}

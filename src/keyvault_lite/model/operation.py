"""What every operation declares beside its action: whose authority it needs, and what it costs."""

from enum import Enum, auto


class Authority(Enum):
    """The kind of caller that an operation is for; permissions of the role and of the key are checked besides."""

    CALLER = auto()
    """An authenticated caller."""
    LOGIN = auto()
    """Credentials of a login, which are good for that login and nothing else."""
    VAULT = auto()
    """The vault itself: its background work and the operator's commands. No front end can ask for it."""


class Cost(Enum):
    """What an operation costs at most, and so where it runs: the event loop serves everybody."""

    QUICK = auto()
    """Microseconds."""
    PRIMITIVE = auto()
    """What the key's primitive costs: microseconds for AES, milliseconds for RSA."""
    KEY_GENERATION = auto()
    """What generating a key of that type costs: more than a second for RSA-4096."""
    KEY_LIST = auto()
    """Quick, but for a SERVICE: each key is compared with each of its grants."""
    LOG_READ = auto()
    """Pages and proofs of the log."""
    LOG_CHECK = auto()
    """A check of the whole log."""
    SHORT = auto()
    """Some milliseconds: changes, and reads of many records. Nothing slow runs in front of them."""

"""What a slot holds: the random secrets of one installation, and how they are written down.

    01 | instance id[16] | root[32] | log seed[32] | uint32 count | count times (uint32 generation | wrapping key[32])

The bytes are always inside a `slot` container, so they are authentic when they are read; the strict parse is for bytes
of a later release.
"""

from collections.abc import Mapping
from struct import Struct
from typing import Final, Self

from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.errors import IntegrityViolation

_FORMAT: Final = 1
_FIXED: Final = Struct(">B16s32s32sI")
_WRAP: Final = Struct(">I32s")


class KeyringSecrets(Secret):
    """The keyring's secrets.

    `root` feeds the derived keys, `log_seed` is the Ed25519 key of the audit log, `wrap` has the wrapping keys by
    generation.
    """

    __slots__ = ("instance_id", "log_seed", "root", "wrap")

    def __init__(self, *, instance_id: bytes, root: bytes, log_seed: bytes, wrap: Mapping[int, bytes]) -> None:
        self.instance_id: Final = instance_id
        self.root: Final = root
        self.log_seed: Final = log_seed
        self.wrap: Final = dict(wrap)

    @classmethod
    def create(cls, rng: Rng) -> Self:
        """Fresh secrets of a new installation."""
        return cls(instance_id=rng(16), root=rng(32), log_seed=rng(32), wrap={1: rng(32)})

    def write(self) -> bytes:
        """The bytes to seal."""
        fixed = _FIXED.pack(_FORMAT, self.instance_id, self.root, self.log_seed, len(self.wrap))
        return fixed + b"".join(_WRAP.pack(*item) for item in sorted(self.wrap.items()))

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """The bundle from opened bytes. Raises IntegrityViolation for a format this release does not know."""
        if len(raw) < _FIXED.size + _WRAP.size or raw[0] != _FORMAT:
            raise IntegrityViolation("the keyring has a form that this release does not know")
        _, instance_id, root, log_seed, count = _FIXED.unpack_from(raw)
        rest = raw[_FIXED.size :]
        if len(rest) != count * _WRAP.size:
            raise IntegrityViolation("the keyring has a form that this release does not know")
        return cls(instance_id=instance_id, root=root, log_seed=log_seed, wrap=dict(_WRAP.iter_unpack(rest)))

"""A counter in the non-volatile memory of a TPM 2.0, which nobody can set back: see `ledger.anchor.counter`.

TPM Library, part 1, 37.2.4 (counters) and part 2, 13.4 (attributes of an index). The index is not orderly: an orderly
counter skips values after a power loss. Its authorisation value is derived from the keyring, so only an open vault
reads or increments it, and a response proves that the chip knows it too. The owner's
authority, which is empty on most machines, can delete it; a new one begins above every value that a counter of the chip
ever had.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from struct import pack
from typing import Final

from keyvault_lite.crypto.root import RootError
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.crypto.tpm_session import Session
from keyvault_lite.model.errors import IntegrityViolation, OutcomeUnknown
from keyvault_lite.roots.tpm2.commands import HMAC_SESSION, Chip, TpmError, chip_with_primary, session_of
from keyvault_lite.roots.tpm2.transport import Transport

_FIRST: Final = 0x01800000
_HANDLES: Final = 1 << 22
"""The range of indices that the owner of a machine may use: TCG's registry of reserved handles, 2.2."""
_ATTRIBUTES: Final = 0x02040014
"""A counter; AUTHWRITE, AUTHREAD, NO_DA; not ORDERLY."""
_WRITTEN: Final = 0x20000000
_SHA256: Final = 0x000B
_SIZE: Final = 8
_GONE: Final = "the TPM counter is gone"
_UNUSABLE: Final = "the TPM counter cannot be used"
_BAD_AUTH: Final = frozenset({0x8E, 0xA2})
"""AUTH_FAIL and BAD_AUTH."""


def handle_of(instance_id: bytes) -> int:
    """The index of an installation's counter."""
    return _FIRST | int.from_bytes(hashlib.sha256(instance_id).digest()[:4]) % _HANDLES


class TpmCounter(Secret):
    """The counter of one installation in one chip. Each call opens the device for itself."""

    __slots__ = ("_auth", "_device", "_handle")

    def __init__(self, device: str, instance_id: bytes, auth: bytes) -> None:
        self._device: Final = device
        self._handle: Final = handle_of(instance_id)
        self._auth: Final = auth

    @property
    def place(self) -> str:
        """The device, and the index on it."""
        return f"{self._device} 0x{self._handle:08x}"

    def read(self) -> int | None:
        """See MonotonicCounter."""
        with self._counter() as (chip, session, public):
            if public is None:
                return None
            return int.from_bytes(chip.nv_read(session, self._handle, public, self._auth))

    def increment(self) -> None:
        """See MonotonicCounter."""
        with self._counter() as (chip, session, public):
            if public is None:
                raise IntegrityViolation(f"the TPM counter {self.place} is gone", shown=_GONE)
            chip.nv_increment(session, self._handle, public, self._auth)

    def create(self) -> None:
        """See MonotonicCounter. The value is defined only once it was incremented."""
        try:
            with (
                chip_with_primary(self._device) as (chip, primary),
                session_of(chip, primary, HMAC_SESSION) as session,
            ):
                chip.nv_define(session, _public(self._handle, _ATTRIBUTES), self._auth)
        except RootError as error:
            raise OutcomeUnknown(
                f"the TPM counter {self.place} cannot be made: {error.detail}", shown=_UNUSABLE
            ) from None
        self.increment()

    @contextmanager
    def _counter(self) -> Iterator[tuple[Chip, Session, bytes | None]]:
        try:
            with Transport(self._device) as transport:
                chip = Chip(transport)
                public = chip.nv_public(self._handle)
                if public is not None and public not in {
                    _public(self._handle, _ATTRIBUTES | _WRITTEN),
                    _public(self._handle, _ATTRIBUTES),
                }:
                    raise IntegrityViolation(self._foreign, shown=_GONE)
                session = chip.start_unsalted_session()
                try:
                    yield chip, session, public
                finally:
                    with suppress(RootError):
                        chip.flush(session.handle)
        except RootError as error:
            if isinstance(error, TpmError) and error.code in _BAD_AUTH:
                raise IntegrityViolation(self._foreign, shown=_GONE) from None
            raise self._unusable(error) from None

    def _unusable(self, error: RootError) -> OutcomeUnknown:
        return OutcomeUnknown(f"the TPM counter {self.place} cannot be used: {error.detail}", shown=_UNUSABLE)

    @property
    def _foreign(self) -> str:
        return (
            f"the TPM index {self.place} is not this vault's counter: somebody has replaced it. If this is the newest "
            f"database, remove the index (`tpm2_nvundefine 0x{self._handle:08x}`) and run `kvl anchor trust`"
        )


def _public(handle: int, attributes: int) -> bytes:
    return pack(">IHIHH", handle, _SHA256, attributes, 0, _SIZE)

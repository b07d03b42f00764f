"""Roots that are people: a passphrase, and shares of which a number opens the vault.

A server asks nobody: it waits sealed for what is sent to it. A command asks on its terminal.
"""

import getpass
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from keyvault_lite.crypto import passphrase
from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.root import SIZE, InvalidMasterKey, RootError, SlotKey, read_text
from keyvault_lite.crypto.shares import new_shares, share_check
from keyvault_lite.crypto.slot_parameters import SlotPlace, parameters
from keyvault_lite.roots.root import Enrolled, NeedsPeople, Root, Wanted

Ask = Callable[[str], str]
"""Prompts on the terminal, without echo. Raises NeedsPeople where there is none."""
MOST_SHARES: Final = 32
"""Of a set: more holders than that are no ceremony."""


def ask_on_terminal(prompt: str) -> str:
    """What somebody types, never shown."""
    if not sys.stdin.isatty():
        raise NeedsPeople("This root asks people, and there is no terminal to ask on.")
    return getpass.getpass(prompt)


class PassphraseRoot(Root):
    """`passphrase:` — typed at `kvl unseal`; `passphrase:file=PATH` — read from a file."""

    kind: ClassVar = passphrase.KIND

    def __init__(self, *, file: Path | None = None, ask: Ask | None = None, text: str | None = None) -> None:
        """Without any of these nobody is asked: `unlock` raises NeedsPeople."""
        self._file, self._ask, self._text = file, ask, text
        self.automatic = file is not None

    @property
    def name(self) -> str:
        """See Root."""
        return "passphrase:" if self._file is None else f"passphrase:file={self._file}"

    def unlock(self, wanted: Sequence[Wanted]) -> list[SlotKey | RootError]:
        """See Root. Nobody is asked where no slot has a passphrase."""
        if wanted and self._text is None and self._file is None and self._ask is not None:
            self._text = self._ask("Passphrase: ")
        return super().unlock(wanted)

    def _typed(self) -> str:
        if self._text is not None:
            return self._text
        if self._file is None:
            raise NeedsPeople("The passphrase is awaited: run `kvl unseal`.")
        try:
            return read_text(str(self._file))
        except InvalidMasterKey as error:
            raise RootError(error.detail.replace("master key file", "passphrase file")) from None

    def unlock_one(self, wanted: Wanted) -> SlotKey:
        """See Root."""
        return passphrase.derive(self._typed(), wanted.parameters, wanted.place)

    def enroll(self, place: SlotPlace, rng: Rng) -> Enrolled:
        """See Root. Raises UnfitPassphrase."""
        if self._text is None and self._file is None and self._ask is not None:
            typed = passphrase.check_new(self._ask("New passphrase: "))
            if passphrase.normal_form(self._ask("Again: ")) != typed:
                raise RootError("These are two passphrases.")
            self._text = typed
        made = passphrase.new_parameters(rng)
        return Enrolled(made, passphrase.derive(passphrase.check_new(self._typed()), made, place))


class ShamirRoot(Root):
    """`shamir:` — shares in the hands of people; see `roots.opening`, which collects them."""

    kind: ClassVar = "shamir"
    automatic = False

    def __init__(self, *, threshold: int = 0, shares: int = 0) -> None:
        """`threshold` and `shares` are for a new slot."""
        self._threshold, self._shares = threshold, shares

    @property
    def name(self) -> str:
        """See Root."""
        return "shamir:"

    def unlock_one(self, wanted: Wanted) -> SlotKey:
        """See Root."""
        raise NeedsPeople("Shares are awaited: run `kvl unseal`.")

    def enroll(self, place: SlotPlace, rng: Rng) -> Enrolled:
        """See Root."""
        if not 1 < self._threshold <= self._shares <= MOST_SHARES:
            raise RootError(
                f"Shares need --shares N and --threshold K, with 2 ≤ K ≤ N ≤ {MOST_SHARES}: any K of N open the vault."
            )
        secret = rng(SIZE)
        made = new_shares(secret, shares=self._shares, threshold=self._threshold, rng=rng)
        checks: list[object] = [_check(place, one.set_id, one.x, one.y) for one in made]
        found = parameters(self.kind, set=made[0].set_id, t=self._threshold, n=self._shares, checks=checks)
        return Enrolled(found, SlotKey(secret), tuple(made))


def _check(place: SlotPlace, set_id: bytes, x: int, y: bytes) -> str:
    return share_check(place, set_id, x, y).hex()

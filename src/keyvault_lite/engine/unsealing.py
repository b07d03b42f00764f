"""How a sealed server comes to be open: its devices are asked again and again, and people hand in what they hold.

Nobody who does this is authenticated: what they hand in is the credential. So a body is small, wrong attempts are
counted and limited, one passphrase is tried at a time, and the answer says no more than whether a share is a share.
A share that is right is always taken: others who send wrong ones keep nobody from opening the vault.
"""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from keyvault_lite.crypto.root import SIZE, RootError
from keyvault_lite.crypto.shares import NotAShare, Share
from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.errors import Conflict, IntegrityViolation, InvalidRequest, LimitExceeded
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.unseal import SealStatus, Unseal
from keyvault_lite.observe import logger
from keyvault_lite.roots.keyfile import FileRoot
from keyvault_lite.roots.opening import Attempt, Opened, Question, kinds_of
from keyvault_lite.roots.people import PassphraseRoot, ShamirRoot
from keyvault_lite.roots.root import NeedsPeople, Root, RootUnavailable

SHARE_SECONDS: Final = 15 * 60.0
"""How long shares are kept in memory, from the first of an attempt."""
WRONG_A_MINUTE: Final = 10
"""Wrong attempts from this machine, and as many from all others."""
RETRY_SECONDS: Final = (1.0, 60.0)
"""The first pause before a root that was unavailable is asked again, and the longest."""
_MOST_SOURCES: Final = 8
_MOST_COUNTED: Final = 256
_VAULT_SHARE: Final = SIZE + 1
_WRONG_SHARE: Final = "this is not a share of the vault, or it is mistyped or was replaced"
_NOT_ITS_SLOT: Final = "the shares are whole, and what they open is not the slot of this vault"
_WRONG_PASSPHRASE: Final = "the passphrase does not open the vault"  # noqa: S105  (a sentence)
_log: Final = logger("unseal")


class _Budget:
    """How many wrong attempts there may be yet: refilled evenly, never beyond a minute's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = float(WRONG_A_MINUTE)
        self._at = clock()

    def take(self) -> bool:
        """Take one, if there is one."""
        now = self._clock()
        self._left = min(WRONG_A_MINUTE, self._left + (now - self._at) * WRONG_A_MINUTE / 60)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """What was taken was no wrong attempt."""
        self._left = min(WRONG_A_MINUTE, self._left + 1)


class Unsealing:
    """One sealed vault. Belongs to one event loop; what blocks runs in threads."""

    def __init__(
        self,
        read_slots: Callable[[], Sequence[Slot]],
        roots: Sequence[Root],
        *,
        ask_roots: bool = True,
        reason: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read_slots` reads the database. Without `ask_roots` people alone open it.

        `reason` is shown to anyone, until there is a newer one.
        """
        self._read_slots = read_slots
        self._roots = roots
        self._kinds = kinds_of(roots)
        self._kind = roots[0].kind if roots else FileRoot.kind
        self._clock = clock
        self._local, self._remote = _Budget(clock), _Budget(clock)
        self._wrong: Counter[str] = Counter()
        self._passphrase = asyncio.Lock()
        self._waiting = [root for root in roots if root.automatic and ask_roots]
        self.failed: list[tuple[Root, RootError]] = []
        """What the devices and services said that have refused."""
        self._attempt = Attempt(read_slots(), self._kinds)
        self._nonce = ""
        self._began = 0.0
        self._reason = reason
        self.opened: Opened | None = None
        self.ready = asyncio.Event()
        """Set once it is open."""

    @property
    def may_open(self) -> bool:
        """Whether there is still a way: people who have not come, or a root that has not refused."""
        return bool(self._waiting) or self._takes_shares or self._takes_passphrase

    @property
    def _takes_shares(self) -> bool:
        return self._attempt.takes_shares and any(isinstance(root, ShamirRoot) for root in self._roots)

    @property
    def _takes_passphrase(self) -> bool:
        asks = any(isinstance(root, PassphraseRoot) and not root.automatic for root in self._roots)
        return asks and self._attempt.waits_for(PassphraseRoot.kind)

    def status(self) -> SealStatus:
        """What is missing."""
        self._drop_old()
        held, threshold, shares = self._attempt.progress() if self._takes_shares else (0, 1, 1)
        kind = "shamir" if self._takes_shares else "passphrase" if self._takes_passphrase else self._kind
        return SealStatus(
            sealed=self.opened is None,
            root=kind,
            threshold=threshold,
            shares=shares,
            progress=0 if self.opened is not None else held,
            nonce=self._nonce,
            passphrase=self._takes_passphrase,
            reason=self._reason,
        )

    def history(self) -> str:
        """What failed before it opened, for the entry that says so."""
        if not self._wrong:
            return ""
        told = ", ".join(f"{count} from {source}" for source, count in self._wrong.most_common(_MOST_SOURCES))
        return f"; wrong attempts before: {told}"

    async def hand_in(self, given: Unseal, source: str | None) -> SealStatus:
        """Take a contribution. Raises InvalidRequest if it is wrong, LimitExceeded after too many wrong ones.

        Raises Conflict if it is for another attempt than the one under way.
        """
        self._drop_old()
        if given.nonce and given.nonce != self._nonce and not given.reset:
            raise Conflict("that attempt is over: ask for the seal status, and begin again")
        if given.reset:
            self._reset()
        if self.opened is None and given.share is not None:
            self._hand_in_share(given.share, source)
        elif self.opened is None and given.passphrase is not None:
            await self._hand_in_passphrase(given.passphrase, source)
        return self.status()

    def _hand_in_share(self, text: str, source: str | None) -> None:
        if not self._takes_shares:
            raise InvalidRequest("this vault does not wait for shares")
        try:
            opened = self._add(text)
        except NotAShare:
            self._count_wrong(source)
            raise InvalidRequest(_WRONG_SHARE) from None
        except RootError as error:
            raise IntegrityViolation(error.detail, shown=_NOT_ITS_SLOT) from None
        if not self._nonce:
            self._nonce, self._began = secrets.token_hex(16), self._clock()
        self._take(opened)

    def _add(self, text: str) -> Opened | None:
        raw = _vault_share(text)
        if raw is not None:
            return self._attempt.add_vault_share(raw[:SIZE], raw[SIZE])
        return self._attempt.add_share(Share.read(text))

    async def _hand_in_passphrase(self, text: str, source: str | None) -> None:
        if not self._takes_passphrase:
            raise InvalidRequest("this vault does not wait for a passphrase")
        budget = self._budget(source)
        if self._passphrase.locked() or not budget.take():
            raise LimitExceeded("too many attempts: wait a minute")
        async with self._passphrase:
            try:
                opened = await self._ask(PassphraseRoot(text=text))
            except RootError:
                opened, right = None, False
            else:
                right = opened is not None or not self._attempt.waits_for(PassphraseRoot.kind)
        if not right:
            self._note_wrong(source)
            raise InvalidRequest(_WRONG_PASSPHRASE)
        budget.give_back()
        self._take(opened)

    def _count_wrong(self, source: str | None) -> None:
        self._note_wrong(source)
        if not self._budget(source).take():
            raise LimitExceeded("too many attempts: wait a minute")

    def _note_wrong(self, source: str | None) -> None:
        """Count it by where it came from, of which there may be any number."""
        name = source or "here"
        self._wrong[name if name in self._wrong or len(self._wrong) < _MOST_COUNTED else "others"] += 1

    def _budget(self, source: str | None) -> _Budget:
        here = source is None or source in {"127.0.0.1", "::1"} or source.startswith("/")
        return self._local if here else self._remote

    async def ask_once(self) -> None:
        """Ask each device and service that has not refused yet: another wrong PIN could lock a token."""
        self._waiting = [root for root in self._waiting if await self._ask_again(root)]

    async def keep_asking(self) -> None:
        """Ask them, with pauses that grow, until one opens the vault or all have refused."""
        pause = RETRY_SECONDS[0]
        while self._waiting and self.opened is None:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads load, hides nothing)
            pause = min(2 * pause, RETRY_SECONDS[1])
            await self.ask_once()

    async def _ask_again(self, root: Root) -> bool:
        """Whether it should be asked once more."""
        if self.opened is not None:
            return False
        try:
            self._take(await self._ask(root))
        except RootUnavailable as error:
            self._tell(root, "cannot be reached", error)
            return True
        except RootError as error:
            self._tell(root, "refuses", error)
            self.failed.append((root, error))
        return False

    async def _ask(self, root: Root) -> Opened | None:
        attempt = self._attempt
        question: Question = attempt.question(root.kind)
        if not question.wanted:
            return None
        results = await asyncio.get_running_loop().run_in_executor(None, root.unlock, question.wanted)
        return attempt.take(root.kind, question, results)

    def _tell(self, root: Root, what: str, error: RootError) -> None:
        if not isinstance(error, NeedsPeople):
            self._reason = f"the root {root.kind} {what}"
            _log.warning("the root %s %s: %s", root.kind, what, error.detail)

    def _take(self, opened: Opened | None) -> None:
        if opened is not None and self.opened is None:
            self.opened = opened
            self.ready.set()

    def _drop_old(self) -> None:
        if self._nonce and self.opened is None and self._clock() - self._began > SHARE_SECONDS:
            self._reset()

    def _reset(self) -> None:
        self._attempt = Attempt(self._read_slots(), self._kinds)
        self._nonce = ""


def _vault_share(text: str) -> bytes | None:
    """A share in the form of Vault, y and then x, in hexadecimal or base64; None for any other text."""
    compact = text.strip()
    try:
        raw = bytes.fromhex(compact)
    except ValueError:
        try:
            raw = decode_base64(compact)
        except InvalidRequest:
            return None
    return raw if len(raw) == _VAULT_SHARE else None

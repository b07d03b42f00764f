"""The root of trust: the master key, where it comes from, and which values are refused.

The master key opens the keyring and does nothing else. Nothing here repeats a value it was given.
"""

import os
import stat
from pathlib import Path
from typing import Final, Self

from keyvault_lite.crypto.container import ContainerLayout, KeySealer, Rng
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.observe import logger

SIZE: Final = 32
DOCUMENTATION_SAMPLE: Final = encode_base64(bytes(range(SIZE)))
"""The one value that documentation may print as a master key. It is public, hence refused."""
_MAX_FILE: Final = 1024
_DESCRIPTORS: Final = ("/dev/fd/", "/dev/stdin", "/proc/")
_log: Final = logger("master-key")
_warned: Final[set[str]] = set()
"""Master key files that the operator was warned of: once is enough, however often they are read."""
_BOTH: Final = "KEYVAULT_MASTER_KEY and KEYVAULT_MASTER_KEY_FILE"


class RootError(Exception):
    """No root of trust has opened the keyring; `detail` is one sentence for the operator."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidMasterKey(RootError):
    """The master key is missing, unreadable or not fit to be one."""


class WrongMasterKey(InvalidMasterKey):
    """A well-formed master key that opens no slot of this keyring."""


class SlotKey(Secret):
    """32 uniform bytes that open one slot of the keyring."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != SIZE:
            raise ValueError(f"a slot key has {SIZE} bytes")
        self._key: Final = key

    def box(self, frame: ContainerLayout) -> KeySealer:
        """This key at one place; the bytes stay inside."""
        return KeySealer(frame, self._key)

    def reveal(self) -> bytes:
        """The bytes, for the root that wraps or splits them and for a process that opens the same slot."""
        return self._key


class MasterKey(SlotKey):
    """The key in a master key file: it opens every slot whose `kdf` is `none`. Made by `parse` or `generate` only."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Standard base64 of exactly 32 bytes. Raises InvalidMasterKey, which never repeats the text.

        Refused besides: one byte repeated, printable text (a passphrase has not the entropy of a key), and the sample
        from the documentation.
        """
        try:
            key = decode_base64(text)
        except InvalidRequest:
            raise InvalidMasterKey("The master key is not standard base64 with padding.") from None
        if len(key) != SIZE:
            raise InvalidMasterKey(f"The master key has {len(key)} bytes after base64 decoding; it must have {SIZE}.")
        if weakness := _weakness(key):
            raise InvalidMasterKey(f"The master key is {weakness}; make one with `kvl master-key generate`.")
        return cls(key)

    @classmethod
    def generate(cls, rng: Rng = os.urandom) -> tuple[Self, str]:
        """A fresh master key, and the base64 text of it for the operator to keep."""
        text = encode_base64(rng(SIZE))
        return cls.parse(text), text


def _weakness(key: bytes) -> str | None:
    if len(set(key)) == 1:
        return "one byte repeated"
    if encode_base64(key) == DOCUMENTATION_SAMPLE:
        return "the sample from the documentation"
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    # 32 uniform bytes are printable UTF-8 with a probability below 10^-12: no real key is turned away.
    return "printable text and not random bytes" if all(c.isprintable() or c.isspace() for c in text) else None


def read_master_key(*, text: str | None, path: str | None) -> MasterKey:
    """The master key from exactly one of its two settings. Raises InvalidMasterKey with one sentence.

    `text` is KEYVAULT_MASTER_KEY; `path` is KEYVAULT_MASTER_KEY_FILE, a file or descriptor path (/dev/fd/N) that holds
    the base64 and at most one line end. Empty counts as not set.
    """
    if text and path:
        raise InvalidMasterKey(f"Both {_BOTH} are set; set one of them, preferably the file.")
    if path:
        return MasterKey.parse(read_text(path))
    if text:
        return MasterKey.parse(text)
    raise InvalidMasterKey(
        f"No master key: neither of {_BOTH} is set; make one with `kvl master-key generate --out FILE`."
    )


def read_text(path: str) -> str:
    """What a master key file holds, not yet checked. Raises InvalidMasterKey if it cannot be read."""
    try:
        if stat.S_ISFIFO(Path(path).stat().st_mode) and not path.startswith(_DESCRIPTORS):
            # Opening it waits until another process writes, and each worker would need what another one has read.
            raise InvalidMasterKey(f"The master key file {path} is a named pipe; hand over a descriptor (/dev/fd/3).")
        with Path(path).open("rb") as file:
            _check_mode(path, file.fileno())
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise InvalidMasterKey(f"The master key file {path} cannot be read: {os.strerror(error.errno or 0)}.") from None
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidMasterKey(f"The master key file {path} does not hold base64.") from None
    return text.removesuffix("\n").removesuffix("\r")


def warned_of(path: str) -> None:
    """Warn of that file no more: here, or for a process whose parent has done it."""
    _warned.add(path)


def _check_mode(path: str, descriptor: int) -> None:
    """Warn of a file that other users of the machine can read or write.

    Not checked: pipes and the like, descriptors that the parent process opened, and files of root on a read-only mount.
    The last are the secrets that Docker and Kubernetes mount (mode 0444 or 0644, not ours to change), inside a
    container that has no other users. No refusal: a vault that does not start after a careless copy helps nobody.
    """
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or path.startswith(("/dev/fd/", "/proc/self/fd/")):
        return
    if about.st_uid == 0 and os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        return
    if about.st_mode & 0o077 and path not in _warned:
        warned_of(path)
        _log.warning("the master key file %s is open to other users; run: chmod 600 %s", path, path)

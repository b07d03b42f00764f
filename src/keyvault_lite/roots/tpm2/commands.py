"""The commands of TPM 2.0 that a root and a counter need (TPM Library, part 3, revision 1.59)."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from struct import Struct, pack
from typing import Final

from keyvault_lite.crypto.root import RootError
from keyvault_lite.crypto.tpm_session import CONTINUE, DECRYPT, ENCRYPT, ForgedResponse, Session, make_salt
from keyvault_lite.roots.root import RootRefused, RootUnavailable
from keyvault_lite.roots.tpm2.transport import HEADER, Transport

OWNER: Final = 0x40000001
NULL: Final = 0x40000007
_PASSWORD: Final = 0x40000009
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_SHA256, _AES, _CFB, _ALG_NULL, _KEYEDHASH, _ECC, _P256 = 0x000B, 0x0006, 0x0043, 0x0010, 0x0008, 0x0023, 0x0003
_SRK_ATTRIBUTES: Final = 0x00030472
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt: TCG's storage root key."""
HMAC_SESSION, POLICY_SESSION = 0, 1
_RETRY: Final = frozenset({0x908, 0x90A, 0x920, 0x922})
"""YIELDED, TESTING, NV_RATE and RETRY: the same command may succeed in a moment."""
_RETRY_SECONDS: Final = 5.0
_FORMAT_ONE: Final = 0x80
_U16, _U32 = Struct(">H"), Struct(">I")

CREATE_PRIMARY, CREATE, LOAD, UNSEAL = 0x131, 0x153, 0x157, 0x15E
FLUSH_CONTEXT, START_AUTH_SESSION, PCR_READ, POLICY_PCR = 0x165, 0x176, 0x17E, 0x17F
NV_UNDEFINE_SPACE, NV_DEFINE_SPACE, NV_INCREMENT, NV_READ, NV_READ_PUBLIC = 0x122, 0x12A, 0x134, 0x14E, 0x169


class TpmError(RootRefused):
    """The chip has answered with an error; `code` is its response code, without the number of the parameter."""

    def __init__(self, code: int) -> None:
        self.code: Final = code & 0xBF if code & _FORMAT_ONE else code
        super().__init__(f"The TPM answers 0x{code:x}.")


def sized(raw: bytes) -> bytes:
    """TPM2B: two bytes of length, and the bytes."""
    return _U16.pack(len(raw)) + raw


class Reader:
    """Reads a response from its beginning. Raises RootUnavailable for one that is too short."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        part = self._raw[self._at : self._at + count]
        if len(part) != count:
            raise RootUnavailable("The TPM sent a response that is too short.")
        self._at += count
        return part

    def u16(self) -> int:
        """The next two bytes as a number."""
        return int(_U16.unpack(self.take(2))[0])

    def u32(self) -> int:
        """The next four bytes as a number."""
        return int(_U32.unpack(self.take(4))[0])

    def sized(self) -> bytes:
        """The next TPM2B."""
        return self.take(self.u16())

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._raw) - self._at)


@dataclass(frozen=True, slots=True)
class Loaded:
    """An object in the chip, with the name that authorisations are bound to."""

    handle: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Primary(Loaded):
    """The storage root key, with its public point."""

    x: bytes
    y: bytes


@dataclass(frozen=True, slots=True)
class Authorized:
    """An authorisation by a session: for what the command's first handle names."""

    session: Session
    auth: bytes = b""
    encrypt_command: bool = False
    encrypt_response: bool = False

    @property
    def attributes(self) -> int:
        """TPMA_SESSION."""
        return CONTINUE | (DECRYPT if self.encrypt_command else 0) | (ENCRYPT if self.encrypt_response else 0)


class Chip:
    """The commands. Belongs to one thread; what it loads it must flush."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    # Objects

    def create_primary(self) -> Primary:
        """The storage root key, derived again from the owner's seed: nothing is kept on the chip."""
        public = pack(">HHI", _ECC, _SHA256, _SRK_ATTRIBUTES) + sized(b"")
        public += pack(">HHHHHH", _AES, 128, _CFB, _ALG_NULL, _P256, _ALG_NULL) + sized(b"") + sized(b"")
        parameters = sized(sized(b"") + sized(b"")) + sized(public) + sized(b"") + _U32.pack(0)
        handle, answer = self._with_password(CREATE_PRIMARY, (OWNER,), parameters, answers_handle=True)
        area = answer.sized()
        point = Reader(area)
        point.take(8)
        point.sized()
        point.take(12)
        return Primary(handle, _name(area), point.sized(), point.sized())

    def seal(
        self, primary: Primary, session: Session, secret: bytes, *, policy: bytes, attributes: int
    ) -> tuple[bytes, bytes]:
        """A sealed object: its private and its public part. The secret crosses the bus encrypted."""
        public = pack(">HHI", _KEYEDHASH, _SHA256, attributes) + sized(policy) + _U16.pack(_ALG_NULL) + sized(b"")
        sensitive = sized(b"") + sized(secret)
        parameters = sized(sensitive) + sized(public) + sized(b"") + _U32.pack(0)
        by = Authorized(session, encrypt_command=True)
        answer = self._authorized(CREATE, ((primary.handle, primary.name),), parameters, by)
        return answer.sized(), answer.sized()

    def load(self, primary: Primary, private: bytes, public: bytes) -> Loaded:
        """Load a sealed object. Raises TpmError if it was sealed by another chip, or before this one was cleared."""
        handle, answer = self._with_password(
            LOAD, (primary.handle,), sized(private) + sized(public), answers_handle=True
        )
        name = answer.sized()
        return Loaded(handle, name)

    def unseal(self, loaded: Loaded, session: Session) -> bytes:
        """What is sealed; it crosses the bus encrypted."""
        by = Authorized(session, encrypt_response=True)
        return self._authorized(UNSEAL, ((loaded.handle, loaded.name),), b"", by).sized()

    def flush(self, handle: int) -> None:
        """Remove an object or session from the chip."""
        self._plain(FLUSH_CONTEXT, _U32.pack(handle))

    # Sessions and PCRs

    def start_session(self, primary: Primary, kind: int) -> Session:
        """A session with a salt that only this chip can have."""
        try:
            salt, (x, y) = make_salt(primary.x, primary.y)
        except ValueError:
            raise RootRefused("The TPM has sent a key that is not on its curve.") from None
        return self._start_session(primary.handle, salt, sized(x) + sized(y), kind)

    def start_unsalted_session(self) -> Session:
        """A session for an authorisation value that nobody can guess. It encrypts nothing, and needs no key."""
        return self._start_session(NULL, b"", b"", HMAC_SESSION)

    def _start_session(self, key: int, salt: bytes, encrypted_salt: bytes, kind: int) -> Session:
        nonce = os.urandom(16)
        parameters = _U32.pack(key) + _U32.pack(NULL) + sized(nonce) + sized(encrypted_salt)
        symmetric = pack(">HHH", _AES, 128, _CFB) if salt else _U16.pack(_ALG_NULL)
        parameters += bytes((kind,)) + symmetric + _U16.pack(_SHA256)
        answer = self._plain(START_AUTH_SESSION, parameters)
        handle = answer.u32()
        return Session(handle, salt, nonce, answer.sized())

    def policy_pcr(self, session: Session, pcrs: Sequence[int]) -> None:
        """Bind a policy session to the values that these PCRs have now."""
        self._plain(POLICY_PCR, _U32.pack(session.handle) + sized(b"") + selection(pcrs))

    def read_pcrs(self, pcrs: Sequence[int]) -> bytes:
        """SHA-256 over the values of these PCRs, in their order."""
        values = b""
        for pcr in sorted(pcrs):
            answer = self._plain(PCR_READ, selection([pcr]))
            answer.take(4)
            answer.take(len(selection([pcr])))
            if answer.u32() != 1:
                raise RootRefused(f"The TPM has no PCR {pcr} with SHA-256.")
            values += answer.sized()
        return hashlib.sha256(values).digest()

    # NV indices

    def nv_public(self, index: int) -> bytes | None:
        """The public area of an index, None if there is none."""
        try:
            return self._plain(NV_READ_PUBLIC, _U32.pack(index)).sized()
        except TpmError as error:
            if error.code == HANDLE_UNKNOWN:
                return None
            raise

    def nv_define(self, session: Session, public: bytes, auth: bytes) -> None:
        """Make an index, by the owner's authority. The authorisation value crosses the bus encrypted."""
        by = Authorized(session, encrypt_command=True)
        self._authorized(NV_DEFINE_SPACE, ((OWNER, _U32.pack(OWNER)),), sized(auth) + sized(public), by)

    def nv_undefine(self, index: int) -> None:
        """Delete an index, by the owner's authority."""
        self._with_password(NV_UNDEFINE_SPACE, (OWNER, index), b"")

    def nv_increment(self, session: Session, index: int, public: bytes, auth: bytes) -> None:
        """Add one to a counter."""
        handle = index, _name(public)
        self._authorized(NV_INCREMENT, (handle, handle), b"", Authorized(session, auth))

    def nv_read(self, session: Session, index: int, public: bytes, auth: bytes) -> bytes:
        """The eight bytes of a counter."""
        handle = index, _name(public)
        answer = self._authorized(NV_READ, (handle, handle), pack(">HH", 8, 0), Authorized(session, auth))
        return answer.sized()

    # The way of a command

    def _plain(self, code: int, body: bytes) -> Reader:
        return Reader(self._send(_NO_SESSIONS, code, body))

    def _with_password(
        self, code: int, handles: Sequence[int], parameters: bytes, *, answers_handle: bool = False
    ) -> tuple[int, Reader]:
        """A command under an empty password, which is what the owner and the storage root key have."""
        area = _U32.pack(_PASSWORD) + sized(b"") + bytes((CONTINUE,)) + sized(b"")
        body = b"".join(map(_U32.pack, handles)) + _U32.pack(len(area)) + area + parameters
        answer = Reader(self._send(_SESSIONS, code, body))
        handle = answer.u32() if answers_handle else 0
        return handle, Reader(answer.take(answer.u32()))

    def _authorized(self, code: int, handles: Sequence[tuple[int, bytes]], parameters: bytes, by: Authorized) -> Reader:
        nonce = by.session.begin_command()
        if by.encrypt_command:
            first = Reader(parameters).sized()
            parameters = sized(by.session.encrypt(first, by.auth)) + parameters[2 + len(first) :]
        digest = hashlib.sha256(_U32.pack(code) + b"".join(name for _, name in handles) + parameters).digest()
        mac = by.session.command_mac(digest, by.attributes, by.auth)
        area = _U32.pack(by.session.handle) + sized(nonce) + bytes((by.attributes,)) + sized(mac)
        body = b"".join(_U32.pack(handle) for handle, _ in handles) + _U32.pack(len(area)) + area + parameters
        answer = Reader(self._send(_SESSIONS, code, body))
        result = answer.take(answer.u32())
        nonce_tpm = answer.sized()
        attributes = answer.take(1)[0]
        digest = hashlib.sha256(_U32.pack(0) + _U32.pack(code) + result).digest()
        try:
            by.session.check_response(digest, nonce_tpm, attributes, answer.sized(), by.auth)
        except ForgedResponse:
            raise RootRefused("A response did not come from the TPM that was asked: something is in between.") from None
        if by.encrypt_response:
            first = Reader(result).sized()
            result = sized(by.session.decrypt(first, by.auth)) + result[2 + len(first) :]
        return Reader(result)

    def _send(self, tag: int, code: int, body: bytes) -> bytes:
        until = time.monotonic() + _RETRY_SECONDS
        pause = 0.02
        while True:
            response = self._transport.exchange(HEADER.pack(tag, HEADER.size + len(body), code) + body)
            result = HEADER.unpack_from(response)[2]
            if result == 0:
                return response[HEADER.size :]
            if result not in _RETRY or time.monotonic() > until:
                raise TpmError(result)
            time.sleep(pause)
            pause = min(2 * pause, 0.5)


@contextmanager
def chip_with_primary(device: str) -> Iterator[tuple[Chip, Primary]]:
    """The chip behind a device, with its storage root key loaded."""
    with Transport(device) as transport:
        chip = Chip(transport)
        primary = chip.create_primary()
        try:
            yield chip, primary
        finally:
            with suppress(RootError):
                chip.flush(primary.handle)


@contextmanager
def session_of(chip: Chip, primary: Primary, kind: int) -> Iterator[Session]:
    """A salted session."""
    session = chip.start_session(primary, kind)
    try:
        yield session
    finally:
        with suppress(RootError):
            chip.flush(session.handle)


HANDLE_UNKNOWN: Final = 0x8B
"""TPM_RC_HANDLE: there is no such index."""


def selection(pcrs: Sequence[int]) -> bytes:
    """TPML_PCR_SELECTION of the SHA-256 bank."""
    bits = sum(1 << pcr for pcr in set(pcrs))
    return pack(">IHB", 1, _SHA256, 3) + bits.to_bytes(3, "little")


def pcr_policy(pcrs: Sequence[int], digest: bytes) -> bytes:
    """The policy digest that PolicyPCR gives for these values."""
    return hashlib.sha256(bytes(32) + _U32.pack(POLICY_PCR) + selection(pcrs) + digest).digest()


def _name(public: bytes) -> bytes:
    return _U16.pack(_SHA256) + hashlib.sha256(public).digest()

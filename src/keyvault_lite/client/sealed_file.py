r"""The format of encrypted files: a header line and frames, every chunk encrypted by the vault itself.

    file   = header LF frame+
    header = JSON object {"format": "kvl-file", "version": 1, "id": 32 hex digits, "key": name or id}
    frame  = uint32(length) encrypted_dek  uint32(length) ciphertext          lengths big-endian

A chunk is 48 KiB of plaintext, the last one 0 to 48 KiB (0 only in an empty file). Its context is the caller's and

    kvl.file   SHA-256 of the header line without its LF, hex: authenticates the header; chunks of two files never mix
    kvl.chunk  its number from 0, decimal: chunks cannot be reordered, repeated or left out
    kvl.last   "true" or "false": the file cannot be cut or lengthened (as in STREAM, Hoang et al. 2015)

`id` is random; `key` is a hint for people. No plaintext, context or length beyond the ciphertext's own is stored.
"""

import base64
import binascii
import hashlib
import json
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from keyvault_lite.client.api import Json
from keyvault_lite.client.errors import Damaged, InvalidArgument, Refused, UnexpectedAnswer
from keyvault_lite.model.encoding import check_context

FORMAT: Final = "kvl-file"
VERSION: Final = 1
CHUNK: Final = 48 * 1024
RESERVED: Final = "kvl."
"""Names in the caller's context that begin so are refused."""
MAX_HEADER: Final = 4096
MAX_DEK: Final = 8 * 1024
MAX_CIPHERTEXT: Final = CHUNK + 1024
BATCH_BYTES: Final = 1_000_000
"""Size of a request's body at most; the API takes 1 MiB."""
REWRAP_FRAMES: Final = 128
_LENGTH: Final = struct.Struct(">I")

Advance = Callable[[int], object]
"""Told the number of bytes of input done with."""
Context = Mapping[str, str]


class Vault(Protocol):
    """What does the cryptography: `batch` of the client."""

    def batch(self, key: str, operation: str, items: Sequence[Mapping[str, object]]) -> list[Json]:
        """Replies in order."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The position of one file: whose chunks may be in it."""

    digest: str
    key: str

    def context(self, user: Context, index: int, *, last: bool) -> dict[str, str]:
        """The context of one chunk."""
        place = {"kvl.file": self.digest, "kvl.chunk": str(index), "kvl.last": "true" if last else "false"}
        return {**user, **place}


@dataclass(frozen=True, slots=True)
class Frame:
    """One encrypted chunk as stored in the file."""

    index: int
    last: bool
    encrypted_dek: bytes
    ciphertext: bytes

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return 2 * _LENGTH.size + len(self.encrypted_dek) + len(self.ciphertext)


def seal(
    vault: Vault, key: str, source: BinaryIO, target: BinaryIO, *, context: Context, advance: Advance = id
) -> None:
    """Encrypt a stream under the ACTIVE version of a key. Nothing is held but one request."""
    header = _dump({"format": FORMAT, "version": VERSION, "id": secrets.token_hex(16), "key": key})
    place = Sealed(hashlib.sha256(header).hexdigest(), key)
    _check(context, place)
    target.write(header + b"\n")
    for batch in _batches(_plain_items(place, context, source)):
        for item, reply in zip(batch, vault.batch(key, "encrypt", batch), strict=True):
            _write_frame(target, _bytes(reply, "encrypted_dek"), _bytes(reply, "ciphertext"))
            advance(len(base64.b64decode(str(item["plaintext"]))))


def unseal(
    vault: Vault, key: str, source: BinaryIO, target: BinaryIO, *, context: Context, advance: Advance = id
) -> frozenset[int]:
    """Decrypt a sealed stream. Returns the key versions that opened it.

    Raises Damaged if any of it is not as it was written; what is in `target` is worthless then.
    """
    versions: set[int] = set()
    place = read_header(source)
    _check(context, place)
    for batch in _batches(_sealed_items(place, context, source)):
        try:
            replies = vault.batch(key, "decrypt", batch)
        except Refused as refused:
            raise _explain(refused, place, key) from None
        for item, reply in zip(batch, replies, strict=True):
            target.write(_bytes(reply, "plaintext"))
            versions.add(int(reply["key_version"]))
            advance(len(str(item["ciphertext"])) * 3 // 4)
    return frozenset(versions)


def rewrap(
    vault: Vault, key: str, source: BinaryIO, target: BinaryIO, *, context: Context, advance: Advance = id
) -> int:
    """Copy a sealed stream with every chunk's DEK under the ACTIVE version; ciphertexts stay. Returns that version."""
    place = read_header(source, copy_to=target)
    _check(context, place)
    version = 0
    for group in _groups(frames(source), REWRAP_FRAMES):
        items = [
            {"encrypted_dek": _text(f.encrypted_dek), "context": place.context(context, f.index, last=f.last)}
            for f in group
        ]
        try:
            replies = vault.batch(key, "rewrap", items)
        except Refused as refused:
            raise _explain(refused, place, key) from None
        for frame, reply in zip(group, replies, strict=True):
            _write_frame(target, _bytes(reply, "encrypted_dek"), frame.ciphertext)
            version = int(reply["key_version"])
            advance(frame.size)
    return version


def read_header(source: BinaryIO, *, copy_to: BinaryIO | None = None) -> Sealed:
    """Read the header line. Raises Damaged if the stream is not an encrypted file of a known version."""
    line = source.readline(MAX_HEADER)
    try:
        header = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise Damaged("this is not a file made by `kvl encrypt`")
    if header.get("version") != VERSION:
        raise Damaged("the file's format is of another version than this kvl knows")
    if copy_to is not None:
        copy_to.write(line)
    return Sealed(hashlib.sha256(line[:-1]).hexdigest(), str(header.get("key")))


def _plain_items(place: Sealed, context: Context, source: BinaryIO) -> Iterator[Json]:
    index, chunk = 0, source.read(CHUNK)
    while True:
        following = source.read(CHUNK) if len(chunk) == CHUNK else b""
        yield {
            "plaintext": _text(chunk),
            "encoding": "base64",
            "context": place.context(context, index, last=not following),
        }
        if not following:
            return
        index, chunk = index + 1, following


def _sealed_items(place: Sealed, context: Context, source: BinaryIO) -> Iterator[Json]:
    for frame in frames(source):
        yield {
            "ciphertext": _text(frame.ciphertext),
            "encrypted_dek": _text(frame.encrypted_dek),
            "encoding": "base64",
            "context": place.context(context, frame.index, last=frame.last),
        }


def frames(source: BinaryIO) -> Iterator[Frame]:
    """The frames up to the end of the stream; the one before the end claims to be the last; the vault verifies that."""
    index, current = 0, _read_frame(source)
    if current is None:
        raise Damaged("the file is cut off")
    while True:
        following = _read_frame(source)
        yield Frame(index, following is None, *current)
        if following is None:
            return
        index, current = index + 1, following


def _read_frame(source: BinaryIO) -> tuple[bytes, bytes] | None:
    encrypted_dek = _read_field(source, MAX_DEK)
    if encrypted_dek is None:
        return None
    ciphertext = _read_field(source, MAX_CIPHERTEXT)
    if ciphertext is None:
        raise Damaged("the file is cut off")
    return encrypted_dek, ciphertext


def _read_field(source: BinaryIO, limit: int) -> bytes | None:
    head = source.read(_LENGTH.size)
    if not head:
        return None
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else limit
    if length > limit:
        raise Damaged("the file is damaged: a length in it makes no sense")
    field = source.read(length)
    if len(head) < _LENGTH.size or len(field) < length:
        raise Damaged("the file is cut off")
    return field


def _write_frame(target: BinaryIO, encrypted_dek: bytes, ciphertext: bytes) -> None:
    target.writelines(_LENGTH.pack(len(field)) + field for field in (encrypted_dek, ciphertext))


def _batches(items: Iterable[Json]) -> Iterator[list[Json]]:
    """Runs of items that fit one request."""
    batch: list[Json] = []
    size = 0
    for item in items:
        length = len(_dump(item)) + 1
        if batch and size + length > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def _groups(frames: Iterable[Frame], count: int) -> Iterator[list[Frame]]:
    group: list[Frame] = []
    for frame in frames:
        group.append(frame)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group


def _check(context: Context, place: Sealed) -> None:
    """Raises InvalidArgument or InvalidRequest for a context that cannot be used, before anything is sent."""
    if any(name.startswith(RESERVED) for name in context):
        raise InvalidArgument(f"names in a context that begin with {RESERVED} are kept for the file format")
    check_context(place.context(context, 10**9, last=True))


def _explain(refused: Refused, place: Sealed, key: str) -> Refused:
    if refused.code != "invalid_ciphertext":
        return refused
    other = f" The file names the key {place.key}." if place.key != key else ""
    return Damaged(
        f"the file was changed, cut or rearranged, or it belongs to another key or --context: {refused}.{other}",
        code=refused.code,
    )


def _dump(value: Json) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise InvalidArgument("an argument is not valid UTF-8") from None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _bytes(reply: Json, field: str) -> bytes:
    try:
        return base64.b64decode(reply[field], validate=True)
    except (KeyError, TypeError, binascii.Error):
        raise UnexpectedAnswer("the vault's answer lacks what was asked for") from None

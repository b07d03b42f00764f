"""A signed statement of the log's size and root: C2SP tlog-checkpoint, in a C2SP signed-note.

    keyvault-lite/<instance id>         origin: which log, in which epoch
    4711                                size of the tree
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    its root
    state-seq 4690                      extension lines: the newest management entry,
    entry-hash ZSalSTlGLcgy2290tZ6R2jazV9rM9/6IqH6KXNoQSTU=    and the hash of the newest entry
    tpm-counter 212                     of a vault with a hardware counter: its value once this is answered

    — keyvault-lite/<instance id> <base64 of key hash ‖ signature>

A signature covers the body: the lines above the blank one, with their newlines. This package has no cryptography:
`sign(message)` and `verify(public_key, message, signature)`, both Ed25519 of RFC 8032, are handed in.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple

from keyvault_lite.audit.merkle import HASH_BYTES
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest

Sign = Callable[[bytes], bytes]
"""message → Ed25519 signature, 64 bytes."""
Verify = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) → whether it verifies; false, not an error, for a key that is no point."""

ED25519: Final = 0x01
"""Signature type of signed-note: Ed25519 over the body."""
COSIGNATURE: Final = 0x04
"""Signature type of tlog-cosignature (cosignature/v1): Ed25519 by a witness over a time and the body."""

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
MAX_NOTE_CHARS: Final = 1 << 20
MAX_SIGNATURES: Final = 100
"""The specification asks for at least 16."""
MAX_SIZE: Final = (1 << 63) - 1

_KEY_HASH_BYTES: Final = 4
_STATE_SEQ: Final = "state-seq "
_ENTRY_HASH: Final = "entry-hash "
_COUNTER: Final = "tpm-counter "
_TIME: Final = Struct(">Q")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_SIGNATURE_LINE: Final = re.compile(r"— (\S+) (\S+)")
_LATER_EPOCH: Final = re.compile(r"(keyvault-lite/[0-9a-f]{32})/([1-9][0-9]{0,9})", re.ASCII)
_VERIFIER_KEY: Final = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+(\S+)")


class InvalidNote(IntegrityViolation):
    """Text that is no well-formed note, checkpoint or key, or that no known key has signed."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name it signs under: what a reader of checkpoints has to know beforehand."""

    name: str
    algorithm: int
    public_key: bytes

    @property
    def hash(self) -> bytes:
        """The four bytes by which a signature line names its key; a hint, no protection."""
        return key_hash(self.name, self.algorithm, self.public_key)


class Signature(NamedTuple):
    """One signature line: name and key hash together say which key, `value` is as that key's type defines."""

    name: str
    key_hash: bytes
    value: bytes


class Note(NamedTuple):
    """A parsed note. The body must not be used before a signature of a known key is verified."""

    body: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree head that a checkpoint states."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


def origin(instance_id: bytes, epoch: int) -> str:
    """The log's identity and the name of its key. An acknowledged rollback begins a new epoch: another identity."""
    name = f"keyvault-lite/{instance_id.hex()}"
    return f"{name}/{epoch}" if epoch else name


def split_origin(name: str) -> tuple[str, int]:
    """The log's name without its epoch, and the epoch. Logs of other software have no epochs: theirs is 0."""
    match = _LATER_EPOCH.fullmatch(name)
    return (name, 0) if match is None else (match[1], int(match[2]))


@lru_cache(maxsize=64)
def key_hash(name: str, algorithm: int, public_key: bytes) -> bytes:
    """SHA-256(name ‖ newline ‖ algorithm ‖ public key), the first four bytes."""
    return sha256(name.encode() + b"\n" + bytes((algorithm,)) + public_key).digest()[:_KEY_HASH_BYTES]


@lru_cache(maxsize=64)
def verifier_key(name: str, public_key: bytes, algorithm: int = ED25519) -> str:
    """`name+hash+base64(algorithm ‖ public key)`, the form in which keys are handed out."""
    return f"{name}+{key_hash(name, algorithm, public_key).hex()}+{encode_base64(bytes((algorithm,)) + public_key)}"


def parse_verifier_key(text: str) -> VerifierKey:
    """The key that `verifier_key` wrote. Raises InvalidNote if it is malformed, of another type or mistyped."""
    match = _VERIFIER_KEY.fullmatch(text)
    if match is None or _CONTROL.search(text):
        raise InvalidNote("not a verifier key")
    raw = _decode(match[3], "a verifier key")
    if len(raw) != 1 + PUBLIC_KEY_BYTES or raw[0] not in {ED25519, COSIGNATURE}:
        raise InvalidNote("the verifier key is not of a type known here")
    key = VerifierKey(match[1], raw[0], raw[1:])
    if key.hash.hex() != match[2]:
        raise InvalidNote("the verifier key is mistyped: its hash does not fit")
    return key


def checkpoint_body(origin: str, size: int, root: bytes, extensions: Sequence[str] = ()) -> str:
    """The text that is signed, with its final newline."""
    return "\n".join((origin, str(size), encode_base64(root), *extensions, ""))


def parse_checkpoint(body: str) -> Checkpoint:
    """The tree head in a note's body. Raises InvalidNote for anything but the one spelling of each line."""
    lines = body.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):  # noqa: PLR2004  (three lines, and nothing after the last newline)
        raise InvalidNote("a checkpoint is at least three lines, none of them empty")
    origin, size_text, root_text, *extensions = lines
    root = _decode(root_text, "the root of a checkpoint")
    if len(root) != HASH_BYTES:
        raise InvalidNote("the root of a checkpoint is not 32 bytes")
    return Checkpoint(origin, parse_number(size_text), root, tuple(extensions))


def fact_lines(state_seq: int, entry_hash: bytes) -> tuple[str, str]:
    """The extension lines of our checkpoints: what an anchor has to know besides the tree."""
    return f"{_STATE_SEQ}{state_seq}", f"{_ENTRY_HASH}{encode_base64(entry_hash)}"


def read_facts(lines: Sequence[str]) -> tuple[int, bytes]:
    """The newest management entry and the hash of the newest entry. Raises InvalidNote for any other lines."""
    try:
        first, second = lines
    except ValueError:
        raise InvalidNote("the checkpoint does not have the two extension lines") from None
    if not first.startswith(_STATE_SEQ) or not second.startswith(_ENTRY_HASH):
        raise InvalidNote("the checkpoint has other extension lines")
    entry_hash = _decode(second.removeprefix(_ENTRY_HASH), "the hash of the newest entry")
    if len(entry_hash) != HASH_BYTES:
        raise InvalidNote("the hash of the newest entry is not 32 bytes")
    return parse_number(first.removeprefix(_STATE_SEQ)), entry_hash


def counter_line(value: int) -> str:
    """The extension line that names the value of the vault's hardware counter."""
    return f"{_COUNTER}{value}"


def counter_of(lines: Sequence[str]) -> int | None:
    """The value of the hardware counter, which may follow the facts; None if there is none. Raises InvalidNote."""
    if not lines[2:]:
        return None
    if len(lines) != 3 or not lines[2].startswith(_COUNTER):  # noqa: PLR2004  (two facts, and the counter)
        raise InvalidNote("the checkpoint has other extension lines")
    return parse_number(lines[2].removeprefix(_COUNTER))


def has_counter(note: str) -> bool:
    """Whether a note names the value of a hardware counter, signed or not."""
    return f"\n{_COUNTER}" in note


def parse_number(text: str) -> int:
    """A decimal below 2⁶³ without leading zeros. Raises InvalidNote."""
    if _NUMBER.fullmatch(text) is None or (number := int(text)) > MAX_SIZE:
        raise InvalidNote("not a decimal number of one spelling, below 2^63")
    return number


def sign_note(body: str, name: str, public_key: bytes, sign: Sign) -> str:
    """The note: body, blank line, signature line."""
    return f"{body}\n{_signature_line(name, key_hash(name, ED25519, public_key) + sign(body.encode()))}"


def parse_note(text: str) -> Note:
    """Split a note into body and signatures, strictly; nothing is verified. Raises InvalidNote."""
    if len(text) > MAX_NOTE_CHARS or _CONTROL.search(text):
        raise InvalidNote("a note is at most 1 MiB of text without control characters")
    head, gap, tail = text.rpartition("\n\n")
    lines = tail.split("\n")
    if not gap or lines.pop() or not 0 < len(lines) <= MAX_SIGNATURES:
        raise InvalidNote("a note is text, a blank line and 1 to 100 signature lines")
    return Note(head + "\n", tuple(map(_parse_signature, lines)))


def verify_note(text: str, vkey: str, verify: Verify) -> Checkpoint:
    """The tree head of a checkpoint that the log's key has signed. Raises InvalidNote.

    The origin has to be the key's name: a checkpoint of another epoch is one of another log.
    """
    key = parse_verifier_key(vkey)
    if key.algorithm != ED25519:
        raise InvalidNote("this is the key of a witness, not that of a log")
    body, signatures = parse_note(text)
    message = body.encode()
    for value in _values_of(key, signatures):
        if len(value) != SIGNATURE_BYTES or not verify(key.public_key, message, value):
            raise InvalidNote("the log's signature does not verify")
    checkpoint = parse_checkpoint(body)
    if checkpoint.origin != key.name:
        raise InvalidNote("the checkpoint is of another log or epoch than the key")
    return checkpoint


def signed_by(text: str, *vkeys: str) -> str:
    """The note with the signatures of these keys alone, unverified. Raises InvalidNote if there are none."""
    keys = {(key.name, key.hash) for key in map(parse_verifier_key, vkeys)}
    body, signatures = parse_note(text)
    # Each once: else one checkpoint has as many texts as anybody likes.
    lines = dict.fromkeys(_signature_line(one.name, one.key_hash + one.value) for one in signatures if one[:2] in keys)
    if not lines:
        raise InvalidNote("the note is not signed by this key")
    return f"{body}\n{''.join(lines)}"


def cosign(text: str, *, name: str, public_key: bytes, timestamp: int, sign: Sign) -> str:
    """The line by which a witness confirms a checkpoint at `timestamp` (seconds since 1970); to be appended to `text`.

    The caller must have verified the note, and that it extends every tree head it confirmed before.
    """
    signature = sign(_cosigned(parse_note(text).body, timestamp))
    return _signature_line(name, key_hash(name, COSIGNATURE, public_key) + _TIME.pack(timestamp) + signature)


def verify_cosignature(text: str, vkey: str, verify: Verify) -> tuple[Checkpoint, int]:
    """The tree head that a witness confirmed, and when (seconds since 1970). Raises InvalidNote."""
    key = parse_verifier_key(vkey)
    if key.algorithm != COSIGNATURE:
        raise InvalidNote("this is the key of a log, not that of a witness")
    body, signatures = parse_note(text)
    newest = 0
    for value in _values_of(key, signatures):
        if len(value) != _TIME.size + SIGNATURE_BYTES:
            raise InvalidNote("the witness's signature is not 72 bytes")
        (timestamp,) = _TIME.unpack_from(value)
        if timestamp > MAX_SIZE or not verify(key.public_key, _cosigned(body, timestamp), value[_TIME.size :]):
            raise InvalidNote("the witness's signature does not verify")
        newest = max(newest, timestamp)
    return parse_checkpoint(body), newest


def _cosigned(body: str, timestamp: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n{body}".encode()


def _values_of(key: VerifierKey, signatures: tuple[Signature, ...]) -> list[bytes]:
    # Lines of unknown keys are ignored, as specified: witnesses and later algorithms add them.
    # Each once: a genuine line can be repeated by anybody, and would be verified as often.
    values = list(dict.fromkeys(one.value for one in signatures if (one.name, one.key_hash) == (key.name, key.hash)))
    if not values:
        raise InvalidNote("the note is not signed by this key")
    return values


def _signature_line(name: str, raw: bytes) -> str:
    return f"— {name} {encode_base64(raw)}\n"


def _parse_signature(line: str) -> Signature:
    match = _SIGNATURE_LINE.fullmatch(line)
    if match is None or "+" in match[1]:
        raise InvalidNote("a signature line is a dash, a name without spaces or plus, and base64")
    raw = _decode(match[2], "a signature")
    if len(raw) <= _KEY_HASH_BYTES:
        raise InvalidNote("a signature line holds no signature")
    return Signature(match[1], raw[:_KEY_HASH_BYTES], raw[_KEY_HASH_BYTES:])


def _decode(text: str, what: str) -> bytes:
    try:
        return decode_base64(text)
    except InvalidRequest:
        raise InvalidNote(f"{what} is not canonical base64") from None

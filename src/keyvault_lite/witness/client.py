"""A witness as its callers see it: one address, the keys it may sign with, one connection that stays open."""

import http.client
import ipaddress
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from keyvault_lite.audit.checkpoint import (
    COSIGNATURE,
    InvalidNote,
    Verify,
    checkpoint_body,
    parse_number,
    parse_verifier_key,
    sign_note,
    signed_by,
    verify_cosignature,
)
from keyvault_lite.audit.merkle import ROOT_OF_EMPTY
from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, InvalidRequest
from keyvault_lite.observe import logger
from keyvault_lite.witness.answer import Response
from keyvault_lite.witness.register import format_submission

TIMEOUT_SECONDS: Final = 3.0
MAX_ANSWER: Final = 64 * 1024
TRIES: Final = 4

Prove = Callable[[int], Sequence[bytes]]
"""prove(old size) → the consistency proof from that size to the checkpoint's."""

log: Final = logger("witness")


class SizeConflict(Exception):
    """The witness knows the log at another size than the submission starts from."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class WitnessAhead(Exception):
    """The witness has confirmed a longer log than the one submitted."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Forked(IntegrityViolation):
    """The witness has confirmed another history of this log."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A checkpoint that a witness has confirmed."""

    note: str
    """As the log has signed it."""
    lines: str
    """The witness's signature lines, each with its newline."""
    size: int
    time: int
    """By the witness's clock, in seconds since 1970."""


class WitnessClient:
    """One witness. Its methods block, for a few seconds at most, and may be called from any thread."""

    def __init__(self, url: str, keys: Sequence[str], *, verify: Verify, ca_file: str | None = None) -> None:
        """Raises InvalidRequest for a malformed address or key, or plain http to another machine."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or not host or parts.username or parts.query or parts.fragment:
            raise InvalidRequest("the address of a witness is like https://witness.example:8001")
        if parts.scheme == "http" and not _is_loopback(host):
            raise InvalidRequest("a witness on another machine is reached over https only")
        self._keys = tuple(keys)
        if not self._keys or any(parse_verifier_key(key).algorithm != COSIGNATURE for key in self._keys):
            raise InvalidRequest("a witness needs its verifier key, as `kvl witness key` prints it")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._verify = verify
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca_file)
            self._connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_SECONDS, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_SECONDS)
        self._connection.response_class = Response
        self._lock = threading.Lock()
        self.was_put_back = False
        """Whether it was ever seen to know less than it had confirmed."""

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._connection.close()

    def newest(self, origin: str, known: Confirmed | None = None) -> Confirmed | None:
        """The newest checkpoint that the witness has confirmed of a log, whatever its epoch; None before the first.

        `known` itself, if it is still that. The log's own signature is not verified. Raises AuditUnavailable.
        """
        status, body = self._ask("GET", f"/checkpoint/{origin}", None)
        if status == http.HTTPStatus.NO_CONTENT:
            return None
        if status != http.HTTPStatus.OK:
            raise self._unexpected(status)
        # That nothing is new needs no signature: it is no more than an old answer played back could say.
        return known if known is not None and body.startswith(known.note) else self._confirmed(body)

    def submit(self, note: str, *, size: int, old: int, prove: Prove) -> Confirmed:
        """Have a signed checkpoint of `size` confirmed. `old` is the size that the witness is thought to know.

        Raises WitnessAhead if it knows a longer log, Forked if another one, AuditUnavailable if it fails.
        """
        for _ in range(TRIES):
            try:
                return self._add(note, old, prove(old) if 0 < old < size else ())
            except SizeConflict as other:
                if other.size > size:
                    raise WitnessAhead(other.size) from None
                if other.size == old:
                    raise Forked(self._forked()) from None
                if other.size < old:
                    self.remember_loss(old, other.size)
                old = other.size
        raise AuditUnavailable("the witness is being moved by somebody else")

    def trusts(self, origin: str) -> bool:
        """Whether the witness trusts a log. Raises AuditUnavailable if it does not answer."""
        # A checkpoint that nobody has signed: the protocol has one answer for a log it does not know, another for one
        # whose signature does not verify.
        head = checkpoint_body(origin, 0, ROOT_OF_EMPTY)
        status, _ = self._ask(
            "POST", "/add-checkpoint", format_submission(0, (), sign_note(head, origin, b"", bytes)).encode()
        )
        if status not in {http.HTTPStatus.FORBIDDEN, http.HTTPStatus.NOT_FOUND}:
            raise self._unexpected(status)
        return status == http.HTTPStatus.FORBIDDEN

    def remember_loss(self, knew: int, knows: int) -> None:
        """Say that the witness has forgotten what it had confirmed."""
        self.was_put_back = True
        log.error("the witness %s knew %d entries and now knows %d: it was put back", self.url, knew, knows)

    def _add(self, note: str, old: int, proof: Sequence[bytes]) -> Confirmed:
        body = format_submission(old, [encode_base64(hash) for hash in proof], note)
        status, answer = self._ask("POST", "/add-checkpoint", body.encode())
        if status == http.HTTPStatus.CONFLICT:
            raise SizeConflict(self._size(answer))
        if status == http.HTTPStatus.UNPROCESSABLE_ENTITY:
            raise Forked(self._forked())
        if status != http.HTTPStatus.OK:
            raise self._unexpected(status)
        return self._confirmed(note + answer)

    def _confirmed(self, text: str) -> Confirmed:
        """Raises AuditUnavailable if no key of the witness has signed it."""
        for key in self._keys:
            try:
                signed = signed_by(text, key)
                head, time = verify_cosignature(signed, key, self._verify)
            except InvalidNote:
                continue
            lines = signed[signed.rindex("\n\n") + 2 :]
            body, _, signatures = text.rpartition("\n\n")
            others = "".join(line for line in signatures.splitlines(keepends=True) if line not in lines)
            return Confirmed(f"{body}\n\n{others}", lines, head.size, time)
        raise AuditUnavailable("the witness's answer is not signed by its key")

    def _size(self, answer: str) -> int:
        try:
            return parse_number(answer.removesuffix("\n"))
        except InvalidNote:
            raise AuditUnavailable("the witness's answer makes no sense") from None

    def _forked(self) -> str:
        return (
            f"the witness {self.url} has confirmed another history of this log: the database was put back, forked or "
            "changed; compare it with the witness before anything else"
        )

    def _unexpected(self, status: int) -> AuditUnavailable:
        reasons = {
            400: "the witness does not understand the checkpoint",
            403: "the witness does not trust the key of this log, or knows a newer epoch of it",
            404: "the witness was not told to trust this log: give it the verifier key that `kvl anchor show` prints",
            429: "too many submissions from this address were refused: the witness answers again in a second",
        }
        return AuditUnavailable(reasons.get(status, f"the witness answers with status {status}"))

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, str]:
        headers = {} if body is None else {"Content-Type": "text/plain; charset=utf-8"}
        with self._lock:
            fresh = self._connection.sock is None
            while True:
                try:
                    if self._connection.sock is not None:
                        self._connection.sock.settimeout(TIMEOUT_SECONDS)  # less was left of it for the last answer
                    self._connection.request(method, self._prefix + path, body, headers)
                    reply = self._connection.getresponse()
                    answer = reply.read(MAX_ANSWER + 1)
                    if len(answer) <= MAX_ANSWER:
                        return reply.status, answer.decode()
                    self._connection.close()
                    return http.HTTPStatus.BAD_GATEWAY, ""
                except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
                    self._connection.close()
                    if fresh or isinstance(error, TimeoutError):
                        log.warning("the witness %s does not answer: %s", self.url, type(error).__name__)
                        raise AuditUnavailable("the witness does not answer") from error
                    # The witness closes idle connections, and may have done so just now. Asking twice does no harm.
                    fresh = True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

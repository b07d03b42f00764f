"""The native API as programs call it: one HTTP client that authenticates, and repeats what may be repeated."""

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, unquote

from keyvault_lite.client.connection import Connection
from keyvault_lite.client.errors import InvalidArgument, Misconfigured, Refused, UnexpectedAnswer, Unreachable

if TYPE_CHECKING:
    import ssl

    import httpx2

Json = dict[str, Any]
Parameters = Mapping[str, str | int | None]

PAGE: Final = 1000
ATTEMPTS: Final = 3
PAUSE: Final = 0.2
"""Seconds before the first repetition; each further one waits four times as long."""
TIMEOUT: Final = 60.0
CONNECT_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A success, as the vault wrote it."""

    text: str = field(repr=False)
    audit_id: int | None = None

    def json(self) -> Json:
        """The reply as an object. Raises UnexpectedAnswer if it is not one: then it was not the vault that answered."""
        try:
            value = json.loads(self.text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UnexpectedAnswer("the answer is not JSON: is KEYVAULT_ADDR a KeyVault Lite server?")
        return value


@dataclass(frozen=True, slots=True)
class Listing:
    """Items of a list, pages joined, and the cursor of what was left out."""

    items: tuple[Json, ...]
    next: str | None
    archived: int = 0
    """How many of the oldest entries of the log are in an archive, and not listed."""

    def text(self) -> str:
        """The list as the API would write it, had it been one page."""
        written: Json = {"items": self.items, "next": self.next}
        if self.archived:
            written["archived"] = self.archived
        return json.dumps(written, ensure_ascii=False, separators=(",", ":"))


class Client:
    """Calls one vault. Mutating calls carry an Idempotency-Key, so that repeating one after a lost answer does it once.

    Raises Refused with the vault's own words, Unreachable when there was no answer, UnexpectedAnswer for an answer that
    is not a vault's. Follows no redirect, asks no proxy: the token goes to the configured address and nowhere else.
    """

    def __init__(self, connection: Connection, *, anonymous: bool = False) -> None:
        import httpx2

        if connection.token is None and not anonymous:
            raise Misconfigured("no token: set KEYVAULT_TOKEN, or KEYVAULT_TOKEN_FILE to a file that holds it")
        self.connection = connection
        self.sent = 0
        """How many requests went out, repetitions included."""
        try:
            self._http = httpx2.Client(
                base_url=connection.address,
                headers={} if connection.token is None else {"Authorization": f"Bearer {connection.token}"},
                verify=_trust(connection),
                trust_env=False,
                follow_redirects=False,
                timeout=httpx2.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT),
                event_hooks={"request": [self._count]},
            )
        except httpx2.InvalidURL:
            raise Misconfigured("KEYVAULT_ADDR is not an address like https://vault.example:8000") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def _count(self, _request: "httpx2.Request") -> None:
        self.sent += 1

    def get(self, path: str, parameters: Parameters | None = None, *, timeout: float = TIMEOUT) -> Reply:
        """GET; parameters that are None are left out."""
        given = {name: str(value) for name, value in (parameters or {}).items() if value is not None}
        return self._call("GET", path, parameters=given, timeout=timeout)

    def health(self) -> Json:
        """What the vault says of itself, well or not."""
        import httpx2

        try:
            answer = self._http.get("/health")
        except httpx2.TransportError as error:
            raise Unreachable(f"no answer from {self.connection.address}: {_reason(error)}") from None
        return Reply(answer.text).json()

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Reply:
        """POST something that changes nothing but the audit log."""
        return self._call("POST", path, body=body)

    def change(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Reply:
        """Send something that changes the vault, under one Idempotency-Key whatever the number of attempts."""
        return self._call(method, path, body=body, headers={"Idempotency-Key": str(uuid.uuid4())})

    def batch(self, key: str, operation: str, items: Sequence[Mapping[str, object]]) -> list[Json]:
        """POST a batch: its replies in order. Raises Refused with the first error among them."""
        replies = self.post(f"/keys/{segment(key)}/batch/{operation}", {"items": list(items)}).json().get("items")
        if not isinstance(replies, list) or len(replies) != len(items):
            raise UnexpectedAnswer("the answer to a batch has another number of items than the request")
        for reply in replies:
            if "error" in reply:
                raise refusal(reply["error"])
        return replies

    def pages(self, path: str, parameters: Parameters | None = None, *, limit: int | None = None) -> Iterator[Listing]:
        """The pages of a list until `limit` items; None is all of it."""
        left, after = limit, None
        while True:
            size = PAGE if left is None else min(left, PAGE)
            page = self.get(path, {**(parameters or {}), "limit": size, "after": after}).json()
            items = page.get("items", [])
            after = page.get("next")
            yield Listing(tuple(items), after, page.get("archived", 0))
            left = None if left is None else left - len(items)
            if after is None or (left is not None and left <= 0):
                return

    def collect(self, path: str, parameters: Parameters | None = None, *, limit: int | None = None) -> Listing:
        """The whole list, or its first `limit` items."""
        items: tuple[Json, ...] = ()
        rest: str | None = None
        archived = 0
        for page in self.pages(path, parameters, limit=limit):
            items, rest, archived = items + page.items, page.next, page.archived
        return Listing(items, rest, archived)

    def _call(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Reply:
        import httpx2

        path = self._without_slash(path)
        content = None if body is None else _encode(body)
        sent = {**(headers or {}), **({} if content is None else {"Content-Type": "application/json"})}
        wait = httpx2.Timeout(timeout, connect=CONNECT_TIMEOUT)
        for attempt in range(1, ATTEMPTS + 1):
            if attempt > 1:
                time.sleep(PAUSE * 4 ** (attempt - 2))
            try:
                answer = self._http.request(
                    method, path, params=parameters or None, content=content, headers=sent, timeout=wait
                )
                return _read(answer, path)
            except httpx2.TransportError as error:
                if attempt == ATTEMPTS:
                    raise Unreachable(f"no answer from {self.connection.address}: {_reason(error)}") from None
            except Refused as refused:
                if attempt == ATTEMPTS or refused.code != "outcome_unknown":
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _without_slash(self, path: str) -> str:
        """The path of a key that was called by a dialect's name (`vault:transit/orders`), by its id instead.

        No path can hold such a name: an encoded slash is refused, because proxies differ on what it means.
        """
        found = _DIALECT_NAME.fullmatch(path)
        if found is None:
            return path
        name = unquote(found[1])
        for page in self.pages("/keys"):
            for key in page.items:
                if name in key.get("aliases", ()):
                    return f"/keys/{segment(key['id'])}{found[2] or ''}"
        raise Refused("There is no key of this name", code="not_found")


_DIALECT_NAME: Final = re.compile(r"/keys/([^/]*%2F[^/]*)(/.*)?")


def segment(name: str) -> str:
    """A name or id as one segment of a path. Raises InvalidArgument for what could never be one."""
    if name in {"", ".", ".."}:
        raise InvalidArgument("a name is not empty, '.' or '..'")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise InvalidArgument("an argument is not valid UTF-8") from None


def refusal(problem: object, *, collection: str = "") -> Refused:
    """The error for a problem+json object. `collection` is the first segment of the path that was called."""
    if not isinstance(problem, dict) or "code" not in problem:
        return Refused("the vault refused without saying why")
    detail = str(problem.get("detail") or problem.get("title") or "refused")
    request_id = str(problem.get("request_id") or "")
    return Refused(detail, code=str(problem["code"]), request_id=request_id, collection=collection)


def _read(answer: "httpx2.Response", path: str) -> Reply:
    if answer.is_success:
        audit_id = answer.headers.get("Audit-Id", "")
        return Reply(answer.text, int(audit_id) if audit_id.isdecimal() else None)
    if answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        try:
            problem = json.loads(answer.text)
        except ValueError:
            problem = None
        raise refusal(problem, collection=path.split("/")[1])
    if answer.is_redirect:
        raise UnexpectedAnswer(f"the address answers with a redirect ({answer.status_code}), which is never followed")
    raise UnexpectedAnswer(f"unexpected answer {answer.status_code}: is KEYVAULT_ADDR a KeyVault Lite server?")


def _encode(body: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise InvalidArgument("an argument is not valid UTF-8") from None


def _reason(error: "httpx2.TransportError") -> str:
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return "timed out"
    text = str(error) or type(error).__name__
    return text + next((hint for mark, hint in _HINTS if mark in text), "")


# What the text of a failed connection contains, and what to look at.
_HINTS: Final = (
    ("Connection refused", ": is `kvl serve` running there?"),
    ("WRONG_VERSION_NUMBER", ": the server speaks plain HTTP there; does KEYVAULT_ADDR have to begin with http://?"),
    ("Server disconnected", ": does the server speak TLS there, and KEYVAULT_ADDR have to begin with https://?"),
    ("CERTIFICATE_VERIFY_FAILED", ": name the certificate to trust in KEYVAULT_CACERT"),
)


def _trust(connection: Connection) -> "ssl.SSLContext | bool":
    """What to check the server by; True is the system's certificates."""
    if connection.ca_file is None:
        return True
    import ssl

    try:
        return ssl.create_default_context(cafile=connection.ca_file)
    except OSError:  # includes ssl.SSLError
        raise Misconfigured("KEYVAULT_CACERT is not a readable file of PEM certificates") from None

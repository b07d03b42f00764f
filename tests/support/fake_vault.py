"""A vault for `kvl` to talk to: a real HTTP server that speaks the contract, with make-believe cryptography."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "kvl_AAAAAAAAAAAAAAAA_secretsecretsecretsecretsecretsecret"
ISSUED = "kvl_BBBBBBBBBBBBBBBB_issuedissuedissuedissuedissuedissued"
ACCESS_KEY = "AKIAQWERTZUIOPASDFGH"
KEY_ID = "11111111-2222-4333-8444-555555555555"
SERVICE_ID = "99999999-2222-4333-8444-555555555555"
HEAD = "ab" * 32

Json = dict[str, Any]


class Problem(Exception):
    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Json | None


def mac(*parts: object) -> bytes:
    return hmac.new(b"fake", json.dumps(parts, sort_keys=True).encode(), hashlib.sha256).digest()


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _raw(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


@dataclass
class FakeCipher:
    """Authenticated, and not the least bit secret: what the file format needs of a vault, without a server."""

    version: int = 1
    revoked: set[int] = field(default_factory=set)

    def batch(self, key: str, operation: str, items: Sequence[Mapping[str, object]]) -> list[Json]:
        assert len(items) <= 1000
        assert len(json.dumps({"items": items}, ensure_ascii=False).encode()) <= 1024 * 1024
        return [getattr(self, operation)(key, item) for item in items]

    def encrypt(self, key: str, item: Json) -> Json:
        plain = _raw(item["plaintext"])
        assert len(plain) <= 64 * 1024
        seed = mac("dek", key, item["context"], item["plaintext"])
        body = bytes(b ^ 0x5A for b in plain)
        tag = mac("body", seed.hex(), item["context"], _b64(body))
        dek = self._dek(key, self.version, seed, item["context"])
        return {"ciphertext": _b64(body + tag), "encrypted_dek": dek, "key_version": self.version}

    def decrypt(self, key: str, item: Json) -> Json:
        version, seed = self._open_dek(key, item)
        raw = _raw(item["ciphertext"])
        body, tag = raw[:-32], raw[-32:]
        if tag != mac("body", seed.hex(), item["context"], _b64(body)):
            raise self.invalid()
        return {"plaintext": _b64(bytes(b ^ 0x5A for b in body)), "encoding": "base64", "key_version": version}

    def rewrap(self, key: str, item: Json) -> Json:
        _version, seed = self._open_dek(key, item)
        return {"encrypted_dek": self._dek(key, self.version, seed, item["context"]), "key_version": self.version}

    def invalid(self) -> Exception:
        from keyvault_lite.client.errors import Refused

        return Refused("the ciphertext does not open", code="invalid_ciphertext")

    @staticmethod
    def _dek(key: str, version: int, seed: bytes, context: Json) -> str:
        return _b64(bytes([version]) + seed + mac("wrap", key, version, seed.hex(), context))

    def _open_dek(self, key: str, item: Json) -> tuple[int, bytes]:
        raw = _raw(item["encrypted_dek"])
        version, seed, tag = raw[:1], raw[1:33], raw[33:]
        if not version or tag != mac("wrap", key, version[0], seed.hex(), item["context"]):
            raise self.invalid()
        return version[0], seed


class ServerCipher(FakeCipher):
    def invalid(self) -> Exception:
        return Problem(400, "invalid_ciphertext", "the ciphertext does not open")


def key(name: str | None = "orders", **more: object) -> Json:
    return {
        "id": KEY_ID,
        "name": name,
        "type": "AES",
        "size": 256,
        "purpose": "ENCRYPT",
        "status": "ACTIVE",
        "active_version": 1,
        "created_at": "2026-11-20T10:00:00.000000Z",
        "description": "",
        "tags": {},
        "rotation": {"period_days": None, "next_at": None},
        "versions_count": 1,
        "aliases": [],
        **more,
    }


LIFETIME: Json = {
    "created_at": "2026-11-20T10:00:00.000000Z",
    "expires_at": "2026-12-20T10:00:00.000000Z",
    "renewable_until": "2027-11-20T10:00:00.000000Z",
}


def service(name: str = "app", **more: object) -> Json:
    grants = [{"key": "orders-*", "actions": ["encrypt", "decrypt"]}]
    return {
        "id": SERVICE_ID,
        "name": name,
        "role": "SERVICE",
        "active": True,
        "created_at": "2026-11-20T10:00:00.000000Z",
        "grants": grants,
        "expires_at": None,
        **more,
    }


def entry(number: int, **more: object) -> Json:
    return {
        "id": number,
        "service_id": SERVICE_ID,
        "action": "encrypt",
        "key_id": KEY_ID,
        "key_version": 1,
        "timestamp": f"2026-11-20T10:00:{number % 60:02}.000000Z",
        "result": "success",
        "reason": None,
        "key_ref": None,
        "prev_hash": HEAD,
        "hash": HEAD,
        **more,
    }


@dataclass
class FakeVault:
    """State that tests set and look at. `faults` are run before a request is answered, one a request, oldest first."""

    address: str = ""
    keys: list[Json] = field(default_factory=lambda: [key()])
    services: list[Json] = field(default_factory=lambda: [service()])
    entries: list[Json] = field(default_factory=lambda: [entry(n) for n in range(1, 6)])
    health: Json = field(default_factory=lambda: {"status": "ok", "sealed": False, "version": "0.1.0"})
    valid: bool = True
    archived: int = 0
    page: int = 1000
    lost: set[int] = field(default_factory=set)
    """Entries that have no receipt any more."""
    waiting: Callable[[int], None] = lambda _: None
    """Called, with the seconds, when somebody asks for what comes next."""
    cipher: ServerCipher = field(default_factory=ServerCipher)
    seen: list[Seen] = field(default_factory=list)
    faults: list[Callable[[BaseHTTPRequestHandler], bool]] = field(default_factory=list)
    replies: dict[str, tuple[int, Json]] = field(default_factory=dict)

    def last(self, method: str) -> Seen:
        return next(seen for seen in reversed(self.seen) if seen.method == method)

    def answer(self, seen: Seen) -> tuple[int, Json]:
        """Route one authenticated request."""
        idempotency = seen.headers.get("idempotency-key")
        if idempotency in self.replies:
            status, body = self.replies[idempotency]
            return status, {name: None if name in {"token", "secret_access_key"} else body[name] for name in body}
        parts = [unquote(part) for part in seen.path.strip("/").split("/")]
        status, body = getattr(self, f"_{parts[0]}")(seen, parts[1:])
        if idempotency:
            self.replies[idempotency] = status, body
        return status, body

    def _list(self, seen: Seen, items: list[Json]) -> tuple[int, Json]:
        start = int(seen.query.get("after", "0"))
        end = start + min(int(seen.query.get("limit", "100")), self.page)
        return 200, {"items": items[start:end], "next": str(end) if end < len(items) else None}

    def _find(self, items: list[Json], name: str) -> Json:
        for item in items:
            if name in {item["id"], item["name"]}:
                return item
        raise Problem(404, "not_found", "no such object")

    def _keys(self, seen: Seen, rest: list[str]) -> tuple[int, Json]:
        if not rest and seen.method == "GET":
            return self._list(seen, self.keys)
        if not rest:
            self.keys.append(key(**{"name": None, "size": 256, **(seen.body or {})}))
            return 201, self.keys[-1]
        found = self._find(self.keys, rest[0])
        if len(rest) == 1 and seen.method == "PATCH":
            body = dict(seen.body or {})
            found["rotation"] = {"period_days": body.pop("rotation_period_days", None), "next_at": None}
            found.update(body)
        if len(rest) == 1:
            return 200, found
        return 200, getattr(self, f"_key_{rest[1].replace('-', '_')}")(found, seen, rest[2:])

    def _key_versions(self, found: Json, seen: Seen, _rest: list[str]) -> Json:
        items = [
            {
                "version": n,
                "status": "ACTIVE" if n == found["versions_count"] else "DEPRECATED",
                "created_at": "2026-11-20T10:00:00.000000Z",
            }
            for n in range(1, found["versions_count"] + 1)
        ]
        return self._list(seen, items)[1]

    def _key_public_key(self, _found: Json, seen: Seen, _rest: list[str]) -> Json:
        form = seen.query.get("format", "pem")
        public: Any = {
            "pem": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "der": _b64(b"\x30\x00\xff"),
            "raw": _b64(b"\x04\xff"),
            "jwk": {"kty": "EC"},
        }[form]
        return {"version": 1, "algorithm": "ECDSA_SHA256", "format": form, "public_key": public}

    def _key_rotate(self, found: Json, _seen: Seen, _rest: list[str]) -> Json:
        self.cipher.version += 1
        found["versions_count"] = found["active_version"] = self.cipher.version
        return found

    def _status(self, found: Json, status: str) -> Json:
        found["status"] = status
        return found

    def _key_revoke(self, found: Json, _seen: Seen, _rest: list[str]) -> Json:
        return self._status(found, "REVOKED")

    def _key_disable(self, found: Json, _seen: Seen, _rest: list[str]) -> Json:
        return self._status(found, "DISABLED")

    def _key_enable(self, found: Json, _seen: Seen, _rest: list[str]) -> Json:
        return self._status(found, "ACTIVE")

    def _key_restore(self, found: Json, _seen: Seen, _rest: list[str]) -> Json:
        return self._status(found, "DISABLED")

    def _key_destroy(self, found: Json, _seen: Seen, _rest: list[str]) -> Json:
        found["destroy_at"] = "2026-12-20T10:00:00.000000Z"
        return self._status(found, "PENDING_DESTRUCTION")

    def _key_batch(self, found: Json, seen: Seen, rest: list[str]) -> Json:
        assert seen.body is not None
        items = []
        for item in seen.body["items"]:
            try:
                items.append({**getattr(self.cipher, rest[0])(found["id"], item), "audit_id": 1})
            except Problem as problem:
                items.append({"error": problem.body, "audit_id": 1})
        return {"items": items}

    def _key_sign(self, _found: Json, seen: Seen, _rest: list[str]) -> Json:
        body = seen.body or {}
        algorithm = body.get("algorithm", "ECDSA_SHA256")
        return {"signature": _b64(self._signature(body)), "algorithm": algorithm, "key_version": 1}

    def _key_verify(self, _found: Json, seen: Seen, _rest: list[str]) -> Json:
        body = seen.body or {}
        valid = _raw(body["signature"]) == self._signature(body)
        return {"valid": valid, "key_version": 1 if valid else None}

    @staticmethod
    def _signature(body: Json) -> bytes:
        message = _raw(body["message"])
        assert len(message) <= 64 * 1024
        return b"sig:" + (message if body.get("prehashed") else hashlib.sha256(message).digest())

    def _services(self, seen: Seen, rest: list[str]) -> tuple[int, Json]:
        if not rest and seen.method == "GET":
            return self._list(seen, self.services)
        if not rest:
            self.services.append(service(**{"grants": [], **(seen.body or {})}))
            return 201, {**self.services[-1], "token": ISSUED}
        found = self._find(self.services, "app" if rest[0] == "self" else rest[0])
        if rest == ["self"]:
            found = {**found, "token": {"id": "t" * 16, "kind": "native", **LIFETIME}}
        if rest[1:] == ["aws-credentials"]:
            return 201, {"access_key_id": ACCESS_KEY, "secret_access_key": ISSUED}
        if rest[1:] == ["aws-credentials", "revoke"]:
            return 200, {"items": []}
        if len(rest) == 2:
            lifetime = {f"token_{name}": LIFETIME[name] for name in ("expires_at", "renewable_until")}
            return 200, {**found, "token": ISSUED, **lifetime}
        if seen.method == "PATCH":
            body = dict(seen.body or {})
            if body.pop("expected_grants", found["grants"]) != found["grants"]:
                raise Problem(409, "conflict", "the service has other grants by now")
            found.update(body)
            found["expires_at"] = None if found["expires_at"] == "never" else found["expires_at"]
        return 200, found

    def _audit(self, seen: Seen, rest: list[str]) -> tuple[int, Json]:
        if rest == ["verify"]:
            broken = {} if self.valid else {"first_invalid": 3, "reason": "hash"}
            return 200, {"valid": self.valid, "entries": len(self.entries), "head": HEAD, **broken}
        items = [e for e in self.entries if e["timestamp"] >= seen.query.get("since", "")]
        for name in ("action", "result", "service_id", "key_id"):
            items = [e for e in items if name not in seen.query or e[name] == seen.query[name]]
        if rest == ["receipts"]:
            low, high = int(seen.query["from"]), int(seen.query["to"])
            matching = [e for e in items if low <= e["id"] <= high and e["id"] not in self.lost]
            return self._list(seen, [{"id": e["id"], "receipt": "receipt of an entry\n"} for e in matching])
        if "wait" in seen.query:
            self.waiting(int(seen.query["wait"]))
            items = [e for e in self.entries if e["id"] > int(seen.query["after"])]
            return 200, {"items": items, "next": str(items[-1]["id"]) if items else seen.query["after"]}
        status, page = self._list(seen, items if seen.query.get("order") == "asc" else items[::-1])
        return status, {**page, "archived": self.archived} if self.archived else page

    @contextmanager
    def served(self) -> Iterator["FakeVault"]:
        server = Server(self)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            self.address = f"http://127.0.0.1:{server.server_address[1]}"
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, vault: FakeVault) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.vault = vault


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart: the body would wait 40 ms for an acknowledgement
    server: Server

    def log_message(self, *_arguments: object) -> None:
        pass

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        url = urlsplit(self.path)
        seen = Seen(
            self.command,
            url.path,
            {name: values[0] for name, values in parse_qs(url.query).items()},
            {name.lower(): value for name, value in self.headers.items()},
            json.loads(raw) if raw else None,
        )
        vault = self.server.vault
        vault.seen.append(seen)
        if vault.faults and vault.faults.pop(0)(self):
            return
        try:
            self._answer(vault, seen)
        except Problem as problem:
            self.problem(problem)

    do_GET = do_POST = do_PATCH = _serve  # noqa: N815

    def _answer(self, vault: FakeVault, seen: Seen) -> None:
        if seen.path == "/health":
            self.reply(200 if vault.health["status"] == "ok" else 503, vault.health)
        elif seen.headers.get("authorization") != f"Bearer {TOKEN}":
            self.problem(Problem(401, "unauthenticated", "no valid token"))
        elif seen.path == "/audit/public-key":
            self.reply(200, {"verifier_key": "keyvault-lite/00+11223344+AQ==", "public_key": ""})
        elif seen.path.endswith("/receipt"):
            self.text(200, "receipt of an entry\n")
        elif seen.path == "/audit/checkpoint":
            self.text(200, "the checkpoint\n")
        else:
            self.reply(*vault.answer(seen))

    def problem(self, problem: Problem) -> None:
        self.reply(problem.status, {**problem.body, "request_id": "req-1"}, "application/problem+json")

    def reply(self, status: int, body: Json, kind: str = "application/json") -> None:
        self.text(status, json.dumps(body, separators=(",", ":")), kind)

    def text(self, status: int, text: str, kind: str = "text/plain", **headers: str) -> None:
        raw = text.encode()
        audit_id = str(1000 + len(self.server.vault.seen))
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Audit-Id": audit_id, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

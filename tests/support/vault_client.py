"""The dialect over a real engine, asked as its clients ask: a request in, status and JSON out, no socket between."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.identity import Role
from keyvault_lite.model.replies import NewService
from keyvault_lite.model.requests import CreateService
from keyvault_lite.wire.http import Exchange
from keyvault_lite.wire.vault import VaultApi
from tests.support.harness import Harness, grant


def b64(raw: bytes | str) -> str:
    return base64.b64encode(raw.encode() if isinstance(raw, str) else raw).decode()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body)

    @property
    def data(self) -> Any:  # noqa: ANN401
        assert self.status == 200, (self.status, self.body)
        return self.json["data"]

    @property
    def error(self) -> str:
        assert self.status >= 400, (self.status, self.body)
        errors = self.json["errors"]
        return errors[0] if errors else ""


class Asker:
    """One vault and its callers; by default the first ADMIN asks."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self._api = VaultApi(harness.engine)

    def raw(
        self, method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Answer:
        return self.harness.run(self.asking(method, path, body, headers=headers, query=query))

    async def asking(
        self, method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Answer:
        given = {"x-vault-token": self.harness.admin} if headers is None else headers
        scope = {
            "type": "http",
            "method": method,
            "path": f"/v1/{path}",
            "raw_path": f"/v1/{path}".encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
        }
        assert self._api.matches(f"/v1/{path}".encode(), scope)
        sent: list[Any] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:  # noqa: ANN401
            sent.append(message)

        reply = await self._api.answer(Exchange(scope, receive))
        await reply.send(scope, send)
        start, end = sent
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], names, end["body"])

    def __call__(self, method: str, path: str, body: object = None, *, token: str | None = "") -> Answer:
        """An empty token is the first ADMIN's, None is none."""
        path, _, query = path.partition("?")
        headers = {} if token is None else {"x-vault-token": token or self.harness.admin}
        raw = b"" if body is None else json.dumps(body).encode()
        return self.raw(method, path, raw, headers=headers, query=query)

    def post(self, path: str, body: object = None, **more: Any) -> Answer:  # noqa: ANN401
        return self("POST", path, {} if body is None else body, **more)

    def key(self, name: str, **rules: object) -> Any:  # noqa: ANN401
        return self.post(f"transit/keys/{name}", rules).data

    def read(self, name: str) -> Any:  # noqa: ANN401
        return self("GET", f"transit/keys/{name}").data

    def encrypt(self, name: str, plaintext: bytes = b"hello", **more: object) -> str:
        text: str = self.post(f"transit/encrypt/{name}", {"plaintext": b64(plaintext), **more}).data["ciphertext"]
        return text

    def decrypt(self, name: str, ciphertext: str, **more: object) -> bytes:
        found = self.post(f"transit/decrypt/{name}", {"ciphertext": ciphertext, **more}).data["plaintext"]
        return base64.b64decode(found)

    def service(self, name: str, *grants: tuple[str, str], role: Role = Role.SERVICE) -> str:
        made: NewService = self.harness.ask(
            CreateService(name, role, tuple(grant(key, *actions.split()) for key, actions in grants))
        )
        return made.token

    @property
    def last(self) -> Entry:
        return self.harness.last

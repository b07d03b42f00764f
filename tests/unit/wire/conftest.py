"""A real vault behind a real socket, and which modules are collected."""

import asyncio
import base64
import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from pydantic import SecretStr

from keyvault_lite import app
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.server.connection import serve
from keyvault_lite.settings import Settings
from tests.support.fake_engine import Response


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a module of slow tests whose collection is slow too, unless they are asked for."""
    unasked = "not slow" in config.getoption("markexpr")
    return True if unasked and collection_path.name == "test_real_behaviour.py" else None


KEYS = {
    "orders": {"type": "AES", "purpose": "ENCRYPT"},
    "signer": {"type": "ED25519", "purpose": "SIGN"},
    "mac": {"type": "HMAC", "purpose": "MAC"},
}


@dataclass
class Client:
    """One caller, one connection."""

    port: int
    token: str | None

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Response:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if data:
            sent.setdefault("Content-Type", "application/json")
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, data, sent)
            reply = connection.getresponse()
            named = {key.lower(): value for key, value in reply.getheaders()}
            return Response(reply.status, named, reply.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: Path = tmp_path_factory.mktemp("vault")
    chosen = Settings(
        master_key=SecretStr(base64.b64encode(os.urandom(32)).decode()),
        database_url=f"sqlite:///{folder}/keyvault.db",
        log_level="error",
    )
    token = initialise_vault(chosen).token
    server = uvicorn.Server(serve(app.build(chosen), host="127.0.0.1", port=0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    client = Client(server.servers[0].sockets[0].getsockname()[1], token)
    for key, kind in KEYS.items():
        assert client.ask("POST", "/keys", {"name": key, **kind}).status == 201
    yield client
    server.should_exit = True
    thread.join(20)

"""A sealed vault is served: it answers 503 in each protocol's own form, and opens under the same application."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite import app
from keyvault_lite.crypto.root import InvalidMasterKey, MasterKey
from keyvault_lite.engine.sealed import SealedEngine
from keyvault_lite.engine.unsealing import Unsealing
from keyvault_lite.model.errors import NotFound
from keyvault_lite.roots.keyfile import FileRoot
from keyvault_lite.roots.opening import open_by
from keyvault_lite.wire.application import Application
from tests.support.harness import Harness, create_vault, settings_for


async def ask(application: Application, method: str, path: str, *headers: tuple[bytes, bytes]) -> tuple[int, Any]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:  # noqa: ANN401
        sent.append(message)

    scope: Any = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers],
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await application(scope, receive, send)
    body = b"".join(one.get("body", b"") for one in sent[1:])
    return sent[0]["status"], json.loads(body) if body else None


@pytest.fixture
def vault(tmp_path: Path) -> tuple[app.SealedVault, str, str]:
    master, token = create_vault(tmp_path)
    return app.find_vault(settings_for(tmp_path, master)), master, token


def by_key(master: MasterKey) -> app.Unlock:
    return lambda slots: open_by(slots, [FileRoot(lambda: master)])


def served(sealed: app.SealedVault) -> Application:
    unsealing = Unsealing(lambda: sealed.slots, [FileRoot(lambda: MasterKey.generate()[0])])
    application = app.build_sealed(sealed.settings, unsealing)
    application.serve(SealedEngine(unsealing))
    return application


def test_each_protocol_says_in_its_own_form_that_the_vault_is_sealed(vault: tuple[app.SealedVault, str, str]) -> None:
    application, token = served(vault[0]), vault[2]
    bearer = (b"authorization", f"Bearer {token}".encode())

    async def check() -> None:
        status, body = await ask(application, "GET", "/keys", bearer)
        assert (status, body["code"]) == (503, "sealed")
        status, body = await ask(application, "PUT", "/v1/transit/encrypt/k", (b"x-vault-token", token.encode()))
        assert status == 503
        assert "sealed" in body["errors"][0]
        status, body = await ask(application, "GET", "/health")
        assert (status, body["status"], body["sealed"]) == (503, "sealed", True)

    asyncio.run(check())


def test_it_opens_under_the_same_application(vault: tuple[app.SealedVault, str, str]) -> None:
    sealed, master, token = vault
    application = served(sealed)
    bearer = (b"authorization", f"Bearer {token}".encode())

    async def check() -> None:
        assert (await ask(application, "GET", "/keys", bearer))[0] == 503
        opened = sealed.open(by_key(MasterKey.parse(master)))
        try:
            application.serve(opened.engine)
            assert await ask(application, "GET", "/keys", bearer) == (200, {"items": [], "next": None})
            assert (await ask(application, "GET", "/health"))[1]["sealed"] is False
        finally:
            opened.close()

    asyncio.run(check())


def test_a_wrong_key_opens_nothing_and_the_right_one_afterwards_does(vault: tuple[app.SealedVault, str, str]) -> None:
    sealed, master, token = vault
    with pytest.raises(InvalidMasterKey):
        sealed.open(by_key(MasterKey.generate()[0]))
    sealed.open(by_key(MasterKey.parse(master))).close()
    harness = Harness(sealed.settings, token)
    assert harness.size == 1, "nothing was recorded while it was sealed"
    harness.close()


def test_a_vault_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not initialised"):
        app.find_vault(settings_for(tmp_path, MasterKey.generate()[1]))
    assert not (tmp_path / "vault.db").exists()

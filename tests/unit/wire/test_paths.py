"""What is authorised is the path that was sent: no spelling of a path that is not its own reaches the engine."""

import re
from collections.abc import Iterator

import pytest

from keyvault_lite.model.errors import NotFound
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import Origin, Request
from keyvault_lite.wire.application import Application
from keyvault_lite.wire.aws import AwsApi
from keyvault_lite.wire.native.routes import ROUTES
from keyvault_lite.wire.vault import VaultApi
from keyvault_lite.wire.vault.routes import APPROLE, SYSTEM, TRANSIT
from tests.support.fake_engine import FakeEngine, ask, build

FILLED = {
    "algorithm": "sha2-256",
    "bytes": "32",
    "id": "7",
    "key_id": "orders",
    "kind": "plaintext",
    "mount": "team",
    "name": "orders",
    "path": "team/billing",
    "role": "web",
    "source": "platform",
    "version": "1",
}


class Asked(FakeEngine):
    """Does nothing, and remembers what it was asked."""

    async def perform(self, request: Request, credential: Credential, origin: Origin) -> Answer:
        self.seen.append((request, credential, origin))
        raise NotFound


def native() -> Iterator[tuple[str, str]]:
    for route in ROUTES:
        yield route.method, re.sub(r"\{(\w+)\}", lambda found: FILLED[found[1]], route.path)


def vault() -> Iterator[tuple[str, str]]:
    mounted = ((APPROLE, "/v1/auth/approle/"), (APPROLE, "/v1/auth/ci/"), (TRANSIT, "/v1/transit/"))
    for table, prefix in ((SYSTEM, "/v1/"), *mounted):
        for template, methods in table.templates().items():
            path = "/".join(FILLED[part.strip("{.}")] if part[0] == "{" else part for part in template)
            for method in methods:
                yield method, prefix + path


PATHS = [*native(), *vault()]


def other_spellings(path: str) -> Iterator[str]:
    """Paths that something between a caller and the vault might take for this one."""
    for at, letter in enumerate(path):
        before, after = path[:at], path[at + 1 :]
        if letter == "/":
            yield from (before + one + after for one in ("//", "///", "/./", "/x/../", "/%2e/", "/%2F", "/;/", "\\"))
            yield from (before + one + after for one in ("%2F", "%2f", "%252F", "/%00", "/%09"))
        elif letter.isalpha() and path[at - 1] == "/":
            yield f"{before}%{ord(letter):02x}{after}"
    yield from (path + one for one in ("//", "/.", "/..", "/%2e", "%2F", "%00", "%20", "%3F", "%23", ";", ";x=1", "\\"))
    yield "/" + path
    yield path.swapcase() if path.isupper() else path.upper()


@pytest.fixture(scope="module")
def engine() -> Asked:
    return Asked()


@pytest.fixture(scope="module")
def app(engine: Asked) -> Application:
    return build(engine, AwsApi(engine), VaultApi(engine))


@pytest.mark.parametrize(("method", "path"), PATHS, ids=lambda one: one)
def test_only_its_own_spelling_of_a_path_is_that_path(app: Application, engine: Asked, method: str, path: str) -> None:
    ask(app, method, path, {} if method == "POST" else None)
    assert engine.seen, "the path itself leads to the engine"
    for other in other_spellings(path):
        engine.seen.clear()
        answer = ask(app, method, other, {} if method == "POST" else None)
        assert (answer.status in {400, 404, 405}, engine.seen) == (True, []), other


@pytest.mark.parametrize(("method", "path"), PATHS, ids=lambda one: one)
def test_a_slash_at_the_end(app: Application, engine: Asked, method: str, path: str) -> None:
    """Clients of Vault write one behind a list and behind a mount; nobody else does."""
    engine.seen.clear()
    answer = ask(app, method, f"{path}/", {} if method == "POST" else None)
    named = path.startswith(("/v1/sys/mounts/", "/v1/sys/auth/", "/v1/sys/internal/ui/mounts/"))
    taken = path.startswith("/v1/") and (method == "LIST" or (named and method != "POST"))
    assert bool(engine.seen) is taken
    if not taken:
        assert answer.status in ({400} if path.startswith("/v1/") and method == "POST" else {404})


@pytest.mark.parametrize("path", ["/v1//sys/mounts", "/v1///sys/mounts", "/v1/sys/mounts//", "/v1/sys/../sys/mounts"])
def test_paths_of_vault_are_canonical(app: Application, engine: Asked, path: str) -> None:
    engine.seen.clear()
    answer = ask(app, "GET", path)
    assert (answer.status, answer.json) == (400, {"errors": ["vault request paths must be canonical and not relative"]})
    assert answer.headers["content-type"] == "application/json"
    assert engine.seen == []


@pytest.mark.parametrize("path", ["//", "/.", "/./", "/%2F", "/;", "/%20", "/x"])
def test_the_aws_dialect_has_one_path(app: Application, engine: Asked, path: str) -> None:
    engine.seen.clear()
    headers = [(b"x-amz-target", b"TrentService.ListKeys")]
    sent = {"headers": headers, "content_type": b"application/x-amz-json-1.1"}
    assert ask(app, "POST", path, {}, **sent).status == 404
    assert engine.seen == []
    ask(app, "POST", "/", {}, **sent)
    assert len(engine.seen) == 1

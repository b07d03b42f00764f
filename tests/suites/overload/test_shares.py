"""A SERVICE without grants takes a bounded part of the server, whatever it sends, and nobody waits for it."""

import asyncio
import contextlib
import gc
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite.dialects.vault.system_requests import EnableMount
from keyvault_lite.engine import pacing
from keyvault_lite.engine.pacing import ServicePacing
from keyvault_lite.engine.pauses import pause
from keyvault_lite.model.errors import ShareExceeded
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import BearerCredential, Role
from keyvault_lite.model.intake import RequestConnection, Upload
from keyvault_lite.model.names import KeyRef, ServiceId
from keyvault_lite.model.requests import Encrypt, ListKeys, ListServices, Origin, RevokeKey
from keyvault_lite.wire.application import Application
from keyvault_lite.wire.asgi import Message
from keyvault_lite.wire.aws import AwsApi
from keyvault_lite.wire.vault import VaultApi
from tests.suites.overload.server import Load, Vault, wait_until
from tests.support.fake_engine import build, call
from tests.support.harness import Harness, grant

MIB = 1024 * 1024
ATTACKER = Path(__file__).parent / "attacker.py"


def shapes(field: str, size: int) -> Iterator[tuple[str, bytes]]:
    """Bodies of about a size, of every kind of character and structure; one at a time, as they are large."""
    name = field.encode()

    def text(unit: bytes) -> bytes:
        return b'{"%b": "' % name + unit * (size // len(unit)) + b'"}'

    def many(member: bytes) -> bytes:
        item = b'{"%b": "AAAA"}, ' % name
        return b'{"%b": [' % member + (item * (size // 24))[:-2] + b"]}"

    yield "base64", text(b"A")
    yield "base64 and one more", text(b"A")[:-2] + "é".encode() + b'"}'
    yield "two bytes", text("é".encode())
    yield "four bytes", text("\N{GRINNING FACE}".encode())
    yield "escapes", text(b"\\n")
    yield "escaped pairs", text(b"\\ud83d\\ude00")
    yield "quoted brackets", text(b'\\"[')
    yield "opened", b'{"%b": ' % name + b"[" * size
    yield "lists", b'{"%b": [' % name + b"[]," * (size // 3) + b"[]]}"
    yield "objects", b'{"unread": [' + b"{}," * (size // 3) + b"{}]}"
    yield "numbers", b"[" + b"1," * (size // 2) + b"1]"
    yield "long number", b'{"%b": ' % name + b"9" * size + b"}"
    yield "members", members(size // 10)
    yield "spaces", b" " * size
    yield "batch", many(b"batch_input")
    yield "items", many(b"items")


@lru_cache(maxsize=4)
def members(number: int) -> bytes:
    """An object of so many members, each of its own name."""
    return b"{" + b",".join(b'"%d":1' % one for one in range(number)) + b"}"


ROUTES = {
    "/keys/orders/encrypt": ("plaintext", MIB),
    "/keys/orders/batch/encrypt": ("plaintext", MIB),
    "/keys": ("description", MIB),
    "/random": ("bytes", MIB),
    "/v1/transit/encrypt/orders": ("plaintext", 32 * MIB),
    "/v1/transit/decrypt/orders": ("ciphertext", 32 * MIB),
    "/v1/transit/sign/orders": ("input", 32 * MIB),
    "/v1/transit/hash": ("input", 32 * MIB),
    "/v1/nomount/hmac/orders": ("input", 32 * MIB),
    "/v1/auth/token/create": ("meta", MIB),
    "/": ("Plaintext", 256 * 1024),
}


def everything(harness: Harness) -> Application:
    return build(harness.engine, VaultApi(harness.engine), AwsApi(harness.engine))


async def longest_turn(app: Application, path: str, body: bytes, token: str) -> tuple[int, float]:
    """The status, and the longest turn of the loop meanwhile, in processor time of its thread alone."""
    parts = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    length = (b"content-length", str(len(body)).encode())
    headers = [length, (b"x-vault-token", token.encode()), (b"x-amz-target", b"TrentService.Encrypt")]
    asked = asyncio.ensure_future(call(app, "POST", path, parts=parts, token=token, headers=headers))
    longest = 0.0
    while not asked.done():
        began = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - began)
    return (await asked).status, longest


@pytest.fixture
def calm() -> Iterator[None]:
    """No collection of garbage: it takes as long as everything that the process of the tests has made."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("path", ROUTES)
def test_no_body_of_a_service_without_grants_holds_the_loop_up(harness: Harness, path: str) -> None:
    harness.key("orders")
    _, token = harness.service("nobody")
    app = everything(harness)
    field, limit = ROUTES[path]
    for size in (4_000, 64_000, limit - 200):
        for name, body in shapes(field, size):
            status, longest = harness.run(longest_turn(app, path, body, token))
            assert status < 500, (name, size, status)
            assert size < limit // 2 or status >= 400, (name, size)
            assert longest < 0.03, (name, size, longest)


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("path", ["/keys/orders/encrypt", "/v1/transit/encrypt/orders", "/v1/transit/hash"])
def test_a_large_body_of_a_granted_service_leaves_turns_to_others(harness: Harness, path: str) -> None:
    harness.key("orders")
    harness.ask(EnableMount("transit"))
    app = everything(harness)
    field, limit = ROUTES[path]
    size = min(limit, 4 * MIB) - 200
    for name, body in shapes(field, size):
        _, longest = harness.run(longest_turn(app, path, body, harness.admin))
        assert longest < 0.15, (name, longest)


def test_large_data_is_encrypted_for_who_may(harness: Harness) -> None:
    harness.ask(EnableMount("transit"))
    app = everything(harness)
    _, token = harness.service("shop", grant("vault:transit/orders", "encrypt", "decrypt"))
    vault = [(b"x-vault-token", harness.admin.encode())]
    assert harness.run(call(app, "POST", "/v1/transit/keys/orders", {}, headers=vault)).status == 200
    text = "QUJD" * (7 * MIB)

    async def transit(operation: str, body: object) -> Any:  # noqa: ANN401
        headers = [(b"x-vault-token", token.encode())]
        reply = await call(app, "POST", f"/v1/transit/{operation}/orders", body, headers=headers)
        assert reply.status == 200, reply.body[:200]
        return reply.json["data"]

    sealed = harness.run(transit("encrypt", {"plaintext": text[: 18 * MIB]}))
    assert harness.run(transit("decrypt", {"ciphertext": sealed["ciphertext"]}))["plaintext"] == text[: 18 * MIB]
    many = harness.run(transit("encrypt", {"batch_input": [{"plaintext": "QUJD"}] * 3_000}))
    assert len(many["batch_results"]) == 3_000


# Pacing


def test_requests_without_a_key_are_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "MAX_WAITING", 5)
    monkeypatch.setattr(pacing, "BURST", 10 * pacing.INTERVAL)

    async def run() -> None:
        paced, shop, other = ServicePacing(), ServiceId("shop"), ServiceId("other")
        began = time.monotonic()
        for _ in range(10):
            await paced.pace(shop)
        at_once = time.monotonic() - began
        asked = [asyncio.create_task(paced.pace(shop)) for _ in range(8)]
        await asyncio.sleep(0)
        await paced.pace(other)
        results = await asyncio.gather(*asked, return_exceptions=True)
        away = [one for one in results if isinstance(one, ShareExceeded)]
        assert len(away) == 3
        assert [one.after for one in away] == sorted(one.after for one in away)
        assert all(0 < one.after <= pacing.MAX_AWAY for one in away)
        assert time.monotonic() - began >= 5 * pacing.INTERVAL
        assert at_once < 5
        await paced.pace(shop)
        paced.charge(shop, 1000.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(paced.pace(shop), 0.05)
        await paced.pace(other)

    asyncio.run(run())


async def started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(work)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def test_a_paced_request_is_given_up_with_its_connection(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "INTERVAL", 1000.0)
    monkeypatch.setattr(pacing, "BURST", 0.0)
    _, shop = harness.service("shop")
    _, other = harness.service("other")
    service = {one.name: one.id for one in harness.ask(ListServices()).items}

    async def run() -> None:
        conn = RequestConnection()
        origin = Origin(request_id=bytes(16), conn=conn)
        asked = await started(harness.engine.perform(ListKeys(), BearerCredential(shop), origin))
        assert not asked.done()
        assert conn.owner == service["shop"]
        assert conn.leave is not None
        conn.leave()
        with pytest.raises(ShareExceeded):
            await asked
        conn = RequestConnection()
        sized = await started(harness.engine.intake(BearerCredential(other), Upload(Action.KEY_READ), conn))
        assert conn.owner == service["other"]
        assert conn.leave is not None
        conn.leave()
        with pytest.raises(ShareExceeded):
            await sized
        await harness.engine.perform(ListKeys(), BearerCredential(harness.admin), origin)

    harness.run(run())


def test_who_is_turned_away_is_given_up_with_its_connection() -> None:
    async def run() -> None:
        conn = RequestConnection()
        waiting = await started(pause(1000.0, conn))
        assert not waiting.done()
        assert conn.leave is not None
        conn.leave()
        assert await waiting is False
        assert await pause(0.0, conn) is True

    asyncio.run(run())


def test_uses_of_a_key_and_administration_are_not_paced(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    key = KeyRef(harness.key("orders").id)
    _, shop = harness.service("shop", grant("orders", "encrypt"))
    _, auditor = harness.service("auditor", role=Role.AUDITOR)
    monkeypatch.setattr(pacing, "MAX_WAITING", 0)
    for request in (ListKeys(), Encrypt(KeyRef("nosuch"), plaintext=b"x")):
        assert harness.refusal(request, ShareExceeded, shop).audit_id is None
    harness.ask(Encrypt(key, plaintext=b"x"), shop)
    harness.ask(ListKeys(), auditor)
    harness.ask(ListKeys())
    harness.ask(RevokeKey(key))


async def answered_beside(app: Application, slow: int, honest: bytes) -> bool:
    """Whether a request is answered while so many others send their heads and no body."""
    target = (b"x-amz-target", b"TrentService.Encrypt")
    ended = asyncio.Event()

    async def nothing() -> Message:
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        """Nobody reads."""

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(b"content-length", b"250000"), target],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    waiting = [asyncio.ensure_future(app(dict(scope), nothing, send)) for _ in range(slow)]
    await asyncio.sleep(0)
    asked = asyncio.ensure_future(call(app, "POST", "/", honest, token=None, headers=[target]))
    done, _ = await asyncio.wait([asked], timeout=20)
    ended.set()
    await asyncio.gather(*waiting, asked)
    return bool(done)


def test_bodies_that_do_not_come_keep_no_room_from_others(harness: Harness) -> None:
    assert harness.run(answered_beside(everything(harness), 200, b"x" * 6000))


# Against a server


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault.make(tmp_path)
    made.start()
    made.key()
    yield made
    made.kill()


@contextlib.contextmanager
def attacked(vault: Vault, token: str, kind: str, connections: int) -> Iterator[None]:
    command = [sys.executable, str(ATTACKER), str(vault.port), token, kind, str(connections)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            time.sleep(1)
            yield
        finally:
            process.kill()


def resident(vault: Vault) -> int:
    assert vault.process is not None
    status = Path(f"/proc/{vault.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


def beside(vault: Vault, number: int) -> list[float]:
    with Load(vault, 2) as load:
        wait_until(lambda: len(load.seconds) > number, 60)
    assert load.others == []
    return load.seconds


@pytest.mark.slow  # it compares times: attacker, server and callers need the machine to themselves
@pytest.mark.parametrize(("kind", "connections"), [("large", 8), ("medium", 32), ("small", 64)])
def test_good_callers_go_on_beside_a_service_without_grants(vault: Vault, kind: str, connections: int) -> None:
    made = vault.client().ask("POST", "/services", {"name": "nobody", "role": "SERVICE"}).json
    alone = beside(vault, 300)
    before = resident(vault)
    with attacked(vault, made["token"], kind, connections):
        good = beside(vault, 300)
        client = vault.client()
        began = time.perf_counter()
        assert client.ask("GET", "/health").status == 200
        healthy = time.perf_counter() - began
        assert client.ask("POST", "/keys/orders/revoke").status == 200
        revoked = time.perf_counter() - began
        held = resident(vault) - before
    # Not a measurement: attacker, callers and whatever else runs share the machine (see benchmarks/overload.py).
    assert percentile(good, 0.5) < 4 * percentile(alone, 0.5) + 0.03
    assert percentile(good, 0.95) < 6 * percentile(alone, 0.95) + 0.1
    assert healthy < 1
    assert revoked < 2
    assert held < 100 * MIB

"""Mixed load: callers who ask at once, and tell the parent what they ask before, and what they were answered after."""

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Any

from keyvault_lite.app import Vault
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.identity import BearerCredential
from keyvault_lite.model.requests import Origin
from tests.suites.crash.killed import say
from tests.suites.crash.workload import IDEMPOTENT, ORDERS, SIGNER, digest_of, request_of, result_of
from tests.support.harness import idempotent

CALLERS = 6
WEIGHTS = {
    "encrypt": 6,
    "decrypt": 4,
    "sign": 4,
    "encrypt many": 2,
    "sign many": 2,
    "create": 3,
    "rotate": 3,
    "revoke": 2,
    "read": 2,
    "hire": 2,
    "dismiss": 1,
    "renew": 1,
}


class Load:
    """What the callers of one process know together."""

    def __init__(self, vault: Vault, token: str, seed: int, most: int) -> None:
        self._vault, self._token, self._seed, self._most = vault, token, seed, most
        self._keys = [ORDERS]
        """Revoked ones stay: they are asked for as well, and refused."""
        self._messages: list[dict[str, Any]] = []
        self._services: list[str] = []

    async def run(self) -> None:
        """Ask until the process dies, or each caller has asked `most` times."""
        say(ready=True)
        await asyncio.gather(*(self._call(number) for number in range(CALLERS)))

    async def _call(self, caller: int) -> None:
        chance = random.Random(f"{self._seed}/{caller}")
        for asked in self._wishes(chance, f"{self._seed}-{caller}"):
            say(asked=asked)
            kept = idempotent(asked["op"], asked["op"]) if asked["kind"] in IDEMPOTENT else None
            origin = Origin(os.urandom(16), client_request_id=asked["op"], idempotency=kept)
            try:
                answer = await self._vault.engine.perform(request_of(asked), BearerCredential(self._token), origin)
            except KeyVaultError as error:
                say(op=asked["op"], refused=error.code, audit=error.audit_id)
                continue
            result = result_of(answer.result)
            digest = None if kept is None else digest_of(kept.render(answer.result))
            say(op=asked["op"], done=result, audit=answer.audit_id, kept=digest)
            self._learn(asked, result)

    def _wishes(self, chance: random.Random, prefix: str) -> Iterator[dict[str, Any]]:
        for number in range(self._most):
            kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            asked = {"op": f"{prefix}-{number}", "kind": kind}
            if kind in {"encrypt", "encrypt many", "rotate", "read"}:
                yield asked | {"key": chance.choice([ORDERS, *self._keys[-8:]])}
            elif kind.startswith("sign"):
                yield asked | {"key": SIGNER}
            elif kind == "revoke" and self._keys[1:]:
                yield asked | {"key": chance.choice(self._keys[1:])}
            elif kind == "decrypt" and self._messages:
                yield asked | chance.choice(self._messages[-20:])
            elif kind in {"dismiss", "renew"} and self._services:
                yield asked | {"service": chance.choice(self._services)}
            elif kind in {"create", "hire"}:
                yield asked

    def _learn(self, asked: dict[str, Any], result: dict[str, Any]) -> None:
        if asked["kind"] == "create":
            self._keys.append(result["id"])
        elif asked["kind"] == "hire":
            self._services.append(result["service"])
        elif asked["kind"] == "encrypt":
            message = {"ciphertext": result["ciphertext"], "dek": result["dek"]}
            self._messages.append({"key": asked["key"], "of": asked["op"], **message})

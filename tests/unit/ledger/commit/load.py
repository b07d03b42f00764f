"""A process that puts load on a vault, and says on standard output what was acknowledged: run by tests, and killed."""

import asyncio
import itertools
import os
import sys

from keyvault_lite import app, settings
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.identity import BearerCredential
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import CreateKey, Encrypt, Origin, Request, RotateKey
from tests.support.harness import AES


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def load(vault: app.Vault, token: str, name: str, rounds: int, callers: int) -> None:
    async def ask(request: Request) -> None:
        try:
            answer = await vault.engine.perform(request, BearerCredential(token), Origin(os.urandom(16)))
        except KeyVaultError as error:
            say("refused", error.code, error.audit_id)
        else:
            made = getattr(answer.result, "id", "-")
            say("done", request.action.value, answer.audit_id, made)

    async def caller(first: int) -> None:
        for number in itertools.count(first) if rounds == 0 else range(first, first + rounds):
            if number % 10 == 3:
                await ask(CreateKey(AES))
            elif number % 10 == 7:
                await ask(RotateKey(KeyRef(name)))
            else:
                await ask(Encrypt(KeyRef(name), plaintext=b"x"))

    say("ready")
    await asyncio.gather(*map(caller, range(callers)))


def main() -> None:
    token, name, rounds, callers = sys.argv[1:]
    vault = app.open_vault(settings.load())
    asyncio.run(load(vault, token, name, int(rounds), int(callers)))
    vault.close()


if __name__ == "__main__":
    main()

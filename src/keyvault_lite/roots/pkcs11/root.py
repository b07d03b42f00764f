"""`pkcs11:` — the slot key follows from a key that never leaves its token."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.root import SIZE, RootError, SlotKey
from keyvault_lite.crypto.rsa_wrapping import wrap_to
from keyvault_lite.crypto.slot_parameters import SlotPlace, UnusableSlot, bind_to_place, parameters
from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.roots.pkcs11.token_uri import TokenUri
from keyvault_lite.roots.root import Enrolled, Root, RootRefused, RootUnavailable, Wanted

TIMEOUT_SECONDS: Final = 30.0
_MAX_ANSWER: Final = 64 * 1024
_SALT: Final = 32
HMAC: Final = "hmac"
OAEP: Final = "rsa-oaep"


class Pkcs11Root(Root):
    """A key on a token."""

    kind: ClassVar = "pkcs11"
    device: ClassVar = True

    def __init__(self, uri: str, *, use_last_tries: bool = False) -> None:
        """Raises RootError. `use_last_tries` logs in although the token says that the PIN was wrong before."""
        self._uri = TokenUri.parse(uri)
        self._use_last_tries = use_last_tries
        self._text = uri

    @property
    def name(self) -> str:
        """See Root."""
        return f"pkcs11:{self._text}"

    def unlock(self, wanted: Sequence[Wanted]) -> list[SlotKey | RootError]:
        """See Root. One process and one login, whatever the number of slots."""
        if not wanted:
            return []
        asked: list[dict[str, str] | None] = []
        problems: list[RootError | None] = []
        for one in wanted:
            try:
                asked.append(_question(one))
                problems.append(None)
            except UnusableSlot as error:
                asked.append(None)
                problems.append(error)
        if not any(asked):
            return [one for one in problems if one is not None]
        answers = self._ask("unlock", wanted=[one for one in asked if one is not None])["keys"]
        results: list[SlotKey | RootError] = []
        for one, problem in zip(wanted, problems, strict=True):
            if problem is not None:
                results.append(problem)
                continue
            raw = answers.pop(0)
            if raw is None:
                results.append(RootRefused("The token does not open this slot."))
            else:
                results.append(bind_to_place(_exactly(raw), one.place, self.kind))
        return results

    def unlock_one(self, wanted: Wanted) -> SlotKey:
        """See Root."""
        result = self.unlock([wanted])[0]
        if isinstance(result, RootError):
            raise result
        return result

    def enroll(self, place: SlotPlace, rng: Rng) -> Enrolled:
        """See Root. An HMAC key is preferred: nothing is wrapped, and it can do nothing else."""
        key = self._ask("describe")
        if key["type"] == HMAC:
            salt = rng(_SALT)
            made = parameters(self.kind, mechanism=HMAC, salt=salt)
        else:
            raw = rng(SIZE)
            try:
                wrapped = wrap_to(int(key["modulus"], 16), int(key["exponent"], 16), raw, hash_name=key["hash"])
            except ValueError:
                raise RootRefused("The RSA key on the token has less than 2048 or more than 8192 bits.") from None
            made = parameters(self.kind, mechanism=OAEP, hash=key["hash"], wrapped=wrapped)
        return Enrolled(made, self.unlock_one(Wanted(made, place)))

    def create(self) -> str:
        """See Root."""
        self._ask("create")
        return "a secret key for HMAC that cannot be exported"

    def check(self) -> str:
        """See Root. Logs in, and looks at the key."""
        found = self._ask("describe")
        return f"the token answers, with a key for {found['type']}"

    def _ask(self, what: str, **more: object) -> dict[str, Any]:
        question = {"do": what, "uri": self._uri.as_object(), "use_last_tries": self._use_last_tries, **more}
        try:
            # -I: nothing is imported from where this process stands, nor from what PYTHONPATH says.
            done = subprocess.run(
                [sys.executable, "-I", "-m", "keyvault_lite.roots.pkcs11.child"],
                input=json.dumps(question).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RootUnavailable(f"The PKCS#11 module did not answer within {TIMEOUT_SECONDS:.0f} seconds.") from None
        return _answer(done)


def _answer(done: "subprocess.CompletedProcess[bytes]") -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(done.stdout[:_MAX_ANSWER])
    except ValueError:
        raise RootUnavailable("The PKCS#11 module ended its process without an answer.") from None
    if "unavailable" in found:
        raise RootUnavailable(found["unavailable"])
    if "refused" in found:
        raise RootRefused(found["refused"])
    return found


def _question(wanted: Wanted) -> dict[str, str]:
    found = wanted.parameters
    mechanism = found.text("mechanism", 16)
    if mechanism == HMAC:
        data = wanted.place.label("pkcs11-hmac", found.raw("salt", _SALT, _SALT))
        return {"mechanism": HMAC, "data": data.hex()}
    if mechanism == OAEP:
        return {"mechanism": OAEP, "hash": found.text("hash", 16), "data": found.raw("wrapped", 256, 1024).hex()}
    raise UnusableSlot("A pkcs11 slot has an unusable value of `mechanism`: the database was changed.")


def _exactly(text: str) -> bytes:
    raw = decode_base64(text)
    if len(raw) != SIZE:
        raise UnusableSlot("The token gives something else than 32 bytes.")
    return raw


def _environment() -> dict[str, str]:
    """What modules of vendors look for, and no secret of the vault."""
    return {name: text for name, text in os.environ.items() if not name.startswith(("KEYVAULT_", "PG", "PYTHON"))}

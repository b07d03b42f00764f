"""The PKCS#11 root on SoftHSM: its key stays on the token, its PIN is tried once, its module may crash or hang."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite.crypto.root import RootError, SlotKey
from keyvault_lite.crypto.slot_parameters import SlotParameters, SlotPlace
from keyvault_lite.roots.pkcs11 import child
from keyvault_lite.roots.pkcs11 import root as pkcs11_root
from keyvault_lite.roots.pkcs11.root import Pkcs11Root
from keyvault_lite.roots.pkcs11.token_uri import TokenUri
from keyvault_lite.roots.root import RootRefused, RootUnavailable, Wanted
from tests.support.devices import SoftwareToken, needs_token

PLACE = SlotPlace(b"i" * 16, "00000000-0000-4000-8000-000000000001")
OTHER = SlotPlace(b"j" * 16, PLACE.slot_id)
QUERY = "?module-path=/usr/lib/x.so&pin-source=file:/run/pin"


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftwareToken:
    made = SoftwareToken(tmp_path / "softhsm")
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.conf))
    return made


def rsa_on(token: SoftwareToken, *, extractable: bool = False) -> None:
    """An RSA key as an operator makes it, in a process of its own: a module is initialised once in each."""
    program = f"""
import pkcs11
token = pkcs11.lib({str(TokenUri.parse(token.uri()).module)!r}).get_token(token_label="kvl")
with token.open(user_pin={token.pin!r}, rw=True) as session:
    session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label="root", private_template={{
        pkcs11.Attribute.EXTRACTABLE: {extractable}, pkcs11.Attribute.SENSITIVE: {not extractable}}})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@needs_token
def test_a_key_that_never_leaves_gives_the_slot_key(token: SoftwareToken) -> None:
    root = Pkcs11Root(token.uri())
    with pytest.raises(RootRefused, match="kvl root create"):
        root.check()
    assert "cannot be exported" in root.create()
    with pytest.raises(RootRefused, match="already"):
        root.create()
    assert root.check() == "the token answers, with a key for hmac"
    made = root.enroll(PLACE, os.urandom)
    assert root.unlock_one(Wanted(made.parameters, PLACE)).reveal() == made.key.reveal()
    assert root.unlock_one(Wanted(made.parameters, OTHER)).reveal() != made.key.reveal()


@needs_token
def test_an_rsa_key_serves_too(token: SoftwareToken) -> None:
    rsa_on(token)
    root = Pkcs11Root(token.uri())
    made = root.enroll(PLACE, os.urandom)
    assert made.parameters.values["mechanism"] == "rsa-oaep"
    assert root.unlock_one(Wanted(made.parameters, PLACE)).reveal() == made.key.reveal()
    damaged = SlotParameters("pkcs11", {**made.parameters.values, "wrapped": "A" * 344})
    results = root.unlock([Wanted(damaged, PLACE), Wanted(made.parameters, PLACE)])
    assert isinstance(results[0], RootError)
    assert isinstance(results[1], SlotKey)


@needs_token
def test_a_key_that_can_be_exported_is_refused(token: SoftwareToken) -> None:
    rsa_on(token, extractable=True)
    with pytest.raises(RootRefused, match="can be exported"):
        Pkcs11Root(token.uri()).enroll(PLACE, os.urandom)


@needs_token
def test_a_pin_is_tried_once(token: SoftwareToken) -> None:
    root = Pkcs11Root(token.uri())
    root.create()
    made = root.enroll(PLACE, os.urandom)
    token.pin_file.write_text("wrong-pin\n")
    with pytest.raises(RootRefused, match="PIN is wrong") as caught:
        root.unlock([Wanted(made.parameters, PLACE)] * 5)
    assert "wrong-pin" not in caught.value.detail
    with pytest.raises(RootRefused, match="use-last-tries"):
        root.unlock([Wanted(made.parameters, PLACE)])
    token.pin_file.write_text(token.pin + "\n")
    with pytest.raises(RootRefused, match="use-last-tries"):
        root.unlock([Wanted(made.parameters, PLACE)])
    assert Pkcs11Root(token.uri(), use_last_tries=True).check()
    assert root.unlock_one(Wanted(made.parameters, PLACE)).reveal() == made.key.reveal()


@needs_token
def test_a_token_that_is_away_may_come_back(token: SoftwareToken) -> None:
    root = Pkcs11Root(token.uri())
    root.create()
    made = root.enroll(PLACE, os.urandom)
    tokens, away = token.folder / "tokens", token.folder / "away"
    tokens.rename(away)
    tokens.mkdir()
    with pytest.raises(RootUnavailable, match="no such token"):
        root.unlock_one(Wanted(made.parameters, PLACE))
    tokens.rmdir()
    away.rename(tokens)
    assert root.unlock_one(Wanted(made.parameters, PLACE)).reveal() == made.key.reveal()
    with pytest.raises(RootUnavailable, match="no such token"):
        Pkcs11Root(token.uri(token="other")).check()


def module(folder: Path, body: str) -> Path:
    """A module of a vendor with a fault in it."""
    source, made = folder / "module.c", folder / "module.so"
    source.write_text(
        f"#include <stdlib.h>\n#include <unistd.h>\nunsigned long C_GetFunctionList(void **list) {{ {body} }}\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(source)], check=True, timeout=60)
    return made


@needs_token
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
@pytest.mark.parametrize(
    ("body", "said"),
    [("abort();", "without an answer"), ("_exit(0);", "without an answer"), ("for (;;) pause();", "did not answer")],
)
def test_a_module_that_crashes_or_hangs_takes_nothing_with_it(
    tmp_path: Path, token: SoftwareToken, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    monkeypatch.setattr(pkcs11_root, "TIMEOUT_SECONDS", 2.0)
    with pytest.raises(RootUnavailable, match=said):
        Pkcs11Root(token.uri(module=module(tmp_path, body))).check()


@needs_token
def test_a_module_that_cannot_be_loaded_is_named(token: SoftwareToken, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no module")
    for path in (tmp_path / "absent.so", tmp_path / "text.so"):
        with pytest.raises(RootRefused, match="cannot be loaded"):
            Pkcs11Root(token.uri(module=path)).check()


@needs_token
def test_the_module_sees_no_secret_of_the_vault(token: SoftwareToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYVAULT_MASTER_KEY", "canary")
    monkeypatch.setenv("PGPASSWORD", "canary")
    monkeypatch.setenv("PYTHONPATH", "/canary")
    seen: dict[str, Any] = {}
    run = subprocess.run

    def note(*arguments: Any, **how: Any) -> Any:  # noqa: ANN401
        seen.update(how, arguments=arguments)
        return run(*arguments, **how)

    monkeypatch.setattr(subprocess, "run", note)
    Pkcs11Root(token.uri()).create()
    assert "canary" not in str(seen["env"])
    assert token.pin not in str(seen["arguments"]) + seen["input"].decode()
    assert seen["cwd"] == "/"


def test_planted_parameters_are_refused_before_the_token_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("the token was asked"))
    root = Pkcs11Root("token=kvl;object=root" + QUERY)
    planted: list[dict[str, object]] = [
        {},
        {"mechanism": "des"},
        {"mechanism": "hmac", "salt": "AAAA"},
        {"mechanism": "rsa-oaep", "hash": "sha256", "wrapped": "A" * 4000},
        {"mechanism": ["hmac"]},
    ]
    results = root.unlock([Wanted(SlotParameters("pkcs11", one), PLACE) for one in planted])
    assert all(isinstance(one, RootError) for one in results)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("object=root" + QUERY, "token or serial"),
        ("token=kvl" + QUERY, "names its key"),
        ("token=kvl;object=root?pin-source=file:/run/pin", "module"),
        ("token=kvl;object=root?module-path=x.so&pin-source=file:/run/pin", "module"),
        ("token=kvl;object=root?module-path=/x.so", "PIN"),
        ("token=kvl;object=root?module-path=/x.so&pin-source=run/pin", "PIN"),
        ("token=kvl;object=root?module-path=/x.so&pin-value=1234", "PIN does not belong"),
        ("token=kvl;token=kvl;object=root" + QUERY, "twice"),
        ("token=kvl;object=root;slot-id=1" + QUERY, "not supported"),
        ("token=%zz;object=root" + QUERY, "malformed"),
        ("token=%ff;object=root" + QUERY, "malformed"),
    ],
)
def test_a_uri_with_a_fault_is_named_and_shows_no_pin(uri: str, said: str) -> None:
    with pytest.raises(RootError, match=said) as caught:
        TokenUri.parse(uri)
    assert "1234" not in caught.value.detail


def test_a_uri_as_the_rfc_has_it() -> None:
    found = TokenUri.parse("token=The%20Software%20token;serial=1;id=%69%95" + QUERY)
    assert (found.token, found.serial, found.id, found.object) == ("The Software token", "1", "6995", None)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    assert "python-pkcs11" in child._answer({})["refused"]

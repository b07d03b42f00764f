"""The process that loads the PKCS#11 module: one question on standard input, one answer, and its end.

A module of a vendor may crash, hang, start threads or keep what it saw; none of this happens in the server. It never
tries a PIN twice, and none if the token says that the last one was wrong: tokens lock themselves.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from keyvault_lite.crypto.hygiene import protect_process
from keyvault_lite.crypto.root import InvalidMasterKey, read_text
from keyvault_lite.model.encoding import encode_base64

_BITS: Final = 256


class Refused(Exception):
    """Asking again does not help."""


class Unavailable(Exception):
    """The token is not there now."""


def main() -> None:
    """Answer the question."""
    protect_process()
    # What a module prints must not get between the answer and its reader.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    question = json.load(sys.stdin)
    answers.write(json.dumps(_answer(question)).encode())
    answers.flush()
    os._exit(0)  # without the module's own end, which may hang


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        import pkcs11
    except ImportError:
        return {"refused": "A pkcs11: root needs another library: pip install 'python-pkcs11>=0.10.1,<0.11'"}
    try:
        with _session(pkcs11, question) as session:
            return _TASKS[question["do"]](pkcs11, session, question)
    except Refused as error:
        return {"refused": str(error)}
    except Unavailable as error:
        return {"unavailable": str(error)}
    except pkcs11.PKCS11Error as error:
        name = type(error).__name__
        if name in _GONE:
            return {"unavailable": "The token was removed, or does not answer."}
        return {"refused": _SENTENCES.get(name, f"The token refuses: {name}.")}


_GONE: Final = frozenset({"DeviceError", "DeviceRemoved", "TokenNotPresent"})
_WRONG_PIN: Final = "The PIN is wrong. It is not tried again before the server is restarted: correct it first."
_LOCKED: Final = "The PIN of the token is locked or expired."
_SENTENCES: Final = {
    "MultipleObjectsReturned": "The token has several keys of that name: add id= to the URI.",
    "NoSuchKey": "The token has no such key; `kvl root create` makes one.",
    "PinExpired": _LOCKED,
    "PinIncorrect": _WRONG_PIN,
    "PinInvalid": _WRONG_PIN,
    "PinLenRange": _WRONG_PIN,
    "PinLocked": _LOCKED,
}


def _session(pkcs11: Any, question: dict[str, Any]) -> Any:  # noqa: ANN401
    uri = question["uri"]
    try:
        library = pkcs11.lib(uri["module"])
    except (pkcs11.PKCS11Error, RuntimeError, OSError):
        raise Refused(f"The PKCS#11 module {uri['module']} cannot be loaded.") from None
    serial = None if uri["serial"] is None else uri["serial"].encode()
    try:
        token = library.get_token(token_label=uri["token"], token_serial=serial)
    except pkcs11.NoSuchToken:
        raise Unavailable("There is no such token; is it plugged in?") from None
    except pkcs11.MultipleTokensReturned:
        raise Refused("There are several such tokens: name the serial.") from None
    _check_tries(pkcs11, token, use_last=question["use_last_tries"])
    try:
        pin = read_text(uri["pin_source"])
    except InvalidMasterKey as error:
        raise Refused(error.detail.replace("master key file", "PIN file")) from None
    return token.open(user_pin=pin, rw=question["do"] == "create")


def _check_tries(pkcs11: Any, token: Any, *, use_last: bool) -> None:  # noqa: ANN401
    flags, known = token.flags, pkcs11.TokenFlag
    if flags & known.USER_PIN_LOCKED:
        raise Refused("The PIN of the token is locked.")
    if flags & (known.USER_PIN_COUNT_LOW | known.USER_PIN_FINAL_TRY) and not use_last:
        raise Refused(
            "The PIN of the token was wrong before, and few tries are left: correct the PIN file, then run "
            "`kvl root check --use-last-tries`."
        )


def _names(uri: dict[str, Any]) -> dict[str, Any]:
    return {"label": uri["object"], "id": None if uri["id"] is None else bytes.fromhex(uri["id"])}


def _unlock(pkcs11: Any, session: Any, question: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Each slot's 32 bytes, null where the device does not give them."""
    names = _names(question["uri"])
    keys: list[str | None] = []
    for one in question["wanted"]:
        try:
            keys.append(encode_base64(_one_key(pkcs11, session, names, one)))
        except pkcs11.NoSuchKey:
            keys.append(None)
        except (pkcs11.TokenNotPresent, pkcs11.DeviceRemoved):
            raise
        except pkcs11.PKCS11Error:
            keys.append(None)  # a tampered slot: the device names no cause that could be relied upon
    return {"keys": keys}


def _one_key(pkcs11: Any, session: Any, names: dict[str, Any], one: dict[str, str]) -> bytes:  # noqa: ANN401
    data = bytes.fromhex(one["data"])
    if one["mechanism"] == "hmac":
        key = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, **names)
        return bytes(key.sign(data, mechanism=pkcs11.Mechanism.SHA256_HMAC))
    key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, **names)
    return bytes(key.decrypt(data, **_oaep(pkcs11, one["hash"])))


def _oaep(pkcs11: Any, name: str) -> dict[str, Any]:  # noqa: ANN401
    choices = {
        "sha1": (pkcs11.Mechanism.SHA_1, pkcs11.MGF.SHA1, None),
        "sha256": (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, None),
    }
    if name not in choices:
        raise Refused("A slot names a hash that is not used.")
    return {"mechanism": pkcs11.Mechanism.RSA_PKCS_OAEP, "mechanism_param": choices[name]}


def _describe(pkcs11: Any, session: Any, question: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Which kind of key there is, and for RSA its public part and the best hash that the device takes."""
    names = _names(question["uri"])
    try:
        key = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, **names)
    except pkcs11.NoSuchKey:
        pass
    else:
        _check_kept(pkcs11, key)
        return {"type": "hmac"}
    private = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, **names)
    _check_kept(pkcs11, private)
    found = {
        "type": "rsa-oaep",
        "modulus": bytes(private[pkcs11.Attribute.MODULUS]).hex(),
        "exponent": bytes(private[pkcs11.Attribute.PUBLIC_EXPONENT]).hex(),
    }
    return {**found, "hash": _best_hash(pkcs11, session, names, private)}


def _best_hash(pkcs11: Any, session: Any, names: dict[str, Any], private: Any) -> str:  # noqa: ANN401
    """SHA-256 if the device opens what it has sealed so, else SHA-1."""
    public = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, **names)
    try:
        probe = public.encrypt(bytes(32), **_oaep(pkcs11, "sha256"))
        works = bytes(private.decrypt(probe, **_oaep(pkcs11, "sha256"))) == bytes(32)
    except pkcs11.PKCS11Error:
        works = False
    return "sha256" if works else "sha1"


def _create(pkcs11: Any, session: Any, question: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    names = _names(question["uri"])
    try:
        session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, **names)
    except pkcs11.NoSuchKey:
        pass
    else:
        raise Refused("The token has a key of that name already.")
    attribute = pkcs11.Attribute
    key = session.generate_key(
        pkcs11.KeyType.GENERIC_SECRET,
        _BITS,
        mechanism=pkcs11.Mechanism.GENERIC_SECRET_KEY_GEN,
        capabilities=pkcs11.MechanismFlag.SIGN,
        store=True,
        template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False, attribute.PRIVATE: True},
        **names,
    )
    _check_kept(pkcs11, key)
    return {"made": True}


def _check_kept(pkcs11: Any, key: Any) -> None:  # noqa: ANN401
    """Refuse a key that has ever been outside of its token, or may leave it."""
    if not (key[pkcs11.Attribute.NEVER_EXTRACTABLE] and key[pkcs11.Attribute.ALWAYS_SENSITIVE]):
        raise Refused("The key on the token can be exported, or was made outside of it: make one that cannot.")


_TASKS: Final[dict[str, Callable[[Any, Any, dict[str, Any]], dict[str, Any]]]] = {
    "create": _create,
    "describe": _describe,
    "unlock": _unlock,
}

if __name__ == "__main__":
    main()

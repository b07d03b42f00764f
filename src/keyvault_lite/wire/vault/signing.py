"""Sign, verify, hmac, hash and random: bodies to requests, results to data."""

import binascii
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final

from keyvault_lite.dialects.vault.requests import (
    CipherResult,
    TransitHash,
    TransitHmac,
    TransitRandom,
    TransitSign,
    TransitVerify,
    TransitVerifyHmac,
)
from keyvault_lite.engine.cooperative import Steps
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import BatchReply
from keyvault_lite.model.requests import KeyRequest, Request
from keyvault_lite.model.signature_schemes import DEFAULT_DIGEST, SALT_AUTO, SALT_HASH, Marshaling, Padding, Scheme
from keyvault_lite.wire.vault.batch import BATCH, build_batch, is_batch, outcome
from keyvault_lite.wire.vault.cipher import ciphertext
from keyvault_lite.wire.vault.route import MAX_DATA, Operation, RawReply, VaultCall
from keyvault_lite.wire.vault.values import Fields, data, decode, flag, number, objects, optional_data, prefixed, text

_MISSING: Final = (400, "signing key not found")
_NO_KEY: Final = (400, "encryption key not found")
ALGORITHM: Final = "algorithm"
_PATH_ALGORITHM: Final = "path_algorithm"
"""Where the part of the path stands among the fields, so that it wins over the body."""


def _digest(fields: Fields, default: str = DEFAULT_DIGEST) -> str:
    return text(fields, _PATH_ALGORITHM) or text(fields, "hash_algorithm") or text(fields, ALGORITHM) or default


def scheme(fields: Fields) -> Scheme:
    """Every option of a signature."""
    marshaling = text(fields, "marshaling_algorithm") or Marshaling.ASN1
    if marshaling not in set(Marshaling):
        raise InvalidRequest("invalid marshaling type")
    chosen = text(fields, "signature_algorithm") or Padding.PSS
    if chosen not in set(Padding):
        raise InvalidRequest("unsupported rsa signature algorithm")
    return Scheme(
        digest=_digest(fields),
        prehashed=flag(fields, "prehashed"),
        padding=Padding(chosen),
        salt=_salt(fields),
        marshaling=Marshaling(marshaling),
    )


def _salt(fields: Fields) -> int:
    value = text(fields, "salt_length")
    if value in {"", "auto"}:
        return SALT_AUTO
    if value == "hash":
        return SALT_HASH
    try:
        length = number({"salt_length": value}, "salt_length")
    except InvalidRequest:
        raise InvalidRequest("salt length neither 'auto', 'hash', nor an int") from None
    if length < SALT_HASH:
        raise InvalidRequest("the requested salt length is negative")
    return length


def _with_path(call: VaultCall) -> Fields:
    named = call.path.get(ALGORITHM)
    return call.fields if named is None else {**call.fields, _PATH_ALGORITHM: named}


def _input(fields: Fields, common: Fields) -> bytes:
    # Alone, a message that is not there is the empty one; in a batch it is a mistake.
    if fields is not common and "input" not in fields:
        raise InvalidRequest("missing input")
    return data(fields, "input")


# Sign


def _sign(key: KeyRef, fields: Fields, common: Fields) -> TransitSign:
    return TransitSign(
        key=key,
        context=optional_data(fields, "context"),
        input=_input(fields, common),
        scheme=scheme(common),
        version=number(common, "key_version"),
    )


def build_sign(call: VaultCall) -> Request | Steps[Request]:
    """One signature or many."""
    common = _with_path(call)
    if is_batch(common):
        scheme(common)  # what holds for all is refused for all
        return build_batch(VaultCall(call.mount, call.path, common), Action.SIGN, _sign)
    return _sign(call.key, common, common)


def _signature(result: CipherResult, marshaling: Marshaling, public_key: str = "public_key") -> dict[str, object]:
    if marshaling is Marshaling.JWS:
        body = urlsafe_b64encode(result.body).rstrip(b"=").decode()
        written: dict[str, object] = {"signature": f"vault:v{result.version}:{body}"}
    else:
        written = {"signature": ciphertext(result.body, result.version)}
    written["key_version"] = result.version
    if result.public_key is not None:
        written[public_key] = b64encode(result.public_key).decode()
    return written


def _signed(result: Any, _: Request, call: VaultCall) -> RawReply:  # noqa: ANN401
    marshaling = scheme(_with_path(call)).marshaling
    if isinstance(result, BatchReply):
        return outcome(
            result,
            call.fields,
            lambda one: _signature(one, marshaling, "publickey"),  # as both products have it in a batch
            failed={"key_version": 0},
            strict=False,
        )
    return RawReply(_signature(result, marshaling))


# Verify


def _verify(key: KeyRef, fields: Fields, common: Fields) -> KeyRequest:
    given = text(fields, "signature")
    if given:
        version, body = prefixed(given, "signature")
        chosen = scheme(common)
        return TransitVerify(
            key=key,
            context=optional_data(fields, "context"),
            input=_input(fields, common),
            scheme=chosen,
            version=version,
            signature=_decode_signature(body, chosen.marshaling),
        )
    given = text(fields, "hmac")
    if not given:
        raise InvalidRequest("neither a 'signature' nor an 'hmac' were given to verify")
    version, body = prefixed(given, "HMAC")
    return TransitVerifyHmac(
        key=key,
        input=_input(fields, common),
        digest=_digest(common),
        version=version,
        mac=decode(body, "hmac"),
    )


def _decode_signature(body: str, marshaling: Marshaling) -> bytes:
    if marshaling is Marshaling.ASN1:
        return decode(body, "signature")
    try:
        raw = urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except (ValueError, binascii.Error):
        raise InvalidRequest("invalid base64 signature value") from None
    if urlsafe_b64encode(raw).rstrip(b"=").decode() != body:
        raise InvalidRequest("invalid base64 signature value")
    return raw


def build_verify(call: VaultCall) -> Request | Steps[Request]:
    """One check or many; in a batch all are of signatures or all of MACs."""
    common = _with_path(call)
    if not is_batch(common):
        return _verify(call.key, common, common)
    items = objects(common, BATCH)
    given = {name: [name in item for item in items] for name in ("signature", "hmac")}
    for name, found in given.items():
        if any(found) and not all(found):
            raise InvalidRequest(f"some elements of batch_input are missing '{name}'")
    if items and not any(map(any, given.values())):
        raise InvalidRequest("no batch_input elements have 'signature' or 'hmac'")
    return build_batch(VaultCall(call.mount, call.path, common), Action.VERIFY, _verify)


def _valid(result: bool) -> dict[str, object]:  # noqa: FBT001
    return {"valid": result}


def _verified(result: Any, _: Request, call: VaultCall) -> RawReply:  # noqa: ANN401
    if isinstance(result, BatchReply):
        return outcome(result, call.fields, _valid, failed={"valid": False}, strict=False)
    return RawReply(_valid(result))


# MACs


def _hmac(key: KeyRef, fields: Fields, common: Fields) -> TransitHmac:
    if fields.get("input") is None:
        raise InvalidRequest("missing input for HMAC")
    return TransitHmac(
        key=key, input=data(fields, "input"), digest=_digest(common), version=number(common, "key_version")
    )


def build_hmac(call: VaultCall) -> Request | Steps[Request]:
    """One MAC or many."""
    common = _with_path(call)
    if is_batch(common):
        return build_batch(VaultCall(call.mount, call.path, common), Action.SIGN, _hmac)
    return _hmac(call.key, common, common)


def _mac(result: CipherResult) -> dict[str, object]:
    return {"hmac": ciphertext(result.body, result.version)}


def _maced(result: Any, _: Request, call: VaultCall) -> RawReply:  # noqa: ANN401
    if isinstance(result, BatchReply):
        return outcome(result, call.fields, _mac, failed={}, strict=False)
    return RawReply(_mac(result))


# Digests and random bytes


def _format(fields: Fields, default: str) -> str:
    chosen = text(fields, "format") or default
    if chosen not in {"hex", "base64"}:
        raise InvalidRequest('unsupported encoding format; must be "hex" or "base64"')
    return chosen


def _formatted(raw: bytes, chosen: str) -> str:
    return raw.hex() if chosen == "hex" else b64encode(raw).decode()


def build_hash(call: VaultCall) -> Request:
    """A digest of the input."""
    if call.fields.get("input") is None:
        raise InvalidRequest("input missing")
    _format(call.fields, "hex")
    return TransitHash(input=data(call.fields, "input"), digest=_digest(_with_path(call)))


def build_random(call: VaultCall) -> Request:
    """Random bytes; every source is the operating system's generator."""
    source = call.path.get("source") or text(call.fields, "source") or "platform"
    if source.isdigit() and "bytes" not in call.path:
        call = VaultCall(call.mount, {"bytes": source}, call.fields)
    elif source not in {"platform", "seal", "all"}:
        raise InvalidRequest('unsupported entropy source; must be "platform" or "seal", or "all"')
    _format(call.fields, "base64")
    given = {"bytes": call.path["bytes"]} if "bytes" in call.path else call.fields
    return TransitRandom(count=number(given, "bytes", 32))


def _random(result: bytes, _: Request, call: VaultCall) -> RawReply:
    source = call.path.get("source") or text(call.fields, "source")
    warnings = (_PLATFORM,) if source == "seal" else ()
    return RawReply({"random_bytes": _formatted(result, _format(call.fields, "base64"))}, warnings=warnings)


_PLATFORM: Final = "no entropy source of a seal is available, using the platform's"
_OPTIONS: Final = frozenset(
    {
        "algorithm",
        "context",
        "hash_algorithm",
        "input",
        "marshaling_algorithm",
        "prehashed",
        "reference",
        "salt_length",
        "signature_algorithm",
        BATCH,
    }
)
SIGN: Final = Operation(
    operation="transit.sign",
    action=Action.SIGN,
    build=build_sign,
    render=_signed,
    fields=_OPTIONS | {"key_version"},
    missing=_MISSING,
    limit=MAX_DATA,
)
VERIFY: Final = Operation(
    operation="transit.verify",
    action=Action.VERIFY,
    build=build_verify,
    render=_verified,
    fields=_OPTIONS | {"signature", "hmac"},
    missing=(400, "signature verification key not found"),
    limit=MAX_DATA,
)
HMAC: Final = Operation(
    operation="transit.hmac",
    action=Action.SIGN,
    build=build_hmac,
    render=_maced,
    fields=frozenset({"algorithm", "input", "key_version", "reference", BATCH}),
    missing=_NO_KEY,
    limit=MAX_DATA,
)
HASH: Final = Operation(
    operation="transit.hash",
    action=Action.HASH,
    build=build_hash,
    render=lambda result, _, call: RawReply({"sum": _formatted(result, _format(call.fields, "hex"))}),
    fields=frozenset({"algorithm", "format", "input"}),
    limit=MAX_DATA,
)
RANDOM: Final = Operation(
    operation="transit.random",
    action=Action.RANDOM,
    build=build_random,
    render=_random,
    fields=frozenset({"bytes", "format", "source"}),
)

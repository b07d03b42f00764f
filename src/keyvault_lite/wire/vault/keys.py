"""Keys: bodies to requests, and the key object."""

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from keyvault_lite.dialects.vault.requests import (
    CERTIFICATES,
    DERIVING,
    ENCRYPTING,
    NO_VERSION,
    SIGNING,
    ConfigureTransitKey,
    CreateTransitKey,
    DeleteTransitKey,
    ExportCertificates,
    ExportPublicKeys,
    ImportTransitKey,
    ListTransitKeys,
    ReadTransitKey,
    ReadUpsert,
    ReadWrappingKey,
    RefuseExport,
    RequestCertificate,
    RestoreTransitKey,
    RotateTransitKey,
    Rules,
    SetCertificate,
    SetUpsert,
    TransitKey,
    TrimTransitKey,
)
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.keys import KeySpec, KeyStatus, KeyType, KeyVersion
from keyvault_lite.model.requests import Request
from keyvault_lite.wire.vault.kinds import read_spec
from keyvault_lite.wire.vault.route import NO_CONTENT, NOT_FOUND, Operation, RawReply, VaultCall
from keyvault_lite.wire.vault.values import (
    data,
    flag,
    number,
    optional_data,
    optional_flag,
    optional_number,
    optional_period,
    text,
)

_CURVES: Final = {256: "P-256", 384: "P-384", 521: "P-521"}
_NO_KEY: Final = (400, "key not found")


def _pair_name(spec: KeySpec) -> str:
    return _CURVES[spec.size or 0] if spec.type is KeyType.EC else spec.word or ""


def _seconds(microseconds: int) -> int:
    return microseconds // 1_000_000


def _snapshot_version(microseconds: int) -> str:
    moment = datetime.fromtimestamp(_seconds(microseconds), UTC).replace(microsecond=microseconds % 1_000_000)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _version(found: TransitKey, version: KeyVersion) -> object:
    if not found.key.spec.asymmetric:
        return _seconds(version.created_at)
    return {
        "certificate_chain": version.attributes.get(CERTIFICATES, ""),
        "creation_time": _snapshot_version(version.created_at),
        "name": _pair_name(found.key.spec),
        "public_key": found.public_keys.get(version.version, ""),
    }


def key_object(found: TransitKey, name: str) -> dict[str, object]:
    """The key as the products show it (reference, section 4)."""
    key, rules = found.key, Rules.of(found.key)
    kind = key.spec.type
    written: dict[str, object] = {
        "allow_plaintext_backup": rules.plaintext_backup,
        "auto_rotate_period": rules.rotate_seconds,
        "deletion_allowed": rules.deletion_allowed,
        "derived": rules.derived,
        "exportable": rules.exportable,
        "imported_key": rules.imported,
        "latest_version": len(key.versions),
        "min_available_version": rules.min_available,
        "min_decryption_version": rules.min_decryption,
        "min_encryption_version": rules.min_encryption,
        "name": name,
        "soft_deleted": key.status is not KeyStatus.ACTIVE,
        "supports_decryption": kind in ENCRYPTING,
        "supports_derivation": kind in DERIVING,
        "supports_encryption": kind in ENCRYPTING,
        "supports_signing": kind in SIGNING,
        "type": key.spec.word,
    }
    if rules.imported:
        written["imported_key_allow_rotation"] = rules.imported_rotation
    if rules.derived:
        written["kdf"] = "hkdf_sha256"
        written["convergent_encryption"] = rules.convergent
        if rules.convergent:
            written["convergent_encryption_version"] = -1
    if kind is KeyType.HMAC:
        written["key_size"] = (key.spec.size or 0) // 8
    else:
        written["keys"] = {str(one.version): _version(found, one) for one in found.versions}
    return written


def show_key(found: TransitKey, _: Request, call: VaultCall) -> RawReply:
    """The key object in the envelope."""
    warnings = () if found.warning is None else (found.warning,)
    return RawReply(key_object(found, call.path["name"]), warnings=warnings)


def rules(call: VaultCall) -> Rules:
    """The rules of a key to be made."""
    fields = call.fields
    return Rules(
        derived=flag(fields, "derived"),
        convergent=flag(fields, "convergent_encryption"),
        exportable=flag(fields, "exportable"),
        plaintext_backup=flag(fields, "allow_plaintext_backup"),
        rotate_seconds=optional_period(fields, "auto_rotate_period") or 0,
    )


def _create(call: VaultCall) -> Request:
    return CreateTransitKey(mount=call.mount, name=call.path["name"], spec=read_spec(call.fields), rules=rules(call))


def _read(call: VaultCall) -> Request:
    return ReadTransitKey(key=call.key, context=optional_data(call.fields, "context"))


def _page(call: VaultCall) -> Request:
    return ListTransitKeys(mount=call.mount, after=text(call.fields, "after"), limit=number(call.fields, "limit", -1))


def _names(found: tuple[str, ...], _: Request, __: VaultCall) -> RawReply:
    return RawReply({"keys": list(found)}) if found else NOT_FOUND


def _configure(call: VaultCall) -> Request:
    fields = call.fields
    return ConfigureTransitKey(
        key=call.key,
        min_decryption=optional_number(fields, "min_decryption_version"),
        min_encryption=optional_number(fields, "min_encryption_version"),
        deletion_allowed=optional_flag(fields, "deletion_allowed"),
        exportable=optional_flag(fields, "exportable"),
        plaintext_backup=optional_flag(fields, "allow_plaintext_backup"),
        rotate_seconds=optional_period(fields, "auto_rotate_period"),
    )


def _trim(call: VaultCall) -> Request:
    wanted = optional_number(call.fields, "min_available_version")
    if wanted is None:
        raise InvalidRequest("missing min_available_version")
    return TrimTransitKey(key=call.key, min_available=wanted)


EXPORTS: Final = frozenset({"encryption-key", "signing-key", "hmac-key", "public-key", "certificate-chain"})

_PUBLIC: Final = {"public-key": ExportPublicKeys, "certificate-chain": ExportCertificates}


def _export(call: VaultCall) -> Request:
    kind = call.path["kind"]
    if kind not in EXPORTS:
        raise InvalidRequest("invalid export type")
    made = _PUBLIC.get(kind)
    if made is None:
        return RefuseExport(key=call.key)
    if text(call.fields, "format") not in {"", "der", "pem", "raw"}:
        raise InvalidRequest("invalid format")
    return made(key=call.key, version=_asked_version(call.path.get("version")))


def _asked_version(written: str | None) -> int | None:
    """As ExportRequest has it. A path calls the newest `latest`, and no version 0."""
    if written in {None, "latest"}:
        return None if written is None else 0
    return number({"version": written.removeprefix("v")}, "version") or NO_VERSION


def _exported(found: TransitKey, request: Request, call: VaultCall) -> RawReply:
    chosen = text(call.fields, "format")
    if isinstance(request, ExportCertificates):
        keys = {str(version): chain.rstrip("\n") for version, chain in found.public_keys.items()}
        return RawReply({"name": call.path["name"], "type": found.key.spec.word, "keys": keys})
    if chosen == "raw" and found.key.spec.type in {KeyType.EC, KeyType.RSA}:
        raise InvalidRequest("unknown key format; supported values are ``, `der`, or `pem`")
    keys = {str(version): _public(found, version, written, chosen) for version, written in found.public_keys.items()}
    return RawReply({"name": call.path["name"], "type": found.key.spec.word, "keys": keys})


def _public(found: TransitKey, version: int, written: str, chosen: str) -> str:
    """A public key in the format that was chosen; PEM ends with a line break for RSA keys alone, as OpenBao has it."""
    der = next(one.public_key for one in found.versions if one.version == version) or b""
    text_der = base64.b64encode(der).decode()
    if chosen == "der":
        return text_der
    if chosen == "pem" and not written.startswith("-----"):
        lines = [text_der[at : at + 64] for at in range(0, len(text_der), 64)]
        return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----"])
    return written if found.key.spec.type is KeyType.RSA else written.rstrip("\n")


def _manage(
    operation: str,
    action: Action,
    build: Any,  # noqa: ANN401
    *,
    fields: frozenset[str] = frozenset(),
    **more: Any,  # noqa: ANN401
) -> Operation:
    return Operation(
        operation=f"transit.keys.{operation}",
        action=action,
        build=build,
        render=more.pop("render", show_key),
        fields=fields,
        missing=more.pop("missing", _NO_KEY),
    )


_NEW: Final = frozenset(
    {
        "allow_plaintext_backup",
        "auto_rotate_period",
        "convergent_encryption",
        "derived",
        "exportable",
        "key_size",
        "parameter_set",
        "type",
    }
)
CREATE: Final = _manage("create", Action.GENERATE, _create, fields=_NEW, missing=None)
READ_KEY: Final = _manage("read", Action.KEY_READ, _read, missing=None, fields=frozenset({"context"}))
LIST_KEYS: Final = _manage(
    "list", Action.KEY_READ, _page, render=_names, missing=None, fields=frozenset({"after", "limit"})
)
CONFIGURE: Final = _manage(
    "config",
    Action.KEY_UPDATE,
    _configure,
    fields=frozenset(
        {
            "allow_plaintext_backup",
            "auto_rotate_period",
            "deletion_allowed",
            "exportable",
            "min_decryption_version",
            "min_encryption_version",
        }
    ),
    missing=(400, "no existing key of that name could be found"),
)
ROTATE: Final = _manage("rotate", Action.ROTATE, lambda call: RotateTransitKey(key=call.key))
TRIM: Final = _manage("trim", Action.DESTROY, _trim, fields=frozenset({"min_available_version"}))
DELETE_KEY: Final = _manage(
    "delete",
    Action.DESTROY,
    lambda call: DeleteTransitKey(key=call.key),
    render=lambda *_: NO_CONTENT,
    missing=(400, "could not delete key; not found"),
)
SOFT_DELETE: Final = _manage(
    "soft-delete", Action.DESTROY, lambda call: DeleteTransitKey(key=call.key, soft=True), missing=_NO_KEY
)
RESTORE: Final = _manage("soft-delete-restore", Action.RESTORE, lambda call: RestoreTransitKey(key=call.key))
EXPORT: Final = _manage(
    "export", Action.KEY_READ, _export, render=_exported, missing=None, fields=frozenset({"format"})
)
BACKUP: Final = _manage(
    "backup",
    Action.KEY_READ,
    lambda call: RefuseExport(key=call.key, detail="exporting is disallowed: keys never leave this vault"),
)


# Keys from outside, and certificates


def _import(call: VaultCall) -> Request:
    fields, further = call.fields, "import_version" in call.path
    chosen = rules(call)
    return ImportTransitKey(
        mount=call.mount,
        name=call.path["name"],
        wrapped=data(fields, "ciphertext"),
        public_key=text(fields, "public_key"),
        digest=(text(fields, "hash_function") or "SHA256").upper().replace("-", ""),
        spec=read_spec(fields),
        rules=replace(chosen, imported_rotation=flag(fields, "allow_rotation")),
        further=further,
        version=optional_number(fields, "version") if further else None,
    )


def _import_version(call: VaultCall) -> Request:
    return _import(VaultCall(call.mount, {**call.path, "import_version": ""}, call.fields, call.token))


_IMPORTED: Final = _NEW | {"allow_rotation", "ciphertext", "hash_function", "public_key"}
IMPORT: Final = _manage("import", Action.IMPORT, _import, fields=_IMPORTED, render=lambda *_: NO_CONTENT)
IMPORT_VERSION: Final = _manage(
    "import_version", Action.IMPORT, _import_version, fields=_IMPORTED | {"version"}, render=lambda *_: NO_CONTENT
)
WRAPPING_KEY: Final = Operation(
    operation="transit.wrapping_key",
    action=Action.IMPORT,
    build=lambda call: ReadWrappingKey(mount=call.mount),
    render=lambda result, _, __: RawReply({"public_key": result}),
)


def _csr(call: VaultCall) -> Request:
    return RequestCertificate(
        key=call.key, template=text(call.fields, "csr") or None, version=number(call.fields, "version")
    )


def _requested(result: tuple[str, str], _: Request, call: VaultCall) -> RawReply:
    kind, pem = result
    return RawReply({"name": call.path["name"], "type": kind, "csr": pem})


def _set_certificate(call: VaultCall) -> Request:
    return SetCertificate(
        key=call.key, chain=text(call.fields, "certificate_chain"), version=number(call.fields, "version")
    )


CSR: Final = _manage("csr", Action.SIGN, _csr, fields=frozenset({"csr", "version"}), render=_requested)
SET_CERTIFICATE: Final = _manage(
    "set-certificate", Action.KEY_UPDATE, _set_certificate, fields=frozenset({"certificate_chain", "version"})
)


# The mount's own switch

READ_UPSERT: Final = Operation(
    operation="transit.config.keys.read",
    action=Action.SETTING_READ,
    build=lambda call: ReadUpsert(mount=call.mount),
    render=lambda result, _, __: RawReply({"disable_upsert": not result}),
)
SET_UPSERT: Final = Operation(
    operation="transit.config.keys",
    action=Action.SETTING_UPDATE,
    build=lambda call: SetUpsert(mount=call.mount, enabled=not flag(call.fields, "disable_upsert")),
    render=lambda result, _, __: RawReply({"disable_upsert": not result}),
    fields=frozenset({"disable_upsert"}),
)

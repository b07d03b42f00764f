"""`kvl sign` and `verify-signature`: detached signatures and MACs over files."""

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

import typer

from keyvault_lite.cli.arguments import KeyArgument
from keyvault_lite.cli.environment import connect
from keyvault_lite.cli.failure import CannotRun, CheckFailed
from keyvault_lite.cli.files import InputArgument, OutOption, reading, writing
from keyvault_lite.cli.output import Format, OutputOption
from keyvault_lite.client.api import Client, Json, segment
from keyvault_lite.model.keys import ALGORITHMS, DIGEST_SIZES, MAX_PLAINTEXT, Algorithm, Purpose

app = typer.Typer()

MAX_SIGNATURE: Final = 64 * 1024
BLOCK: Final = 1024 * 1024

# What signs in the native API. A test holds it to model/keys.py.
Signing = Literal[
    "RSA_PSS_SHA256",
    "RSA_PSS_SHA384",
    "RSA_PSS_SHA512",
    "RSA_PKCS1_SHA256",
    "RSA_PKCS1_SHA384",
    "RSA_PKCS1_SHA512",
    "ECDSA_SHA256",
    "ECDSA_SHA384",
    "ECDSA_SHA512",
    "ED25519",
    "ML_DSA_44",
    "ML_DSA_65",
    "ML_DSA_87",
    "HMAC_SHA256",
    "HMAC_SHA384",
    "HMAC_SHA512",
]
AlgorithmOption = Annotated[
    Signing | None,
    typer.Option("--algorithm", "-a", case_sensitive=False, show_choices=False, help="Without it the key's usual one."),
]
RawOption = Annotated[bool, typer.Option("--raw", help="The signature is bytes instead of base64.")]


@app.command("sign")
def sign(
    key: KeyArgument,
    file: InputArgument = "-",
    *,
    algorithm: AlgorithmOption = None,
    raw: RawOption = False,
    out: OutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Sign a file, or compute its MAC; prints the signature in base64.

    A file over 64 KiB is hashed here and its digest signed, which RSA and ECDSA keys can do.
    """
    with connect() as client:
        with reading(file) as (source, _size):
            body = _message(client, key, source, algorithm)
        reply = client.post(f"/keys/{segment(key)}/sign", body)
    signature = str(reply.json()["signature"])
    content = (reply.text if output is Format.JSON else signature).encode() + b"\n"
    if raw and output is not Format.JSON:
        content = base64.b64decode(signature)
    with writing(out, binary=raw) as target:
        target.write(content)


@app.command("verify-signature")
def verify_signature(
    key: KeyArgument,
    file: InputArgument = "-",
    *,
    signature: Annotated[Path, typer.Option("--signature", "-s", metavar="FILE", help="What kvl sign wrote.")],
    algorithm: AlgorithmOption = None,
    version: Annotated[int | None, typer.Option("--version", min=1, help="Only under this version.")] = None,
    raw: RawOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Check a signature or MAC over a file. Exit code 0 if it holds, 1 if not."""
    checked = _read_signature(signature, raw=raw)
    with connect() as client:
        with reading(file) as (source, _size):
            body = _message(client, key, source, algorithm)
        body["signature"] = checked
        if version is not None:
            body["key_version"] = version
        reply = client.post(f"/keys/{segment(key)}/verify", body)
    answer = reply.json()
    valid = answer["valid"] is True
    if output is Format.JSON:
        typer.echo(reply.text)
    elif valid:
        typer.echo(f"the signature holds, under version {answer['key_version']} of {key}")
    if not valid:
        raise CheckFailed("the signature does not hold: another file, another key, or changed")


def _message(client: Client, key: str, source: BinaryIO, wanted: Signing | None) -> Json:
    """The body's fields for a file: the file itself, or its digest if it is too large to send."""
    body: Json = {} if wanted is None else {"algorithm": wanted}
    head = source.read(MAX_PLAINTEXT + 1)
    if len(head) <= MAX_PLAINTEXT:
        return {**body, "message": _text(head), "encoding": "base64"}
    algorithm = _usual_algorithm(client, key) if wanted is None else Algorithm(wanted)
    size = DIGEST_SIZES.get(algorithm)
    if size is None:
        raise CannotRun(f"{algorithm} signs the file itself and not its digest, and a file over 64 KiB cannot be sent")
    digest = hashlib.new(f"sha{8 * size}", head)
    while block := source.read(BLOCK):
        digest.update(block)
    return {"algorithm": algorithm, "message": _text(digest.digest()), "encoding": "base64", "prehashed": True}


def _usual_algorithm(client: Client, key: str) -> Algorithm:
    found = client.get(f"/keys/{segment(key)}").json()
    kind = found["type"], found["size"], found["purpose"]
    if kind not in ALGORITHMS or found["purpose"] == Purpose.ENCRYPT:
        raise CannotRun("this kind of key does not sign in the native API")
    return ALGORITHMS[kind][0]


def _read_signature(path: Path, *, raw: bool) -> str:
    with path.open("rb") as stream:
        content = stream.read(MAX_SIGNATURE)
    if raw:
        return _text(content)
    try:
        return _text(base64.b64decode(content.strip(), validate=True))
    except binascii.Error:
        raise CannotRun("the signature's file is not base64: say --raw if it holds the bytes themselves") from None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")

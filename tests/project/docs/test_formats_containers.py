"""docs/formats.md, its part on what is sealed and MACed, read as a stranger reads it.

Nothing of the product is used to compute, only to ask it in the end whether it agrees: what is written in the page is
enough to open a message with nothing but the master key.
"""

import base64
import hashlib
import hmac
import json
import re
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyvault_lite.audit.merkle import CompactRange
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.record import BLOCK, AnchorRecord
from keyvault_lite.ledger.state.root import StateTree, row_key
from keyvault_lite.ledger.storage.schema import HEAD_COLUMNS, IN_ROOT
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
GOLDEN = json.loads((ROOT / "tests" / "vectors" / "containers.json").read_text(encoding="utf-8"))
Value = None | int | str | bytes | list["Value"]


def section(title: str) -> str:
    return re.split(r"\n#+ ", TEXT.split(f"# {title}\n", 1)[1])[0]


def blocks(title: str) -> list[str]:
    return re.findall(r"```\w*\n(.*?)```", section(title), re.DOTALL)


def octets(block: str) -> bytes:
    """Hexadecimal lines; what follows # is a remark, what stands in quotes is its meaning."""
    return bytes.fromhex("".join(line.split("#")[0] for line in block.splitlines()))


def encode(value: Value) -> bytes:
    match value:
        case None:
            return b"\x00"
        case int():
            return b"\x01" + value.to_bytes(8, "big", signed=True)
        case str():
            return b"\x02" + len(value.encode()).to_bytes(4, "big") + value.encode()
        case bytes():
            return b"\x03" + len(value).to_bytes(4, "big") + value
        case list():
            return b"\x04" + len(value).to_bytes(4, "big") + b"".join(map(encode, value))


def pae(*values: Value) -> bytes:
    return encode(list(values))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def expand(key: bytes, info: bytes) -> bytes:
    return hmac.digest(key, info + b"\x01", "sha512")


def opened(container: bytes, *, layer: str, key: bytes, purpose: str, context: bytes) -> bytes:
    header, salt, commitment, body = container[:26], container[26:58], container[58:90], container[90:]
    okm = expand(key, pae(f"kvl/v1/{layer}", header, INSTANCE, purpose) + salt + context)
    assert okm[32:] == commitment
    return AESGCM(okm[:32]).decrypt(bytes(12), body, header)


INSTANCE = bytes.fromhex(GOLDEN["instance_id"])
KEY_ID = "00000000-0000-4000-8000-000000000002"


@pytest.fixture(scope="module")
def bundle() -> bytes:
    """What the slot holds, with nothing but the master key."""
    master = re.search(r"master key\s+`([A-Za-z0-9+/=]{44})`, slot `(.*?)`", section("Keyring"))
    assert master is not None
    slot = next(slot for slot in GOLDEN["slots"] if slot["id"] == master[2])
    context = sha256(pae("slot", INSTANCE, "none"))
    sealed = bytes.fromhex(slot["sealed"])
    return opened(sealed, layer="slot", key=base64.b64decode(master[1]), purpose="KEYRING", context=context)


@pytest.fixture(scope="module")
def secret(bundle: bytes) -> bytes:
    """The material of the worked key's first version."""
    row = next(row for row in GOLDEN["versions"] if (row["key_id"], row["version"]) == (KEY_ID, 1))
    context = sha256(pae("kek", "AES", 256, 1, None, "generated"))
    sealed = bytes.fromhex(row["encrypted_key"])
    return opened(sealed, layer="kek", key=bundle[89:121], purpose="ENCRYPT", context=context)


def derived(bundle: bytes, use: str) -> bytes:
    return expand(bundle[17:49], pae("kvl/v1/derive", use, INSTANCE))[:32]


def test_the_keyring(bundle: bytes) -> None:
    shown, row = blocks("Keyring")[0].split()
    assert bundle.hex() == shown
    assert derived(bundle, "row").hex() == row
    form, instance, root, seed, count = struct.unpack(">B16s32s32sI", bundle[:85])
    assert (form, instance, count, bundle[85:89]) == (1, INSTANCE, 1, b"\x00\x00\x00\x01")
    assert root == bundle[17:49]
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert public.hex() == GOLDEN["log_public_key"]


def test_the_worked_message(secret: bytes) -> None:
    said = re.search(r"version 1 is the key\s+`([0-9a-f]{64})`", section("A message, worked"))
    assert said is not None
    assert secret.hex() == said[1]
    wrapped, label, intermediate, ciphertext = blocks("A message, worked")
    container = octets(wrapped.replace('"KVL"', ""))
    digest, okm, dek = (bytes.fromhex(line) for line in intermediate.split())
    assert digest == sha256(pae("context", "tenant", "acme"))
    prefix = pae("kvl/v1/dek", container[:26], INSTANCE, "ENCRYPT")
    assert octets(label) == prefix
    assert expand(secret, prefix + container[26:58] + digest) == okm
    assert opened(container, layer="dek", key=secret, purpose="ENCRYPT", context=digest) == dek
    message = bytes.fromhex(ciphertext.strip())
    assert message[22:26] == bytes(4), "the data layer names no version"
    plaintext = opened(message, layer="data", key=dek, purpose="ENCRYPT", context=digest)
    assert f"to `{plaintext.decode()}`" in section("A message, worked")
    assert any(
        (row["ciphertext"], row["encrypted_dek"]) == (message.hex(), container.hex()) for row in GOLDEN["messages"]
    )


def test_every_golden_message_opens_as_the_page_says(secret: bytes) -> None:
    mine = [row for row in GOLDEN["messages"] if row["key_id"] == KEY_ID]
    assert len(mine) > 10
    for row in mine:
        pairs = [text for pair in sorted((row["context"] or {}).items()) for text in pair]
        digest = sha256(pae("context", *pairs))
        dek = opened(bytes.fromhex(row["encrypted_dek"]), layer="dek", key=secret, purpose="ENCRYPT", context=digest)
        found = opened(bytes.fromhex(row["ciphertext"]), layer="data", key=dek, purpose="ENCRYPT", context=digest)
        assert found.hex() == row["plaintext"]


def test_rows_head_tokens_and_digests(bundle: bytes) -> None:
    evidence = GOLDEN["evidence"]
    columns: list[Value] = ["text", None, 5, b"bytes"]
    row_mac = hmac.digest(derived(bundle, "row"), pae("row", INSTANCE, "keys", 1, ["id", 1], 7, columns), "sha256")
    assert f"| `{row_mac.hex()}` |" in section("Row MAC and state root")
    assert row_mac.hex() == evidence["row_mac"]
    head = hmac.digest(derived(bundle, "head"), pae("head", INSTANCE, 0, 12, bytes(32), 5), "sha256")
    assert head.hex() == evidence["head_mac"]
    token, digest = blocks("Tokens")[0].split()
    _, token_id, token_secret = token.split("_")
    mac = hmac.digest(derived(bundle, "token"), pae("token", INSTANCE, token_id, token_secret), "sha256")
    assert (token, mac.hex(), digest) == (evidence["token"], digest, evidence["token_digest"])
    text = hmac.digest(derived(bundle, "redact"), pae("text", b"a secret pasted into a path"), "sha256")
    assert "~" + text.hex()[:32] == evidence["redact_text"]


def test_the_columns_of_the_head() -> None:
    formula = re.search(r'PAE\("head", instance_id, (.*?)\)', section("Head"))
    assert formula is not None
    assert tuple(formula[1].split(", ")) == HEAD_COLUMNS


def test_the_state_root() -> None:
    rows = {("keys", f"key {number}"): sha256(b"mac %d" % number) for number in range(50)}
    buckets: list[list[tuple[bytes, bytes]]] = [[] for _ in range(4096)]
    for (table, key), mac in rows.items():
        name = pae(table, key)
        buckets[int.from_bytes(sha256(name)[:2], "big") >> 4].append((name, mac))

    def root(filled: list[list[tuple[bytes, bytes]]]) -> bytes:
        digests: list[Value] = [
            sha256(pae("bucket", *(part for pair in sorted(bucket) for part in pair))) for bucket in filled
        ]
        return sha256(pae("state", sum(map(len, filled)), *digests))

    tree = StateTree()
    for (table, key), mac in rows.items():
        tree.put(row_key(table, (key,)), mac)
    assert tree.root() == root(buckets)
    assert root([[] for _ in range(4096)]).hex() == blocks("Row MAC and state root")[0].strip()
    assert {f"`{table}`" for table in IN_ROOT} <= set(re.findall(r"`\w+`", section("Row MAC and state root")))


def test_the_anchor_file(tmp_path: Path) -> None:
    mark = AnchorRecord(2, 70, 60, b"h" * 32, CompactRange().root(), "the note\n", "name+01+key", 55)
    anchor = FileAnchor(tmp_path / "anchor")
    anchor.write(lambda _: mark, before=None, prove=lambda _: [])
    anchor.close()
    raw = (tmp_path / "anchor").read_bytes()
    body = (
        b"KVLANCH1"
        + struct.pack(">QIQQQ", 1, 2, 70, 60, 55)
        + b"h" * 32
        + CompactRange().root()
        + struct.pack(">H", 9)
        + b"the note\n"
        + struct.pack(">H", 11)
        + b"name+01+key"
    )
    assert raw[:BLOCK] == (body + sha256(body)).ljust(BLOCK, b"\x00")
    assert raw[2 * BLOCK :] == b"\x00"

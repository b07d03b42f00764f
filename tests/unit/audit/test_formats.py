"""What docs/formats.md tells a stranger is what the code does: its examples are recomputed from its own text."""

import json
import re
from hashlib import sha256

import pytest

from keyvault_lite.audit.checkpoint import COSIGNATURE, cosign, verifier_key
from keyvault_lite.audit.entry import ENTRY_COLUMNS, LABEL, encode_entry
from keyvault_lite.model.encoding import pae
from tests.support.paths import ROOT
from tests.vectors.make_receipts import (
    INSTANCE,
    PUBLIC_KEY,
    START,
    VKEY,
    WITNESS,
    WITNESS_PUBLIC_KEY,
    Log,
    consistency_json,
    item,
    witness_sign,
)

TEXT = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading, to the next one of any level."""
    return re.split(r"\n#+ ", TEXT.split(f"# {title}\n", 1)[1])[0]


def blocks(title: str) -> list[str]:
    """The fenced blocks in a section."""
    return re.findall(r"```\w*\n(.*?)```", section(title), re.DOTALL)


def test_the_worked_example_is_recomputed_from_its_own_text(log: Log) -> None:
    shown, octets, hash = blocks("Worked example")
    entry = bytes.fromhex("".join(line.split("#")[0] for line in octets.splitlines()))
    assert entry == encode_entry(log.entries[2])
    assert f"Its {len(entry)} bytes" in TEXT
    assert sha256(b"\x00" + entry).hexdigest() == hash.strip() == json.loads(shown)["hash"]
    assert json.loads(shown) == item(log.entries[2])


def test_the_order_of_the_fields_is_that_of_the_code() -> None:
    formula = re.search(r"entry = PAE\((.*?)\)", section("Audit entry"), re.DOTALL)
    assert formula is not None
    names = [name.strip() for name in formula[1].split(",")]
    assert names == [f'"{LABEL}"', *ENTRY_COLUMNS[:-1]]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert listed >= set(ENTRY_COLUMNS[:-1])


def test_the_example_of_the_genesis() -> None:
    installation, public_key, hash = re.findall(r"`([0-9a-f]{32,})`", section("Chain"))
    assert (installation, public_key) == (INSTANCE.hex(), PUBLIC_KEY.hex())
    assert sha256(pae("kvl/v1/genesis", INSTANCE, PUBLIC_KEY)).hexdigest() == hash


def test_the_examples_of_checkpoint_receipt_and_consistency(log: Log) -> None:
    checkpoint, key, confirmed = blocks("Checkpoint")
    assert checkpoint == log.checkpoint(7)
    assert key == VKEY + "\n"
    assert confirmed == cosign(
        checkpoint, name=WITNESS, public_key=WITNESS_PUBLIC_KEY, timestamp=START // 10**6, sign=witness_sign
    )
    assert f"`{verifier_key(WITNESS, WITNESS_PUBLIC_KEY, COSIGNATURE)}`" in section("Checkpoint")
    assert blocks("Receipt")[0] == log.receipt(3, 7)
    assert json.loads(blocks("Consistency")[0]) == consistency_json(3, 7, log.consistency(3, 7))


@pytest.mark.parametrize("link", re.findall(r"\]\(#(.*?)\)", TEXT))
def test_links_within_the_page_lead_somewhere(link: str) -> None:
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    assert link in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

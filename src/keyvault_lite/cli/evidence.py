"""`kvl audit export`: a folder that can be verified without the vault and without this program."""

import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from keyvault_lite.cli.failure import CannotRun, CheckFailed
from keyvault_lite.cli.files import appearing, check_new
from keyvault_lite.client.api import Client, Json, Parameters

Advance = Callable[[int, int], None] | None
VERIFIER: Final = "verify_receipt.py"

README: Final = """\
Evidence from the audit log of a KeyVault Lite vault.

entries/ID.json     an entry, as GET /audit shows it; the names under "display" are no part of it, and not proven
receipts/ID.txt     the proof that it is in the signed log (C2SP tlog-proof)
checkpoint.txt      the newest signed checkpoint when this was made
log.vkey            the key that verifies the signatures
verify_receipt.py   checks a receipt: Python alone, no installation, no network

A key that comes with the evidence proves nothing by itself: compare log.vkey with what you kept from before, or got
from somebody else. Then, in this folder:

    for entry in entries/*.json; do
        receipt="receipts/$(basename "$entry" .json).txt"
        python3 verify_receipt.py --key "$(cat log.vkey)" "$receipt" --entry "$entry" || break
    done
"""


def export(client: Client, folder: Path, filters: Parameters, *, advance: Advance = None) -> tuple[int, int]:
    """Write the entries that the filters let through, and what proves them, into a new folder.

    Answers how many they are, and how many of the oldest were not looked at because they are archived.

    The reading is in the log too; its own entries are left out. The folder appears whole or not at all.
    """
    check_new(folder)
    with appearing(folder.absolute()) as place:
        place.mkdir()
        opening = client.get("/audit/public-key")
        _write(place / "log.vkey", f"{opening.json()['verifier_key']}\n")
        _write(place / "README.txt", README)
        _write(place / VERIFIER, _verifier())
        for name in ("entries", "receipts"):
            (place / name).mkdir()
        entries, archived = _entries(client, filters, before=opening.audit_id)
        for entry in entries:
            _write(place / "entries" / f"{entry['id']}.json", f"{json.dumps(entry, ensure_ascii=False, indent=1)}\n")
        _write_receipts(client, place / "receipts", filters, [entry["id"] for entry in entries], advance)
        _write(place / "checkpoint.txt", client.get("/audit/checkpoint").text)
    return len(entries), archived


def _write_receipts(
    client: Client, folder: Path, filters: Parameters, numbers: Sequence[int], advance: Advance
) -> None:
    """The proofs of these entries. They are what the filters let through between the first and the last of them."""
    if not numbers:
        return
    wanted = {name: filters.get(name) for name in ("service_id", "key_id", "action", "result")}
    missing = set(numbers)
    for page in client.pages("/audit/receipts", {**wanted, "from": numbers[0], "to": numbers[-1]}):
        for item in page.items:
            if item["id"] in missing:
                _write(folder / f"{item['id']}.txt", item["receipt"])
                missing.remove(item["id"])
        if advance is not None:
            advance(len(numbers) - len(missing), len(numbers))
    if missing:
        raise CheckFailed("entries were archived while they were read: make the evidence again")


def _entries(client: Client, filters: Parameters, *, before: int | None) -> tuple[list[Json], int]:
    found: list[Json] = []
    archived = 0
    for page in client.pages("/audit", {**filters, "order": "asc"}):
        archived = page.archived
        mine = [entry for entry in page.items if before is None or entry["id"] < before]
        found += mine
        if len(mine) < len(page.items):
            break
    return found, archived


def _verifier() -> str:
    """The stand-alone verifier: installed with the program, or in the checkout that it runs from."""
    places = (resources.files("keyvault_lite"), Path(__file__).parents[3] / "tools")
    for place in places:
        if (found := place / VERIFIER).is_file():
            return found.read_text(encoding="utf-8")
    raise CannotRun(f"{VERIFIER} is missing from this installation")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")

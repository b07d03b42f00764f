"""`kvl quickstart`: the whole product in one tour, on a vault of its own that is gone afterwards."""

import base64
import hashlib
import shutil
import sysconfig
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Final

from keyvault_lite.cli.failure import CheckFailed
from keyvault_lite.cli.output import console, printable, when
from keyvault_lite.cli.samples import samples
from keyvault_lite.cli.sandbox import Sandbox
from keyvault_lite.client import sealed_file
from keyvault_lite.client.api import Client, Json
from keyvault_lite.client.connection import Connection
from keyvault_lite.client.errors import Refused

if TYPE_CHECKING:
    from rich.console import Console

REASON: Final = "stolen laptop, reported by alice"
"""What an ADMIN gives as the reason of a revocation, and an intruder changes on disk."""
CONTEXT: Final = {"tenant": "acme", "purpose": "quickstart"}


class NotShown(Exception):
    """A step did not show what it claims."""


@dataclass(slots=True)
class Tour:
    """What the steps share: the vault, who calls it, and the files they work on."""

    sandbox: Sandbox
    console: "Console"
    resources: ExitStack
    clients: dict[str, Client] = field(default_factory=dict)
    originals: dict[str, bytes] = field(default_factory=dict)
    sealed: dict[str, bytes] = field(default_factory=dict)
    refusals: int = 0

    def say(self, text: str) -> None:
        """Explain."""
        self.console.print(f"   [dim]{_plain(text)}[/dim]")

    def show(self, claim: str, holds: object, detail: str = "") -> None:
        """State what was seen. Raises NotShown if it was not."""
        mark = "[green]✓[/green]" if holds else "[red]✗[/red]"
        self.console.print(f"   {mark} {_plain(claim)}" + (f"  [cyan]{_plain(detail)}[/cyan]" if detail else ""))
        if not holds:
            raise NotShown(claim)

    def refused(self, claim: str, call: Callable[[], object], code: str) -> None:
        """State that a call is refused, and how. Raises NotShown if it is not refused so."""
        try:
            call()
        except Refused as refused:
            self.refusals += 1
            self.show(f"refused: {claim}", refused.code == code, str(refused.code))
        else:
            self.show(f"refused: {claim}", holds=False)

    def sign_in(self, who: str, token: str) -> None:
        """Keep a client for somebody."""
        connection = Connection(address=self.sandbox.address, token=token)
        self.clients[who] = self.resources.enter_context(Client(connection))

    def seal(self, who: str, content: bytes) -> bytes:
        """Encrypt as `kvl encrypt orders --context …` does."""
        target = BytesIO()
        sealed_file.seal(self.clients[who], "orders", BytesIO(content), target, context=CONTEXT)
        return target.getvalue()

    def unseal(self, who: str, content: bytes) -> tuple[bytes, frozenset[int]]:
        """Decrypt as `kvl decrypt orders --context …` does; also by which versions."""
        target = BytesIO()
        versions = sealed_file.unseal(self.clients[who], "orders", BytesIO(content), target, context=CONTEXT)
        return target.getvalue(), versions

    def rewrap(self, who: str, content: bytes) -> bytes:
        """Bring under the ACTIVE version as `kvl rewrap orders --context …` does."""
        target = BytesIO()
        sealed_file.rewrap(self.clients[who], "orders", BytesIO(content), target, context=CONTEXT)
        return target.getvalue()


def quickstart() -> None:
    """See everything once: a new demo vault in a temporary folder, a real server, the whole tour over HTTP.

    Ends by itself and leaves nothing behind. Exit code 1 if any step does not show what it should.
    """
    screen = console()
    screen.print("[bold]KeyVault Lite[/bold]: a tour on a vault of its own, over HTTP. Nothing of it stays.\n")
    started = time.monotonic()
    with ExitStack() as resources:
        sandbox = resources.enter_context(Sandbox())
        tour = Tour(sandbox, screen, resources)
        for number, (title, step) in enumerate(STEPS, 1):
            screen.print(f"[bold]{number}. {title}[/bold]")
            try:
                step(tour)
            except NotShown as failed:
                raise CheckFailed(f"step {number} did not show what it should: {failed}") from None
            screen.print()
    screen.print(
        f"[bold green]All shown[/bold green] in {time.monotonic() - started:.1f} s; the demo vault is removed."
    )
    screen.print("Your own vault, in an empty folder:")
    for command in (*_path(), *OWN_VAULT):
        screen.print(f"   {command}", highlight=False)


def _start(tour: Tour) -> None:
    tour.say(
        "A master key in a private file, a database, the first ADMIN; then a server on a free port of this machine."
    )
    token = tour.sandbox.initialise()
    seconds = tour.sandbox.serve()
    tour.sign_in("admin", token)
    health = tour.clients["admin"].health()
    tour.show(f"the server answers at {tour.sandbox.address}", health["status"] == "ok", f"after {seconds:.1f} s")


def _keys(tour: Tour) -> None:
    tour.say("Keys are made inside the vault and never leave it; only public keys can be read.")
    for name, type, size, purpose in (
        ("orders", "AES", 256, "ENCRYPT"),
        ("payroll", "AES", 256, "ENCRYPT"),
        ("release", "EC", 256, "SIGN"),
    ):
        body = {"name": name, "type": type, "size": size, "purpose": purpose, "tags": {"demo": "yes"}}
        key = tour.clients["admin"].change("POST", "/keys", body).json()
        tour.show(f"{name}: {type} {size} to {purpose.lower()}", key["status"] == "ACTIVE", key["id"])


def _services(tour: Tour) -> None:
    tour.say("A SERVICE may do what its grants say and nothing else; an AUDITOR reads the record and uses no key.")
    grants = [{"key": "orders*", "actions": ["encrypt", "decrypt"]}]
    for body in ({"name": "orders-app", "role": "SERVICE", "grants": grants}, {"name": "auditor", "role": "AUDITOR"}):
        made = tour.clients["admin"].change("POST", "/services", body).json()
        tour.sign_in(str(body["name"]), made["token"])
        tour.show(
            f"{made['name']} is {made['role']}", made["active"], "orders*=encrypt,decrypt" if made["grants"] else ""
        )
    app = tour.clients["orders-app"]
    payroll = {"plaintext": "salaries"}
    tour.refused(
        "orders-app with payroll, which it cannot even see",
        lambda: app.post("/keys/payroll/encrypt", payroll),
        "not_found",
    )
    tour.refused("orders-app rotating its own key", lambda: app.change("POST", "/keys/orders/rotate"), "forbidden")
    auditor = tour.clients["auditor"]
    tour.refused("the auditor encrypting", lambda: auditor.post("/keys/orders/encrypt", payroll), "forbidden")


def _encrypt(tour: Tour) -> None:
    tour.say("Three files are encrypted by the vault in pieces of 48 KiB, bound to a context and to their order.")
    for name, content in samples().items():
        path = tour.sandbox.folder / name
        path.write_bytes(content)
        tour.originals[name] = path.read_bytes()
        tour.sealed[name] = tour.seal("orders-app", content)
        probe = content[1000:1064]
        tour.show(
            f"{name}: {len(content):,} bytes", probe not in tour.sealed[name], f"→ {len(tour.sealed[name]):,} sealed"
        )
    name = "orders.csv"
    moved = bytearray(tour.sealed[name])
    moved[len(moved) // 2] ^= 1
    tour.refused(
        "the sealed CSV with one bit changed", lambda: tour.unseal("orders-app", bytes(moved)), "invalid_ciphertext"
    )


def _rotate(tour: Tour) -> None:
    tour.say("Rotation makes a new ACTIVE version. The old one is DEPRECATED: it decrypts, and never encrypts again.")
    admin = tour.clients["admin"]
    admin.change("POST", "/keys/orders/rotate")
    states = [version["status"] for version in admin.collect("/keys/orders/versions").items]
    tour.show("two versions", sorted(states) == ["ACTIVE", "DEPRECATED"], ", ".join(states))
    for name, sealed in tour.sealed.items():
        same = tour.unseal("orders-app", sealed) == (tour.originals[name], frozenset({1}))
        tour.show(f"{name} decrypts to the very same bytes", same, "by version 1, which is DEPRECATED")
    fresh = tour.clients["orders-app"].post("/keys/orders/encrypt", {"plaintext": "new order"}).json()
    active = admin.get("/keys/orders").json()["active_version"]
    tour.show("what is encrypted now", fresh["key_version"] == active, f"by version {active}, which is ACTIVE")


def _rewrap(tour: Tour) -> None:
    tour.say("Rewrapping brings old files under the new version: only the wrapped keys change, no content is touched.")
    before = tour.sealed["orders.csv"]
    after = tour.rewrap("orders-app", before)
    kept = _ciphertexts(before) == _ciphertexts(after)
    tour.show("the ciphertext is the same", kept and after != before)
    tour.clients["admin"].change("POST", "/keys/orders/revoke", {"version": 1, "reason": REASON})
    tour.show(
        "after version 1 is revoked, the rewrapped CSV opens",
        tour.unseal("orders-app", after)[0] == tour.originals["orders.csv"],
    )
    tour.refused("the copy that was not rewrapped", lambda: tour.unseal("orders-app", before), "invalid_state")


def _sign(tour: Tour) -> None:
    tour.say("Signatures are standard: anyone checks them with the published key, without this product.")
    admin, content = tour.clients["admin"], tour.originals["photo.png"]
    body = {
        "message": base64.b64encode(hashlib.sha256(content).digest()).decode(),
        "encoding": "base64",
        "prehashed": True,
    }
    signed = admin.post("/keys/release/sign", body).json()
    signature = base64.b64decode(signed["signature"])
    check = admin.post("/keys/release/verify", {**body, "signature": signed["signature"]}).json()
    tour.show("the vault's own check", check["valid"], signed["algorithm"])
    pem = admin.get("/keys/release/public-key", {"format": "pem"}).json()["public_key"]
    verdict = tour.sandbox.openssl_verify("photo.png", pem, signature)
    if verdict is None:
        tour.say("openssl is not installed here: its check is left out.")
        return
    tour.show("openssl dgst -sha256 -verify release.pem", verdict == "Verified OK", verdict)
    path = tour.sandbox.folder / "photo.png"
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    verdict = tour.sandbox.openssl_verify("photo.png", pem, signature) or "nothing"
    path.write_bytes(content)
    tour.show("the same on a picture with one bit changed", verdict != "Verified OK", verdict)


def _revoke(tour: Tour) -> None:
    tour.say("A revoked key refuses everything, for everybody, from the very next call on, and for ever.")
    admin = tour.clients["admin"]
    sealed = admin.post("/keys/payroll/encrypt", {"plaintext": "salaries"}).json()
    key = admin.change("POST", "/keys/payroll/revoke", {"reason": "the tour"}).json()
    tour.show("payroll", key["status"] == "REVOKED", key["status"])
    given = {name: sealed[name] for name in ("ciphertext", "encrypted_dek")}
    tour.refused(
        "the ADMIN decrypting with payroll", lambda: admin.post("/keys/payroll/decrypt", given), "invalid_state"
    )
    tour.refused(
        "the ADMIN encrypting with payroll",
        lambda: admin.post("/keys/payroll/encrypt", {"plaintext": "x"}),
        "invalid_state",
    )


def _audit(tour: Tour) -> None:
    tour.say("Everything above is on the record, also what was refused; each entry holds the hash of the one before.")
    auditor = tour.clients["auditor"]
    entries = auditor.collect("/audit", limit=400).items
    refused = [entry for entry in entries if entry["result"] != "success"]
    one_of_each = {entry["reason"]: entry for entry in entries}
    for entry in sorted(one_of_each.values(), key=lambda entry: int(entry["id"])):
        tour.say(_entry_line(entry))
    tour.show("every refusal is recorded", len(refused) >= tour.refusals, f"{len(refused)} of {len(entries)} entries")
    verified = auditor.get("/audit/verify").json()
    tour.show(
        "the auditor has the log verified",
        verified["valid"],
        f"{verified['entries']} entries, head {verified['head'][:16]}…",
    )


def _tamper(tour: Tour) -> None:
    tour.say("The server stops. An intruder with the disk rewrites history in a copy of the database: one letter.")
    tour.sandbox.stop()
    code, report = tour.sandbox.verify(tour.sandbox.vault)
    tour.show("kvl verify on the vault", code == 0, f"exit {code}, {report['entries']} entries, clean")
    copy = tour.sandbox.copy()
    forged = REASON.replace("alice", "alicf")
    tour.show(f"“{REASON}” becomes “…{forged[-5:]}”", copy.replace(REASON.encode(), forged.encode()))
    code, report = tour.sandbox.verify(copy)
    tour.show("kvl verify on the copy", code == 1 and report["findings"], f"exit {code}")
    for found in report["findings"][:3]:
        tour.say(f"{found['table']} {found['row']}: {found['problem']}")


def _ciphertexts(sealed: bytes) -> list[bytes]:
    source = BytesIO(sealed)
    sealed_file.read_header(source)
    return [frame.ciphertext for frame in sealed_file.frames(source)]


def _entry_line(entry: Json) -> str:
    why = f" ({entry['reason']})" if entry.get("reason") else ""
    return f"#{entry['id']} {when(entry['timestamp'])} {entry['action']} {entry['result']}{why}"


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))


def _path() -> list[str]:
    """What it takes that the shell finds `kvl`: nothing, if it does."""
    scripts = sysconfig.get_path("scripts")
    return [] if shutil.which("kvl") else [f'export PATH="{scripts}:$PATH"']


OWN_VAULT: Final = (
    "kvl master-key generate --out master.key",
    "export KEYVAULT_MASTER_KEY_FILE=master.key",
    "kvl init --token-out admin.token",
    "kvl serve",
)

STEPS: Final[tuple[tuple[str, Callable[[Tour], None]], ...]] = (
    ("A new vault", _start),
    ("Keys", _keys),
    ("Least privilege", _services),
    ("Real files, encrypted over HTTP", _encrypt),
    ("Rotation, and old data", _rotate),
    ("Rewrap", _rewrap),
    ("A signature that openssl checks", _sign),
    ("Revocation", _revoke),
    ("The auditor", _audit),
    ("One byte changed in a copy of the database", _tamper),
)

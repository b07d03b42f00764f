"""KEYVAULT_ROOT: one URI or several, separated by spaces, in the order in which they are tried.

file:/etc/keyvault/master.key     pkcs11:token=kvl;object=root?module-path=/usr/lib/…&pin-source=file:/…
passphrase:   passphrase:file=/…  tpm2:/dev/tpmrm0?pcrs=7
shamir:       shares:             vault:https://host:8200/transit/keys/kvl?token-file=/…&ca-file=/…
awskms:arn:aws:kms:…?endpoint=https://…   gcpkms:projects/…/cryptoKeys/…
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from keyvault_lite.crypto.root import MasterKey, RootError, read_master_key
from keyvault_lite.roots.keyfile import FileRoot
from keyvault_lite.roots.people import Ask, PassphraseRoot, ShamirRoot
from keyvault_lite.roots.pkcs11.root import Pkcs11Root
from keyvault_lite.roots.root import Root
from keyvault_lite.roots.services.aws import AwsKmsRoot
from keyvault_lite.roots.services.gcp import GcpKmsRoot
from keyvault_lite.roots.services.vault import VaultRoot
from keyvault_lite.roots.tpm2.root import PCRS, Tpm2Root
from keyvault_lite.roots.tpm2.transport import SWTPM

MOST_ROOTS: Final = 16
Master = Callable[[], MasterKey]
"""The master key of KEYVAULT_MASTER_KEY or KEYVAULT_MASTER_KEY_FILE. Raises InvalidMasterKey."""


class SharesRoot(ShamirRoot):
    """`shares:` — shares of one key with several roots; the other roots of the setting open theirs."""

    kind = "shares"

    @property
    def name(self) -> str:
        """See Root."""
        return "shares:"


def parse_roots(text: str, *, master: Master, ask: Ask | None = None, use_last_tries: bool = False) -> list[Root]:
    """The roots. `ask` prompts people; without it they are awaited. Raises RootError, which names the fault."""
    uris = text.split()
    if not 0 < len(uris) <= MOST_ROOTS:
        raise RootError(f"KEYVAULT_ROOT holds one to {MOST_ROOTS} URIs, separated by spaces.")
    return [parse_root(uri, master=master, ask=ask, use_last_tries=use_last_tries) for uri in uris]


def parse_root(uri: str, *, master: Master, ask: Ask | None = None, use_last_tries: bool = False) -> Root:
    """One root. Raises RootError."""
    scheme, colon, rest = uri.partition(":")
    if not colon:
        raise RootError("A root is a URI: file:/path, pkcs11:…, tpm2:…, see docs/roots.md.")
    if scheme == "file":
        if not rest:
            return FileRoot(master)
        return FileRoot(partial(read_master_key, text=None, path=unquote(rest)), rest)
    if scheme == "passphrase":
        return _passphrase(rest, ask)
    if scheme == "pkcs11":
        return Pkcs11Root(rest, use_last_tries=use_last_tries)
    made = _PARSERS.get(scheme)
    if made is None:
        raise RootError("KEYVAULT_ROOT names a kind of root that there is not; see docs/roots.md for those there are.")
    main, _, query = rest.partition("?")
    return made(main, query)


def _people(kind: type[ShamirRoot]) -> Callable[[str, str], Root]:
    def make(main: str, query: str) -> Root:
        if main or query:
            raise RootError(f"{kind.kind}: takes nothing behind the colon.")
        return kind()

    return make


def _vault(main: str, query: str) -> Root:
    options = _options(query, {"token-file", "ca-file"})
    return VaultRoot(main, token_file=options.get("token-file"), ca_file=options.get("ca-file"))


def _cloud(kind: type[AwsKmsRoot] | type[GcpKmsRoot]) -> Callable[[str, str], Root]:
    def make(main: str, query: str) -> Root:
        options = _options(query, {"endpoint", "ca-file"})
        return kind(main, endpoint=options.get("endpoint"), ca_file=options.get("ca-file"))

    return make


def _passphrase(rest: str, ask: Ask | None) -> Root:
    if not rest:
        return PassphraseRoot(ask=ask)
    path = rest.removeprefix("file=")
    if path == rest or not Path(path).is_absolute():
        raise RootError("passphrase: asks people, and passphrase:file=/absolute/path reads a file.")
    return PassphraseRoot(file=Path(unquote(path)))


def _tpm2(device: str, query: str) -> Root:
    options = _options(query, {"pcrs"})
    if not Path(device.removeprefix(SWTPM)).is_absolute():
        raise RootError("A tpm2: root names its device: tpm2:/dev/tpmrm0.")
    try:
        pcrs = [int(one) for one in options.get("pcrs", "").split(",") if one]
    except ValueError:
        pcrs = [PCRS]
    if not all(0 <= pcr < PCRS for pcr in pcrs):
        raise RootError("The PCRs of a tpm2: root are numbers from 0 to 23: ?pcrs=7 or ?pcrs=0,7.")
    return Tpm2Root(device, pcrs)


def _options(query: str, known: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if name not in known or not equals or not value or name in found:
            raise RootError("A root has an option that is not known, empty or twice; see docs/roots.md.")
        found[name] = unquote(value)
    return found


_PARSERS: Final[Mapping[str, Callable[[str, str], Root]]] = {
    "awskms": _cloud(AwsKmsRoot),
    "gcpkms": _cloud(GcpKmsRoot),
    "shamir": _people(ShamirRoot),
    "shares": _people(SharesRoot),
    "tpm2": _tpm2,
    "vault": _vault,
}

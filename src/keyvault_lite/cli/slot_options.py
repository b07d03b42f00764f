"""What a new slot of the keyring is made with: options of `kvl init` and `kvl root`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.files import write_new_secret

if TYPE_CHECKING:
    from keyvault_lite.operator.roots import Keep, NewSlot
    from keyvault_lite.roots.root import Enrolled

SharesOption = Annotated[
    int, typer.Option("--shares", min=0, max=32, help="How many people get a share (shamir: and shares:).")
]
ThresholdOption = Annotated[
    int, typer.Option("--threshold", min=0, max=32, help="How many shares open the vault (shamir: and shares:).")
]
OfOption = Annotated[
    list[str] | None, typer.Option("--of", metavar="URI", help="A root that has a share (shares:); may be repeated.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-O", metavar="FOLDER", help="Where the shares are put, a private file each.")
]


def new_slot(uri: str, shares: int, threshold: int, of: list[str] | None, out: Path | None) -> "tuple[NewSlot, Keep]":
    """What the options ask for, and what puts the shares into files. Raises CannotRun."""
    from keyvault_lite.operator.roots import NewSlot

    if shares and out is None:
        raise CannotRun("name a folder for the shares with --out")

    def keep(made: "Enrolled") -> None:
        if not made.shares or out is None:
            return
        out.mkdir(mode=0o700, exist_ok=True)
        for share in made.shares:
            write_new_secret(out / f"share-{share.x}", share.write() + "\n")

    return NewSlot(uri, threshold, shares, tuple(of or ())), keep

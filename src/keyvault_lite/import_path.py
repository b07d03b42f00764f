"""From which folders Python imports modules, in this process and in those that it starts.

A writer of a file that is imported runs code in the server and has its keys. So no module comes from the folder
of the database, which the threat model gives to the attacker, nor from the working directory of a child process.
"""

import os
import site
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SAFE_PATH: Final = "PYTHONSAFEPATH"


def protect_children() -> None:
    """Keep processes started from now on from importing modules from their working directory.

    `multiprocessing` starts them with `python -c`, which looks there first. A parent that was itself started by a
    script has no flag that they could inherit: the environment has to say it.
    """
    os.environ[SAFE_PATH] = "1"


def is_protected() -> bool:
    """Whether this process looks for modules in configured places alone, and not in its working directory."""
    return sys.flags.safe_path


def writable_source(folders: Iterable[Path]) -> Path | None:
    """The first folder that modules are imported from and that is one of these, or holds user packages inside of one.

    A package installed in a virtual environment inside of one of these folders is left to `nested_source`.
    """
    kept = [one.resolve() for one in folders]
    user = Path(site.USER_SITE).resolve() if site.USER_SITE else None
    for source in _sources():
        if source in kept or (source == user and _is_inside(source, kept)):
            return source
    return None


def nested_source(folders: Iterable[Path]) -> Path | None:
    """The first folder that modules are imported from and that is inside of one of these, at any depth."""
    kept = [one.resolve() for one in folders]
    return next((one for one in _sources() if _is_inside(one, kept)), None)


def _sources() -> list[Path]:
    # An empty entry is the working directory.
    return [Path(entry or os.curdir).resolve() for entry in sys.path]


def _is_inside(path: Path, folders: list[Path]) -> bool:
    return any(one in path.parents for one in folders)

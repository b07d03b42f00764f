"""Where the repository and the package under test are."""

from pathlib import Path
from typing import Final

import keyvault_lite

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout."""
SOURCE: Final = Path(keyvault_lite.__file__).resolve().parents[1]
"""What a child process needs in PYTHONPATH to import the package under test: `src` of a checkout."""

"""The script `kvl` as an installation makes it: Python finds modules beside the script, and not where it is started."""

import sys

from keyvault_lite.__main__ import main

if __name__ == "__main__":
    sys.exit(main())  # type: ignore[func-returns-value]  # as installers write it

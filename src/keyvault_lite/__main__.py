"""`python -m keyvault_lite` is `kvl`."""

from keyvault_lite.cli.main import main

if __name__ == "__main__":
    main()

"""KeyVault Lite: a self-hosted key management service whose every answer is on the record."""

__version__ = "0.2.0"

"""The Vault dialect: Transit, and what its clients need around it. It translates; no decision is made here."""

from keyvault_lite.wire.vault.application import VaultApi

__all__ = ["VaultApi"]

"""The Vault dialect: the operations of HashiCorp Vault's Transit engine, of tokens, policies, AppRole and mounts."""

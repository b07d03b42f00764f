"""DIALECTS: operations of other products on the vault's keys, a package each. The engine imports none of them."""

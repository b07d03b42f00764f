"""OPERATOR: the commands that run beside the vault with its settings, a module each. None is reachable over HTTP."""

"""The client library is tested beside `kvl`, its first user."""

from tests.unit.cli.conftest import environment, kvl, terminal, vault

__all__ = ["environment", "kvl", "terminal", "vault"]

"""The differential suite asks a served vault, as the clients do."""

from tests.clients.conftest import served

__all__ = ["served"]

"""The native API: one table of routes, read by the hot road, by FastAPI and by the OpenAPI document."""

from keyvault_lite.wire.native.application import build

__all__ = ["build"]

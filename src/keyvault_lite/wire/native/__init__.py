"""The native API: one table of operations, read by the router and by the OpenAPI document."""

from keyvault_lite.wire.native.application import NativeApi

__all__ = ["NativeApi"]

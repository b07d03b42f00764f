"""Where key policies and AWS grants narrow what the vault allows: one function, for requests of every dialect."""

from typing import Final

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.guard import check
from keyvault_lite.dialects.aws.native_use import narrow_native
from keyvault_lite.dialects.aws.view import view
from keyvault_lite.engine.handler import HandlerContext
from keyvault_lite.model.requests import Request

_PERMISSIONS: Final = {"ReEncrypt": "ReEncryptFrom"}
"""The permission of an operation, where it is not its name."""


def narrow(account: str, request: Request, ctx: HandlerContext) -> None:
    """Raise Forbidden unless policy and grants of the key allow the request."""
    if not isinstance(request, words.AwsKeyRequest):
        narrow_native(account, request, ctx)
        return
    operation = type(request).__name__
    seen = view(ctx.key, request.place, ctx.now)
    check(seen, _PERMISSIONS.get(operation, operation), request, request.bound_context, ctx)

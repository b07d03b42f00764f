"""Requests as they arrive, and a vault that is asked in this process."""

from collections.abc import Iterable
from typing import Any

from keyvault_lite.wire.http import Exchange


def exchange(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    query: bytes = b"",
    method: str = "POST",
    path: bytes = b"/",
    body: bytes = b"",
) -> Exchange:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
    }
    return Exchange(scope, receive)

"""The event loop of a server: uvloop's, with a bound on how long a TLS handshake may take."""

from typing import Any, Final

import uvloop

HANDSHAKE_SECONDS: Final = 10.0
"""As long as a head: a connection that sends nothing has no request yet, and counts for no caller."""


class Loop(uvloop.Loop):
    """For uvicorn, which makes its listening servers with it."""

    async def create_server(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401  (as of the loop)
        """As of uvloop's loop."""
        if more.get("ssl") is not None:
            more.setdefault("ssl_handshake_timeout", HANDSHAKE_SECONDS)
        return await super().create_server(*arguments, **more)

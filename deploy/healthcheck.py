"""Whether the server in this container can serve: exit code 0 or 1. Sends no token, so it may ask anyone."""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPSConnection

SECONDS = 4


def main() -> int:
    """Ask /health over the loopback interface."""
    port = int(os.environ.get("KEYVAULT_PORT") or 8000)
    if os.environ.get("KEYVAULT_TLS_CERT"):
        # The certificate is for the name that clients use, not for this one.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection: HTTPConnection = HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=context)
    else:
        connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/health")
        return int(connection.getresponse().status != 200)  # noqa: PLR2004
    except OSError:
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())

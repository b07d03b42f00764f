"""/docs without a network: Swagger UI from an installed package, under a policy that lets nothing else run."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from keyvault_lite.wire.http import Header

_PACKAGE: Final = "fastapi_swagger"
"""Its files are read and its code is never imported: that would load a web framework."""
_TITLE: Final = "KeyVault Lite API"
_PAGE: Final = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_TITLE}</title>
<link rel="icon" href="/docs/favicon.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = """"use strict";
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  filter: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  // The box with the command for curl shows the token in clear.
  plugins: [() => ({ wrapComponents: { curl: () => () => null } })],
});
"""
# Swagger UI writes style attributes and draws its icons from data URLs; script comes from our own files only.
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY: Final[list[Header]] = [(b"content-security-policy", _POLICY), (b"referrer-policy", b"no-referrer")]
_FILES: Final = {
    "swagger-ui.css": ("swagger-ui.css", b"text/css; charset=utf-8"),
    "swagger-ui-bundle.js": ("swagger-ui-bundle.js", b"text/javascript; charset=utf-8"),
    "favicon.png": ("favicon-32x32.png", b"image/png"),
}
_TEXTS: Final = {
    "": (_PAGE, b"text/html; charset=utf-8"),
    "start.js": (_START, b"text/javascript; charset=utf-8"),
}
NAMES: Final = (*_TEXTS, *_FILES)
"""What there is under /docs; the page itself has no name."""


def read(name: str) -> tuple[bytes, bytes]:
    """One of NAMES, and its media type."""
    if name in _TEXTS:
        text, media_type = _TEXTS[name]
        return text.encode(), media_type
    file, media_type = _FILES[name]
    return (_folder() / file).read_bytes(), media_type


def _folder() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(_PACKAGE)
    return Path(spec.submodule_search_locations[0], "resources")

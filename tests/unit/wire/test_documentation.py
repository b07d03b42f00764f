import re
import subprocess
import sys

import pytest

from keyvault_lite.wire.native import documentation
from tests.support.fake_engine import FakeEngine, ask, build


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = ask(build(FakeEngine()), "GET", "/docs", token=None)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    referenced = re.findall(r'(?:src|href)="([^"]*)"', page.body.decode())
    assert sorted(referenced) == sorted(f"/docs/{name}" for name in documentation.NAMES if name)
    assert b"<script>" not in page.body
    assert b"//" not in page.body
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "http" not in policy


@pytest.mark.parametrize("name", documentation.NAMES)
def test_its_files(name: str) -> None:
    app = build(FakeEngine())
    reply = ask(app, "GET", f"/docs/{name}".rstrip("/"), token=None)
    assert reply.status == 200
    assert reply.body
    assert "content-security-policy" in reply.headers
    assert ask(app, "GET", f"/docs/{name}".rstrip("/"), token=None, query=b"x=1").status == 422


def test_the_root_names_where_to_go_on() -> None:
    app = build(FakeEngine())
    reply = ask(app, "GET", "/", token=None)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    for path in ("/docs", "/health", "/openapi.json"):
        assert f'"{path}"'.encode() in reply.body
    assert ask(app, "POST", "/", token=None).status == 405
    assert ask(app, "GET", "//", token=None).status == 404


def test_the_page_does_not_show_a_token_in_a_command() -> None:
    """Swagger UI's box with the command for curl, which holds the token, is replaced by nothing."""
    start, bundle = (documentation.read(name)[0] for name in ("start.js", "swagger-ui-bundle.js"))
    assert b"wrapComponents: { curl: () => () => null }" in start
    assert b'"curl",!0' in bundle, "the name under which Swagger UI looks for the box"


def test_no_other_file() -> None:
    app = build(FakeEngine())
    for path in ("/docs/", "/docs/__init__.py", "/docs/swagger-ui.js", "/docs/../docs/start.js", "/redoc"):
        assert ask(app, "GET", path, token=None).status == 404


def test_its_files_are_read_without_a_web_framework() -> None:
    code = (
        "import sys, keyvault_lite.app, keyvault_lite.server.serve\n"
        "from keyvault_lite.wire.native import documentation\n"
        "assert all(documentation.read(name)[0] for name in documentation.NAMES)\n"
        "print(sorted({'fastapi', 'fastapi_swagger', 'starlette'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "[]\n"

import re

import pytest

from keyvault_lite.wire.native import build, documentation
from tests.wire.fake import FakeEngine, ask


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


def test_no_other_file() -> None:
    app = build(FakeEngine())
    for path in ("/docs/", "/docs/__init__.py", "/docs/swagger-ui.js", "/docs/../docs/start.js", "/redoc"):
        assert ask(app, "GET", path, token=None).status == 404

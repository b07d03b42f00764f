"""The route table: which template a path fits, whatever the order of the table."""

import itertools

import pytest

from keyvault_lite.wire.routing import Match, Table

ROUTES = {
    ("GET", "keys"): "list",
    ("POST", "keys"): "create",
    ("GET", "keys/{name}"): "read",
    ("GET", "keys/self"): "own",
    ("PATCH", "keys/{name}"): "update",
    ("GET", "keys/{name}/versions/{version}"): "version",
    ("GET", "mounts/{path...}"): "mount",
    ("GET", "mounts/auth/{path...}"): "login",
}


def found(path: str, routes: dict[tuple[str, str], str] = ROUTES) -> Match[str] | None:
    return Table(routes).find(path.split("/"))


@pytest.mark.parametrize(
    ("path", "route", "parameters"),
    [
        ("keys", "list", {}),
        ("keys/orders", "read", {"name": "orders"}),
        ("keys/self", "own", {}),
        ("keys/a/versions/3", "version", {"name": "a", "version": "3"}),
        ("keys/self/versions/3", "version", {"name": "self", "version": "3"}),
        ("mounts/a", "mount", {"path": "a"}),
        ("mounts/a/b/c", "mount", {"path": "a/b/c"}),
        ("mounts/auth", "mount", {"path": "auth"}),
        ("mounts/auth/a/b", "login", {"path": "a/b"}),
    ],
)
def test_a_literal_wins_over_a_parameter(path: str, route: str, parameters: dict[str, str]) -> None:
    for order in itertools.islice(itertools.permutations(ROUTES.items()), 0, None, 4001):
        match = found(path, dict(order))
        assert match is not None
        assert (match.methods["GET"], match.parameters) == (route, parameters)


@pytest.mark.parametrize("path", ["", "key", "keys/a/b", "keys/a/versions", "mounts", "keys/a/versions/3/4"])
def test_other_paths_fit_nothing(path: str) -> None:
    assert found(path) is None


def test_what_a_better_template_has_no_method_for_may_be_in_the_next() -> None:
    matches = Table(ROUTES).find_all(["keys", "self"])
    assert [set(one.methods) for one in matches] == [{"GET"}, {"GET", "PATCH"}]
    assert matches[1].parameters == {"name": "self"}


def test_the_table_tells_what_is_in_it() -> None:
    table = Table(ROUTES)
    assert table.templates()["keys", "{name}"] == {"GET": "read", "PATCH": "update"}
    assert sorted(table.routes()) == sorted(ROUTES.values())
    assert "keys" in table
    assert "orders" not in table

"""Lists fit the terminal: no cell is wrapped, columns give way in an order that is theirs, and `--wide` shows all."""

import json
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from keyvault_lite.cli import output
from keyvault_lite.cli.output import GAP, Columns
from tests.support.fake_vault import KEY_ID, FakeVault, entry, key
from tests.unit.cli.conftest import Kvl

names = st.lists(st.sampled_from("ABCDEFGHIJ"), min_size=1, max_size=8, unique=True)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print as on a terminal of 80 columns."""
    monkeypatch.setattr(output, "PIPE_WIDTH", 80)


@given(data=st.data(), room=st.integers(1, 200))
def test_what_is_shown_fits_where_it_can(data: st.DataObject, room: int) -> None:
    titles = data.draw(names)
    dropped = data.draw(st.lists(st.sampled_from(titles), unique=True, max_size=len(titles) - 1))
    cut = data.draw(st.lists(st.sampled_from(titles), unique=True))
    widths = data.draw(st.lists(st.integers(1, 60), min_size=len(titles), max_size=len(titles)))
    shown = Columns(tuple(titles), tuple(dropped), tuple(cut)).fitting(widths, room)
    taken = sum(width for _, width in shown) + GAP * (len(shown) - 1)
    kept = {titles[i] for i, _ in shown}
    assert [i for i, _ in shown] == sorted(i for i, _ in shown)
    assert set(titles) - set(dropped) <= kept
    assert all(width <= widths[i] and (width == widths[i] or titles[i] in cut) for i, width in shown)
    if taken > room:  # then nothing else could give way
        assert not kept & set(dropped)
        assert all(width <= output.MIN_CUT for i, width in shown if titles[i] in cut)


@pytest.mark.parametrize("command", [("key", "ls"), ("service", "ls"), ("audit", "ls")])
@pytest.mark.usefixtures("narrow")
def test_a_list_reads_at_eighty_columns(kvl: Kvl, vault: FakeVault, command: tuple[str, ...]) -> None:
    vault.keys.append(key("a-name-of-many-words-" * 4))
    vault.keys.append(key(None))
    vault.entries.append(entry(6, action="decrypt", result="denied", reason="not_found", key_id=None, key_ref="ghost"))
    ran = kvl(*command)
    lines = ran.out.splitlines()
    listed = json.loads(kvl(*command, "-o", "json").out)["items"]
    assert len(lines) == 1 + len(listed), "a cell was wrapped"
    assert max(map(cell_len, lines)) <= 80
    wide = kvl(*command, "--wide")
    assert "…" not in wide.out
    assert "not shown" not in wide.err
    missing = re.search(r"not shown for lack of room: (.*); --wide shows all", ran.err)
    heading = lines[0].split()
    assert sorted(wide.out.splitlines()[0].split()) == sorted(heading + (missing[1].split(", ") if missing else []))


@pytest.mark.usefixtures("narrow")
def test_a_key_without_a_name_is_listed_by_its_id(kvl: Kvl, vault: FakeVault) -> None:
    vault.keys.append(key(None))
    assert KEY_ID in kvl("key", "ls").out


def test_a_misspelt_variable_of_the_client_is_named(
    kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYVAULT_TOKN", "secret-of-somebody")
    ran = kvl("key", "ls")
    assert ran.code == 0
    assert "KEYVAULT_TOKN is not a setting and is ignored; did you mean KEYVAULT_TOKEN?" in ran.err
    assert "secret" not in ran.out + ran.err


def test_no_such_object_names_the_command_that_lists_them(kvl: Kvl, vault: FakeVault) -> None:
    ran = kvl("key", "show", "nosuch")
    assert ran.code == 1
    assert "`kvl key ls` lists them" in ran.err


def test_nobody_listening_asks_for_the_server(kvl: Kvl, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KEYVAULT_ADDR", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("KEYVAULT_TOKEN", "kvl_AAAAAAAAAAAAAAAA_secret")
        ran = kvl("key", "ls")
    assert ran.code == 2
    assert "is `kvl serve` running there?" in ran.err


def test_https_to_a_server_of_plain_http_names_the_scheme(
    kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYVAULT_ADDR", vault.address.replace("http://", "https://"))
    ran = kvl("key", "ls")
    assert ran.code == 2
    assert "have to begin with http://?" in ran.err

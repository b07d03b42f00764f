"""Every client command: what it sends, what it prints, how it ends."""

import json
import re
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import get_args

import pytest

from keyvault_lite.cli.arguments import grant, parse_moment
from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.key import NativePurpose, NativeType
from keyvault_lite.cli.output import printable
from keyvault_lite.model.keys import ALGORITHMS, SIZES
from tests.support.fake_vault import ISSUED, KEY_ID, SERVICE_ID, FakeVault, Json, Seen, entry, key
from tests.support.paths import ROOT
from tests.unit.cli.conftest import Kvl
from tests.unit.cli.test_streams import sh
from tests.unit.client.test_connection import drop, fail


def body(vault: FakeVault) -> object:
    return vault.seen[-1].body


def test_key_create_sends_what_is_said_and_the_purpose_that_fits(kvl: Kvl, vault: FakeVault) -> None:
    ran = kvl(
        "key", "create", "web", "--type", "ec", "--size", "384", "-d", "TLS", "--tag", "team=web", "--tag", "a=b=c"
    )
    assert ran.code == 0
    assert body(vault) == {
        "name": "web",
        "type": "EC",
        "size": 384,
        "purpose": "SIGN",
        "description": "TLS",
        "tags": {"team": "web", "a": "b=c"},
    }
    assert "EC 384" in ran.out
    kvl("key", "create")
    assert body(vault) == {"type": "AES", "purpose": "ENCRYPT"}


def test_key_create_asks_for_the_purpose_of_rsa(kvl: Kvl, vault: FakeVault) -> None:
    ran = kvl("key", "create", "--type", "RSA")
    assert ran.code == 2
    assert "--purpose ENCRYPT or SIGN" in ran.err
    assert kvl("key", "create", "--type", "RSA", "--purpose", "sign").code == 0


@pytest.mark.parametrize("tag", ["x", "=y"])
def test_a_tag_has_a_name_and_a_value(kvl: Kvl, vault: FakeVault, tag: str) -> None:
    assert kvl("key", "create", "--tag", tag).code == 2
    assert kvl("key", "create", "--tag", "a=1", "--tag", "a=2").code == 2
    assert vault.seen == []


def test_the_kinds_on_offer_are_those_of_the_native_api() -> None:
    assert get_args(NativeType) == tuple(SIZES)
    assert set(get_args(NativePurpose)) == {purpose for _type, _size, purpose in ALGORITHMS}


def test_keys_of_dialects_are_shown_in_their_words(kvl: Kvl, vault: FakeVault) -> None:
    vault.keys = [
        key(None, type="SECP256K1", size=None, purpose="SIGN", spec="ECC_SECG_P256K1", aliases=["aws:eu:x", "b"])
    ]
    for command in (("key", "ls"), ("key", "show", KEY_ID)):
        out = kvl(*command).out
        assert "ECC_SECG_P256K1" in out
        assert "aws:eu:x" in out


def test_key_ls_as_table_and_json(kvl: Kvl, vault: FakeVault) -> None:
    vault.keys.append(key(None, type="ED25519", size=None))
    table = kvl("key", "ls").out
    assert "NAME" in table
    assert KEY_ID in table
    assert "ED25519 " in table
    assert json.loads(kvl("key", "ls", "-o", "json").out) == {"items": vault.keys, "next": None}


def test_one_object_as_json_is_what_the_api_wrote(kvl: Kvl, vault: FakeVault) -> None:
    assert (
        kvl("key", "show", "orders", "--output", "json").out == json.dumps(vault.keys[0], separators=(",", ":")) + "\n"
    )


@pytest.mark.parametrize(
    ("command", "path", "sent", "status"),
    [
        (("rotate",), "rotate", None, "ACTIVE"),
        (("disable",), "disable", None, "DISABLED"),
        (("enable",), "enable", None, "ACTIVE"),
        (("restore",), "restore", None, "DISABLED"),
        (("revoke", "--yes"), "revoke", {}, "REVOKED"),
        (("revoke", "-y", "--version", "1", "--reason", "lost"), "revoke", {"version": 1, "reason": "lost"}, "REVOKED"),
        (("destroy", "--yes"), "destroy", {"days": 30}, "PENDING_DESTRUCTION"),
        (("destroy", "--yes", "--days", "7"), "destroy", {"days": 7}, "PENDING_DESTRUCTION"),
    ],
)
def test_the_lives_of_keys(
    kvl: Kvl, vault: FakeVault, *, command: tuple[str, ...], path: str, sent: object, status: str
) -> None:
    ran = kvl("key", command[0], "orders", *command[1:])
    assert ran.code == 0
    assert status in ran.out
    assert (vault.seen[-1].path, body(vault)) == (f"/keys/orders/{path}", sent)


@pytest.mark.parametrize("command", ["revoke", "destroy"])
def test_what_is_final_is_asked_first(
    kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    ran = kvl("key", command, "orders")
    assert ran.code == 2
    assert "--yes" in ran.err
    monkeypatch.setattr("keyvault_lite.cli.output.interactive", lambda: True)
    assert kvl("key", command, "orders", stdin=b"n\n").code == 1
    assert vault.seen == []
    assert kvl("key", command, "orders", stdin=b"y\n").code == 0
    assert len(vault.seen) == 1


def test_key_versions(kvl: Kvl, vault: FakeVault) -> None:
    kvl("key", "rotate", "orders")
    out = kvl("key", "versions", "orders").out
    assert "DEPRECATED" in out
    assert "2026-11-20 10:00:00Z" in out


def test_key_update(kvl: Kvl, vault: FakeVault) -> None:
    ran = kvl("key", "update", "orders", "--description", "", "--tag", "a=b", "--rotate-every", "90")
    assert ran.code == 0
    assert "90 days" in ran.out
    assert vault.last("PATCH").body == {"description": "", "tags": {"a": "b"}, "rotation_period_days": 90}
    kvl("key", "update", "orders", "--no-tags")
    assert vault.last("PATCH").body == {"tags": {}}
    assert kvl("key", "update", "orders").code == 2


def test_public_keys(kvl: Kvl, vault: FakeVault, tmp_path: Path) -> None:
    assert kvl("key", "public-key", "orders").out.startswith("-----BEGIN PUBLIC KEY-----\nAAAA\n")
    assert kvl("key", "public-key", "orders", "--format", "der", "--version", "2").raw == b"\x30\x00\xff"
    assert vault.seen[-1].query == {"version": "2", "format": "der"}
    assert json.loads(kvl("key", "public-key", "orders", "-f", "jwk").out) == {"kty": "EC"}
    assert json.loads(kvl("key", "public-key", "orders", "-o", "json").out)["algorithm"] == "ECDSA_SHA256"
    kvl("key", "public-key", "orders", "-f", "raw", "-O", str(tmp_path / "k"))
    assert (tmp_path / "k").read_bytes() == b"\x04\xff"


def test_service_create_shows_the_token_once(kvl: Kvl, vault: FakeVault) -> None:
    ran = kvl("service", "create", "web", "--role", "service", "--grant", "web-*=decrypt,encrypt", "--expires", "90d")
    assert ran.code == 0
    assert ran.out.count(ISSUED) == 1
    assert ISSUED not in ran.err
    sent = vault.seen[-1].body
    assert sent is not None
    assert sent.pop("expires_at").endswith("Z")
    assert sent == {"name": "web", "role": "SERVICE", "grants": [{"key": "web-*", "actions": ["encrypt", "decrypt"]}]}


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_token_can_go_to_a_private_file_instead(kvl: Kvl, vault: FakeVault, tmp_path: Path, output: str) -> None:
    file = tmp_path / "token"
    ran = kvl("service", "create", "web", "--token-out", str(file), "-o", output)
    assert ran.code == 0
    assert ISSUED not in ran.out + ran.err
    assert file.read_text() == ISSUED + "\n"
    assert file.stat().st_mode & 0o777 == 0o600
    before = len(vault.seen)
    for place in (file, tmp_path / "absent" / "token"):
        assert kvl("service", "token", "web", "--token-out", str(place)).code == 2
    assert len(vault.seen) == before, "the old token must not die for a file that cannot be written"


def test_an_expiry_can_be_taken_back(kvl: Kvl, vault: FakeVault) -> None:
    assert kvl("service", "update", "app", "--expires", "never").code == 0
    assert vault.last("PATCH").body == {"expires_at": "never"}
    assert kvl("service", "create", "web", "--expires", "never").code == 0
    assert "expires_at" not in (vault.last("POST").body or {})


def test_a_renewal_whose_answer_was_lost_is_explained(kvl: Kvl, vault: FakeVault) -> None:
    vault.faults = [drop, fail(401, "unauthenticated")]
    ran = kvl("service", "token", "app")
    assert ran.code == 1
    assert "probably renewed and the answer with the new one lost" in ran.err
    assert "`kvl service token app`" in ran.err
    assert "--recover-admin" in ran.err
    vault.faults = [fail(401, "unauthenticated")]
    ran = kvl("service", "token", "app")
    assert (ran.code, "renewed" in ran.err) == (1, False)


def test_no_token_is_made_for_an_output_that_is_closed(vault: FakeVault) -> None:
    for command in ("service token app", "service create web"):
        ran = sh(f"kvl {command} >&-")
        assert (ran.returncode, "standard output is closed" in ran.stderr) == (2, True)
    assert vault.seen == []


def test_a_reader_that_goes_away_before_the_token_comes_is_told_of(vault: FakeVault) -> None:
    def late(_handler: BaseHTTPRequestHandler) -> bool:
        time.sleep(1.5)
        return False

    vault.faults = [late]
    ran = sh("kvl service token app | sleep 1")
    assert ran.returncode == 2
    assert re.search(r"could not be written out \(input or output: Broken pipe|standard output is closed", ran.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_token_that_could_not_be_written_out_is_not_forgotten(vault: FakeVault) -> None:
    for command in ("service token app", "service create app"):
        ran = sh(f"kvl {command} >/dev/full")
        assert ran.returncode == 2
        assert "the new token is in force, but it could not be written out (input or output: No space" in ran.stderr
        assert "`kvl service token app` by an ADMIN gives another" in ran.stderr


def test_service_token(kvl: Kvl, vault: FakeVault) -> None:
    assert json.loads(kvl("service", "token", "app", "-o", "json").out)["token"] == ISSUED
    assert vault.seen[-1].path == "/services/app/token"


def test_a_token_is_given_a_lifetime_and_an_overlap(kvl: Kvl, vault: FakeVault) -> None:
    def sent(*arguments: str) -> object:
        assert kvl("service", *arguments).code == 0
        return vault.last("POST").body

    assert sent("token", "app") is None
    assert sent("token", "app", "--ttl", "30d", "--max-ttl", "365d", "--grace", "10m") == {
        "ttl": 30 * 86400,
        "max_ttl": 365 * 86400,
        "grace": 600,
    }
    assert sent("token", "self") == {"grace": 600}
    assert sent("token", "self", "--grace", "0") == {"grace": 0}
    made = sent("create", "web", "--ttl", "12h", "--max-ttl", "0")
    assert made == {"name": "web", "role": "SERVICE", "token_ttl": 12 * 3600, "token_max_ttl": 0}
    before = len(vault.seen)
    for wrong in ("10", "-1m", "1y", "0m", ""):
        assert kvl("service", "token", "app", "--ttl", wrong).code == 2
    assert len(vault.seen) == before


def test_a_renewal_and_whoami_say_when_the_token_ends(kvl: Kvl, vault: FakeVault) -> None:
    for ran in (kvl("service", "token", "app"), kvl("whoami"), kvl("service", "show", "self")):
        assert ran.code == 0
        assert "2026-12-20 10:00:00Z" in ran.out
        assert "2027-11-20 10:00:00Z" in ran.out
    assert json.loads(kvl("whoami", "-o", "json").out)["token"]["kind"] == "native"
    assert ISSUED not in kvl("whoami").out


def test_a_service_that_has_expired_is_not_shown_as_active(kvl: Kvl, vault: FakeVault) -> None:
    assert "yes" in kvl("service", "ls").out
    vault.services[0]["expires_at"] = "2020-01-01T00:00:00.000000Z"
    for ran in (kvl("service", "ls"), kvl("service", "show", "app")):
        assert "expired" in ran.out
        assert "yes" not in ran.out
    vault.services[0]["active"] = False
    assert "expired" not in kvl("service", "ls").out


@pytest.mark.parametrize(
    ("status", "shown"), [("PENDING_DESTRUCTION", "to be destroyed"), ("DESTROYED", "destroyed at")]
)
def test_a_destruction_that_is_to_come_is_shown_as_such(kvl: Kvl, vault: FakeVault, status: str, shown: str) -> None:
    vault.keys[0] |= {"status": status, "destroy_at": "2030-01-01T00:00:00.000000Z"}
    assert shown in kvl("key", "show", "orders").out


def test_services_are_listed_and_shown(kvl: Kvl, vault: FakeVault) -> None:
    assert "orders-*=encrypt,decrypt" in kvl("service", "ls").out
    assert SERVICE_ID in kvl("service", "show", "app").out
    assert json.loads(kvl("service", "show", "app", "-o", "json").out) == vault.services[0]


def test_grants_are_added_and_removed(kvl: Kvl, vault: FakeVault) -> None:
    held = vault.services[0]
    assert kvl("service", "grant", "app", "orders-*=sign", "web=verify").code == 0
    assert held["grants"] == [
        {"key": "orders-*", "actions": ["decrypt", "encrypt", "sign"]},
        {"key": "web", "actions": ["verify"]},
    ]
    assert kvl("service", "revoke", "app", "orders-*=encrypt,sign", "web").code == 0
    assert held["grants"] == [{"key": "orders-*", "actions": ["decrypt"]}]
    ran = kvl("service", "revoke", "app", "other=sign")
    assert ran.code == 1
    assert "no grant on other" in ran.err


def test_what_others_do_to_the_grants_meanwhile_stays(kvl: Kvl, vault: FakeVault) -> None:
    held = vault.services[0]
    held["grants"] = [{"key": "payroll", "actions": ["decrypt"]}, {"key": "web", "actions": ["sign"]}]
    real = vault.answer

    def others_are_quicker(seen: Seen) -> tuple[int, Json]:
        if seen.method == "PATCH":
            vault.answer = real  # type: ignore[method-assign]
            held["grants"] = held["grants"][1:]  # payroll is taken away, and that was answered
        return real(seen)

    vault.answer = others_are_quicker  # type: ignore[method-assign]
    assert kvl("service", "grant", "app", "other=encrypt").code == 0
    assert [one["key"] for one in held["grants"]] == ["web", "other"]
    vault.answer = others_are_quicker  # type: ignore[method-assign]
    ran = kvl("service", "revoke", "app", "web")
    assert (ran.code, held["grants"]) == (1, [{"key": "other", "actions": ["encrypt"]}])
    assert "no grant on web" in ran.err


def test_services_change(kvl: Kvl, vault: FakeVault) -> None:
    kvl("service", "deactivate", "app")
    assert vault.last("PATCH").body == {"active": False}
    kvl("service", "activate", "app")
    assert vault.last("PATCH").body == {"active": True}
    kvl("service", "update", "app", "--role", "auditor", "--expires", "2027-01-31T12:00:00+01:00")
    assert vault.last("PATCH").body == {"role": "AUDITOR", "expires_at": "2027-01-31T11:00:00.000000Z"}
    assert kvl("service", "update", "app").code == 2


@pytest.mark.parametrize("text", ["", "orders", "orders=", "=encrypt", "orders=fly", "orders=encrypt,"])
def test_a_grant_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CannotRun, match="encrypt, decrypt, sign, verify"):
        grant(text)


@pytest.mark.parametrize("text", ["", "soon", "2027-01-31T12:00:00", "5x", "0d", "-1d", "1e3d"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CannotRun, match="--expires"):
        parse_moment(text, "--expires")


def test_audit_ls_sends_its_filters(kvl: Kvl, vault: FakeVault) -> None:
    ran = kvl("audit", "ls", "--service", "app", "--key", "orders", "--action", "encrypt", "--result", "success",
              "--since", "2026-01-01T00:00:00Z", "--oldest-first", "--limit", "2")  # fmt: skip
    assert ran.code == 0
    assert "there are more" in ran.err
    assert vault.seen[-1].query == {
        "service_id": SERVICE_ID,
        "key_id": KEY_ID,
        "action": "encrypt",
        "result": "success",
        "since": "2026-01-01T00:00:00.000000Z",
        "order": "asc",
        "limit": "2",
    }


def test_audit_ls_shows_who_did_what_and_how_it_ended(kvl: Kvl, vault: FakeVault) -> None:
    vault.entries.append(entry(6, action="decrypt", result="denied", reason="not_found", key_id=None, key_ref="ghost"))
    first = kvl("audit", "ls").out.splitlines()[1]
    assert first.split() == ["6", "2026-11-20", "10:00:06Z", SERVICE_ID, "decrypt", "ghost", "1", "denied", "not_found"]
    names = {"service_name": "app", "key_name": "orders", "subject_name": None}
    vault.entries.append(entry(7, display=names))
    assert kvl("audit", "ls").out.splitlines()[1].split()[3:6] == ["app", "encrypt", "orders"]
    assert kvl("audit", "tail", "-n", "1").out.split()[3:6] == ["app", "encrypt", "orders"]


def test_audit_ls_and_export_say_what_is_archived(kvl: Kvl, vault: FakeVault, tmp_path: Path) -> None:
    vault.archived = 512
    ran = kvl("audit", "ls")
    assert "entries 1 to 512 are archived and not listed" in ran.err
    assert json.loads(kvl("audit", "ls", "-o", "json").out)["archived"] == 512
    assert "entries 1 to 512 are archived" in kvl("audit", "export", str(tmp_path / "evidence")).err


def test_audit_tail_shows_the_newest_last(kvl: Kvl, vault: FakeVault) -> None:
    lines = kvl("audit", "tail", "-n", "3").out.splitlines()
    assert [line.split()[0] for line in lines] == ["3", "4", "5"]
    lines = kvl("audit", "tail", "-n", "2", "-o", "json").out.splitlines()
    assert [json.loads(line) for line in lines] == vault.entries[-2:]


def test_audit_tail_follows_in_one_session(kvl: Kvl, vault: FakeVault) -> None:
    turns = iter(range(4))
    waits = []

    def next_turn(seconds: float) -> None:
        waits.append(seconds)
        if (turn := next(turns)) == 3:
            vault.faults = [fail(401, "unauthenticated")]
        # What the reader's own requests left in the log, then somebody else's entry.
        if turn == 0:
            vault.entries += [entry(1000 + len(vault.seen) + n, action="audit_read") for n in (-1, 0)]
        vault.entries.append(entry(5000 + turn))

    vault.waiting = next_turn
    ran = kvl("audit", "tail", "-f", "-n", "1")
    assert (ran.code, waits) == (1, [30, 30, 30, 30])
    assert [line.split()[0] for line in ran.out.splitlines()] == ["5", "5000", "5001", "5002", "5003"]


def test_audit_tail_goes_on_where_a_reader_stopped(kvl: Kvl, vault: FakeVault) -> None:
    waits: list[int] = []
    vault.waiting = waits.append
    lines = kvl("audit", "tail", "--after", "3").out.splitlines()
    assert ([line.split()[0] for line in lines], waits) == (["4", "5"], [0, 0])
    assert kvl("audit", "tail", "--after", "5").out == ""


def test_audit_verify_ends_as_the_log_is(kvl: Kvl, vault: FakeVault) -> None:
    assert kvl("audit", "verify").code == 0
    vault.valid = False
    ran = kvl("audit", "verify", "-o", "json")
    assert ran.code == 1
    assert json.loads(ran.out)["first_invalid"] == 3
    assert "does not verify" in ran.err


def test_audit_receipt(kvl: Kvl, vault: FakeVault, tmp_path: Path) -> None:
    assert kvl("audit", "receipt", "7").out == "receipt of an entry\n"
    kvl("audit", "receipt", "7", "-O", str(tmp_path / "r"))
    assert (tmp_path / "r").read_text() == "receipt of an entry\n"


def test_audit_export_leaves_out_its_own_reading(kvl: Kvl, vault: FakeVault, tmp_path: Path) -> None:
    vault.entries.append(entry(5000, action="audit_read"))
    folder = tmp_path / "evidence"
    ran = kvl("audit", "export", str(folder), "--action", "encrypt", "--since", "2026-01-01T00:00:00Z")
    assert ran.code == 0, ran.err
    kept = [one for one in vault.entries if one["action"] == "encrypt"]
    assert kept
    assert f"evidence of {len(kept)} entries" in ran.err
    written = {path.stem: json.loads(path.read_text()) for path in (folder / "entries").iterdir()}
    assert written == {str(one["id"]): one for one in kept}
    assert {path.stem for path in (folder / "receipts").iterdir()} == set(written)
    assert (folder / "receipts" / f"{kept[0]['id']}.txt").read_text() == "receipt of an entry\n"
    assert (folder / "checkpoint.txt").read_text() == "the checkpoint\n"
    assert (folder / "log.vkey").read_text() == "keyvault-lite/00+11223344+AQ==\n"
    tool = ROOT / "tools" / "verify_receipt.py"
    assert (folder / "verify_receipt.py").read_text() == tool.read_text()
    assert "verify_receipt.py --key" in (folder / "README.txt").read_text()
    kvl("audit", "export", str(tmp_path / "all"))
    assert not (tmp_path / "all" / "entries" / "5000.json").exists()
    assert [seen.path for seen in vault.seen if seen.path.endswith("/receipt")] == [], "they come many at a time"


def test_audit_export_lacks_no_receipt(kvl: Kvl, vault: FakeVault, tmp_path: Path) -> None:
    vault.lost = {3}
    ran = kvl("audit", "export", str(tmp_path / "evidence"))
    assert (ran.code, list(tmp_path.iterdir())) == (1, [])
    assert "make the evidence again" in ran.err
    assert kvl("audit", "export", str(tmp_path / "none"), "--action", "decrypt").code == 0


def test_audit_export_appears_whole_or_not_at_all(kvl: Kvl, vault: FakeVault, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    assert kvl("audit", "export", str(folder), "--service", "nobody").code == 1
    assert list(tmp_path.iterdir()) == []
    folder.mkdir()
    ran = kvl("audit", "export", str(folder))
    assert ran.code == 2
    assert "exists already" in ran.err
    assert list(folder.iterdir()) == []


def test_audit_public_key(kvl: Kvl, vault: FakeVault) -> None:
    assert kvl("audit", "public-key").out == "keyvault-lite/00+11223344+AQ==\n"
    assert json.loads(kvl("audit", "public-key", "-o", "json").out)["public_key"] == ""


def test_status_tells_nested_facts_in_words(kvl: Kvl, vault: FakeVault) -> None:
    vault.health["witness"] = {"age_seconds": 0.4, "size": 17}
    assert re.search(r"witness +age_seconds=0.4, size=17\n", kvl("status").out)


def test_status(kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = kvl("status")
    assert ran.code == 0
    assert "accepted" in ran.out
    assert json.loads(kvl("status", "-o", "json").out) == {
        "address": vault.address,
        "health": vault.health,
        "token": "accepted",
    }
    monkeypatch.setenv("KEYVAULT_TOKEN", "kvl_other")
    assert kvl("status").code == 1
    monkeypatch.delenv("KEYVAULT_TOKEN")
    ran = kvl("status")
    assert ran.code == 0
    assert "none" in ran.out
    vault.health = {"status": "sealed", "sealed": True, "version": "0.1.0"}
    ran = kvl("status")
    assert ran.code == 1
    assert "sealed" in ran.err
    monkeypatch.setenv("KEYVAULT_ADDR", "http://127.0.0.1:1")
    assert kvl("status").code == 2


def test_stored_text_cannot_drive_the_terminal(kvl: Kvl, vault: FakeVault) -> None:
    vault.keys[0]["description"] = "\x1b]0;owned\x07 [bold]x[/bold] \u202e"
    for command in (("key", "show", "orders"), ("key", "ls")):
        out = kvl(*command).out
        assert "\x1b" not in out
        assert "\u202e" not in out
    assert "[bold]x[/bold]" in kvl("key", "show", "orders").out
    assert printable("a\nb") == "a\\nb"

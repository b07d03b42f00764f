"""Batches: each item decided and recorded by itself, in order, with its reference."""

import pytest

from keyvault_lite.model.evidence import Action, Result
from tests.support.vault_client import Asker, b64


def test_encrypt_and_decrypt_keep_order_and_references(ask: Asker) -> None:
    ask.key("one")
    items = [{"plaintext": b64(str(n)), "reference": f"r{n}"} for n in range(20)]
    before = ask.harness.size
    sealed = ask.post("transit/encrypt/one", {"batch_input": items}).data["batch_results"]
    assert [one["reference"] for one in sealed] == [f"r{n}" for n in range(20)]
    entries = ask.harness.log(before)
    assert [(one.draft.action, one.draft.result) for one in entries] == [(Action.ENCRYPT, Result.SUCCESS)] * 20
    opened = ask.post("transit/decrypt/one", {"batch_input": [{"ciphertext": one["ciphertext"]} for one in sealed]})
    assert [one["plaintext"] for one in opened.data["batch_results"]] == [b64(str(n)) for n in range(20)]


def test_a_failure_shows_in_the_status_with_all_results(ask: Asker) -> None:
    ask.key("one")
    mixed = [{"plaintext": b64("a")}, {"plaintext": "!!"}, {}]
    answer = ask.post("transit/encrypt/one", {"batch_input": mixed})
    assert answer.status == 400
    good, bad, empty = answer.json["data"]["batch_results"]
    assert good["ciphertext"].startswith("vault:v1:")
    assert (bad["error"], empty["error"]) == ("plaintext: illegal base64 data", "missing plaintext to encrypt")
    sealed = {"ciphertext": good["ciphertext"]}
    for code, items, status in (
        (207, [sealed, {"ciphertext": "bad"}], 207),
        (207, [{"ciphertext": "bad"}], 400),
        ("250", [sealed, {"ciphertext": "bad"}], 250),
        (404, [sealed, {"ciphertext": "bad"}], 404),
        *((code, [sealed, {"ciphertext": "bad"}], 400) for code in (999, 199, 204, 205, 304)),
        (207, [sealed], 200),
    ):
        body = {"batch_input": items, "partial_failure_response_code": code}
        answer = ask.post("transit/decrypt/one", body)
        assert answer.status == status
        assert all("plaintext" in one for one in answer.json["data"]["batch_results"])


@pytest.mark.parametrize("operation", ["encrypt", "decrypt", "rewrap", "sign", "verify", "hmac"])
def test_no_items_and_odd_items(ask: Asker, operation: str) -> None:
    ask.key("one")
    odds: list[object] = [[], {}, "x", [1], [[]], 5]
    for odd in odds:
        assert ask.post(f"transit/{operation}/one", {"batch_input": odd}).status == 400


def test_context_is_in_all_items_or_none(ask: Asker) -> None:
    ask.key("one", derived=True)
    items = [{"plaintext": b64("a"), "context": b64("c")}, {"plaintext": b64("a")}]
    assert ask.post("transit/encrypt/one", {"batch_input": items}).status == 400
    assert ask.post("transit/encrypt/one", {"batch_input": items[:1]}).status == 200


def test_the_others_stay_200(ask: Asker) -> None:
    ask.key("one")
    ask.key("signs", type="ed25519")
    sealed = ask.encrypt("one")
    answer = ask.post("transit/rewrap/one", {"batch_input": [{"ciphertext": sealed}, {"ciphertext": "bad"}]})
    assert "error" in answer.data["batch_results"][1]
    answer = ask.post("transit/sign/signs", {"batch_input": [{"input": b64("x"), "reference": "q"}, {"input": "!"}]})
    good, bad = answer.data["batch_results"]
    assert (good["reference"], bad["key_version"]) == ("q", 0)
    checks = [{"input": b64("x"), "signature": good["signature"]}, {"input": b64("y"), "signature": good["signature"]}]
    answer = ask.post("transit/verify/signs", {"batch_input": checks})
    assert [one["valid"] for one in answer.data["batch_results"]] == [True, False]
    assert ask.post("transit/verify/signs", {"batch_input": [checks[0], {"input": b64("x")}]}).status == 400
    answer = ask.post("transit/hmac/one", {"batch_input": [{"input": b64("x")}, {}]})
    assert answer.data["batch_results"][1]["error"] == "missing input for HMAC"


def test_a_batch_makes_a_missing_key_once(ask: Asker) -> None:
    items = [{"plaintext": b64("a")}] * 3
    assert ask.post("transit/encrypt/new", {"batch_input": items}).status == 200
    assert ask.read("new")["latest_version"] == 1
    token = ask.service("app", ("vault:transit/*", "encrypt"))
    assert ask.post("transit/encrypt/typo", {"batch_input": items}, token=token).status == 403


def test_an_item_without_input_is_a_mistake(ask: Asker) -> None:
    """Alone it is the empty message, in both products; among others it would be signed unseen."""
    ask.key("k", type="ecdsa-p256")
    signature = ask.post("transit/sign/k", {"input": ""}).data["signature"]
    for operation, item in (("sign", {}), ("verify", {"signature": signature})):
        items = [item, {**item, "input": ""}]
        first, second = ask.post(f"transit/{operation}/k", {"batch_input": items}).data["batch_results"]
        assert (first["error"], "error" in second) == ("missing input", False)


def test_a_check_of_nothing_is_refused(ask: Asker) -> None:
    ask.key("k", type="ecdsa-p256")
    batches: list[list[dict[str, str]]] = [[{}], [{"input": b64("x")}, {}]]
    for items in batches:
        assert ask.post("transit/verify/k", {"batch_input": items}).status == 400


def test_signatures_of_derived_keys_name_their_public_key(ask: Asker) -> None:
    """Under another name than alone, as both products have it; each item by its own context."""
    ask.key("k", type="ed25519", derived=True)
    items = [{"input": b64("x"), "context": b64("a")}, {"input": b64("x"), "context": b64("b")}, {"input": b64("x")}]
    one, other, third = ask.post("transit/sign/k", {"batch_input": items}).data["batch_results"]
    alone = ask.post("transit/sign/k", items[0]).data
    assert one["publickey"] == alone["public_key"] != other["publickey"]
    assert "public_key" not in one
    assert "missing 'context'" in third["error"]


def test_a_batch_of_null_is_none(ask: Asker) -> None:
    """What clients in typed languages send of a field that is not set."""
    ask.key("one")
    ask.key("signs", type="ecdsa-p256")
    null = {"batch_input": None}
    sealed = ask.post("transit/encrypt/one", {"plaintext": b64("a"), **null}).data["ciphertext"]
    assert ask.post("transit/decrypt/one", {"ciphertext": sealed, **null}).data == {"plaintext": b64("a")}
    assert "ciphertext" in ask.post("transit/rewrap/one", {"ciphertext": sealed, **null}).data
    for kind, key, made in (("sign", "signs", "signature"), ("hmac", "one", "hmac")):
        given = ask.post(f"transit/{kind}/{key}", {"input": b64("a"), **null}).data[made]
        answer = ask.post(f"transit/verify/{key}", {"input": b64("a"), made: given, **null})
        assert answer.data == {"valid": True}
    assert ask.post("transit/encrypt/one", null).error == "missing plaintext to encrypt"

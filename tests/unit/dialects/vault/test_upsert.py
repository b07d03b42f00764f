"""What is asked of a key that encrypting may have to make is judged only if it has to."""

from collections.abc import Mapping

import pytest

from keyvault_lite.model.evidence import Action, Result
from tests.support.vault_client import Asker, b64

PLAIN = {"plaintext": b64("x")}
ODD: list[Mapping[str, object]] = [
    {"type": "zz"},
    {"type": "rsa-2048"},
    {"type": "ml-dsa"},
    {"type": "hmac"},
    {"type": 5},
    {"convergent_encryption": True},
]


@pytest.mark.parametrize("odd", ODD)
def test_nothing_of_it_matters_to_a_key_that_is_there(ask: Asker, odd: Mapping[str, object]) -> None:
    ask.key("k")
    token = ask.service("app", ("vault:transit/k", "encrypt"))
    for caller in ("", token):
        assert ask.post("transit/encrypt/k", {**PLAIN, **odd}, token=caller).status == 200
        answer = ask.post("transit/encrypt/k", {"batch_input": [PLAIN, PLAIN], **odd}, token=caller)
        assert [one.keys() & {"error"} for one in answer.data["batch_results"]] == [set(), set()]
    assert ask.read("k")["type"] == "aes256-gcm96"


@pytest.mark.parametrize("odd", ODD)
def test_a_key_that_cannot_be_is_not_made(ask: Asker, odd: Mapping[str, object]) -> None:
    for body in ({**PLAIN, **odd}, {"batch_input": [PLAIN], **odd}):
        assert ask.post("transit/encrypt/new", body).status == 400
        assert (ask.last.draft.action, ask.last.draft.result) == (Action.GENERATE, Result.ERROR)
        assert ask.post("nowhere/encrypt/new", body).status == 404
    token = ask.service("app", ("vault:transit/*", "encrypt"))
    assert ask.post("transit/encrypt/new", {**PLAIN, **odd}, token=token).status == 403
    assert ask("GET", "transit/keys/new").status == 404
    ask.post("transit/config/keys", {"disable_upsert": True})
    assert ask.post("transit/encrypt/new", {**PLAIN, **odd}).error == "encryption key not found"


def test_a_value_of_a_wrong_kind_is_one_anyway(ask: Asker) -> None:
    ask.key("k")
    wrong: list[Mapping[str, object]] = [{"convergent_encryption": "zz"}, {"type": {}}]
    for odd in wrong:
        assert ask.post("transit/encrypt/k", {**PLAIN, **odd}).status == 400

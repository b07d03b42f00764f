"""What a vault has promised to who used it, checked after its process has died: nothing else counts as a pass.

No acknowledged operation without its entry, no released result without its entry; what changed stays changed, what was
revoked stays revoked; what nobody was told of happened whole or not at all, and its Idempotency-Key tells which.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from keyvault_lite.engine.attempt import REPLAYED
from keyvault_lite.model.errors import InvalidState, Unauthenticated
from keyvault_lite.model.evidence import Action, Entry, Result
from keyvault_lite.model.keys import KeyStatus
from keyvault_lite.model.names import KeyRef, ServiceId
from keyvault_lite.model.replies import Answer, Replayed
from keyvault_lite.model.requests import Decrypt, ListKeys, Verify
from keyvault_lite.operator.verify import verify_vault
from tests.suites.crash.workload import (
    IDEMPOTENT,
    SIGNER,
    Told,
    action_of,
    decoded,
    digest_of,
    items_of,
    request_of,
    text_of,
)
from tests.support.harness import Harness, idempotent
from tests.support.processes import ChildProcess

BY_HAND = {Action.REPAIR, Action.INTEGRITY, Action.ANCHOR_TRUST}
"""Entries of a vault that somebody had to help, or that was found damaged."""
UNRECORDED = {"audit_unavailable", "outcome_unknown", "overloaded"}
"""Refusals without an entry."""


def check(harness: Harness, *lives: ChildProcess) -> None:
    """`harness` is closed, as the last process has left it. It is open afterwards, and used."""
    found = verify_vault(harness.settings)
    assert found.findings == (), f"as it was left: {found.findings}"
    harness.open()
    assert not harness.ledger.degraded
    invariants = Invariants(harness, lives)
    invariants.check_entries()
    invariants.check_state()
    invariants.check_released()
    invariants.check_revocations()
    invariants.check_tokens()
    invariants.check_unknown()
    harness.reopen()
    found = verify_vault(harness.settings)
    assert found.findings == (), f"after use: {found.findings}"


class Invariants:
    """Who was told what, and what the log says."""

    def __init__(self, harness: Harness, lives: tuple[ChildProcess, ...]) -> None:
        self._house = harness
        self._last = {line["asked"]["op"] for line in lives[-1].lines if "asked" in line}
        """What the last process was asked: what one before it left open was resolved by the check after its death."""
        self._lines = [line for life in lives for line in life.lines]
        self._asked: dict[str, Told] = {line["asked"]["op"]: line["asked"] for line in self._lines if "asked" in line}
        self._told: dict[str, Told] = {line["op"]: line for line in self._lines if "op" in line}
        self._log = harness.log()
        self._entries: dict[str, list[Entry]] = defaultdict(list)
        for entry in self._log:
            if entry.draft.client_request_id is not None:
                self._entries[entry.draft.client_request_id].append(entry)

    @cached_property
    def _done(self) -> dict[str, Told]:
        return {op: line for op, line in self._told.items() if "done" in line}

    def _results(self) -> Iterator[tuple[Told, Told]]:
        """Each result that left the vault, and what was asked for it; a batch item by item."""
        for op, line in self._done.items():
            asked, done = self._asked[op], line["done"]
            yield from ((asked | {"place": place}, one) for place, one in enumerate(done.get("items", [done])))

    # What is on record

    def check_entries(self) -> None:
        """Every answer has its entries, and there are no others."""
        assert [entry.id for entry in self._log] == list(range(1, len(self._log) + 1))
        assert not BY_HAND & {entry.draft.action for entry in self._log}
        assert set(self._entries) <= set(self._asked), "nothing is on record that nobody has asked for"
        for op, asked in self._asked.items():
            line = self._told.get(op)
            if line is None:
                # Nobody was told: it happened whole, or not at all.
                assert len(self._entries[op]) in {0, items_of(request_of(asked))}, op
            elif "done" in line:
                self._check_success(asked, line)
            else:
                self._check_refusal(op, line)

    def _check_success(self, asked: Told, line: Told) -> None:
        op, request, done = asked["op"], request_of(asked), line["done"]
        entries = self._entries[op]
        results = done.get("items", [done])
        last = line["audit"]
        assert [entry.id for entry in entries] == list(range(last - len(results) + 1, last + 1)), op
        for entry, result in zip(entries, results, strict=True):
            draft = entry.draft
            assert draft.action is action_of(request), op
            assert draft.reason == result.get("code"), op
            assert (draft.result is Result.SUCCESS) is ("code" not in result), op
            assert draft.key_version == result.get("version", draft.key_version), op
            if asked["kind"] in {"create", "hire"}:
                assert (draft.key_id or draft.subject) == (result.get("id") or result["service"]), op
            elif "key" in asked:
                assert draft.key_id == self._key_id(asked["key"]), op

    def _check_refusal(self, op: str, line: Told) -> None:
        entries = self._entries[op]
        if line["audit"] is None:
            assert line["refused"] in UNRECORDED, line
            if line["refused"] != "outcome_unknown":
                assert entries == [], line
            return
        assert [entry.id for entry in entries] == [line["audit"]]
        assert entries[0].draft.result is not Result.SUCCESS
        assert entries[0].draft.reason == line["refused"]

    def _key_id(self, ref: str) -> str:
        key = self._house.ledger.snapshot().find_key(KeyRef(ref))
        assert key is not None
        return key.id

    def _successes(self, action: Action) -> list[Entry]:
        """The entries of what was done, not of what was told once more."""
        return [one for one in self._log if _succeeded(one, action) and one.draft.reason is None]

    # What is stored

    def check_state(self) -> None:
        """Keys and services are what the log says that was done with them."""
        state = self._house.ledger.snapshot()
        keys = {key.id: key for key in state.keys_after(None)}
        assert set(keys) == {entry.draft.key_id for entry in self._successes(Action.GENERATE)}
        rotated = [entry.draft.key_id for entry in self._successes(Action.ROTATE)]
        assert {id: len(key.versions) for id, key in keys.items()} == {id: 1 + rotated.count(id) for id in keys}
        revoked = {entry.draft.key_id for entry in self._successes(Action.REVOKE)}
        assert {key.id for key in keys.values() if key.status is KeyStatus.REVOKED} == revoked
        hired = {entry.draft.subject for entry in self._successes(Action.SERVICE_CREATE)}
        gone = {entry.draft.subject for entry in self._successes(Action.SERVICE_UPDATE)}
        services = {id: state.find_service(id) for id in hired if id is not None}
        assert {id: None if one is None else one.active for id, one in services.items()} == {
            id: id not in gone for id in hired
        }

    def check_released(self) -> None:
        """What left the vault is of use: messages open, signatures verify, unless their key was revoked."""
        work: list[Any] = []
        expected: list[bytes | bool | None] = []
        state = self._house.ledger.snapshot()
        for asked, result in self._results():
            if "ciphertext" in result:
                key = state.find_key(KeyRef(asked["key"]))
                assert key is not None
                message = decoded(result["ciphertext"]), decoded(result["dek"])
                work.append(self._house.perform(Decrypt(KeyRef(key.id), {"op": asked["op"]}, *message)))
                expected.append(None if key.revoked else text_of(asked["op"], asked["place"]))
            elif "plaintext" in result:
                assert result["plaintext"].encode() == text_of(asked["of"]), asked
            elif "signature" in result:
                text = text_of(asked["op"], asked["place"])
                work.append(self._house.perform(Verify(KeyRef(SIGNER), text, decoded(result["signature"]))))
                expected.append(True)
        assert list(map(_released, self._house.together(*work))) == expected

    def check_revocations(self) -> None:
        """No success behind a revocation, in the log; nor of what was asked after it was acknowledged."""
        revoked: set[str | None] = set()
        for entry in self._log:
            if entry.draft.action in {Action.ENCRYPT, Action.DECRYPT, Action.ROTATE}:
                told_once_more = entry.draft.reason == REPLAYED  # of a rotation from before
                refused = entry.draft.result is not Result.SUCCESS
                assert entry.draft.key_id not in revoked or refused or told_once_more, entry.id
            elif _succeeded(entry, Action.REVOKE):
                revoked.add(entry.draft.key_id)
        acknowledged: set[str] = set()
        for line in self._lines:
            asked = line.get("asked", {})
            if asked.get("key") in acknowledged and asked["kind"] not in {"read", "revoke"}:
                assert asked["op"] not in self._done or self._all_refused(asked["op"]), asked
            elif "done" in line and self._asked[line["op"]]["kind"] == "revoke":
                acknowledged.add(self._asked[line["op"]]["key"])
        assert acknowledged <= revoked

    def _all_refused(self, op: str) -> bool:
        return all("code" in item for item in self._done[op]["done"].get("items", [{}]))

    def check_tokens(self) -> None:
        """A token that was acknowledged lets in; one that was replaced, or whose service has gone, does not."""
        state = self._house.ledger.snapshot()
        changed = {one.draft.subject for one in self._log if one.draft.action is Action.TOKEN_RENEW}
        last: dict[str, str] = {}
        for op, line in self._done.items():
            if self._asked[op]["kind"] == "hire":
                last[line["done"]["service"]] = line["done"]["token"]
        for service, token in list(last.items())[:8]:  # more failed logins a second would be counted, not judged
            stored = state.find_service(ServiceId(service))
            assert stored is not None
            if stored.active and service not in changed:
                self._house.ask(ListKeys(), token)
            else:
                self._house.refusal(ListKeys(), Unauthenticated, token)

    # What nobody was told of

    def check_unknown(self) -> None:
        """Asked again under its Idempotency-Key: told once more if it was done, done once if not."""
        for op in self._last:
            asked, line = self._asked[op], self._told.get(op)
            known = line is not None and line.get("refused") != "outcome_unknown"
            if asked["kind"] not in IDEMPOTENT or (known and op not in self._done):
                continue
            was_done = any(entry.draft.result is Result.SUCCESS for entry in self._entries[op])
            again = self._again(asked)
            if was_done:
                assert isinstance(again, Replayed), op
                assert line is None or line.get("kept") in {None, digest_of(again.body)}, op
            elif not isinstance(again, InvalidState):
                assert not isinstance(again, Replayed), op
                assert isinstance(self._again(asked), Replayed), op

    def _again(self, asked: Told) -> object:
        """What it is answered: a reply, or that the key's state has changed meanwhile."""
        work = self._house.perform(request_of(asked), idempotency=idempotent(asked["op"], asked["op"]))
        (answer,) = self._house.together(work)
        assert isinstance(answer, (Answer, InvalidState)), (asked, answer)
        return answer.result if isinstance(answer, Answer) else answer


def _succeeded(entry: Entry, action: Action) -> bool:
    return entry.draft.action is action and entry.draft.result is Result.SUCCESS


def _released(answer: object) -> object:
    """A plaintext, whether a signature holds, None for a revoked key; any other error as it is."""
    if isinstance(answer, Answer):
        return getattr(answer.result, "plaintext", None) or getattr(answer.result, "valid", None)
    return None if isinstance(answer, InvalidState) else answer

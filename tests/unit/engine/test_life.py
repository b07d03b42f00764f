"""Any order of operations on keys and versions, held against a model that fits on a page."""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from keyvault_lite.model.errors import Conflict, InvalidCiphertext, InvalidState, KeyVaultError, NotFound
from keyvault_lite.model.evidence import Result
from keyvault_lite.model.keys import Key, KeyStatus, VersionStatus
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Encrypted
from keyvault_lite.model.requests import (
    CreateKey,
    Decrypt,
    DestroyKey,
    DisableKey,
    EnableKey,
    Encrypt,
    EraseDueKey,
    ListKeys,
    ReadKey,
    Request,
    RestoreKey,
    RevokeKey,
    Rewrap,
    RotateKey,
    VerifyAudit,
)
from tests.support.harness import AES, DAY, create_vault, open_copy

A, D, P, R, X = (
    KeyStatus.ACTIVE,
    KeyStatus.DISABLED,
    KeyStatus.PENDING_DESTRUCTION,
    KeyStatus.REVOKED,
    KeyStatus.DESTROYED,
)


@dataclass
class Modelled:
    """What the contract says a key is."""

    ref: KeyRef
    status: KeyStatus = A
    versions: list[VersionStatus] = field(default_factory=lambda: [VersionStatus.ACTIVE])
    was_revoked: bool = False


@dataclass
class Message:
    text: bytes
    stored: Encrypted
    key: Modelled


class Life(RuleBasedStateMachine):
    """Every rule does one thing to the vault and to the model, and compares."""

    keys = Bundle("keys")
    messages = Bundle("messages")
    template: tuple[Path, str, str]

    @initialize()
    def open_copy(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        folder, master, token = self.template
        self.harness = open_copy(folder, self.folder / "vault", master, token)
        self.known: list[Modelled] = []
        self.entries = self.harness.size

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            check = self.harness.ask(VerifyAudit())
            self.harness.close()
            shutil.rmtree(self.folder)
            assert check.valid, check

    def ask(self, request: Request, refused: type[KeyVaultError] | None = None) -> Any:  # noqa: ANN401
        """Ask, hold the answer against what is due, and count the entry."""
        self.entries += 1
        if refused is not None:
            self.harness.refusal(request, refused)
            assert self.harness.last.draft.result is Result.ERROR
            return None
        return self.harness.ask(request)

    def change(self, key: Modelled, request: Request, *, allowed: bool) -> Key | None:
        return self.ask(request, None if allowed else InvalidState)  # type: ignore[no-any-return]

    @rule(target=keys)
    def create(self) -> Modelled:
        made = Modelled(KeyRef(self.ask(CreateKey(AES)).id))
        self.known.append(made)
        return made

    @rule(key=keys)
    def rotate(self, key: Modelled) -> None:
        if self.change(key, RotateKey(key.ref), allowed=key.status is A):
            key.versions[-1] = VersionStatus.DEPRECATED
            key.versions.append(VersionStatus.ACTIVE)

    @rule(key=keys)
    def revoke(self, key: Modelled) -> None:
        if self.change(key, RevokeKey(key.ref), allowed=key.status in {A, D}):
            key.status = R
            key.versions = [VersionStatus.REVOKED for _ in key.versions]

    @rule(key=keys, number=st.integers(1, 4))
    def revoke_version(self, key: Modelled, number: int) -> None:
        request = RevokeKey(key.ref, version=number)
        if number > len(key.versions):
            self.ask(request, NotFound)
        elif self.change(
            key, request, allowed=key.status in {A, D} and key.versions[number - 1] is VersionStatus.DEPRECATED
        ):
            key.versions[number - 1] = VersionStatus.REVOKED

    @rule(key=keys)
    def disable(self, key: Modelled) -> None:
        if self.change(key, DisableKey(key.ref), allowed=key.status in {A, D}):
            key.status = D

    @rule(key=keys)
    def enable(self, key: Modelled) -> None:
        if self.change(key, EnableKey(key.ref), allowed=key.status in {A, D}):
            key.status = A

    @rule(key=keys)
    def destroy(self, key: Modelled) -> None:
        if self.change(key, DestroyKey(key.ref), allowed=key.status in {A, D, R}):
            key.was_revoked, key.status = key.status is R, P

    @rule(key=keys)
    def restore(self, key: Modelled) -> None:
        if self.change(key, RestoreKey(key.ref), allowed=key.status is P):
            key.status = R if key.was_revoked else D

    @rule(key=keys)
    def erase(self, key: Modelled) -> None:
        ledger = self.harness.ledger
        real = ledger.now
        due = key.status is P
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledger, "now", lambda: real() + 31 * DAY)
            if due:
                self.harness.system(EraseDueKey(key.ref))
                key.status, key.versions = X, [VersionStatus.DESTROYED for _ in key.versions]
            else:
                with pytest.raises(Conflict):
                    self.harness.system(EraseDueKey(key.ref))
        self.entries += 1

    @rule(target=messages, key=keys, text=st.binary(max_size=8))
    def encrypt(self, key: Modelled, text: bytes) -> Message | None:
        made = self.ask(Encrypt(key.ref, plaintext=text), None if key.status is A else InvalidState)
        if made is None:
            return None
        assert made.key_version == len(key.versions)
        return Message(text, made, key)

    @precondition(lambda self: True)
    @rule(message=messages)
    def decrypt(self, message: Message | None) -> None:
        if message is None:
            return
        key, stored = message.key, message.stored
        usable = key.status is A and key.versions[stored.key_version - 1] in {
            VersionStatus.ACTIVE,
            VersionStatus.DEPRECATED,
        }
        asked = Decrypt(key.ref, None, stored.ciphertext, stored.encrypted_dek)
        found = self.ask(asked, None if usable else InvalidState)
        assert found is None or found.plaintext == message.text
        if key.status is A:
            other = next((one for one in self.known if one is not key and one.status is A), None)
            if other is not None:
                self.ask(Decrypt(other.ref, None, stored.ciphertext, stored.encrypted_dek), InvalidCiphertext)

    @rule(target=messages, message=messages)
    def rewrap(self, message: Message | None) -> Message | None:
        if message is None:
            return None
        key, stored = message.key, message.stored
        usable = key.status is A and key.versions[stored.key_version - 1] is not VersionStatus.REVOKED
        found = self.ask(Rewrap(key.ref, None, stored.encrypted_dek), None if usable else InvalidState)
        if found is None:
            return None
        assert found.key_version == len(key.versions)
        return Message(message.text, Encrypted(stored.ciphertext, found.encrypted_dek, found.key_version), key)

    @rule()
    def restart(self) -> None:
        self.harness.reopen()

    @invariant()
    def the_vault_is_the_model(self) -> None:
        if not hasattr(self, "harness"):
            return
        for key in self.known:
            found = self.ask(ReadKey(key.ref))
            assert (found.status, [one.status for one in found.versions]) == (key.status, key.versions)
            active = [one for one in key.versions if one is VersionStatus.ACTIVE]
            assert len(active) == (1 if key.status in {A, D} else len(active))
        assert len(self.ask(ListKeys()).items) == len(self.known)
        assert self.harness.size == self.entries, "each attempt is an entry, without a gap"


@pytest.mark.timeout(110)
def test_life(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("life")
    Life.template = (folder, *create_vault(folder))
    few = settings(
        max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    Life.TestCase.settings = few
    Life.TestCase("runTest").runTest()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_long_life(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("life")
    Life.template = (folder, *create_vault(folder))
    Life.TestCase.settings = settings(
        max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    Life.TestCase("runTest").runTest()

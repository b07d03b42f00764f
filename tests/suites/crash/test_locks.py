"""A second lock holder: nobody waits for it without end, and nothing is left of it once it has gone.

That of the database is in tests/unit/ledger/commit/test_faults.py; here it is the anchor's.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from keyvault_lite.model.errors import AuditUnavailable
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, ReadKey, RotateKey, VerifyAudit
from tests.support.harness import Harness


@contextmanager
def held_by_another(harness: Harness) -> Iterator[None]:
    """As by a process that was stopped while it wrote the anchor."""
    descriptor = os.open(harness.path.with_name("vault.db.anchor"), os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@pytest.mark.timeout(60)
def test_an_anchor_locked_by_someone_else_is_503_and_passes(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    before = harness.size
    with held_by_another(harness):
        for request in (Encrypt(name, plaintext=b"x"), RotateKey(name), ReadKey(name)):
            harness.refusal(request, AuditUnavailable)
        assert not harness.engine.health().serving
    while harness.ledger.fault is not None:  # without anybody's asking
        time.sleep(0.01)
    assert harness.ask(ReadKey(name)).versions[-1].version == 1
    assert [entry.draft.action for entry in harness.log(before)] == [Action.KEY_READ], "nothing of it was done"
    assert harness.ask(VerifyAudit()).valid
    harness.reopen()

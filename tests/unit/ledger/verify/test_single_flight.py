"""One check of everything at a time: who asks meanwhile gets its result, or its error as one of their own."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from keyvault_lite.ledger.verify.single_flight import SharedVerification
from keyvault_lite.model.errors import AuditUnavailable
from keyvault_lite.model.replies import Verification

SOUND = Verification(valid=True, entries=1, head=bytes(32))


def never() -> Verification:
    raise AssertionError


def both(error: Exception | None) -> list[Future[Verification]]:
    """What the one that checks gets, and one that asks while it does."""
    shared, begun, go_on = SharedVerification(), threading.Event(), threading.Event()

    def check() -> Verification:
        begun.set()
        go_on.wait(5)
        if error is not None:
            raise error
        return SOUND

    with ThreadPoolExecutor() as pool:
        first = pool.submit(shared.run, check)
        begun.wait(5)
        second = pool.submit(shared.run, never)
        while not shared._running or not shared._running._condition._waiters:  # type: ignore[attr-defined]
            time.sleep(0.001)
        go_on.set()
    return [first, second]


def test_one_result_for_all_who_ask_meanwhile() -> None:
    first, second = both(None)
    assert first.result() is second.result() is SOUND


@pytest.mark.parametrize("error", [AuditUnavailable("the server is shutting down"), ValueError("a defect")])
def test_one_error_for_all_who_ask_meanwhile(error: Exception) -> None:
    first, second = (one.exception() for one in both(error))
    assert first is error
    assert (type(second), str(second)) == (type(error), str(error))
    assert (second is error) is not isinstance(error, AuditUnavailable), "a refusal is everybody's own"


def test_the_next_one_is_a_check_of_its_own() -> None:
    shared = SharedVerification()
    with pytest.raises(ValueError, match="a defect"):
        shared.run(lambda: (_ for _ in ()).throw(ValueError("a defect")))
    assert shared.run(lambda: SOUND) is SOUND
    assert shared.run(lambda: Verification(valid=False, entries=2, head=bytes(32))).entries == 2

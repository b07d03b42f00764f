"""One check of everything at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.replies import Verification


class SharedVerification:
    """At most one check of the whole log at a time; callers that ask meanwhile share its result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Future[Verification] | None = None

    def run(self, check: Callable[[], Verification]) -> Verification:
        """Verify, or wait for the check that is under way. Blocks."""
        with self._lock:
            running, mine = self._running, self._running is None
            if running is None:
                running = self._running = Future()
        if not mine:
            try:
                return running.result()
            except KeyVaultError as error:
                raise error.again() from None
        try:
            running.set_result(check())
        except BaseException as error:
            running.set_exception(error)
            raise
        finally:
            with self._lock:
                self._running = None
        return running.result()

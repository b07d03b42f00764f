"""The thread that flushes the anchor twice a second, and reports when space on the disk becomes low."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from keyvault_lite.ledger.anchor.files import Anchor
from keyvault_lite.model.errors import IntegrityViolation, KeyVaultError

FLUSH_SECONDS: Final = 0.5
"""How long data entries in the anchor may wait for their flush. Management entries are flushed before their answer."""
log = logging.getLogger("keyvault_lite.ledger")


class AnchorFlusher:
    """Runs until `closing` is set."""

    def __init__(
        self,
        anchor: Anchor | None,
        halt: Callable[[IntegrityViolation], None],
        space_is_low: Callable[[], bool],
        closing: threading.Event,
    ) -> None:
        """`halt` is called when the anchor's file was removed or replaced."""
        self._anchor = anchor
        self._halt = halt
        self._space_is_low = space_is_low
        self._closing = closing
        self._flushed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="anchor", daemon=True)

    @property
    def age(self) -> float:
        """Seconds since the anchor was last on disk."""
        return time.monotonic() - self._flushed

    def start(self) -> None:
        """Begin to flush."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def _run(self) -> None:
        low = False
        while not self._closing.wait(FLUSH_SECONDS):
            self.flush()
            if low is not self._space_is_low():
                low = not low
                log.warning("space is low: keys are managed, not used" if low else "there is space again")

    def flush(self) -> None:
        """Flush the anchor, if there is one."""
        if self._anchor is None:
            return
        try:
            self._anchor.flush()
            self._flushed = time.monotonic()
        except IntegrityViolation as error:
            self._halt(error)
        except KeyVaultError:
            pass  # the next commit meets the same fault, and reports it

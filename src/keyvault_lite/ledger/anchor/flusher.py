"""The thread that flushes the anchor twice a second, has it counted when that is due, and reports low space."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from keyvault_lite.ledger.anchor.interface import Anchor
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
        *,
        publish: Callable[[], None],
    ) -> None:
        """`halt` is called when the anchor's file was removed or replaced, `publish` to write it when that is due."""
        self._anchor = anchor
        self._halt = halt
        self._space_is_low = space_is_low
        self._closing = closing
        self._publish = publish
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
            if self._anchor.is_due:
                self._publish()
            self._anchor.flush()
            self._flushed = time.monotonic()
        except IntegrityViolation as error:
            self._halt(error)
        except KeyVaultError:
            pass  # the next commit meets the same fault, and reports it

"""The product with a ledger that releases each data operation at once: shows what the record costs, and only that."""

from collections.abc import Callable
from typing import Final

from keyvault_lite.cli.main import main
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.state.outcome import Committed, Outcome
from keyvault_lite.ledger.state.snapshot import SnapshotVersion, State

_record: Final = Ledger.commit


async def _commit(
    self: Ledger, outcome: Outcome, since: SnapshotVersion, redo: Callable[[State], Outcome]
) -> Committed:
    """Durable for changes, nothing at all for the rest."""
    if outcome.change is not None:
        return await _record(self, outcome, since, redo)
    return Committed(outcome, 1)


if __name__ == "__main__":
    Ledger.commit = _commit  # type: ignore[method-assign]
    main()

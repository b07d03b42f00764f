"""Review of records that verify: each is passed, row by row, to a reviewer that knows its meaning."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from keyvault_lite.ledger.state.codec import read_name
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.record_types import read_service
from keyvault_lite.model.identity import Service


class Reviewer(Protocol):
    """Takes in records, and then has something to say."""

    def service(self, service: Service) -> None:
        """Take in a service."""

    def name(self, text: str) -> None:
        """Take in a name of a dialect."""

    def key(self, key_id: str, name: str | None, attributes: Mapping[str, Any]) -> None:
        """Take in a key."""

    def notes(self) -> tuple[str, ...]:
        """Sentences for the operator."""


def review(connection: driver.Connection, reviewer: Reviewer) -> tuple[str, ...]:
    """Show the rows of a database to a reviewer, in a snapshot. MUST be called after a check that found nothing.

    What is edited between the two is not verified: a note about it may be wrong, and that is all.
    """
    connection.execute("BEGIN")
    try:
        for row in driver.stream(connection, statements.SELECT["services"]):
            reviewer.service(read_service(row[:-2]))
        for row in driver.stream(connection, statements.SELECT["key_names"]):
            key_id, name = read_name(row[:-2])
            if key_id is not None:
                reviewer.name(name.text)
        for row in driver.stream(connection, statements.SELECT["keys"]):
            key_id, name, attributes = row[0], row[1], row[-3]
            if attributes != "{}":
                reviewer.key(key_id, name, json.loads(attributes))
    except (ValueError, TypeError, KeyError, AttributeError):
        return ()
    finally:
        connection.execute("ROLLBACK")
    return reviewer.notes()

"""Kept replies of idempotent requests: not under the root, so each names an entry that the log has to have."""

from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.outcome import Authority, StoredReply
from keyvault_lite.ledger.records import read_reply
from keyvault_lite.ledger.retention import holds_entry
from keyvault_lite.ledger.rows import NOT_GENUINE, printable, row_is_genuine
from keyvault_lite.ledger.schema import FORMATS
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.names import ServiceId
from keyvault_lite.model.replies import Finding


def find_reply(
    connection: driver.Connection, authority: Authority, service_id: ServiceId, key_digest: bytes
) -> StoredReply | None:
    """A kept reply, if its row is genuine and the log has the entry it names."""
    row = connection.execute(statements.FIND_REPLY, (service_id, key_digest)).fetchone()
    if row is None:
        return None
    if not row_is_genuine(authority, FORMATS["idempotency_replies"], row):
        raise IntegrityViolation("the kept reply does not verify")
    if not holds_entry(connection, authority, row[-2]):
        raise IntegrityViolation("the kept reply names an entry that the log does not have")
    return read_reply(row[:-2], row[-2])


def check_replies(connection: driver.Connection, authority: Authority, entries: int) -> list[Finding]:
    """The kept replies that do not verify, or name an entry beyond the `entries` of the log."""
    found: list[Finding] = []
    form = FORMATS["idempotency_replies"]
    try:
        rows = driver.fetch(connection, statements.SELECT[form.name])
    except driver.Damaged as error:
        return [Finding(form.name, "", f"cannot be read: {error}")]
    for row in rows:
        service_id, digest = row[0], row[1]
        raw = digest if isinstance(digest, bytes) else str(digest).encode(errors="surrogateescape")
        label = f"{service_id}/{raw.hex()}"
        if not row_is_genuine(authority, form, row):
            found.append(Finding(form.name, printable(label), NOT_GENUINE))
        elif row[-2] > entries:
            found.append(Finding(form.name, printable(label), "names an entry that the log does not have"))
    return found

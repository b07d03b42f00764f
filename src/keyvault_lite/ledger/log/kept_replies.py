"""Kept replies of idempotent requests: not under the root, so each is bound to the entry that it is the answer to.

To its hash, and not to its number alone: a transaction whose COMMIT was refused, or a branch that was given up, had an
entry of that number too, and a reply that told of a success.
"""

from keyvault_lite.audit.merkle import HASH_BYTES
from keyvault_lite.ledger.log.retention import hash_of_entry
from keyvault_lite.ledger.state.codec import read_reply, reply_values
from keyvault_lite.ledger.state.outcome import Authority, StoredReply
from keyvault_lite.ledger.state.verified_rows import NOT_GENUINE, mac_is, printable, row_is_genuine
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.schema import FORMATS, Row
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.names import ServiceId
from keyvault_lite.model.replies import Finding

BOUND = 2
"""The schema of rows whose MAC is over the entry's hash too. The first, of which none is older than a day, had none."""
_FORM = FORMATS["idempotency_replies"]
_NAMED = (
    f"SELECT DISTINCT r.row_seq, e.hash FROM {_FORM.name} r "  # noqa: S608
    f"LEFT JOIN audit_logs e ON e.id = r.row_seq AND length(e.hash) = {HASH_BYTES}"
)
_NO_ENTRY = "names an entry that the log does not have"


def reply_row(authority: Authority, reply: StoredReply, entry_hash: bytes) -> Row:
    """A reply as it is stored with the entry of that hash."""
    values = reply_values(reply)
    key = _FORM.key_of(values)
    mac = authority.row_mac(_FORM.name, key, reply.entry_id, (*values, entry_hash), schema=BOUND)
    return (*values, reply.entry_id, mac)


def _problem(authority: Authority, row: Row, entry_hash: bytes | None) -> str | None:
    """What is wrong with a stored reply, if the log has an entry of that hash."""
    if entry_hash is None:
        return _NO_ENTRY
    bound = (*row[:-2], entry_hash)
    return None if mac_is(authority, _FORM.name, _FORM.key_of(bound), bound, row, schema=BOUND) else NOT_GENUINE


def find_reply(
    connection: driver.Connection, authority: Authority, service_id: ServiceId, key_digest: bytes
) -> StoredReply | None:
    """A kept reply, if its row is genuine and the log has its entry. Raises IntegrityViolation if not."""
    row = connection.execute(statements.FIND_REPLY, (service_id, key_digest)).fetchone()
    if row is None or row_is_genuine(authority, _FORM, row):
        return None  # one of the first schema vouches for no entry
    problem = _problem(authority, row, _hash_of(connection, authority, row[-2]))
    if problem is not None:
        raise IntegrityViolation(f"the kept reply: {problem}")
    return read_reply(row[:-2], row[-2])


def _hash_of(connection: driver.Connection, authority: Authority, number: object) -> bytes | None:
    return hash_of_entry(connection, authority, number) if type(number) is int else None


def _hashes(connection: driver.Connection, authority: Authority) -> dict[object, bytes | None]:
    """The hashes of the entries that kept replies name, where there are such entries: asked before the replies are."""
    found = dict(driver.fetch(connection, _NAMED))
    for number in [number for number, entry_hash in found.items() if entry_hash is None]:
        found[number] = _hash_of(connection, authority, number)
    return found


def check_replies(connection: driver.Connection, authority: Authority) -> list[Finding]:
    """The kept replies that do not verify, or name an entry that the log does not have."""
    found: list[Finding] = []
    try:
        hashes = _hashes(connection, authority)
        for row in driver.stream(connection, statements.SELECT[_FORM.name]):
            service_id, digest = row[0], row[1]
            raw = digest if isinstance(digest, bytes) else str(digest).encode(errors="surrogateescape")
            problem = None if row_is_genuine(authority, _FORM, row) else _problem(authority, row, hashes.get(row[-2]))
            if problem is not None:
                found.append(Finding(_FORM.name, printable(f"{service_id}/{raw.hex()}"), problem))
    except driver.Damaged as error:
        found.append(Finding(_FORM.name, "", f"cannot be read: {error}"))
    return found

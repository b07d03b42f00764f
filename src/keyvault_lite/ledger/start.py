"""What start-up asks of the anchor: does the database extend what was last known of it?"""

from keyvault_lite.audit.checkpoint import origin, verifier_key
from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.anchor import Anchor, DamagedAnchor, Mark
from keyvault_lite.ledger.head import Head
from keyvault_lite.ledger.outcome import Authority
from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.model.replies import Finding

TABLE = "anchor"


def read_mark(anchor: Anchor | None, findings: list[Finding]) -> Mark | None:
    """The anchor's mark; a damaged anchor is a finding. To be read before the database."""
    if anchor is None:
        return None
    try:
        return anchor.read()
    except DamagedAnchor as error:
        findings.append(Finding(TABLE, anchor.place, error.detail))
        return None


def check_anchor(
    connection: driver.Connection,
    authority: Authority,
    anchor: Anchor,
    mark: Mark | None,
    head: Head | None,
    root: bytes,
) -> list[Finding]:
    """What is wrong between an anchor and a database read after it; each says what was seen and what to do."""

    def finding(problem: str) -> list[Finding]:
        return [Finding(TABLE, anchor.place, problem)]

    size = 0 if head is None else head.size
    if mark is None:
        if size == 0:
            return []
        return finding(
            f"is missing beside a vault of {size} entries: put it back, "
            "or accept this database as the newest with `kvl anchor trust`"
        )
    if mark.verifier_key != verifier_key(origin(authority.instance_id, mark.epoch), authority.log_public_key):
        return finding("belongs to another vault")
    way_out = (
        "restore the newest database; or, if this restore is meant and the loss acknowledged, run "
        f"`kvl anchor trust --acknowledge-rollback --size {size} --root {encode_base64(root)}`"
    )
    if head is None or head.epoch < mark.epoch or size < mark.size:
        return finding(
            f"remembers {mark.size} entries, the database has {size}: it was put back or replaced; {way_out}"
        )
    row = connection.execute(statements.ENTRY_HASH, (mark.size,)).fetchone()
    if row is None or row[0] != mark.hash:
        return finding(f"remembers another entry {mark.size} than the database has: its log was forked; {way_out}")
    return []

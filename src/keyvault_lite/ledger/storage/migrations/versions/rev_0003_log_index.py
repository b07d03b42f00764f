"""The log is found by blocks of 256 entries, no longer by two index rows an entry; see ledger/storage/log_index.py."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index from the log, and let go of the former ones."""
    op.create_table(
        "audit_index",
        sa.Column("object_id", sa.String(), nullable=False),
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("object_id", "block", name=op.f("pk_audit_index")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO audit_index (object_id, block) "
        "SELECT service_id, (id - 1) / 256 FROM audit_logs WHERE service_id IS NOT NULL "
        "UNION SELECT key_id, (id - 1) / 256 FROM audit_logs WHERE key_id IS NOT NULL"
    )
    op.drop_index("ix_audit_logs_service_id", table_name="audit_logs")
    op.drop_index("ix_audit_logs_key_id", table_name="audit_logs")

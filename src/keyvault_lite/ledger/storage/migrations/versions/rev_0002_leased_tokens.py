"""Rows of leased tokens may be deleted: the triggers are created again after each revision, and no table changes."""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing beside the triggers."""

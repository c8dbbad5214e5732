"""Where the audit log of each node stood when: what the node itself cannot make undone."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_anchor",
        sa.Column("node_id", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        # Part of the key: two hashes of one record are evidence, and neither keeps the other out.
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("recorded", sa.Double, nullable=False),
    )

"""The node: whose database this is, its heartbeat, and the nodes registered in it."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "node_identity",
        sa.Column("slot", sa.Integer, sa.CheckConstraint("slot = 1"), primary_key=True),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("seal", sa.Text, nullable=False),
    )
    op.create_table(
        "node_heartbeat",
        sa.Column("node_id", sa.Text, primary_key=True),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("beat", sa.Double, nullable=False),
    )
    op.create_table(
        "node_registration",
        sa.Column("node_id", sa.Text, primary_key=True),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("addresses", sa.Text, nullable=False),
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("stopped", sa.Double, nullable=True),
    )

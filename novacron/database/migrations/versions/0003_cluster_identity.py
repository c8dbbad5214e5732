"""Whose database this is where a whole cluster shares it: the authority its nodes trust."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cluster_identity",
        sa.Column("slot", sa.Integer, sa.CheckConstraint("slot = 1"), primary_key=True),
        # SHA-256 of the authority's public key, in hexadecimal.
        sa.Column("authority", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("seal", sa.Text, nullable=False),
    )

"""Dead letters of shared events."""

import sqlalchemy as sa
from alembic import op

revision = "gs_0002"
down_revision = "gs_0001"
branch_labels = None
depends_on = None

KEY_MAX = 200


def upgrade() -> None:
    op.create_table(
        "gs_dead",
        sa.Column("subscriber", sa.String(KEY_MAX), primary_key=True),
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(KEY_MAX), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_gs_dead_at", "gs_dead", ["subscriber", "at"])


def downgrade() -> None:
    op.drop_table("gs_dead")

"""Entities, fences, the outbox, and events that were handled."""

import sqlalchemy as sa
from alembic import op

revision = "gs_0001"
down_revision = None
branch_labels = ("gameserver",)
depends_on = None

KEY_MAX = 200


def upgrade() -> None:
    op.create_table(
        "gs_entities",
        sa.Column("kind", sa.String(KEY_MAX), primary_key=True),
        sa.Column("key", sa.String(KEY_MAX), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "gs_fences",
        sa.Column("name", sa.String(KEY_MAX), primary_key=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "gs_outbox",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(KEY_MAX), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "gs_handled",
        sa.Column("subscriber", sa.String(KEY_MAX), primary_key=True),
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_gs_handled_at", "gs_handled", ["at"])


def downgrade() -> None:
    for name in ("gs_handled", "gs_outbox", "gs_fences", "gs_entities"):
        op.drop_table(name)

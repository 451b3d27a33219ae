"""Our own tables, beside the game's. Their names begin with ``gs_``; migrations/versions makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table, Text

__all__ = ["DEAD", "ENTITIES", "FENCES", "HANDLED", "METADATA", "OUTBOX"]

KEY_MAX = 200  # characters
METADATA = MetaData()
_Serial = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up INTEGER PRIMARY KEY alone

DEAD = Table(
    "gs_dead",
    METADATA,
    Column("subscriber", String(KEY_MAX), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("name", String(KEY_MAX), nullable=False),
    Column("key", Text, nullable=True),
    Column("error", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("ix_gs_dead_at", "subscriber", "at"),
    comment="shared events that a subscriber could not handle; `at` in s since the epoch",
)

ENTITIES = Table(
    "gs_entities",
    METADATA,
    Column("kind", String(KEY_MAX), primary_key=True),
    Column("key", String(KEY_MAX), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    comment="persistent entities, a row each: their columns as JSON",
)

FENCES = Table(
    "gs_fences",
    METADATA,
    Column("name", String(KEY_MAX), primary_key=True),
    Column("fence", BigInteger, nullable=False),
    comment="the newest fencing token that has written, by lock",
)

OUTBOX = Table(
    "gs_outbox",
    METADATA,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False),
    Column("name", String(KEY_MAX), nullable=False),
    Column("key", Text, nullable=True),
    Column("body", LargeBinary, nullable=False),
    comment="events of transactions that have committed, until they are published",
    sqlite_autoincrement=True,
)

HANDLED = Table(
    "gs_handled",
    METADATA,
    Column("subscriber", String(KEY_MAX), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("at", BigInteger, nullable=False, index=True),
    comment="events whose effects have committed, so that they come once; `at` in s since the epoch",
)

"""Where SQLite and PostgreSQL differ: `INSERT ... ON CONFLICT`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["insert"]


def insert(on: Any, table: Table) -> Any:
    """An insert of a session's or a connection's database, with ``on_conflict_do_update``."""
    bind = on.bind if hasattr(on, "bind") else on
    return sqlite.insert(table) if bind.dialect.name == "sqlite" else postgresql.insert(table)

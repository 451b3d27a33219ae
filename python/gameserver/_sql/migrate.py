"""Migrations by alembic: ours, and those of the game's folder. `gameserver db`."""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

OWN = Path(__file__).parent / "migrations"
OWN_VERSIONS = OWN / "versions"
LOCK = 7_205_759_403_792_793  # of PostgreSQL's advisory locks: two processes that start at once migrate one after the other


# Each start would say which database it is; what was done, `gameserver db` says.
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)


def missing(connection: Connection, folder: Path | None) -> list[str]:
    """Revisions that this database has not got."""
    script = ScriptDirectory.from_config(_config(connection, MetaData(), folder))
    context = MigrationContext.configure(connection, opts={"version_table": "gs_alembic_version"})
    heads = set(context.get_current_heads())
    has = {revision.revision for head in heads for revision in script.walk_revisions("base", head)} if heads else set()
    return [revision.revision for revision in reversed([*script.walk_revisions()]) if revision.revision not in has]


def upgrade(connection: Connection, metadata: MetaData, folder: Path | None) -> None:
    """All that are missing."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    command.upgrade(_config(connection, metadata, folder), "heads")


def revision(connection: Connection, metadata: MetaData, folder: Path, message: str) -> str:
    """Writes what differs between the game's tables and the database into a new file; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(connection, metadata, folder)
    own_heads = [head for head in ScriptDirectory.from_config(config).get_heads() if not head.startswith("gs_")]
    made = command.revision(
        config,
        message,
        autogenerate=True,
        head=own_heads[0] if own_heads else "base",
        splice=False,
        version_path=str(folder),
    )
    assert made is not None
    assert not isinstance(made, list)
    return str(made.path)


def _config(connection: Connection, metadata: MetaData, folder: Path | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(OWN).replace("%", "%%"))
    folders = [OWN_VERSIONS, *([folder] if folder is not None and folder.is_dir() else [])]
    config.set_main_option("version_locations", "\n".join(str(one).replace("%", "%%") for one in folders))
    config.set_main_option("path_separator", "newline")
    config.attributes |= {"connection": connection, "metadata": metadata}
    return config

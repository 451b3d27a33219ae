"""What alembic runs: on the connection that it is given by `gameserver._sql.migrate`."""

from alembic import context

connection = context.config.attributes["connection"]
metadata = context.config.attributes["metadata"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table="gs_alembic_version",
    include_name=lambda name, kind, _: not (kind == "table" and name is not None and name.startswith("gs_")),
    compare_type=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()

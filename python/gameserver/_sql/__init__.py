"""SQLite and PostgreSQL by SQLAlchemy: the connection, our own tables, migrations, and what is made of them."""

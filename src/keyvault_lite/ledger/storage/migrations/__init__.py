"""The history of the schema, as Alembic revisions. A new database walks the same path as an old one."""

"""Alembic's entry: runs the revisions on the connection that `ledger/storage/upgrade.py` hands over."""

from alembic import context

from keyvault_lite.ledger.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()

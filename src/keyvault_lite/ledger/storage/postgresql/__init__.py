"""PostgreSQL as the ledger's database: what differs from SQLite, imported only when a URL names it."""

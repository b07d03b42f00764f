"""Storage: tables, statements and connections of SQLite and PostgreSQL."""

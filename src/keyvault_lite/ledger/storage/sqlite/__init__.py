"""SQLite: connections, files, locks between processes."""

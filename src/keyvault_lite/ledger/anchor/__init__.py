"""The anchor: the newest head of the log, kept outside the database."""

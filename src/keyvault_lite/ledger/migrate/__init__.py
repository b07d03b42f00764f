"""Copies of a vault: moved to another database, or backed up."""

"""Commit: how waiting outcomes become one durable transaction, and are then answered."""

"""Verification: of everything that is stored, at start, offline and in the background."""

"""Roots of trust: where the key of a slot comes from when it is not a master key file. Talks to devices and services."""

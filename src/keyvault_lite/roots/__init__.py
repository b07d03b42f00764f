"""Roots of trust: where the key of a slot comes from. The only package that talks to devices and other services."""

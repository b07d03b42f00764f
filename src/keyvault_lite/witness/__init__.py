"""A second pair of eyes on the log: what a witness does, and what a vault does with one."""

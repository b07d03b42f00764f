"""`kvl`, the command line: one module a noun. Heavy imports are where they are used."""

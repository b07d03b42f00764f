"""`kvl`, the command line: one module a noun. Heavy imports stand where they are used."""

"""Evidence as pure functions: what an entry's bytes are, how entries hang together, and how anyone can check it.

No database, no network, no private key: signing and the check of a signature are handed in as functions.
"""

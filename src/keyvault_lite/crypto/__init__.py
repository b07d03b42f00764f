"""SECRETS: the only importer of `cryptography` and the only holder of key bytes.

Objects of this layer that hold secrets show nothing in `repr`, and refuse to be copied or pickled. Python cannot wipe
memory: a reader of the live process has its keys (tier T3 of the threat model, out of scope).
"""

"""The AWS dialect: the operations of AWS KMS (its API Reference), as far as keys, policies, grants and aliases go."""

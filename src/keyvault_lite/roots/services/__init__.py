"""Keys of other services: AWS KMS, Google Cloud KMS and Vault, or whatever speaks as they do."""

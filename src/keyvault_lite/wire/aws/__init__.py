"""The AWS dialect: AWS KMS as its clients speak it. Tables and small functions; no decision is made here."""

from keyvault_lite.wire.aws.application import AwsApi

__all__ = ["AwsApi"]

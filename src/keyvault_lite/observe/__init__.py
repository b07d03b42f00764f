"""What operators see: structured logs that hold no secret, and metrics. Imports no other layer."""

from keyvault_lite.observe.logs import JsonLines, announce, configure_logs, logger

__all__ = ["JsonLines", "announce", "configure_logs", "logger"]

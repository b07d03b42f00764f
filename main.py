"""`uvicorn main:app`: the development start. In production use `kvl serve`, which checks before it serves."""

from keyvault_lite import observe, settings
from keyvault_lite.app import build

try:
    _settings = settings.load(settings.Purpose.DEVELOP)
except settings.InvalidSettings as error:
    raise SystemExit(f"KeyVault Lite does not start: {error}") from None
observe.configure_logs(_settings.log_level)
app = build(_settings, loopback_only=not _settings.allow_plain_http)

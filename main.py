"""`uvicorn main:app`: the development start. In production use `kvl serve`, which checks before it serves."""

from keyvault_lite import observe, settings
from keyvault_lite.app import build

_settings = settings.load()
observe.configure_logs(_settings.log_level)
app = build(_settings, loopback_only=not _settings.allow_plain_http)

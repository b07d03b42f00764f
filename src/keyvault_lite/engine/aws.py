"""All handlers of the AWS dialect."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.engine.scene import Handler
from keyvault_lite.model.requests import Request

HANDLERS: Final[Mapping[type[Request], Handler]] = {}

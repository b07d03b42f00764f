"""The vault that the environment names, for commands that talk to one."""

import os
from functools import partial

from keyvault_lite.client.api import Client
from keyvault_lite.client.connection import SETTINGS, from_environment


def connect(*, anonymous: bool = False) -> Client:
    """A client for the vault that the environment names. `anonymous` allows there to be no token.

    Warns on standard error of KEYVAULT_… variables that are neither the client's nor the vault's.
    """
    if any(name.startswith("KEYVAULT_") and name not in SETTINGS for name in os.environ):
        from keyvault_lite import observe, settings  # they take a while to load

        settings.warn_of_unknown_variables(partial(observe.announce, structured=False))
    return Client(from_environment(), anonymous=anonymous)

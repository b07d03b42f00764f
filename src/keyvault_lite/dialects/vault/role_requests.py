"""The words of the Vault dialect for AppRole's roles by their parts, and for the secrets of all of them."""

from keyvault_lite.dialects.vault.credentials import APPROLE
from keyvault_lite.dialects.vault.token_requests import WriteRole
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.operation import Cost
from keyvault_lite.model.requests import Request


class WriteRoleAndId(Request, frozen=True):
    """Make a role or change it, with an id for it that the caller chose. Answers None."""

    action = Action.SERVICE_CREATE
    cost = Cost.SHORT
    parts: WriteRole
    role_id: str


class ChangeRole(Request, frozen=True):
    """Change parts of a role that is there. Answers None."""

    action = Action.SERVICE_UPDATE
    cost = Cost.SHORT
    parts: WriteRole
    lenient: bool = False
    """Whether nothing is wrong if there is no such role: for what takes a part away."""


class TidySecretIds(Request, frozen=True):
    """Forget secrets of all roles of a mount that are past their end. Answers how many."""

    action = Action.SERVICE_UPDATE
    cost = Cost.SHORT
    mount: str = APPROLE

"""The refusal of a vault whose stored data does not verify."""

from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.replies import Finding


class DamagedVault(IntegrityViolation):
    """What start-up found; the server does not start on it."""

    def __init__(self, findings: list[Finding]) -> None:
        first = "; ".join(f"{one.table} {one.row}: {one.problem}" for one in findings[:5])
        more = f" (and {len(findings) - 5} more)" if len(findings) > 5 else ""  # noqa: PLR2004
        super().__init__(f"the database does not verify: {first}{more}")
        self.findings = tuple(findings)

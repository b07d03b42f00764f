"""AppRole's roles and the ways to log in beside OpenBao: the same requests in the same order, about one role."""

from collections.abc import Mapping
from typing import Final

from tests.suites.differential.vault import Asked

ROLE: Final = "auth/approle/role/web"


def _part(name: str, field: str, *values: object) -> tuple[Asked, ...]:
    path = f"{ROLE}/{name}"
    written = (one for value in values for one in (Asked("POST", path, {field: value}), Asked("GET", path)))
    return (Asked("POST", path, {}), *written, Asked("DELETE", path), Asked("GET", path))


def _absent(name: str, field: str) -> tuple[Asked, ...]:
    path = f"auth/approle/role/absent/{name}"
    return Asked("GET", path), Asked("POST", path, {field: "1"}), Asked("DELETE", path)


PARTS: Final[Mapping[str, tuple[str, tuple[object, ...]]]] = {
    "policies": ("token_policies", (["a", "b"], "c,d", "")),
    "token-ttl": ("token_ttl", ("20m", "1.5h", "x", 0)),
    "token-max-ttl": ("token_max_ttl", ("1h", "1m", -1)),
    "secret-id-ttl": ("secret_id_ttl", ("1d", "1d12h", True)),
    "secret-id-num-uses": ("secret_id_num_uses", (5, "6", -1, "x")),
    "period": ("token_period", ("24h", "1500ms")),
}
ROLES: Final = (
    Asked("POST", "sys/auth/approle", {"type": "approle"}),
    Asked("POST", ROLE, {"role_id": "chosen", "token_policies": ["later"], "token_ttl": "10m", "token_max_ttl": "30m"}),
    Asked("GET", ROLE),
    Asked("GET", f"{ROLE}/role-id"),
    Asked("POST", "auth/approle/role/other", {"role_id": "chosen"}),
    Asked("POST", ROLE, {"role_id": ""}),
    Asked("POST", ROLE, {"token_ttl": "2h"}),
    Asked("POST", "auth/approle/role/other", {"token_ttl": "2h", "token_max_ttl": "1h"}),
    *(one for name, (field, values) in PARTS.items() for one in _part(name, field, *values)),
    *(one for name, (field, _) in PARTS.items() for one in _absent(name, field)),
    Asked("GET", ROLE),
    Asked("POST", "auth/approle/role/other", {"role_id": "others"}),
    Asked("LIST", "auth/approle/role?limit=1"),
    Asked("LIST", "auth/approle/role?after=other"),
    Asked("LIST", "auth/approle/role?after=web"),
    Asked("LIST", "auth/approle/role?limit=x"),
    Asked("GET", "auth/approle/role?list=1"),
    Asked("DELETE", f"{ROLE}/secret-id/destroy"),
    Asked("DELETE", f"{ROLE}/secret-id/destroy?secret_id=x"),
    Asked("DELETE", f"{ROLE}/secret-id-accessor/destroy"),
    Asked("POST", "auth/approle/tidy/secret-id", {}),
    Asked("GET", "auth/approle/tidy/secret-id"),
    Asked("GET", "sys/auth/approle/tune"),
    Asked("GET", "sys/mounts/auth/approle/tune"),
    Asked("POST", "sys/auth/approle/tune", {}),
    Asked("POST", "sys/auth/approle/tune", {"default_lease_ttl": "768h", "token_type": "default-service"}),
    Asked("POST", "sys/mounts/auth/approle/tune", {"description": ""}),
    Asked("GET", "sys/auth/absent"),
    Asked("GET", "sys/auth/absent/tune"),
    Asked("POST", "sys/auth/absent/tune", {}),
    Asked("DELETE", "sys/auth/absent"),
    Asked("DELETE", "sys/auth/token"),
    Asked("POST", "sys/auth/approle", {"type": "approle"}),
    Asked("POST", "sys/auth/team/ci", {"type": "approle", "description": "d", "config": {"max_lease_ttl": "1h"}}),
    Asked("POST", "sys/auth/team", {"type": "approle"}),
    Asked("POST", "sys/auth/team/ci/x", {"type": "approle"}),
    Asked("POST", "sys/auth/token", {"type": "approle"}),
    Asked("POST", "sys/auth/other", {"type": "token"}),
    Asked("POST", "sys/auth/other", {"type": "nosuch"}),
    Asked("POST", "sys/auth/other", {}),
    Asked("POST", "sys/auth/other/", {"type": "approle"}),
    Asked("GET", "sys/auth/team/ci/tune"),
    Asked("GET", "sys/mounts/auth/team/ci/tune"),
    Asked("POST", "sys/auth/team/ci/tune", {"default_lease_ttl": "2h"}),
    Asked("POST", "sys/auth/team/ci/tune", {"default_lease_ttl": "2h", "max_lease_ttl": "3h", "description": "e"}),
    Asked("GET", "sys/auth/team/ci/tune"),
    Asked("POST", "auth/team/ci/role/web", {"role_id": "chosen", "token_ttl": "20m"}),
    Asked("GET", "auth/team/ci/role/web"),
    Asked("GET", "auth/team/ci/role/web/role-id"),
    Asked("LIST", "auth/team/ci/role"),
    Asked("LIST", "auth/team/ci/role/"),
    Asked("POST", "auth/team/ci/login", {"role_id": "chosen", "secret_id": "x"}),
    Asked("GET", "auth/absent/role/web"),
    Asked("POST", "auth/absent/role/web", {}),
    Asked("LIST", "auth/absent/role"),
    Asked("DELETE", "sys/auth/team/ci"),
    Asked("GET", "auth/team/ci/role/web"),
    Asked("GET", "sys/auth/team/ci"),
    Asked("POST", "sys/mounts/auth/absent", {"type": "transit"}),
)

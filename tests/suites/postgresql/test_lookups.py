"""What stands in the vault's schema is never called: not even where PostgreSQL would choose it over its own.

Of functions and operators of one name PostgreSQL takes the one whose arguments fit exactly, wherever in the search path
it stands. So an overload in the vault's schema is preferred to a built-in one that is reached by a conversion.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, ReadKey, VerifyAudit
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.operator.verify import verify_vault
from tests.support.harness import Harness, create_vault, settings_for
from tests.support.postgres import Databases, run

BODY = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a planted function was called'; END $$"
OVERLOADS = {
    "=": [("oid", "regnamespace"), ("varchar", "text"), ("name", "text")],
    "<>": [('"char"', "text")],
    "||": [("text", "name"), ("bigint", "text"), ("varchar", "text"), ("text", "varchar")],
    "<": [("integer", "bigint"), ("varchar", "text")],
    ">=": [("varchar", "text"), ("integer", "bigint")],
}
FUNCTIONS = [
    "quote_ident(name)",
    "substr(varchar, integer, integer)",
    "pg_get_expr(pg_node_tree, integer)",
    "format_type(oid, bigint)",
    "has_table_privilege(name, varchar, text)",
    "encode(bytea, varchar)",
]


def planted() -> Iterator[str]:
    for name, kinds in OVERLOADS.items():
        for left, right in kinds:
            yield f"CREATE OR REPLACE FUNCTION public.evil({left}, {right}) RETURNS boolean {BODY}"
            yield f"CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.evil)"
    for function in FUNCTIONS:
        yield f"CREATE FUNCTION public.{function} RETURNS text {BODY}"


def test_overloads_of_built_in_functions_are_findings_and_never_called(postgres: Harness) -> None:
    key = postgres.key("orders")
    postgres.vault.close()
    url = postgres.settings.database_url
    run(url, *planted())
    found = {one.row for one in verify_vault(postgres.settings).findings}
    assert {f"operator {name}" for name in OVERLOADS} <= found
    assert {"function quote_ident", "function evil"} <= found
    with pytest.raises(DamagedVault, match=r"operator|function"):
        postgres.open()
    run(
        url,
        *(f"DROP OPERATOR public.{name} ({', '.join(kinds)})" for name, many in OVERLOADS.items() for kinds in many),
        *(f"DROP FUNCTION public.evil({', '.join(kinds)})" for kinds in {*chain(*OVERLOADS.values())}),
        *(f"DROP FUNCTION public.{function}" for function in FUNCTIONS),
    )
    postgres.open()
    assert postgres.ask(ReadKey(KeyRef("orders"))).id == key.id


def test_an_overload_that_is_planted_while_the_vault_runs_is_found_and_not_called(postgres: Harness) -> None:
    name = KeyRef(postgres.key("orders").id)
    postgres.ask(Encrypt(name, plaintext=b"x"))
    run(postgres.settings.database_url, *planted())
    found = {one.row for one in postgres.ledger.inspect().findings}
    assert {f"operator {one}" for one in OVERLOADS} <= found


HIDES = [
    # It filters what the check of the schema sees: no rule, no operator, and of the functions only the first.
    """CREATE FUNCTION public.hides(oid, regnamespace) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE asked text := current_query(); seen text := coalesce(current_setting('kvl.seen', true), '');
    BEGIN
        IF $1 <> $2::oid OR strpos(asked, 'pg_rewrite w') > 0 OR strpos(asked, 'pg_operator o') > 0 THEN
            RETURN false;
        END IF;
        IF strpos(asked, 'pg_proc o') > 0 THEN
            PERFORM set_config('kvl.seen', 'yes', false);
            RETURN seen <> 'yes';
        END IF;
        RETURN true;
    END $$""",
    "CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = regnamespace, FUNCTION = public.hides)",
    "CREATE RULE evil AS ON DELETE TO idempotency_replies DO INSTEAD NOTHING",
]


def test_an_operator_of_the_schema_hides_nothing_from_a_check(postgres: Harness) -> None:
    run(postgres.settings.database_url, *HIDES)
    found = {one.row for one in verify_vault(postgres.settings).findings}
    assert found == {"rule evil", "operator =", "function hides"}


@pytest.mark.parametrize("schema", ["Vault's own", 'a "quoted" one', "50%", "what?", "back\\1slash", "%s"])
def test_a_schema_of_any_name_can_be_the_vaults(databases: Databases, tmp_path: Path, schema: str) -> None:
    url = databases.make()
    quoted = '"' + schema.replace('"', '""') + '"'
    name = run(url, "SELECT current_database()")[0][0]
    run(url, f"CREATE SCHEMA {quoted}", f'ALTER DATABASE "{name}" SET search_path = {quoted}')
    master, token = create_vault(tmp_path, url)
    harness = Harness(settings_for(tmp_path, master, url), token)
    key = KeyRef(harness.rotated(harness.key("orders")).id)
    harness.ask(Encrypt(key, plaintext=b"x"))
    assert harness.vault.database.is_leader()
    assert harness.ledger.may_forget_tokens()
    assert harness.ask(VerifyAudit()).findings == ()
    harness.reopen()
    harness.close()
    assert verify_vault(harness.settings).valid
    run(url, f"CREATE RULE evil AS ON DELETE TO {quoted}.idempotency_replies DO INSTEAD NOTHING")
    assert [one.row for one in verify_vault(harness.settings).findings] == ["rule evil"]
    databases.drop(url)


def test_a_vault_is_not_begun_beside_planted_functions(databases: Databases, postgres: Harness) -> None:
    url = databases.make()
    run(url, f"CREATE FUNCTION public.quote_ident(name) RETURNS text {BODY}")
    master = postgres.settings.master_key
    assert master is not None
    other = postgres.settings.model_copy(update={"database_url": url, "anchor": "off"})
    with pytest.raises(app.CANNOT_START, match="function quote_ident"):
        initialise_vault(other)
    assert run(url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]
    databases.drop(url)

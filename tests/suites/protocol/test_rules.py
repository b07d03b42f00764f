"""For each rule of the protocol: a scenario that comes to nothing, and what it comes to once the rule is taken out.

The second half proves that the first can fail. Rules, code and tests are listed in ADR 17 (docs/adr).
"""

from typing import Final

import pytest

from tests.suites.protocol.conftest import MakeCluster
from tests.suites.protocol.removal import REMOVALS
from tests.suites.protocol.scenarios import SCENARIOS
from tests.suites.protocol.test_scenarios import LAGS, nodes_of

AFTER: Final = "SUCCESS AFTER REVOKE was acknowledged"
LOGGED: Final = "LOG SHOWS SUCCESS AFTER REVOKE"
LOST: Final = "SERVED ON A DATABASE THAT LOST ACKNOWLEDGED ENTRIES"
LAUNDERED: Final = "REPLAYED ROW LAUNDERED INTO A SIGNED ROOT"
FORGED: Final = "FORGED ENTRY signed by an honest node"
TWO_HEADS: Final = "EQUIVOCATION"

BREAKS: Final[list[tuple[str, str, set[str]]]] = [
    # rule, scenario, what is violated without it
    ("R1", "s1_data_computed_before_revoke", {LOGGED}),
    ("R1", "s2_revoke_then_encrypt", {LOGGED}),
    ("R1", "s2_revoke_then_rotate", {"TWO ROTATES MADE ONE VERSION"}),
    ("R1", "s2_rotate_then_encrypt", {"LOG SHOWS ENCRYPT WITH A VERSION THAT WAS NOT ACTIVE"}),
    ("R1", "s2b_batch_computed_before_anothers_change", {LOGGED, "TWO ROTATES MADE ONE VERSION"}),
    ("R1", "s3_each_demotes_itself", {"NO ADMIN LEFT"}),
    ("R2", "s4_two_histories_of_one_size", {LOGGED, LOST, TWO_HEADS}),
    ("R3", "s6_old_row_under_an_operation", {LOGGED}),
    ("R3", "s6_old_row_under_a_change", {LAUNDERED}),
    ("R4", "s7_forged_under_a_change", {FORGED}),
    ("R4", "s7_forged_entry_unrevokes", {FORGED}),
    ("R4", "s7_forged_at_a_start", {FORGED, AFTER}),
    ("R5", "s1_aborted_commit_was_signed", {TWO_HEADS}),
    ("R5", "s4_two_histories_of_one_size", {TWO_HEADS}),
    ("R5", "s10_aborted_commit_was_signed", {TWO_HEADS}),
    ("R6", "s5_management_lost", {"MANAGEMENT ROLLBACK ACCEPTED AT START", AFTER, LOST, TWO_HEADS}),
    ("R6", "s5_unknown_outcome_then_lost", {"DATA ROLLBACK ACCEPTED AT START", LOST, TWO_HEADS}),
    ("R7", "s8_other_node_has_not_seen_it", {AFTER, LOST, TWO_HEADS}),
    ("R7", "s9_both_committed_before_either_anchored", {AFTER, LOST, TWO_HEADS}),
    ("R7", "s10_completed_under_a_node_that_has_not_seen_revoke", {AFTER, LOST, TWO_HEADS}),
    # Each part of R7 alone; what is left of it stops the scenarios above.
    ("R7, extend", "s8_other_node_has_not_seen_it_and_is_ahead", {AFTER, LOST, TWO_HEADS}),
    ("R7, compare", "s9_overtaken_by_the_longer_copy", {TWO_HEADS}),
    ("R7, compare", "s9_both_committed_and_the_fork_is_longer", {AFTER, LOST, TWO_HEADS}),
    ("R7, before signing", "s9_overtaken_by_the_longer_copy", {TWO_HEADS}),
]


@pytest.mark.parametrize(("rule", "name", "violated"), BREAKS, ids=[f"{rule}-{name}" for rule, name, _ in BREAKS])
def test_without_the_rule_it_breaks(make_cluster: MakeCluster, rule: str, name: str, violated: set[str]) -> None:
    whole = make_cluster(nodes=nodes_of(name))
    SCENARIOS[name](whole)
    assert whole.violations == []
    lacking = make_cluster(nodes=nodes_of(name), removed=[rule])
    SCENARIOS[name](lacking)
    assert set(lacking.violations) == violated


def test_without_a_flush_before_every_reply_data_may_be_lost(make_cluster: MakeCluster) -> None:
    whole = make_cluster(nodes=1, always=True)
    SCENARIOS[LAGS](whole)
    assert whole.violations == []
    lacking = make_cluster(nodes=1, always=True, removed=["R6, always"])
    SCENARIOS[LAGS](lacking)
    assert "DATA ROLLBACK ACCEPTED AT START" in lacking.violations


def test_every_rule_is_taken_out() -> None:
    taken_out = {rule for rule, _, _ in BREAKS} | {"R6, always"}
    assert taken_out == REMOVALS.keys()
    assert taken_out >= {f"R{number}" for number in range(1, 8)}

"""The scenarios of the protocol's model on real nodes: what the repaired model does is what the ledger does.

Each is a shortest trace to a violation in a ledger that lacks a rule. Here nothing may be violated, and the end is the
one expected: done, refused by the state as it is, halted, or not started. Where the design promises less, because
nodes share no anchor or an anchor lags, the violation is expected too: it is a limit, and documented as one.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from keyvault_lite import app
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.settings import Settings
from keyvault_lite.witness.anchor import SharedAnchor
from tests.suites.protocol.cluster import CREATE, DEMOTE_1, DEMOTE_2, ENCRYPT, REVOKE, ROTATE, TemplateVaults
from tests.suites.protocol.conftest import MakeCluster
from tests.suites.protocol.scenarios import SCENARIOS
from tests.support.witness import KEY, client, register, served, vkey

DONE: Final = ""
HALT: Final = "integrity_violation"
UNKNOWN: Final = "outcome_unknown"
STATE: Final = "invalid_state"
LAST: Final = "conflict"

ONE_NODE: Final = ("s2_", "s4_", "s5_")
"""Scenarios of a single node."""

ENDS: Final[dict[str, tuple[list[str], str]]] = {
    # The codes of the last replies, and where the node that acted last stands; with one anchor for all.
    "s1_aborted_commit_was_signed": ([STATE], "idle"),
    "s1_computed_before_anothers_change": ([DONE], "idle"),
    "s1_applied_commit_is_refused_at_start": ([STATE], "idle"),
    "s1_data_computed_before_revoke": ([STATE], "idle"),
    "s2_revoke_then_encrypt": ([DONE, STATE], "idle"),
    "s2_revoke_then_rotate": ([DONE, STATE], "idle"),
    "s2_revoke_then_create": ([DONE, DONE], "idle"),
    "s2_rotate_then_encrypt": ([DONE, DONE], "idle"),
    "s2_rotate_twice": ([DONE, DONE], "idle"),
    "s2b_batch_computed_before_anothers_change": ([STATE, STATE], "idle"),
    "s3_each_demotes_itself": ([LAST], "idle"),
    "s4_rolled_back_before_commit": ([HALT], "halted"),
    "s4_rolled_back_before_a_change": ([HALT], "halted"),
    "s4_rolled_back_then_killed": ([], "refused"),
    "s4_rolled_back_at_rest": ([], "refused"),
    "s4_two_histories_of_one_size": ([HALT], "halted"),
    "s5_management_lost": ([], "refused"),
    "s5_data_lost": ([], "refused"),
    "s5_management_anchored_and_not_answered": ([], "refused"),
    "s5_unknown_outcome_then_lost": ([], "refused"),
    "s6_old_row_under_an_operation": ([HALT], "halted"),
    "s6_old_row_under_a_change": ([HALT], "halted"),
    # It knows better than the row: the key is set aside, and everything else goes on.
    "s6_old_row_under_the_node_that_changed_it": ([HALT], "idle"),
    "s6_old_row_at_a_start": ([], "refused"),
    "s7_forged_under_a_change": ([HALT], "halted"),
    "s7_forged_entry_unrevokes": ([HALT], "halted"),
    "s7_forged_behind_the_head": ([HALT], "halted"),
    "s7_forged_at_a_start": ([], "refused"),
    "s8_other_node_has_not_seen_it": ([HALT], "halted"),
    "s8_other_node_has_not_seen_it_and_is_ahead": ([HALT, HALT], "halted"),
    "s8_node_that_has_seen_it": ([HALT], "halted"),
    "s8_rolled_back_under_two_writers": ([HALT], "halted"),
    "s8_restarted_on_the_old_copy": ([], "refused"),
    "s9_forked_before_revoke": ([], "halted"),
    "s9_forked_and_begun_after_revoke": ([HALT], "halted"),
    "s9_both_committed_before_either_anchored": ([HALT], "halted"),
    "s9_both_committed_and_the_fork_is_longer": ([HALT], "halted"),
    "s9_overtaken_by_the_longer_copy": ([DONE], "idle"),
    "s10_aborted_commit_was_signed": ([DONE], "idle"),
    "s10_completed_under_another": ([HALT], "halted"),
    "s10_completed_after_an_answer": ([HALT], "halted"),
    "s10_completed_under_a_node_that_has_not_seen_revoke": ([HALT], "halted"),
}
"""Every scenario but the one that shows the limit of an anchor that lags."""
LAGS: Final = "s5_data_lost_within_the_lag"


def nodes_of(scenario: str) -> int:
    return 1 if scenario.startswith(ONE_NODE) else 2


def test_every_play_has_an_end() -> None:
    assert SCENARIOS.keys() == ENDS.keys() | {LAGS}
    assert {int(name[1:].split("_")[0].rstrip("b")) for name in SCENARIOS} == set(range(1, 11)), (
        "S11 and S12 are schedules"
    )


@pytest.mark.parametrize("name", ENDS)
def test_play(make_cluster: MakeCluster, name: str) -> None:
    cluster = make_cluster(nodes=nodes_of(name))
    codes, stage = ENDS[name]
    assert (SCENARIOS[name](cluster), cluster.violations) == (codes, [])
    acted_last = cluster.nodes[0] if name in ACTED_LAST_IS_A else cluster.nodes[-1]
    assert acted_last.stage == stage


ACTED_LAST_IS_A: Final = {
    "s1_aborted_commit_was_signed",
    "s6_old_row_under_the_node_that_changed_it",
    "s7_forged_under_a_change",
    "s8_node_that_has_seen_it",
}


# An honest run, and a fault at each step of it: no alarm, and nothing acknowledged is lost


@pytest.mark.parametrize("own_anchors", [False, True])
def test_honest_nodes_alarm_nobody(make_cluster: MakeCluster, *, own_anchors: bool) -> None:
    cluster = make_cluster(own_anchors=own_anchors)
    a, b = cluster.nodes
    for one, other in ((a, b), (b, a)):
        assert one.ask(ENCRYPT, ROTATE, ENCRYPT) == [DONE, DONE, DONE]
        other.compute(ENCRYPT)
        assert one.ask(ENCRYPT) == [DONE]
        assert other.finish() == [DONE]
    a.compute(CREATE)
    assert b.ask(DEMOTE_2) == [DONE]
    assert a.finish() == [DONE]
    assert b.ask(REVOKE, ENCRYPT) == [DONE, STATE]
    for node in cluster.nodes:
        node.kill()
        assert node.start()
        assert node.ask(ENCRYPT, DEMOTE_1) == [STATE, LAST]
    assert cluster.violations == []


@pytest.mark.parametrize("step", ["computed", "committed", "anchored"])
@pytest.mark.parametrize("how", ["killed", "without power"])
@pytest.mark.parametrize("own_anchors", [False, True])
def test_a_node_that_dies_between_two_steps_alarms_nobody(
    make_cluster: MakeCluster, step: str, how: str, *, own_anchors: bool
) -> None:
    cluster = make_cluster(own_anchors=own_anchors)
    a, b = cluster.nodes
    for request, answer in ((ENCRYPT, DONE), (REVOKE, STATE)):
        a.compute(request)
        while a.stage != step:
            assert not getattr(a, {"computed": "commit", "committed": "anchored"}[a.stage])()
        if how == "killed":
            a.kill()
        else:
            cluster.lose_power(a)
        for node in (a, b):
            if node.stage == "down":
                assert node.start()
        # What was committed is there, and what was not can be done again.
        repeated = {DONE, STATE} if request is REVOKE else {DONE}
        assert set(b.ask(request)) <= repeated
        assert a.ask(ENCRYPT) == [answer]
    assert cluster.violations == []


@pytest.mark.parametrize("fault", ["applied", "aborted"])
def test_a_node_goes_on_by_itself_after_an_unknown_outcome(make_cluster: MakeCluster, fault: str) -> None:
    cluster = make_cluster()
    a, b = cluster.nodes
    a.compute(ROTATE)
    a.fail_commit(fault)
    assert a.finish() == [UNKNOWN]
    assert b.ask(ENCRYPT) == [DONE]
    assert a.ask(ROTATE, ENCRYPT) == [DONE, DONE]
    assert set(cluster.facts().versions.values()) == {3 if fault == "applied" else 2}
    assert cluster.violations == []


# The limits: where the design promises less


def test_data_entries_of_the_last_second_may_be_lost_to_power_loss_and_rollback_together(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(nodes=1)
    assert SCENARIOS[LAGS](cluster) == [DONE]
    assert "DATA ROLLBACK ACCEPTED AT START" in cluster.violations
    assert not [one for one in cluster.violations if "MANAGEMENT" in one or "REVOKE" in one]
    always = make_cluster(nodes=1, always=True)
    assert SCENARIOS[LAGS](always) == []
    assert always.violations == []


APART: Final = {
    # What nodes with an anchor of their own cannot know.
    "s8_other_node_has_not_seen_it",
    "s8_other_node_has_not_seen_it_and_is_ahead",
    "s8_restarted_on_the_old_copy",
    "s9_forked_before_revoke",
    "s9_forked_and_begun_after_revoke",
    "s9_both_committed_and_the_fork_is_longer",
    "s9_both_committed_before_either_anchored",
    "s9_overtaken_by_the_longer_copy",
    "s10_completed_under_a_node_that_has_not_seen_revoke",
}


ONLY_WITH_ONE: Final = "s8_rolled_back_under_two_writers"
"""Here it is a matter of who comes first."""


@pytest.mark.parametrize("name", sorted(APART))
def test_nodes_without_a_shared_anchor_can_be_kept_apart(make_cluster: MakeCluster, name: str) -> None:
    cluster = make_cluster(own_anchors=True)
    SCENARIOS[name](cluster)
    assert "SUCCESS AFTER REVOKE was acknowledged" in cluster.violations


@pytest.mark.parametrize(
    "name", sorted(name for name in set(ENDS) - APART - {ONLY_WITH_ONE} if not name.startswith(ONE_NODE))
)
def test_what_does_not_need_a_shared_anchor(make_cluster: MakeCluster, name: str) -> None:
    cluster = make_cluster(nodes=nodes_of(name), own_anchors=True)
    assert (SCENARIOS[name](cluster), cluster.violations) == (ENDS[name][0], [])


def test_nodes_kept_apart_halt_once_they_see_each_other(make_cluster: MakeCluster) -> None:
    """Fork consistency: whoever was shown two histories serves neither again."""
    cluster = make_cluster(own_anchors=True)
    a, b = cluster.nodes
    b.move(cluster.folder / "fork.db")
    assert a.ask(REVOKE) == [DONE]
    assert b.ask(ENCRYPT) == [DONE]
    cluster.roll_back(len(cluster.history) - 1)  # the database of A becomes that of B
    assert a.ask(ENCRYPT) == [HALT]
    a.kill()
    assert not a.start()
    assert b.ask(ENCRYPT) == [DONE]


# A witness as the shared anchor of several hosts


@pytest.fixture
def witness(tmp_path: Path, template_vaults: TemplateVaults) -> Iterator[dict[str, str]]:
    """Its address and key; it has been told of the vault as it begins."""
    mark = FileAnchor(template_vaults.folder / "vault.db.anchor").peek()
    assert mark is not None
    with ExitStack() as stack:
        url = stack.enter_context(served(register(tmp_path / "w", mark.verifier_key)))
        with_key = Settings.model_validate(
            {
                "master_key": template_vaults.master,
                "database_url": f"sqlite:///{template_vaults.folder}/vault.db",
                "anchor": "off",
            }
        )
        vault = app.open_vault(with_key)
        stack.callback(vault.close)
        keyring = vault.keyring
        anchor = SharedAnchor(
            client(url), instance_id=keyring.instance_id, public_key=keyring.log_public_key, verify=verify_ed25519
        )
        stack.callback(anchor.close)
        anchor.replace(mark)
        yield {"anchor": url, "witness_key": vkey(KEY)}


@pytest.mark.parametrize("name", [name for name in ENDS if name.startswith(("s8", "s9", "s10"))])
def test_a_witness_is_an_anchor_for_several_hosts(
    make_cluster: MakeCluster, witness: dict[str, str], name: str
) -> None:
    cluster = make_cluster(witness=witness)
    SCENARIOS[name](cluster)
    # A witness judges what is signed: it is shown both branches, refuses one and keeps it.
    shown = {"EQUIVOCATION"} if name in SIGNED_FOR_THE_WITNESS else set()
    assert set(cluster.violations) == shown


SIGNED_FOR_THE_WITNESS: Final = {
    "s9_both_committed_and_the_fork_is_longer",
    "s9_both_committed_before_either_anchored",
    "s9_overtaken_by_the_longer_copy",
}


def test_with_a_witness_nothing_lags(make_cluster: MakeCluster, witness: dict[str, str]) -> None:
    cluster = make_cluster(nodes=1, witness=witness)
    assert SCENARIOS[LAGS](cluster) == []
    assert cluster.violations == []

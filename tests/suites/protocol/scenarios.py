"""The traces of the protocol's model, played on real nodes: each is what breaks a ledger that lacks a rule.

Each is named after its number in the model and the violation that it would end in. It asserts nothing: the cluster
records what happens, and a scenario goes as far as the nodes let it. It returns the codes of its last replies.
"""

from collections.abc import Callable
from typing import Final

from keyvault_lite.model.requests import Request
from tests.suites.protocol.cluster import CREATE, DEMOTE_1, DEMOTE_2, ENCRYPT, REVOKE, ROTATE, Cluster

Scenario = Callable[[Cluster], list[str]]
SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


# S1: two nodes, nobody attacks; COMMIT fails with an unknown outcome


@scenario
def s1_aborted_commit_was_signed(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.compute(ENCRYPT)
    a.fail_commit("aborted")
    a.finish()
    b.ask(REVOKE)
    return a.ask(ENCRYPT)


@scenario
def s1_computed_before_anothers_change(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(CREATE)
    a.ask(REVOKE)
    return b.finish()


@scenario
def s1_applied_commit_is_refused_at_start(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(CREATE)
    a.ask(REVOKE)
    b.fail_commit("applied")
    b.finish()
    b.kill()
    b.start()
    return b.ask(ENCRYPT)


@scenario
def s1_data_computed_before_revoke(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(ENCRYPT)
    a.ask(REVOKE)
    return b.finish()


# S2: group commit


def _together(cluster: Cluster, *requests: Request) -> list[str]:
    return cluster.nodes[0].ask(*requests)


@scenario
def s2_revoke_then_encrypt(cluster: Cluster) -> list[str]:
    return _together(cluster, REVOKE, ENCRYPT)


@scenario
def s2_revoke_then_rotate(cluster: Cluster) -> list[str]:
    return _together(cluster, REVOKE, ROTATE)


@scenario
def s2_revoke_then_create(cluster: Cluster) -> list[str]:
    codes = _together(cluster, REVOKE, CREATE)
    cluster.nodes[0].kill()
    cluster.nodes[0].start()
    return codes


@scenario
def s2_rotate_then_encrypt(cluster: Cluster) -> list[str]:
    return _together(cluster, ROTATE, ENCRYPT)


@scenario
def s2_rotate_twice(cluster: Cluster) -> list[str]:
    return _together(cluster, ROTATE, ROTATE)


@scenario
def s2b_batch_computed_before_anothers_change(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(ROTATE, ENCRYPT)
    a.ask(REVOKE, CREATE)
    return b.finish()


# S3: the last ADMIN


@scenario
def s3_each_demotes_itself(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(DEMOTE_2)
    a.ask(DEMOTE_1)
    return b.finish()


# S4: one node, the database is put back while it runs, and while it does not


@scenario
def s4_rolled_back_before_commit(cluster: Cluster) -> list[str]:
    (a,) = cluster.nodes
    a.ask(REVOKE)
    a.compute(ENCRYPT)
    cluster.roll_back()
    return a.finish()


@scenario
def s4_rolled_back_before_a_change(cluster: Cluster) -> list[str]:
    (a,) = cluster.nodes
    a.ask(REVOKE)
    a.compute(CREATE)
    cluster.roll_back()
    return a.finish()


@scenario
def s4_rolled_back_then_killed(cluster: Cluster) -> list[str]:
    (a,) = cluster.nodes
    a.ask(REVOKE)
    a.compute(ENCRYPT)
    cluster.roll_back()
    a.finish()
    a.kill()
    a.start()
    return a.ask(ENCRYPT)


@scenario
def s4_rolled_back_at_rest(cluster: Cluster) -> list[str]:
    (a,) = cluster.nodes
    a.ask(ENCRYPT)
    a.kill()
    cluster.roll_back()
    a.start()
    return a.ask(ENCRYPT)


@scenario
def s4_two_histories_of_one_size(cluster: Cluster) -> list[str]:
    """The revocation was never acknowledged, so its loss is no loss; its history is put under another one."""
    (a,) = cluster.nodes
    a.compute(REVOKE)
    a.commit()
    a.kill()
    revoked = len(cluster.history) - 1
    cluster.roll_back()
    a.start()
    a.ask(DEMOTE_2)
    a.compute(ENCRYPT)
    cluster.roll_back(revoked)
    return a.finish()


# S5: one node, power loss and rollback


@scenario
def s5_management_lost(cluster: Cluster) -> list[str]:
    (a,) = cluster.nodes
    a.ask(REVOKE)
    cluster.lose_power(a)
    cluster.roll_back()
    a.start()
    return a.ask(ENCRYPT)


@scenario
def s5_data_lost(cluster: Cluster) -> list[str]:
    (a,) = cluster.nodes
    a.ask(ENCRYPT)
    cluster.lose_power(a)
    cluster.roll_back()
    a.start()
    return a.ask(REVOKE)


@scenario
def s5_data_lost_within_the_lag(cluster: Cluster) -> list[str]:
    """The first entry after a start is flushed, whatever it is; the second is data, and flushed within a second."""
    (a,) = cluster.nodes
    a.ask(ENCRYPT)
    flushed = len(cluster.history) - 1
    a.ask(ENCRYPT)
    cluster.lose_power(a)
    cluster.roll_back(flushed)
    a.start()
    return a.ask(REVOKE)


@scenario
def s5_management_anchored_and_not_answered(cluster: Cluster) -> list[str]:
    (a,) = cluster.nodes
    a.compute(REVOKE)
    a.commit()
    a.anchored()
    cluster.lose_power(a)
    cluster.roll_back()
    a.start()
    return a.ask(ENCRYPT)


@scenario
def s5_unknown_outcome_then_lost(cluster: Cluster) -> list[str]:
    """The entry was there all along; what follows it is answered, and with that it is acknowledged."""
    (a,) = cluster.nodes
    a.compute(REVOKE)
    a.fail_commit("applied")
    a.finish()
    a.ask(ENCRYPT)
    cluster.lose_power(a)
    cluster.roll_back()
    a.start()
    return a.ask(ENCRYPT)


# S6: old rows with genuine MACs


@scenario
def s6_old_row_under_an_operation(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(ENCRYPT)
    a.ask(REVOKE)
    cluster.put_back_rows()
    return b.finish()


@scenario
def s6_old_row_under_a_change(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(CREATE)
    a.ask(REVOKE)
    cluster.put_back_rows()
    return b.finish()


@scenario
def s6_old_row_under_the_node_that_changed_it(cluster: Cluster) -> list[str]:
    a, _ = cluster.nodes
    a.ask(REVOKE)
    a.compute(CREATE)
    cluster.put_back_rows()
    a.finish()
    return a.ask(ENCRYPT)


@scenario
def s6_old_row_at_a_start(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.ask(REVOKE)
    b.kill()
    cluster.put_back_rows()
    b.start()
    return b.ask(ENCRYPT)


# S7: forged entries


@scenario
def s7_forged_under_a_change(cluster: Cluster) -> list[str]:
    a, _ = cluster.nodes
    a.compute(REVOKE)
    cluster.forge()
    return a.finish()


@scenario
def s7_forged_entry_unrevokes(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(ENCRYPT)
    a.ask(REVOKE)
    cluster.forge()
    return b.finish()


@scenario
def s7_forged_behind_the_head(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(ENCRYPT)
    a.ask(REVOKE)
    cluster.forge(with_head=False)
    return b.finish()


@scenario
def s7_forged_at_a_start(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.ask(REVOKE)
    b.kill()
    cluster.forge()
    b.start()
    return b.ask(ENCRYPT)


# S8: the database is put back under a node that has not seen what is lost


@scenario
def s8_other_node_has_not_seen_it(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.ask(REVOKE)
    b.compute(ENCRYPT)
    cluster.roll_back()
    return b.finish()


@scenario
def s8_other_node_has_not_seen_it_and_is_ahead(cluster: Cluster) -> list[str]:
    """Two at once: their head is of a larger size than the one that the anchor holds."""
    a, b = cluster.nodes
    a.ask(REVOKE)
    b.compute(ENCRYPT, ENCRYPT)
    cluster.roll_back()
    return b.finish()


@scenario
def s8_node_that_has_seen_it(cluster: Cluster) -> list[str]:
    a, _ = cluster.nodes
    a.ask(REVOKE)
    a.compute(ENCRYPT)
    cluster.roll_back()
    return a.finish()


@scenario
def s8_rolled_back_under_two_writers(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.compute(REVOKE)
    b.ask(ENCRYPT)
    b.compute(ENCRYPT)
    cluster.roll_back()
    a.finish()
    return b.finish()


@scenario
def s8_restarted_on_the_old_copy(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.ask(REVOKE)
    cluster.roll_back()
    b.kill()
    b.start()
    return b.ask(ENCRYPT)


# S9: each node has a copy of its own


@scenario
def s9_forked_before_revoke(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(ENCRYPT)
    b.move(cluster.folder / "fork.db")
    a.ask(REVOKE)
    b.finish()
    return b.ask(ENCRYPT)


@scenario
def s9_forked_and_begun_after_revoke(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.move(cluster.folder / "fork.db")
    a.ask(REVOKE)
    return b.ask(ENCRYPT)


@scenario
def s9_both_committed_before_either_anchored(cluster: Cluster) -> list[str]:
    """The worst order: both have asked the anchor when the first of them writes to it."""
    a, b = cluster.nodes
    b.compute(ENCRYPT)
    b.move(cluster.folder / "fork.db")
    a.compute(REVOKE)
    b.commit()
    a.finish()
    b.finish()
    return b.ask(ENCRYPT)


@scenario
def s9_both_committed_and_the_fork_is_longer(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(ENCRYPT, ENCRYPT)
    b.move(cluster.folder / "fork.db")
    a.compute(REVOKE)
    b.commit()
    a.finish()
    b.finish()
    return b.ask(ENCRYPT)


@scenario
def s9_overtaken_by_the_longer_copy(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    b.compute(ENCRYPT)
    b.move(cluster.folder / "fork.db")
    a.compute(REVOKE)
    a.commit()
    b.finish()
    a.finish()
    return b.ask(ENCRYPT)


# S10: the database refuses a COMMIT, and shows later what it refused


@scenario
def s10_aborted_commit_was_signed(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.compute(ENCRYPT)
    a.fail_commit("aborted")
    a.finish()
    return b.ask(ENCRYPT)


@scenario
def s10_completed_under_another(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.compute(ENCRYPT)
    b.compute(REVOKE)
    b.fail_commit("aborted")
    b.finish()
    a.finish()
    b.ask(ENCRYPT)
    if b.stage == "idle":
        b.compute(ENCRYPT)
    cluster.complete_aborted()
    return b.finish()


@scenario
def s10_completed_after_an_answer(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.compute(ENCRYPT)
    a.fail_commit("aborted")
    a.finish()
    b.ask(ENCRYPT)
    b.compute(REVOKE)
    cluster.complete_aborted()
    return b.finish()


@scenario
def s10_completed_under_a_node_that_has_not_seen_revoke(cluster: Cluster) -> list[str]:
    a, b = cluster.nodes
    a.compute(ENCRYPT)
    a.fail_commit("aborted")
    a.finish()
    a.ask(REVOKE)
    b.compute(ENCRYPT)
    cluster.complete_aborted()
    return b.finish()

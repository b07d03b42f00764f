"""The traces of the protocol's model, played on real nodes: each is what breaks a ledger that lacks a rule.

Every play is named after its scenario and what it would end in. It says nothing of what it should come to: the site
notes what happens, and a play goes as far as the nodes let it. It returns the codes of its last replies.
"""

from collections.abc import Callable
from typing import Final

from keyvault_lite.model.requests import Request
from tests.protocol.site import CREATE, DEMOTE_1, DEMOTE_2, ENCRYPT, REVOKE, ROTATE, Site

Play = Callable[[Site], list[str]]
PLAYS: Final[dict[str, Play]] = {}


def play(function: Play) -> Play:
    PLAYS[function.__name__] = function
    return function


# S1: two nodes, nobody attacks; COMMIT fails with an unknown outcome


@play
def s1_aborted_commit_was_signed(site: Site) -> list[str]:
    a, b = site.nodes
    a.compute(ENCRYPT)
    a.fail_commit("aborted")
    a.finish()
    b.ask(REVOKE)
    return a.ask(ENCRYPT)


@play
def s1_computed_before_anothers_change(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(CREATE)
    a.ask(REVOKE)
    return b.finish()


@play
def s1_applied_commit_is_refused_at_start(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(CREATE)
    a.ask(REVOKE)
    b.fail_commit("applied")
    b.finish()
    b.kill()
    b.start()
    return b.ask(ENCRYPT)


@play
def s1_data_computed_before_revoke(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(ENCRYPT)
    a.ask(REVOKE)
    return b.finish()


# S2: group commit


def _together(site: Site, *requests: Request) -> list[str]:
    return site.nodes[0].ask(*requests)


@play
def s2_revoke_then_encrypt(site: Site) -> list[str]:
    return _together(site, REVOKE, ENCRYPT)


@play
def s2_revoke_then_rotate(site: Site) -> list[str]:
    return _together(site, REVOKE, ROTATE)


@play
def s2_revoke_then_create(site: Site) -> list[str]:
    codes = _together(site, REVOKE, CREATE)
    site.nodes[0].kill()
    site.nodes[0].start()
    return codes


@play
def s2_rotate_then_encrypt(site: Site) -> list[str]:
    return _together(site, ROTATE, ENCRYPT)


@play
def s2_rotate_twice(site: Site) -> list[str]:
    return _together(site, ROTATE, ROTATE)


@play
def s2b_batch_computed_before_anothers_change(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(ROTATE, ENCRYPT)
    a.ask(REVOKE, CREATE)
    return b.finish()


# S3: the last ADMIN


@play
def s3_each_demotes_itself(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(DEMOTE_2)
    a.ask(DEMOTE_1)
    return b.finish()


# S4: one node, the database is put back while it runs, and while it does not


@play
def s4_rolled_back_before_commit(site: Site) -> list[str]:
    (a,) = site.nodes
    a.ask(REVOKE)
    a.compute(ENCRYPT)
    site.roll_back()
    return a.finish()


@play
def s4_rolled_back_before_a_change(site: Site) -> list[str]:
    (a,) = site.nodes
    a.ask(REVOKE)
    a.compute(CREATE)
    site.roll_back()
    return a.finish()


@play
def s4_rolled_back_then_killed(site: Site) -> list[str]:
    (a,) = site.nodes
    a.ask(REVOKE)
    a.compute(ENCRYPT)
    site.roll_back()
    a.finish()
    a.kill()
    a.start()
    return a.ask(ENCRYPT)


@play
def s4_rolled_back_at_rest(site: Site) -> list[str]:
    (a,) = site.nodes
    a.ask(ENCRYPT)
    a.kill()
    site.roll_back()
    a.start()
    return a.ask(ENCRYPT)


@play
def s4_two_histories_of_one_size(site: Site) -> list[str]:
    """The revocation was never acknowledged, so its loss is no loss; its history is put under another one."""
    (a,) = site.nodes
    a.compute(REVOKE)
    a.commit()
    a.kill()
    revoked = len(site.history) - 1
    site.roll_back()
    a.start()
    a.ask(DEMOTE_2)
    a.compute(ENCRYPT)
    site.roll_back(revoked)
    return a.finish()


# S5: one node, power loss and rollback


@play
def s5_management_lost(site: Site) -> list[str]:
    (a,) = site.nodes
    a.ask(REVOKE)
    site.lose_power(a)
    site.roll_back()
    a.start()
    return a.ask(ENCRYPT)


@play
def s5_data_lost(site: Site) -> list[str]:
    (a,) = site.nodes
    a.ask(ENCRYPT)
    site.lose_power(a)
    site.roll_back()
    a.start()
    return a.ask(REVOKE)


@play
def s5_data_lost_within_the_lag(site: Site) -> list[str]:
    """The first entry after a start is flushed, whatever it is; the second is data, and flushed within a second."""
    (a,) = site.nodes
    a.ask(ENCRYPT)
    flushed = len(site.history) - 1
    a.ask(ENCRYPT)
    site.lose_power(a)
    site.roll_back(flushed)
    a.start()
    return a.ask(REVOKE)


@play
def s5_management_anchored_and_not_answered(site: Site) -> list[str]:
    (a,) = site.nodes
    a.compute(REVOKE)
    a.commit()
    a.anchored()
    site.lose_power(a)
    site.roll_back()
    a.start()
    return a.ask(ENCRYPT)


@play
def s5_unknown_outcome_then_lost(site: Site) -> list[str]:
    """The entry was there all along; what follows it is answered, and with that it is acknowledged."""
    (a,) = site.nodes
    a.compute(REVOKE)
    a.fail_commit("applied")
    a.finish()
    a.ask(ENCRYPT)
    site.lose_power(a)
    site.roll_back()
    a.start()
    return a.ask(ENCRYPT)


# S6: old rows with genuine MACs


@play
def s6_old_row_under_an_operation(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(ENCRYPT)
    a.ask(REVOKE)
    site.put_back_rows()
    return b.finish()


@play
def s6_old_row_under_a_change(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(CREATE)
    a.ask(REVOKE)
    site.put_back_rows()
    return b.finish()


@play
def s6_old_row_under_the_node_that_changed_it(site: Site) -> list[str]:
    a, _ = site.nodes
    a.ask(REVOKE)
    a.compute(CREATE)
    site.put_back_rows()
    a.finish()
    return a.ask(ENCRYPT)


@play
def s6_old_row_at_a_start(site: Site) -> list[str]:
    a, b = site.nodes
    a.ask(REVOKE)
    b.kill()
    site.put_back_rows()
    b.start()
    return b.ask(ENCRYPT)


# S7: forged entries


@play
def s7_forged_under_a_change(site: Site) -> list[str]:
    a, _ = site.nodes
    a.compute(REVOKE)
    site.forge()
    return a.finish()


@play
def s7_forged_entry_unrevokes(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(ENCRYPT)
    a.ask(REVOKE)
    site.forge()
    return b.finish()


@play
def s7_forged_behind_the_head(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(ENCRYPT)
    a.ask(REVOKE)
    site.forge(with_head=False)
    return b.finish()


@play
def s7_forged_at_a_start(site: Site) -> list[str]:
    a, b = site.nodes
    a.ask(REVOKE)
    b.kill()
    site.forge()
    b.start()
    return b.ask(ENCRYPT)


# S8: the database is put back under a node that has not seen what is lost


@play
def s8_other_node_has_not_seen_it(site: Site) -> list[str]:
    a, b = site.nodes
    a.ask(REVOKE)
    b.compute(ENCRYPT)
    site.roll_back()
    return b.finish()


@play
def s8_other_node_has_not_seen_it_and_is_ahead(site: Site) -> list[str]:
    """Two at once: their head is of a larger size than the one that the anchor holds."""
    a, b = site.nodes
    a.ask(REVOKE)
    b.compute(ENCRYPT, ENCRYPT)
    site.roll_back()
    return b.finish()


@play
def s8_node_that_has_seen_it(site: Site) -> list[str]:
    a, _ = site.nodes
    a.ask(REVOKE)
    a.compute(ENCRYPT)
    site.roll_back()
    return a.finish()


@play
def s8_rolled_back_under_two_writers(site: Site) -> list[str]:
    a, b = site.nodes
    a.compute(REVOKE)
    b.ask(ENCRYPT)
    b.compute(ENCRYPT)
    site.roll_back()
    a.finish()
    return b.finish()


@play
def s8_restarted_on_the_old_copy(site: Site) -> list[str]:
    a, b = site.nodes
    a.ask(REVOKE)
    site.roll_back()
    b.kill()
    b.start()
    return b.ask(ENCRYPT)


# S9: each node has a copy of its own


@play
def s9_forked_before_revoke(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(ENCRYPT)
    b.move(site.folder / "fork.db")
    a.ask(REVOKE)
    b.finish()
    return b.ask(ENCRYPT)


@play
def s9_forked_and_begun_after_revoke(site: Site) -> list[str]:
    a, b = site.nodes
    b.move(site.folder / "fork.db")
    a.ask(REVOKE)
    return b.ask(ENCRYPT)


@play
def s9_both_committed_before_either_anchored(site: Site) -> list[str]:
    """The worst order: both have asked the anchor when the first of them writes to it."""
    a, b = site.nodes
    b.compute(ENCRYPT)
    b.move(site.folder / "fork.db")
    a.compute(REVOKE)
    b.commit()
    a.finish()
    b.finish()
    return b.ask(ENCRYPT)


@play
def s9_both_committed_and_the_fork_is_longer(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(ENCRYPT, ENCRYPT)
    b.move(site.folder / "fork.db")
    a.compute(REVOKE)
    b.commit()
    a.finish()
    b.finish()
    return b.ask(ENCRYPT)


@play
def s9_overtaken_by_the_longer_copy(site: Site) -> list[str]:
    a, b = site.nodes
    b.compute(ENCRYPT)
    b.move(site.folder / "fork.db")
    a.compute(REVOKE)
    a.commit()
    b.finish()
    a.finish()
    return b.ask(ENCRYPT)


# S10: the database refuses a COMMIT, and shows later what it refused


@play
def s10_aborted_commit_was_signed(site: Site) -> list[str]:
    a, b = site.nodes
    a.compute(ENCRYPT)
    a.fail_commit("aborted")
    a.finish()
    return b.ask(ENCRYPT)


@play
def s10_completed_under_another(site: Site) -> list[str]:
    a, b = site.nodes
    a.compute(ENCRYPT)
    b.compute(REVOKE)
    b.fail_commit("aborted")
    b.finish()
    a.finish()
    b.ask(ENCRYPT)
    if b.stage == "idle":
        b.compute(ENCRYPT)
    site.complete_aborted()
    return b.finish()


@play
def s10_completed_after_an_answer(site: Site) -> list[str]:
    a, b = site.nodes
    a.compute(ENCRYPT)
    a.fail_commit("aborted")
    a.finish()
    b.ask(ENCRYPT)
    b.compute(REVOKE)
    site.complete_aborted()
    return b.finish()


@play
def s10_completed_under_a_node_that_has_not_seen_revoke(site: Site) -> list[str]:
    a, b = site.nodes
    a.compute(ENCRYPT)
    a.fail_commit("aborted")
    a.finish()
    a.ask(REVOKE)
    b.compute(ENCRYPT)
    site.complete_aborted()
    return b.finish()

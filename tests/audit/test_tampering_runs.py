"""The lead and firms break the rules of a run together, and sign everything anew.

Each case changes a real run, with all keys at hand, so that signatures, chains and tree agree; what
is left to find is the broken promise itself: message, entry, firm.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_evidence import Evidence, audit, broken
from greylag_protocols import log
from greylag_protocols.encoding import canonical_json, parse_as, parse_json
from greylag_protocols.endorsement import ENDORSEMENT_KIND
from greylag_protocols.membership import MEMBERSHIP_KIND, Membership, SignedMembership
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import terms_digest

Expected = tuple[str, int | None, str | None]
Tamper = Callable[[Evidence], Expected]
CASES: dict[str, Tamper] = {}


def case(tamper: Tamper) -> Tamper:
    CASES[tamper.__name__.replace("_", " ")] = tamper
    return tamper


def receipt(evidence: Evidence, firm: str, attempt: int) -> int:
    return evidence.find(log.RECEIPT_KIND, firm=firm, attempt=attempt)


def change_roster(evidence: Evidence, at: int, *, add: str = "", drop: str = "") -> None:
    """The lead's record names other firms; their chains' tips follow."""
    roster = [item for item in evidence.statement(at).predicate["roster"] if item["firm"] != drop]
    if add:
        roster.append({"firm": add, "seq": 0, "head": bytes(32).hex()})
    evidence.sign(at, roster=sorted(roster, key=lambda item: item["firm"]))
    if add in evidence.firms or drop:
        evidence.restate()


def change_terms(evidence: Evidence, change: Callable[[dict[str, Any]], None]) -> int:
    """Other terms, which everybody accepted."""
    at = evidence.find(log.TERMS_KIND)
    old = evidence.statement(at).digest
    value = parse_json(evidence.artefacts[old])
    change(value)
    encoded = canonical_json(value)
    new = terms_digest(encoded)
    evidence.artefacts[new] = encoded
    for position in range(len(evidence.entries)):
        item = evidence.statement(position)
        if item.digest == old:
            evidence.sign(position, digest=new)
        elif item.predicate.get("terms") == old.hex():
            evidence.sign(position, terms=new.hex())
    evidence.rechain(*evidence.firms)
    return evidence.find(log.TERMS_KIND)


# -- receipts and sums -----------------------------------------------------------------------------


@case
def a_firm_in_a_sum_has_no_receipt(evidence: Evidence) -> Expected:
    del evidence.entries[receipt(evidence, "firm-b", 2)]
    evidence.rechain("firm-b")
    return "receipt.match:missing", evidence.find(log.ROUND_KIND, round=2), "firm-b"


@case
def a_receipt_is_for_a_roster_without_its_firm(evidence: Evidence) -> Expected:
    change_roster(evidence, evidence.find(log.ROUND_KIND, round=2), drop="firm-b")
    return "receipt.match:foreign", receipt(evidence, "firm-b", 2), "firm-b"


@case
def a_receipt_is_for_another_context(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 2)
    evidence.sign(at, digest=bytes(32))
    evidence.rechain("firm-b")
    return "receipt.match:context", at, "firm-b"


@case
def a_receipt_is_for_a_roster_of_another_size(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 2)
    evidence.sign(at, roster_size=4)
    evidence.rechain("firm-b")
    return "receipt.match:context", at, "firm-b"


@case
def a_late_receipt_is_for_another_context(evidence: Evidence) -> Expected:
    """firm-e paid for the attempt that failed, and its receipt came afterwards."""
    at = receipt(evidence, "firm-e", 3)
    assert at > evidence.find(log.VOID_KIND)
    evidence.sign(at, digest=bytes(32))
    evidence.rechain("firm-e")
    return "receipt.match:context", at, "firm-e"


@case
def a_record_hides_a_statement_of_a_firm(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=2)
    roster = evidence.statement(at).predicate["roster"]
    roster[1] = {**roster[1], "seq": roster[1]["seq"] - 1}
    evidence.sign(at, roster=roster)
    return "receipt.match:tip", at, "firm-b"


@case
def a_failed_attempt_is_not_recorded(evidence: Evidence) -> Expected:
    del evidence.entries[evidence.find(log.VOID_KIND)]
    return "receipt.match:lost", receipt(evidence, "firm-a", 3), "firm-a"


@case
def a_firm_counts_one_release_too_few(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 5)
    evidence.sign(at, charged=4)
    evidence.rechain("firm-b")
    return "receipt.charge:count", at, "firm-b"


@case
def a_receipt_charges_another_kind_of_release(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 5)
    evidence.sign(at, event="firm-gaussian/v1")
    evidence.rechain("firm-b")
    return "receipt.charge:event", at, "firm-b"


# -- attempts --------------------------------------------------------------------------------------


@case
def an_attempt_is_used_twice(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 5)
    evidence.sign(at, attempt=4)
    evidence.rechain("firm-b")
    return "attempt.order:reused", at, "firm-b"


@case
def attempts_go_backwards(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=4)
    evidence.sign(at, attempt=4)
    return "attempt.order:attempt", at, None


@case
def a_round_is_left_out(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=4)
    evidence.sign(at, round=5)
    return "attempt.order:round", at, None


@case
def a_run_uses_more_attempts_than_were_accounted_for(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=6)
    evidence.sign(at, attempt=11)
    for firm in ("firm-a", "firm-b", "firm-c", "firm-d"):
        evidence.sign(receipt(evidence, firm, 7), attempt=11)
    evidence.rechain(*evidence.firms)
    return "attempt.limit:passed", at, None


@case
def a_firm_goes_on_past_the_limit(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 7)
    evidence.sign(at, charged=11)
    evidence.rechain("firm-b")
    return "attempt.limit:passed", at, "firm-b"


@case
def a_run_goes_on_after_its_release(evidence: Evidence) -> Expected:
    release = evidence.entries.pop(evidence.find(log.RELEASE_KIND))
    at = evidence.find(log.ROUND_KIND, round=5)
    evidence.entries.insert(at + 1, release)
    return "attempt.order:over", evidence.find(log.ROUND_KIND, round=6), None


def restart(evidence: Evidence, *, rounds: int, attempts: int) -> bytes:
    facts = {"run": evidence.run, "rounds": rounds, "attempts": attempts}
    digest = evidence.statement(evidence.find(log.TERMS_KIND)).digest
    return evidence.lead.sign(log.RESTART_KIND, evidence.run, digest, facts)


@case
def the_lead_goes_on_from_an_older_state(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=4) + 1
    evidence.entries.insert(at, restart(evidence, rounds=3, attempts=5))
    return "attempt.order:restart", at, None


# -- rosters ---------------------------------------------------------------------------------------


@case
def a_stranger_stands_in_a_roster(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=1)
    change_roster(evidence, at, add="firm-x")
    return "roster.members:stranger", at, "firm-x"


@case
def a_roster_is_too_small(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=6)
    for firm in ("firm-a", "firm-b"):
        change_roster(evidence, at, drop=firm)
    return "roster.size:small", at, None


@case
def a_roster_is_smaller_than_the_terms_allow(evidence: Evidence) -> Expected:
    change_terms(evidence, lambda value: value["privacy"].update(min_firms=5))
    return "roster.size:small", evidence.find(log.ROUND_KIND, round=3), None


@case
def a_roster_names_a_firm_twice(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=1)
    roster = evidence.statement(at).predicate["roster"]
    evidence.sign(at, roster=[roster[0], *roster])
    return "roster.members:form", at, None


@case
def a_firm_in_a_roster_never_accepted(evidence: Evidence) -> Expected:
    del evidence.entries[evidence.find(log.ACCEPTANCE_KIND, firm="firm-b")]
    evidence.rechain("firm-b")
    return "roster.members:unaccepted", evidence.find(log.ROUND_KIND, round=1), "firm-b"


@case
def one_operator_runs_too_many_firms(evidence: Evidence) -> Expected:
    """As the trust file knows, too: then it is the roster that is at fault."""
    at = evidence.find(MEMBERSHIP_KIND)
    value = parse_json(evidence.artefacts[evidence.statement(at).digest])
    for item in value["members"][:2]:
        item["operator"] = evidence.operators[item["name"]] = "host"
    membership = parse_as(Membership, value, what="membership")
    signed = SignedMembership.sign(membership, evidence.lead)
    evidence.entries[at] = signed.statement
    evidence.artefacts[membership.digest()] = signed.document
    evidence.entries = [
        item for item in evidence.entries if parse_statement(item).kind != ENDORSEMENT_KIND
    ]
    return "roster.operators:many", evidence.find(log.ROUND_KIND, round=1), None


@case
def a_round_is_repeated_with_the_same_roster(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=3)
    change_roster(evidence, at, add="firm-e")
    return "roster.retry:same", at, None


@case
def a_firm_comes_back_off_schedule(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=5)
    change_roster(evidence, at, add="firm-e")
    return "roster.rejoin:early", at, "firm-e"


@case
def a_firm_that_failed_twice_is_in_a_roster(evidence: Evidence) -> Expected:
    evidence.sign(evidence.find(log.VOID_KIND), missing=["firm-e", "firm-e"])
    at = evidence.find(log.ROUND_KIND, round=5)
    change_roster(evidence, at, add="firm-e")
    return "roster.out:back", at, "firm-e"


# -- terms, acceptances, start, end ----------------------------------------------------------------


@case
def the_terms_promise_a_smaller_epsilon(evidence: Evidence) -> Expected:
    at = change_terms(evidence, lambda value: value["privacy"].update(epsilon=1.0))
    return "terms.epsilon:more", at, None


@case
def the_terms_have_too_little_noise(evidence: Evidence) -> Expected:
    at = change_terms(evidence, lambda value: value["privacy"].update(noise_multiplier=1.9))
    return "terms.epsilon:more", at, None


@case
def the_terms_break_their_own_rules(evidence: Evidence) -> Expected:
    at = change_terms(evidence, lambda value: value["privacy"].update(max_colluding=2))
    return "terms.known:invalid", at, None


@case
def the_terms_hold_an_unknown_key(evidence: Evidence) -> Expected:
    at = change_terms(evidence, lambda value: value["privacy"].update(discount=2))
    return "terms.known:invalid", at, None


@case
def the_terms_are_of_another_run(evidence: Evidence) -> Expected:
    at = change_terms(evidence, lambda value: value.update(run_id="other-1"))
    return "terms.known:invalid", at, None


@case
def the_terms_are_logged_again(evidence: Evidence) -> Expected:
    at = evidence.find(log.START_KIND)
    evidence.entries.insert(at, evidence.entries[evidence.find(log.TERMS_KIND)])
    return "terms.known:twice", at, None


@case
def the_terms_were_never_logged(evidence: Evidence) -> Expected:
    del evidence.entries[evidence.find(log.TERMS_KIND)]
    return "terms.known:never", evidence.find(log.ACCEPTANCE_KIND), None


@case
def a_firm_accepts_after_its_first_receipt(evidence: Evidence) -> Expected:
    accepted = evidence.entries.pop(evidence.find(log.ACCEPTANCE_KIND, firm="firm-b"))
    evidence.entries.insert(evidence.find(log.ROUND_KIND, round=2), accepted)
    evidence.rechain("firm-b")
    return "run.acceptance:late", receipt(evidence, "firm-b", 1), "firm-b"


@case
def a_firm_accepted_other_terms(evidence: Evidence) -> Expected:
    at = evidence.find(log.ACCEPTANCE_KIND, firm="firm-b")
    evidence.sign(at, digest=bytes(32))
    evidence.rechain("firm-b")
    return "run.acceptance:terms", at, "firm-b"


@case
def a_firm_accepted_under_a_list_that_is_not_there(evidence: Evidence) -> Expected:
    at = evidence.find(log.ACCEPTANCE_KIND, firm="firm-b")
    evidence.sign(at, epoch=2)
    evidence.rechain("firm-b")
    return "run.acceptance:nolist", at, "firm-b"


@case
def a_firm_accepts_twice(evidence: Evidence) -> Expected:
    at = evidence.find(log.START_KIND)
    accepted = evidence.entries[evidence.find(log.ACCEPTANCE_KIND, firm="firm-b")]
    evidence.entries.insert(at, accepted)
    evidence.rechain("firm-b")
    return "run.acceptance:twice", at, "firm-b"


@case
def the_start_leaves_an_acceptance_out(evidence: Evidence) -> Expected:
    at = evidence.find(log.START_KIND)
    evidence.sign(at, acceptances=evidence.statement(at).predicate["acceptances"][1:])
    return "run.start:acceptances", at, None


@case
def the_start_has_other_weights(evidence: Evidence) -> Expected:
    at = evidence.find(log.START_KIND)
    evidence.sign(at, state=bytes(32).hex())
    return "run.start:state", at, None


@case
def the_run_starts_twice(evidence: Evidence) -> Expected:
    at = evidence.find(log.START_KIND)
    evidence.entries.insert(at, evidence.entries[at])
    return "run.start:twice", at + 1, None


@case
def the_run_never_starts(evidence: Evidence) -> Expected:
    del evidence.entries[evidence.find(log.START_KIND)]
    return "run.start:never", evidence.find(log.ROUND_KIND, round=1), None


@case
def a_firm_that_closed_contributes(evidence: Evidence) -> Expected:
    closed = evidence.entries.pop(evidence.find(log.CLOSED_KIND, firm="firm-b"))
    evidence.entries.insert(evidence.find(log.ROUND_KIND, round=2) + 1, closed)
    evidence.rechain("firm-b")
    return "run.closed:after", receipt(evidence, "firm-b", 3), "firm-b"


@case
def a_firm_closes_with_fewer_releases(evidence: Evidence) -> Expected:
    at = evidence.find(log.CLOSED_KIND, firm="firm-b")
    evidence.sign(at, charged=1)
    evidence.rechain("firm-b")
    return "run.closed:count", at, "firm-b"


@case
def a_firm_closes_under_other_terms(evidence: Evidence) -> Expected:
    at = evidence.find(log.CLOSED_KIND, firm="firm-b")
    evidence.sign(at, digest=bytes(32))
    evidence.rechain("firm-b")
    return "run.closed:terms", at, "firm-b"


# -- steps and release -----------------------------------------------------------------------------


@case
def a_round_is_on_another_scale(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=2)
    evidence.sign(at, grid_step=(0.5).hex())
    return "round.step:grid", at, None


@case
def a_round_is_another_kind_of_release(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=2)
    evidence.sign(at, event="firm-gaussian/v1")
    return "round.step:event", at, None


@case
def the_release_follows_from_another_state(evidence: Evidence) -> Expected:
    at = evidence.find(log.RELEASE_KIND)
    evidence.sign(at, state=bytes(32).hex())
    return "release.follows:state", at, None


@case
def the_release_counts_other_rounds(evidence: Evidence) -> Expected:
    at = evidence.find(log.RELEASE_KIND)
    evidence.sign(at, rounds=5)
    return "release.follows:rounds", at, None


@case
def the_release_names_other_terms(evidence: Evidence) -> Expected:
    at = evidence.find(log.RELEASE_KIND)
    evidence.sign(at, terms=bytes(32).hex())
    return "release.follows:terms", at, None


@case
def the_release_is_of_another_model(evidence: Evidence) -> Expected:
    at = evidence.find(log.RELEASE_KIND)
    evidence.sign(at, digest=bytes(32))
    return "release.follows:weights", at, None


@pytest.mark.parametrize("name", CASES)
def test_a_broken_rule_is_found(name: str, evidence: Evidence, tmp_path: Path) -> None:
    expected = CASES[name](evidence)
    verdict = audit(evidence.write(tmp_path / "bundle"), evidence.trust())
    found = broken(verdict)
    assert expected in found
    # Signatures, chains and tree were made to agree: nothing else gives the fraud away.
    forms = {"log", "entry", "chain", "members"}
    assert not [item for item in found if item[0].partition(".")[0].partition(":")[0] in forms]
    assert not verdict.holds


def test_signing_everything_anew_breaks_nothing(evidence: Evidence, tmp_path: Path) -> None:
    """The forger's own tools leave a run that holds, up to the seed of the first weights."""
    evidence.rechain(*evidence.firms)
    verdict = audit(evidence.write(tmp_path / "bundle"), evidence.trust())
    assert broken(verdict) == []
    assert verdict.holds


@pytest.mark.parametrize("under_way", [0, 1])
def test_a_lead_that_was_restarted_holds(
    under_way: int, evidence: Evidence, tmp_path: Path
) -> None:
    at = evidence.find(log.ROUND_KIND, round=4) + 1
    evidence.entries.insert(at, restart(evidence, rounds=4, attempts=5 + under_way))
    verdict = audit(evidence.write(tmp_path / "bundle"), evidence.trust())
    assert broken(verdict) == []
    assert verdict.holds

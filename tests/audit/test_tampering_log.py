"""The lead rewrites its own log and signs it again; firms' keys it has not, unless a case says so.

Each case changes the entries of a real run and names what the auditor must say: message, entry,
firm.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from audit_evidence import STRANGER, Evidence, audit, broken
from greylag_protocols import log
from greylag_protocols.encoding import canonical_json, parse_as, parse_json
from greylag_protocols.endorsement import ENDORSEMENT_KIND
from greylag_protocols.membership import (
    MEMBERSHIP_KIND,
    Membership,
    SignedMembership,
    sign_revocation,
)
from greylag_protocols.renewal import Leave
from greylag_protocols.signing import Ed25519Signer

Expected = tuple[str, int | None, str | None]
Tamper = Callable[[Evidence], Expected]
CASES: dict[str, Tamper] = {}


def case(tamper: Tamper) -> Tamper:
    CASES[tamper.__name__.replace("_", " ")] = tamper
    return tamper


def receipt(evidence: Evidence, firm: str, attempt: int) -> int:
    return evidence.find(log.RECEIPT_KIND, firm=firm, attempt=attempt)


def next_of(evidence: Evidence, firm: str, after: int) -> int:
    """The firm's next chained entry."""
    return next(
        at
        for at in range(after + 1, len(evidence.entries))
        if evidence.statement(at).kind in log.CHAINED_KINDS
        and evidence.statement(at).predicate["firm"] == firm
    )


# -- entries dropped, doubled, moved ---------------------------------------------------------------


@case
def a_receipt_is_dropped(evidence: Evidence) -> Expected:
    del evidence.entries[receipt(evidence, "firm-b", 2)]
    return "chain:gap", receipt(evidence, "firm-b", 3), "firm-b"


@case
def a_receipt_is_doubled(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 2)
    evidence.entries.insert(at, evidence.entries[at])
    return "chain:gap", at + 1, "firm-b"


@case
def two_receipts_change_places(evidence: Evidence) -> Expected:
    one, other = receipt(evidence, "firm-b", 2), receipt(evidence, "firm-b", 4)
    entries = evidence.entries
    entries[one], entries[other] = entries[other], entries[one]
    return "chain:gap", one, "firm-b"


@case
def the_end_of_a_chain_is_dropped(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=6)
    del evidence.entries[receipt(evidence, "firm-b", 7)]
    return "receipt.match:missing", at - 1, "firm-b"


@case
def an_entry_is_no_statement(evidence: Evidence) -> Expected:
    evidence.entries.insert(9, b'{"hello":1}')
    return "entry.form:malformed", 9, None


@case
def an_entry_is_not_in_its_one_form(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 2)
    evidence.entries[at] = evidence.entries[at].replace(b'","payloadType"', b'" ,"payloadType"')
    return "entry.form:malformed", at, None


@case
def an_entry_is_of_an_unknown_kind(evidence: Evidence) -> Expected:
    word = evidence.lead.sign("fable/v1", "small-1", bytes(32), {})
    evidence.entries.insert(9, word)
    return "entry.form:kind", 9, None


@case
def an_entry_says_more_than_its_kind(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=1)
    evidence.sign(at, note="all well")
    return "entry.form:content", at, None


@case
def a_count_is_no_number(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 2)
    evidence.sign(at, charged=True)
    return "entry.form:content", at, None


@case
def a_record_is_about_two_runs(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=1)
    evidence.sign(at, subject="other-1")
    return "entry.form:content", at, None


# -- signatures ------------------------------------------------------------------------------------


@case
def a_receipt_is_signed_by_the_lead(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 2)
    evidence.sign(at, signer=evidence.lead)
    return "entry.signature:stranger", at, "firm-b"


@case
def a_receipt_is_signed_by_another_firm(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 2)
    evidence.sign(at, signer=evidence.firms["firm-c"])
    return "entry.signature:forged", at, "firm-b"


@case
def the_last_statement_of_a_firm_has_another_content(evidence: Evidence) -> Expected:
    """Its signature stays; the auditor's quick way has to see it too."""
    at = evidence.find(log.CLOSED_KIND, firm="firm-b")
    whole = parse_json(evidence.entries[at])
    evidence.sign(at, charged=6)
    forged = parse_json(evidence.entries[at])
    evidence.entries[at] = canonical_json({**forged, "signatures": whole["signatures"]})
    return "any:signature", at, "firm-b"


@case
def a_refusal_is_made_up(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 4)
    word = log.sign_refusal(evidence.lead, firm="firm-b", run="small-1", refusal_class="policy")
    evidence.entries.insert(at, word)
    return "entry.signature:stranger", at, "firm-b"


@case
def a_firm_is_made_up(evidence: Evidence) -> Expected:
    tip = log.ChainTip()
    facts = {"firm": "firm-x", "run": "small-1", "epoch": 1}
    terms = evidence.statement(evidence.find(log.TERMS_KIND)).digest
    at = evidence.find(log.ACCEPTANCE_KIND)
    evidence.entries.insert(at, log.sign_acceptance(STRANGER, tip, terms=terms, **facts))  # type: ignore[arg-type]
    return "entry.signature:stranger", at, "firm-x"


@case
def a_round_is_recorded_by_somebody_else(evidence: Evidence) -> Expected:
    at = evidence.find(log.ROUND_KIND, round=3)
    evidence.sign(at, signer=STRANGER)
    return "entry.signature:forged", at, None


@case
def everything_is_made_up(evidence: Evidence) -> Expected:
    """With keys of the forger's own, from the member list to the checkpoint; it agrees with
    itself in every way."""
    at = evidence.find(log.ROUND_KIND, round=1)
    make_up(evidence)
    return "entry.signature:forged", at, None


def make_up(evidence: Evidence) -> None:
    evidence.lead = STRANGER
    evidence.firms = {
        name: Ed25519Signer(bytes([100 + at]) * 32) for at, name in enumerate(evidence.firms)
    }
    for at in range(len(evidence.entries)):
        if evidence.statement(at).kind not in (ENDORSEMENT_KIND, MEMBERSHIP_KIND):
            evidence.sign(at)
    change_list(
        evidence,
        lambda item: {**item, "identity": evidence.firms[item["name"]].public_key.hex()},
    )
    evidence.rechain(*evidence.firms)


@case
def an_endorsement_is_made_up(evidence: Evidence) -> Expected:
    at = evidence.find(ENDORSEMENT_KIND, by="firm-a")
    evidence.sign(at, signer=STRANGER)
    return "members.consent:forged", at, "firm-a"


@case
def an_endorsement_is_of_another_list(evidence: Evidence) -> Expected:
    at = evidence.find(ENDORSEMENT_KIND, by="guild")
    evidence.sign(at, signer=STRANGER, digest=bytes(32))
    return "members.consent:forged", at, "guild"


# -- chains of firms that take part in the fraud ---------------------------------------------------


@case
def a_chain_has_two_branches(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 4)
    evidence.sign(at, prev=bytes(32).hex())
    return "chain:forked", at, "firm-b"


@case
def a_chain_jumps(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 4)
    evidence.sign(at, seq=99)
    return "chain:gap", at, "firm-b"


# -- member lists ----------------------------------------------------------------------------------


def change_list(
    evidence: Evidence, change: Callable[[dict[str, str]], dict[str, str]], **facts: object
) -> int:
    """The lead signs another member list; everybody's statements stay."""
    at = evidence.find(MEMBERSHIP_KIND)
    value = parse_json(evidence.artefacts[evidence.statement(at).digest])
    value["members"] = [change(item) for item in value["members"]]
    membership = parse_as(Membership, {**value, **facts}, what="membership")
    signed = SignedMembership.sign(membership, evidence.lead)
    evidence.entries[at] = signed.statement
    evidence.artefacts[membership.digest()] = signed.document
    return at


def used(evidence: Evidence) -> int:
    return evidence.find(log.ACCEPTANCE_KIND)


@case
def the_list_has_another_key_of_a_firm(evidence: Evidence) -> Expected:
    key = STRANGER.public_key.hex()
    change_list(
        evidence, lambda item: {**item, "identity": key} if item["name"] == "firm-b" else item
    )
    return "members.identity:other", used(evidence), "firm-b"


@case
def the_list_hides_who_runs_a_firm(evidence: Evidence) -> Expected:
    change_list(
        evidence, lambda item: {**item, "operator": "x"} if item["name"] == "firm-b" else item
    )
    return "members.identity:operator", used(evidence), "firm-b"


@case
def the_list_lasts_too_long(evidence: Evidence) -> Expected:
    at = change_list(evidence, lambda item: item, expires_s=1_900_000_000)
    return "members.list:invalid", at, None


@case
def the_list_has_run_out_when_it_is_issued(evidence: Evidence) -> Expected:
    at = change_list(evidence, lambda item: item, expires_s=1_700_000_000)
    return "members.list:invalid", at, None


@case
def the_list_is_of_another_consortium(evidence: Evidence) -> Expected:
    at = change_list(evidence, lambda item: item, consortium="other")
    return "members.list:invalid", at, None


@case
def the_list_is_stated_otherwise(evidence: Evidence) -> Expected:
    at = evidence.find(MEMBERSHIP_KIND)
    evidence.sign(at, expires_s=1_900_000_000)
    return "members.list:invalid", at, None


@case
def there_are_two_lists_of_one_number(evidence: Evidence) -> Expected:
    first = evidence.entries[evidence.find(MEMBERSHIP_KIND)]
    change_list(evidence, lambda item: {**item, "operator": "x"})
    second = evidence.entries[evidence.find(MEMBERSHIP_KIND)]
    evidence.entries[evidence.find(MEMBERSHIP_KIND)] = first
    evidence.entries.insert(5, second)
    return "members.list:twice", 5, None


@case
def an_older_list_comes_later(evidence: Evidence) -> Expected:
    first = evidence.entries[evidence.find(MEMBERSHIP_KIND)]
    change_list(evidence, lambda item: item, epoch=2)
    evidence.entries.insert(5, first)
    return "members.list:order", 5, None


@case
def a_run_went_on_under_a_list_that_had_run_out(evidence: Evidence) -> Expected:
    """Firms countersigned the log after the list's end, and the run went on from there."""
    size = min(evidence.cosigned_at)
    evidence.cosigned_at[size] = 1_900_000_000
    return "members.expired:used", evidence.find(log.ROUND_KIND, round=4), None


@case
def a_firm_that_left_speaks(evidence: Evidence) -> Expected:
    at = receipt(evidence, "firm-b", 4)
    word = Leave(consortium="glass", firm="firm-b", left_s=1_800_000_100)
    evidence.entries.insert(at, word.sign(evidence.firms["firm-b"]))
    return "members.gone:spoke", receipt(evidence, "firm-b", 5), "firm-b"


@case
def a_firm_that_was_revoked_stands_in_a_roster(evidence: Evidence) -> Expected:
    recovery = Ed25519Signer(b"\x55" * 32)
    change_list(evidence, lambda item: {**item, "recovery": recovery.public_key.hex()})
    at = evidence.find(log.ROUND_KIND, round=3)
    key = evidence.firms["firm-b"].public_key
    word = sign_revocation(recovery, consortium="glass", firm="firm-b", identity=key)
    evidence.entries.insert(at + 1, word)
    return "members.gone:roster", evidence.find(log.ROUND_KIND, round=5), "firm-b"


@case
def a_leave_is_made_up(evidence: Evidence) -> Expected:
    word = Leave(consortium="glass", firm="firm-b", left_s=1_800_000_100)
    evidence.entries.append(word.sign(evidence.firms["firm-c"]))
    return "members.gone:forged", len(evidence.entries) - 1, "firm-b"


@case
def a_revocation_is_made_up(evidence: Evidence) -> Expected:
    key = evidence.firms["firm-b"].public_key
    word = sign_revocation(STRANGER, consortium="glass", firm="firm-b", identity=key)
    evidence.entries.append(word)
    return "members.gone:forged", len(evidence.entries) - 1, "firm-b"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
def test_a_rewritten_log_is_found(
    name: str, quick: bool, real: Evidence, evidence: Evidence, tmp_path: Path
) -> None:
    message, entry, firm = CASES[name](evidence)
    verdict = audit(evidence.write(tmp_path / "bundle"), real.trust(), quick=quick)
    if message == "any:signature":  # the same fault has two names
        message = "chain:unsigned" if quick else "entry.signature:forged"
    assert (message, entry, firm) in broken(verdict)
    assert not verdict.holds


def test_a_forgery_of_everything_agrees_with_itself(evidence: Evidence, tmp_path: Path) -> None:
    """So it is the trust file alone that finds it."""
    make_up(evidence)
    root = evidence.write(tmp_path / "bundle")
    verdict = audit(root, None)
    told = {message for message, _, _ in broken(verdict)}
    assert told <= {"run.start:state", "run.start:weights", "members.consent:forged"}
    assert not verdict.holds
    assert audit(root, evidence.trust()).trusted is not False


def test_a_firm_that_nobody_knows_is_told_and_nothing_holds(
    real: Evidence, real_bundle: Path
) -> None:
    trust = real.trust()
    del trust.firms["firm-d"]
    verdict = audit(real_bundle, trust)
    assert broken(verdict) == []
    assert not verdict.holds
    unknown = [item for item in verdict.findings if item.check == "members.identity"]
    assert [(item.state, item.firm) for item in unknown] == [("unknown", "firm-d")]


def test_neighbours_of_what_is_refused_pass(evidence: Evidence, tmp_path: Path) -> None:
    """A firm that leaves after the end, a second list, an endorsement by a stranger, a refusal."""
    leave = Leave(consortium="glass", firm="firm-b", left_s=1_800_000_100)
    refusal = log.sign_refusal(
        evidence.firms["firm-c"], firm="firm-c", run="small-1", refusal_class="policy"
    )
    first = evidence.entries[evidence.find(MEMBERSHIP_KIND)]
    change_list(evidence, lambda item: item, epoch=2, expires_s=1_800_000_000 + 1000)
    second = evidence.entries[0]
    evidence.entries[0] = first
    evidence.entries += [second, refusal, leave.sign(evidence.firms["firm-b"])]
    verdict = audit(evidence.write(tmp_path / "bundle"), evidence.trust())
    assert broken(verdict) == []
    assert verdict.holds


def test_the_attempt_under_way_when_a_firm_leaves_may_end(
    evidence: Evidence, tmp_path: Path
) -> None:
    del evidence.entries[evidence.find(log.CLOSED_KIND, firm="firm-b")]
    at = evidence.find(log.ROUND_KIND, round=6)
    word = Leave(consortium="glass", firm="firm-b", left_s=1_800_000_100)
    evidence.entries.insert(at, word.sign(evidence.firms["firm-b"]))
    evidence.restate()
    verdict = audit(evidence.write(tmp_path / "bundle"), evidence.trust())
    assert broken(verdict) == []
    assert verdict.holds


def test_a_list_may_run_out_after_the_run(evidence: Evidence, tmp_path: Path) -> None:
    evidence.cosigned_at[len(evidence.entries)] = 1_900_000_000
    verdict = audit(evidence.write(tmp_path / "bundle"), evidence.trust())
    assert broken(verdict) == []
    assert verdict.holds


@pytest.mark.parametrize(
    ("signing", "state"), [(5, "holds"), (4, "holds"), (3, "unknown"), (0, "unknown")]
)
def test_so_many_firms_must_countersign_that_two_logs_cannot_both_have_it(
    signing: int, state: str, evidence: Evidence, tmp_path: Path
) -> None:
    """Five firms, one of whom may lie: more than (5 + 1) / 2."""
    everybody = evidence.firms
    evidence.firms = dict(list(everybody.items())[:signing])
    root = evidence.write(tmp_path / "bundle")
    evidence.firms = everybody
    verdict = audit(root, evidence.trust())
    (quorum,) = [item for item in verdict.findings if item.check == "log.quorum"]
    assert quorum.state == state
    assert dict(quorum.facts)["count"] == str(signing)
    assert f"{signing} of 5 firms countersigned" in quorum.text()
    assert verdict.holds, "that the log may have a twin is said, and no promise of it is broken"


def test_countersignatures_of_a_state_before_the_run_do_not_count(
    evidence: Evidence, tmp_path: Path
) -> None:
    evidence.cosigned_at = {evidence.find(log.ROUND_KIND, round=2): 1_800_000_050}
    verdict = audit(evidence.write(tmp_path / "bundle"), evidence.trust())
    (quorum,) = [item for item in verdict.findings if item.check == "log.quorum"]
    assert quorum.state == "unknown"

"""What a firm does alone: take its identity back, leave a run."""

from dataclasses import replace
from pathlib import Path

import pytest
from consortium_in_memory import NAME, Consortium, make_terms
from greylag_client.closing import close_run
from greylag_client.recovery import make_revocation
from greylag_client.session import Identity
from greylag_protocols import log
from greylag_protocols.errors import ConfigError, RefusedError, VerificationError
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import SignedMembership, revoked_in
from greylag_protocols.signing import verify_statement
from lying_lead import ALL, Lead

RECOVERY = b"\x66" * 32


@pytest.fixture
def lead(memory_path: Path) -> Lead:
    consortium = Consortium(memory_path, terms=make_terms(), recoveries={"firm-b": RECOVERY})
    return Lead(consortium).enter()


def own_identity(lead: Lead) -> Identity:
    return lead.victim.identity


def test_only_the_recovery_key_makes_a_revocation(lead: Lead) -> None:
    membership = lead.consortium.membership
    envelope = make_revocation(f" {RECOVERY.hex()}\n", membership, "firm-b")
    assert revoked_in(membership, [envelope]) == {"firm-b"}
    for wrong in ("", "zz" * 32, "ab" * 32, RECOVERY.hex()[:-2]):
        with pytest.raises(ConfigError, match="nothing was written"):
            make_revocation(wrong, membership, "firm-b")
    with pytest.raises(VerificationError, match="no firm 'firm-x'"):
        make_revocation(RECOVERY.hex(), membership, "firm-x")


def test_a_revoked_firm_is_refused_whoever_brought_the_word(lead: Lead) -> None:
    membership = lead.consortium.membership
    lead.answered(lead.round(1))
    envelope = make_revocation(RECOVERY.hex(), membership, "firm-b")
    lead.victim.memberships.store_revocation(envelope, membership)  # by hand, from firm-b itself
    lead.refused(lead.round(2), "identity revoked")
    lead.answered(lead.round(2, roster=[name for name in ALL if name != "firm-b"]))
    # From the lead, with an offer: the other firms learn of it as well.
    other = lead.consortium.firms["firm-c"]
    other.participant.handle(lead.offer(statements=(envelope, envelope)))
    assert other.memberships.revocations() == (envelope,)


def test_a_forged_revocation_throws_nobody_out(lead: Lead) -> None:
    forged = lead.consortium.lead.sign(
        "revocation/v1",
        "firm-b",
        lead.consortium.membership.member("firm-b").identity_key,
        {"firm": "firm-b", "consortium": NAME},
    )
    lead.accepted("firm-a", statements=(forged, b"", b"{}"))
    assert lead.victim.memberships.revocations() == ()


def test_a_revocation_of_a_firm_that_is_gone_holds_nobody_up(lead: Lead) -> None:
    """After a revocation the next list lacks the firm; the lead still shows the revocation."""
    membership = lead.consortium.membership
    envelope = make_revocation(RECOVERY.hex(), membership, "firm-b")
    left = tuple(item for item in membership.members if item.name != "firm-b")
    signed = SignedMembership.sign(replace(membership, epoch=2, members=left), lead.consortium.lead)
    memberships = lead.victim.memberships
    later = memberships.store_seen(signed, now_s=lead.consortium.now_s)
    memberships.approve(later.digest().hex())
    assert lead.accepted("firm-a", membership=signed, statements=(envelope,))


def test_a_firm_whose_own_identity_was_revoked_stops(
    lead: Lead, caplog: pytest.LogCaptureFixture
) -> None:
    firm, membership = lead.consortium.firms["firm-b"], lead.consortium.membership
    envelope = make_revocation(RECOVERY.hex(), membership, "firm-b")
    firm.participant.handle(lead.offer(statements=(envelope,)))
    assert "this firm's identity was revoked" in caplog.text


def test_a_firm_leaves_a_run_by_itself(lead: Lead) -> None:
    """A lead that never closes a run cannot keep a firm's budget reserved for ever."""
    ledger = lead.victim.ledger
    assert ledger.accounts()[0].holds  # reserved
    account = close_run(ledger, own_identity(lead), lead.run)
    assert account.charged == 0
    assert not ledger.accounts()[0].holds  # nothing was charged: free again
    lead.refused(lead.round(1), "no open session")
    lead.refused(lead.offer(), "closed here for ever")
    entry = verify_statement(
        ledger.entries_after(1)[0], lead.victim.signer.public_key, log.CLOSED_KIND
    )
    assert entry.predicate["charged"] == 0
    tip = ledger.tip()
    close_run(ledger, own_identity(lead), lead.run)  # again: nothing more happens
    assert ledger.tip() == tip
    with pytest.raises(RefusedError, match="never accepted here"):
        close_run(ledger, own_identity(lead), "another-run")


def test_what_was_charged_stays_spent(lead: Lead) -> None:
    lead.answered(lead.round(1))
    assert close_run(lead.victim.ledger, own_identity(lead), lead.run).charged == 1
    assert lead.victim.ledger.accounts()[0].holds


# -- starting -------------------------------------------------------------------------------------


def test_a_started_firm_asks_once(lead: Lead) -> None:
    """Every start asks; within one start, once is enough, whatever the run."""
    nonce = lead.asked("firm-a")
    assert nonce is None  # vouched for when it entered
    lead.victim.restart()
    first = lead.asked("firm-a")
    assert first is not None
    assert lead.asked("firm-a") == first
    lead.accepted("firm-a")
    assert lead.asked("firm-a") is None
    lead.victim.restart()
    assert lead.asked("firm-a") not in (None, first)


def test_too_few_words_or_old_ones_do_not_do(lead: Lead) -> None:
    needed = lead.consortium.terms.privacy.max_colluding + 1
    lead.victim.restart()
    nonce = lead.asked("firm-a")
    assert nonce is not None
    words = lead.answers("firm-a", nonce)
    assert lead.asked("firm-a", peers=words[: needed - 1]) == nonce
    assert lead.asked("firm-a", peers=words[:1] * needed) == nonce
    lead.victim.restart()
    lead.refused(lead.offer(peers=words), "another question")


def test_peers_remember_what_a_restored_ledger_forgot(lead: Lead) -> None:
    lead.answered(lead.round(1))  # peers see firm-a's batch when they answer, too
    for name in ("firm-b", "firm-c", "firm-d"):
        lead.consortium.firms[name].participant.handle(lead.round(1))
    seen = lead.consortium.firms["firm-b"].ledger.peers.tip("firm-a")
    assert seen.seq == 1  # the acceptance, before its first keys
    lead.victim.lose_ledger()
    assert lead.victim.ledger.tip() == ChainTip()
    lead.refused(lead.offer(), "restored from an old copy")
    assert lead.victim.ledger.accounts() == []

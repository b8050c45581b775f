"""Later member lists: by hand, by a body's key, or by more peers than may collude; never else."""

from dataclasses import replace
from pathlib import Path

import pytest
from consortium_in_memory import NOW_S, Consortium, make_terms
from greylag_protocols.endorsement import sign_endorsement
from greylag_protocols.membership import Member, Membership, SignedMembership
from greylag_protocols.messages import Asking
from greylag_protocols.signing import Ed25519Signer
from lying_lead import Lead

BODY = Ed25519Signer(b"\x77" * 32)
STRANGER = Ed25519Signer(b"\x78" * 32)


class Growing:
    """A consortium whose lead lists one more firm than anybody approved."""

    def __init__(self, root: Path, **policy: object) -> None:
        self.lead = Lead(Consortium(root, terms=make_terms()))
        self.lead.victim.policy = replace(self.lead.victim.policy, **policy)  # type: ignore[arg-type]
        old = self.lead.consortium.membership
        key = STRANGER.public_key
        joined = Member(name="firm-z", operator="z", identity=key.hex(), recovery=key[::-1].hex())
        self.membership = replace(old, epoch=2, members=(*old.members, joined))
        self.signed = SignedMembership.sign(self.membership, self.lead.consortium.lead)

    def words(self, *firms: str, about: Membership | None = None) -> tuple[bytes, ...]:
        signers = {name: firm.signer for name, firm in self.lead.consortium.firms.items()}
        signers |= {"firm-z": STRANGER}
        return tuple(
            sign_endorsement(signers[name], about or self.membership, by=name) for name in firms
        )

    def accepted(self, *statements: bytes) -> bool:
        offer = self.lead.offer(membership=self.signed, statements=statements)
        return isinstance(self.lead.victim.participant.handle(offer), Asking)

    def reason(self) -> str:
        return self.lead.victim.ledger.refusals.newest(1)[0].reason


def test_the_leads_word_is_not_enough(memory_path: Path) -> None:
    growing = Growing(memory_path, approve_by_peers=True, approving_keys=(BODY.public_key.hex(),))
    assert not growing.accepted()
    lead = sign_endorsement(growing.lead.consortium.lead, growing.membership, by="acme")
    assert not growing.accepted(lead)
    assert "epoch 2 is not approved here" in growing.reason()


def test_a_bodys_endorsement_is_enough_where_the_firm_named_it(memory_path: Path) -> None:
    growing = Growing(memory_path)
    word = sign_endorsement(BODY, growing.membership, by="association")
    assert not growing.accepted(word)
    growing.lead.victim.policy = replace(
        growing.lead.victim.policy, approving_keys=(BODY.public_key.hex(),)
    )
    assert growing.accepted(word)
    assert not growing.accepted()


def test_more_peers_than_may_collude_are_enough(memory_path: Path) -> None:
    growing = Growing(memory_path, approve_by_peers=True)  # max_colluding = 1
    assert not growing.accepted(*growing.words("firm-b"))
    assert "1 of 2 endorsements" in growing.reason()
    assert not growing.accepted(*growing.words("firm-b", "firm-z", "firm-a"))
    assert growing.accepted(*growing.words("firm-b", "firm-c"))
    growing.lead.victim.policy = replace(growing.lead.victim.policy, approve_by_peers=False)
    assert not growing.accepted(*growing.words("firm-b", "firm-c"))


def test_endorsements_of_another_list_do_not_count(memory_path: Path) -> None:
    growing = Growing(memory_path, approve_by_peers=True)
    about = replace(growing.membership, expires_s=int(NOW_S) + 5)
    assert not growing.accepted(*growing.words("firm-b", "firm-c", about=about))


def test_what_was_approved_by_rule_vouches_for_nobody(memory_path: Path) -> None:
    """Else the second list could bring in the firms that endorse the third."""
    growing = Growing(memory_path, approve_by_peers=True)
    assert growing.accepted(*growing.words("firm-b", "firm-c"))
    growing.membership = replace(growing.membership, epoch=3)
    growing.signed = SignedMembership.sign(growing.membership, growing.lead.consortium.lead)
    assert not growing.accepted(*growing.words("firm-b", "firm-z"))


@pytest.mark.parametrize("name", ["firm-b", "firm-c"])
def test_one_peer_twice_is_one_peer(memory_path: Path, name: str) -> None:
    growing = Growing(memory_path, approve_by_peers=True)
    assert not growing.accepted(*growing.words(name, name))

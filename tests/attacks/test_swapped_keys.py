"""A lead that lies about one-time keys.

"Without" is the same attack with one rule taken out. Then the lead reads the victim's vector to the
integer, and its own share of the noise, ``1 / sqrt(|R| - t)`` of sigma C, is all that is left.

- **Unsigned**: keys of the lead's own in batches that it signed itself. Refused: a batch is signed
  by the member that it names. Without: as above.
- **Swapped**: some of the peers' keys are the lead's own, whoever signed. Refused. Without: one
  peer's honest key keeps the vector uniform; with none it is read.
- **Stale**: the keys of an attempt that is over, of machines that were robbed since. Refused: a key
  is good for one attempt. Without: as above.
- **Replayed from another run**, robbed likewise. Refused: a batch names its run and terms. Without:
  as above.
- **One key under two names**: accomplices show the keys of honest firms as their own, so that the
  victim adds and subtracts the same masks. Refused. Without: what it sent is its vector, in the
  clear; no private key is needed.
- **Twins** of honest keys (other bytes, the same secret with everybody): a firm cannot tell them
  from others, and need not, since mask keys are bound to both public keys: uniform. Without: as
  before, in the clear.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attacks.adversary import (
    context_of,
    data_of,
    distance,
    forge_batch,
    looks_uniform,
    put_in,
    total_of,
    unmask,
)
from attacks.machines import watched_lead, wide
from consortium_in_memory import make_terms
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from greylag_client import attempt_rules, participant
from greylag_protocols import masking
from greylag_protocols.encoding import tagged_hash
from greylag_protocols.errors import VerificationError
from greylag_protocols.keys import VerifiedBatch, claimed_firm, key_leaf, verify_batch
from greylag_protocols.masking import public_key
from greylag_protocols.merkle import verify_inclusion
from greylag_protocols.messages import Contribution, Refusal, Round
from greylag_protocols.round import Attempt
from lying_lead import ALL, Lead

OWN = {name: bytes([200 + at] * 32) for at, name in enumerate(ALL[1:])}
ONE_SHARE = 3**-0.5


def robbed(lead: Lead, attempt: int) -> dict[str, bytes]:
    """The peers' private keys of an attempt, as a thief of their memory has them."""
    sessions = {name: lead.consortium.firms[name].participant._sessions for name in ALL[1:]}
    return {name: bytes(item[lead.run].keys[attempt].private) for name, item in sessions.items()}


def check_read(lead: Lead, message: Round, private: dict[str, bytes]) -> None:
    """The victim answers, and its vector is read to the integer."""
    found = unmask(lead, "firm-a", message, lead.answered(message).vector, private)
    assert np.array_equal(found, put_in(lead, "firm-a", message))
    left = distance(lead, found, data_of(lead, "firm-a", firms=4), firms=4)
    assert left == pytest.approx(ONE_SHARE, rel=0.05)


def test_keys_that_the_lead_signed_itself(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    for name, private in OWN.items():
        forge_batch(lead, name, [public_key(private)], lead.consortium.lead)
    message = lead.round(1)
    lead.refused(message, "is not signed by")

    def signed_by_lead_or_victim(item: bytes, _: bytes) -> VerifiedBatch:
        signer = lead.victim.signer if claimed_firm(item) == "firm-a" else lead.consortium.lead
        return verify_batch(item, signer.public_key)

    monkeypatch.setattr(attempt_rules, "verify_batch", signed_by_lead_or_victim)
    check_read(lead, message, OWN)


@pytest.mark.parametrize("swapped", [1, 2, 3])
def test_some_keys_of_the_leads_own(
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    swapped: int,
) -> None:
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    honest, own = lead.round(1), dict(list(OWN.items())[:swapped])
    keys = [public_key(own[name]) if name in own else key
            for name, key in zip(honest.roster, honest.keys, strict=True)]  # fmt: skip
    message = replace(honest, keys=tuple(keys))
    lead.refused(message, "inclusion proof")
    monkeypatch.setattr(participant, "check_keys", lambda *_, **__: None)
    if swapped == len(OWN):
        check_read(lead, message, own)
    else:
        found = unmask(lead, "firm-a", message, lead.answered(message).vector, own)
        assert looks_uniform(found)


# -- keys that are signed, but not for this --------------------------------------------------------


def good_for_any_attempt(
    batch: VerifiedBatch, key: bytes, proof: tuple[bytes, ...], *, attempt: int
) -> None:
    """What ``check_key`` would be if a key were good for all attempts of its batch."""
    for index, other in enumerate(batch.facts.attempts):
        try:
            verify_inclusion(
                key_leaf(key, other),
                index=index,
                size=batch.facts.size,
                proof=proof,
                root=batch.root,
            )
        except VerificationError:
            continue
        return
    raise VerificationError("no key of this batch")


def test_stale_keys(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    stolen, first, second = robbed(lead, 1), lead.round(1), lead.round(2)
    lead.answered(first)
    own = second.roster.index("firm-a")
    message = replace(
        second,
        keys=tuple(second.keys[at] if at == own else first.keys[at] for at in range(4)),
        proofs=tuple(second.proofs[at] if at == own else first.proofs[at] for at in range(4)),
    )
    lead.refused(message, "inclusion proof")
    monkeypatch.setattr(VerifiedBatch, "check_key", good_for_any_attempt)
    check_read(lead, lead.with_words(message), stolen)


def enter_second_run(lead: Lead) -> None:
    """The same firms are offered another run; the lead keeps the batches of the first."""
    terms = wide(make_terms(run="small-2"))
    lead.run, lead.consortium.terms, lead.consortium.encoded = "small-2", terms, terms.encode()
    lead.enter("firm-a")


def test_keys_replayed_from_another_run(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lead = watched_lead(memory_path, wide(make_terms())).enter()
    stolen = robbed(lead, 1)
    enter_second_run(lead)
    message = lead.round(1)
    lead.refused(message, "its keys are for another run")

    def signed_by_the_member(session: participant.Session, sent: Round) -> dict[str, VerifiedBatch]:
        members = session.membership
        named = [(claimed_firm(item), item) for item in sent.batches]
        return {name: verify_batch(item, members.member(name).identity_key) for name, item in named}

    monkeypatch.setattr(participant, "read_batches", signed_by_the_member)
    check_read(lead, message, stolen)


# -- two names, one secret -------------------------------------------------------------------------

PRIME = 2**255 - 19
FIVE = (*ALL, "firm-e")
Twin = Callable[[bytes], bytes]


def same(key: bytes) -> bytes:
    return key


def other_spelling(key: bytes) -> bytes:
    """X25519 ignores the top bit."""
    return key[:-1] + bytes([key[-1] ^ 0x80])


def small_order_apart(key: bytes) -> bytes:
    """The point plus the one of order 2."""
    return pow(int.from_bytes(key, "little"), -1, PRIME).to_bytes(32, "little")


def two_accomplices(root: Path, twin: Twin) -> tuple[Lead, Round]:
    """Firms a and b show twins of d's and e's keys; c stands between them, and is the victim."""
    one = wide(make_terms(min_firms=4))
    terms = replace(one, privacy=replace(one.privacy, max_colluding=2))
    lead = watched_lead(root, terms, firms=5).enter()
    honest = lead.round(1, roster=FIVE)
    for name, model in (("firm-a", 3), ("firm-b", 4)):
        signer = lead.consortium.firms[name].signer
        forge_batch(lead, name, [twin(honest.keys[model])], signer)
    return lead, lead.round(1, roster=FIVE)


def context_with_doubles(attempt: Attempt) -> bytes:
    """A context that does not mind a key that stands twice."""
    names_and_keys = [part for item in attempt.roster for part in (item.firm.encode(), item.key)]
    return tagged_hash("greylag/context/v1", attempt.terms, attempt.model, *names_and_keys)


def unpaired_keys(private: bytes, peers: Iterable[bytes], context: bytes) -> list[bytes]:
    """Mask keys that are not bound to the public keys."""
    own = X25519PrivateKey.from_private_bytes(private)
    shared = [own.exchange(X25519PublicKey.from_public_bytes(peer)) for peer in peers]
    return [masking.derive_key(item, context, masking.MASK_TAG) for item in shared]


def in_the_clear(lead: Lead, message: Round) -> bool:
    """Whether what the victim sent is its vector; else it must be uniform."""
    reply = lead.consortium.firms["firm-c"].participant.handle(message)
    assert isinstance(reply, Contribution)
    bare = put_in(lead, "firm-c", message)
    if np.array_equal(reply.vector.view(np.int32), bare):
        left = distance(lead, bare, data_of(lead, "firm-c", firms=5), firms=5)
        assert left == pytest.approx(ONE_SHARE, rel=0.05)
        return True
    assert looks_uniform(total_of([reply.vector, -bare]))
    return False


def test_one_key_under_two_names(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lead, message = two_accomplices(memory_path, same)
    victim = lead.consortium.firms["firm-c"]
    tip = victim.ledger.tip()
    assert isinstance(victim.participant.handle(message), Refusal)
    assert "a one-time key stands twice in the roster" in caplog.text
    assert victim.ledger.tip() == tip
    monkeypatch.setattr(Attempt, "context", context_with_doubles)
    assert len(context_of(lead, message)) == 32
    assert in_the_clear(lead, message)


@pytest.mark.parametrize("twin", [other_spelling, small_order_apart])
def test_twins_of_honest_keys(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, twin: Twin
) -> None:
    assert not in_the_clear(*two_accomplices(memory_path, twin))
    monkeypatch.setattr(masking, "pair_keys", unpaired_keys)
    assert in_the_clear(*two_accomplices(memory_path, twin))

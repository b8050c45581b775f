import dataclasses

import pytest
from greylag_protocols.accounting import FIRM_GAUSSIAN, POISSON_GAUSSIAN
from greylag_protocols.errors import VerificationError
from greylag_protocols.log import (
    ACCEPTANCE_KIND,
    GENESIS,
    AttemptRecord,
    ChainTip,
    entry_head,
    sign_acceptance,
    sign_closed,
    sign_receipt,
    sign_refusal,
    sign_round,
    sign_start,
    sign_void,
    sum_digest,
    verify_chained,
)
from greylag_protocols.signing import verify_statement

CONTEXT = b"\x0c" * 32


def _receipt(signer, tip, attempt=1, firm="a"):
    return sign_receipt(
        signer,
        tip,
        firm=firm,
        run="r-1",
        round_number=1,
        attempt=attempt,
        context=CONTEXT,
        roster_size=8,
        event_type=POISSON_GAUSSIAN,
        charged=attempt,
    )


@pytest.fixture
def chain(firm):
    """An acceptance, three receipts and a closed entry, and the tips after each."""
    entries = [
        sign_acceptance(firm, ChainTip(), firm="a", run="r-1", terms=bytes(32), epoch=1),
    ]
    tips = [ChainTip(), ChainTip().follow(entries[0], firm="a", identity_key=firm.public_key)]
    for attempt in (1, 2, 3):
        entries.append(_receipt(firm, tips[-1], attempt))
        tips.append(tips[-1].follow(entries[-1], firm="a", identity_key=firm.public_key))
    entries.append(sign_closed(firm, tips[-1], firm="a", run="r-1", terms=bytes(32), charged=3))
    tips.append(tips[-1].follow(entries[-1], firm="a", identity_key=firm.public_key))
    return entries, tips


def test_a_chain_is_followed_entry_by_entry(chain):
    entries, tips = chain
    assert tips[0].head == GENESIS
    assert [tip.seq for tip in tips] == [0, 1, 2, 3, 4, 5]
    assert [tip.head for tip in tips[1:]] == [entry_head(entry) for entry in entries]


def test_only_the_next_entry_follows(chain, firm):
    # Gap, replay, order: every entry but the next one is refused from every tip.
    entries, tips = chain
    for position, tip in enumerate(tips):
        for number, entry in enumerate(entries):
            if number == position:
                tip.follow(entry, firm="a", identity_key=firm.public_key)
            else:
                with pytest.raises(VerificationError, match="does not follow"):
                    tip.follow(entry, firm="a", identity_key=firm.public_key)


def test_a_fork_is_refused_by_whoever_saw_the_other_branch(chain, firm):
    _, tips = chain
    other = _receipt(firm, tips[1], attempt=9)
    branch = tips[1].follow(other, firm="a", identity_key=firm.public_key)
    assert branch.seq == tips[2].seq
    with pytest.raises(VerificationError, match="restored or copied"):
        tips[2].follow(_receipt(firm, branch), firm="a", identity_key=firm.public_key)


def test_another_firm_key_or_kind_is_refused(chain, firm, lead):
    _, tips = chain
    entry = _receipt(firm, tips[1])
    with pytest.raises(VerificationError, match="names 'a'"):
        tips[1].follow(entry, firm="b", identity_key=firm.public_key)
    with pytest.raises(VerificationError, match="not signed by"):
        tips[1].follow(entry, firm="a", identity_key=lead.public_key)
    refusal = sign_refusal(firm, firm="a", run="r-1", refusal_class="policy")
    with pytest.raises(VerificationError, match="not an entry of a firm's chain"):
        tips[1].follow(refusal, firm="a", identity_key=firm.public_key)
    with pytest.raises(VerificationError, match="not an entry of a firm's chain"):
        verify_chained(firm.sign("void/v1", "r-1", bytes(32), tips[1].link("a")), firm.public_key)


@pytest.mark.parametrize("seq", [True, 1.5, "1", None, [1], 2, 0])
def test_a_sequence_number_is_an_integer(firm, seq):
    link = {**ChainTip().link("a"), "seq": seq}
    entry = firm.sign(ACCEPTANCE_KIND, "r-1", bytes(32), link)
    with pytest.raises(VerificationError, match="does not follow"):
        ChainTip().follow(entry, firm="a", identity_key=firm.public_key)


@pytest.mark.parametrize("change", [{"prev": "00"}, {"prev": None}, {"prev": "0" * 63 + "1"}])
def test_a_wrong_predecessor_is_refused(firm, change):
    entry = firm.sign(ACCEPTANCE_KIND, "r-1", bytes(32), {**ChainTip().link("a"), **change})
    with pytest.raises(VerificationError, match="does not follow"):
        ChainTip().follow(entry, firm="a", identity_key=firm.public_key)


def test_an_entry_without_a_link_is_refused(firm):
    entry = firm.sign(ACCEPTANCE_KIND, "r-1", bytes(32), {})
    with pytest.raises(VerificationError):
        ChainTip().follow(entry, firm="a", identity_key=firm.public_key)


def test_what_the_coordinator_states_of_an_attempt(lead):
    tips = [ChainTip(seq=1, head=b"\x01" * 32), ChainTip(seq=4, head=b"\x02" * 32)]
    record = AttemptRecord(
        run="r-1", round_number=2, attempt=3, context=CONTEXT, roster=["a", "b"], tips=tips
    )
    envelope = sign_round(
        lead,
        record,
        model_in=b"\x03" * 32,
        state_out=b"\x04" * 32,
        sum_digest=sum_digest(b"\x05" * 8),
        grid_step=(1.25e-6).hex(),
        event_type=FIRM_GAUSSIAN,
    )
    statement = verify_statement(envelope, lead.public_key, "round/v1")
    assert statement.digest == CONTEXT
    assert statement.predicate["roster"][1] == {"firm": "b", "seq": 4, "head": "02" * 32}
    assert float.fromhex(statement.predicate["grid_step"]) == 1.25e-6
    void = sign_void(lead, record, missing=("b",))
    assert verify_statement(void, lead.public_key, "void/v1").predicate["missing"] == ["b"]
    with pytest.raises(ValueError, match="zip"):
        dataclasses.replace(record, tips=tips[:1]).predicate()


def test_a_refusal_tells_its_class_alone(firm):
    envelope = sign_refusal(firm, firm="a", run="r-1", refusal_class="policy")
    statement = verify_statement(envelope, firm.public_key, "refusal/v1")
    assert statement.predicate == {"firm": "a", "class": "policy"}


def test_the_start_names_whose_acceptances_seed_the_weights(lead):
    entries = [b"two", b"one"]
    envelope = sign_start(
        lead, run="r-1", terms=b"\x06" * 32, acceptances=entries, state=b"\x07" * 32
    )
    statement = verify_statement(envelope, lead.public_key, "start/v1")
    assert statement.digest == b"\x06" * 32
    heads = sorted(entry_head(entry).hex() for entry in entries)
    assert statement.predicate == {"run": "r-1", "acceptances": heads, "state": "07" * 32}

"""Other firms' words about one that has just started: who may say what, and what it is worth."""

import dataclasses

import pytest
from greylag_protocols.errors import VerificationError
from greylag_protocols.log import ChainTip
from greylag_protocols.log_view import LogView
from greylag_protocols.membership import Member, Membership, SignedMembership
from greylag_protocols.messages import Ask, Asking, Offer
from greylag_protocols.messages import (
    Seen as SeenMessage,
)
from greylag_protocols.parsing import parse_coordinator_message, parse_firm_message
from greylag_protocols.peers import Seen, count_peers, verify_seen
from greylag_protocols.signing import Ed25519Signer

NONCE, OTHER_NONCE = "aa" * 32, "bb" * 32
HEADS = {seq: bytes([seq]) * 32 for seq in range(1, 9)}
TIP = ChainTip(seq=8, head=HEADS[8])
SIGNERS = {name: Ed25519Signer(bytes([index + 1] * 32)) for index, name in enumerate("abcd")}
MEMBERSHIP = Membership(
    consortium="glass",
    lead="a",
    epoch=1,
    issued_s=0,
    expires_s=1,
    members=tuple(
        Member(
            name=name,
            operator=name,
            identity=signer.public_key.hex(),
            recovery=signer.public_key[::-1].hex(),
        )
        for name, signer in SIGNERS.items()
    ),
)


def _seen(by="b", seq=8, head=None, signer=None, **changes):
    facts = {"firm": by, "consortium": "glass", "about": "a", "nonce": NONCE, "seq": seq}
    seen = Seen(**(facts | changes))
    head = HEADS.get(seq, bytes(32)) if head is None else head
    return seen.sign(signer or SIGNERS[by], head)


def _count(*statements, tip=TIP, membership=MEMBERSHIP, max_colluding=3):
    return count_peers(
        statements,
        membership=membership,
        firm="a",
        nonce=NONCE,
        tip=tip,
        head_at=HEADS.get,
        max_colluding=max_colluding,
    )


def test_firms_that_saw_no_more_than_is_there_vouch():
    assert _count(_seen("b"), _seen("c", seq=3), _seen("d", seq=0)) == 3
    assert _count() == 0
    assert _count(_seen("b"), _seen("b", seq=2)) == 1  # one firm, one word


def test_an_operators_firms_count_as_far_as_they_could_stand_in_one_roster():
    hosted = [dataclasses.replace(item, operator="host") for item in MEMBERSHIP.members[1:]]
    membership = dataclasses.replace(MEMBERSHIP, members=(MEMBERSHIP.members[0], *hosted))
    words = [_seen(name) for name in "bcd"]
    for max_colluding in (1, 2, 3):
        found = _count(*words, membership=membership, max_colluding=max_colluding)
        assert found == max_colluding  # never more than may collude: nobody honest is shown
    led = dataclasses.replace(membership, lead="host")
    assert _count(*words, membership=led, max_colluding=2) == 2


def test_independent_firms_by_hand():
    def independent(operators, max_colluding, lead="lead"):
        members = tuple(
            dataclasses.replace(MEMBERSHIP.members[0], name=f"f-{index}", operator=operator)
            for index, operator in enumerate(operators)
        )
        membership = dataclasses.replace(MEMBERSHIP, lead=lead, members=members)
        return membership.independent([item.name for item in members], max_colluding)

    assert independent([], 2) == 0
    assert independent(["a", "b", "c"], 1) == 3
    assert independent(["a", "a", "a", "b"], 2) == 3
    assert independent(["lead", "lead", "a", "b"], 1) == 2  # the lead's or one other's, not both
    assert independent(["lead", "a", "b"], 2) == 3
    with pytest.raises(VerificationError, match="no firm 'z'"):
        MEMBERSHIP.independent(["a", "z"], 1)


@pytest.mark.parametrize(
    "statement",
    [_seen(seq=9), _seen(head=bytes(32)), _seen(seq=3, head=HEADS[4])],
    ids=["more", "another-last-entry", "another-early-entry"],
)
def test_a_ledger_that_was_set_back_or_copied_is_found_out(statement):
    with pytest.raises(VerificationError, match="restored from an old copy"):
        _count(_seen("c"), statement)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (_seen(nonce=OTHER_NONCE), "another question"),
        (_seen(about="c"), "another question"),
        (_seen("a"), "another question"),  # nobody vouches for itself
        (_seen(consortium="steel"), "another consortium"),
        (_seen("b", signer=SIGNERS["c"]), "not signed by"),
        (_seen("z", signer=SIGNERS["c"]), "no firm 'z'"),
        (_seen(seq=-1), "seq"),
        (_seen(nonce="x"), "nonce"),
        (SIGNERS["b"].sign("receipt/v1", "a", HEADS[8], {}), "missing"),
    ],
)
def test_words_that_answer_nothing_are_refused(statement, message):
    with pytest.raises(VerificationError, match=message):
        _count(statement)


def test_a_statement_is_about_its_subject():
    seen = dataclasses.asdict(verify_seen(_seen(), MEMBERSHIP)[0])
    moved = SIGNERS["b"].sign("seen/v1", "c", HEADS[8], seen)
    with pytest.raises(VerificationError, match="another consortium or firm"):
        verify_seen(moved, MEMBERSHIP)


ASK = Ask(run="r-1", firms=("a", "b"), nonces=(NONCE, OTHER_NONCE))


def test_the_messages_of_the_question_round_trip():
    assert parse_coordinator_message(ASK.encode()) == ASK
    asking = Asking(run="r-1", nonce=NONCE, log_size=2, seq=7)
    assert parse_firm_message(asking.encode()) == asking
    answer = SeenMessage(run="r-1", statements=(_seen(), b"", b"x"))
    assert parse_firm_message(answer.encode()) == answer


@pytest.mark.parametrize(
    "message",
    [
        dataclasses.replace(ASK, firms=("a",)),
        dataclasses.replace(ASK, nonces=("x", "y")),
        dataclasses.replace(ASK, firms=("A firm", "b")),
        Asking(run="r-1", nonce="short", log_size=0, seq=0),
        dataclasses.replace(ASK, firms=("a",) * 10_001, nonces=(NONCE,) * 10_001),
    ],
)
def test_malformed_questions_are_refused(message):
    parse = parse_coordinator_message if isinstance(message, Ask) else parse_firm_message
    with pytest.raises(VerificationError):
        parse(message.encode())


def test_more_statements_than_there_can_be_firms_are_refused():
    many = (b"",) * 10_001
    with pytest.raises(VerificationError, match="more statements"):
        parse_firm_message(SeenMessage(run="r-1", statements=many).encode())
    offer = Offer(
        run="r-1",
        next_attempt=1,
        seen=0,
        terms=b"",
        membership=SignedMembership(document=b"", statement=b""),
        log=LogView(first=0, leaves=(), root=bytes(32), signature=bytes(64)),
        peers=many,
        statements=many * 2,
    )
    with pytest.raises(VerificationError, match="more statements"):
        parse_coordinator_message(offer.encode())

"""The coordinator carries questions between firms: who is asked, and when it is enough."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from consortium_in_memory import Consortium, make_terms
from greylag_protocols.errors import VerificationError
from greylag_protocols.messages import Ask, Seen
from greylag_server.vouching import SPARE, Vouching

NONCES = {f"firm-{letter}": f"{letter}0" * 32 for letter in "abcdef"}


@pytest.fixture
def consortium(memory_path: Path) -> Consortium:
    return Consortium(memory_path, terms=make_terms(), firms=6)


@pytest.fixture
def vouching(consortium: Consortium) -> Vouching:
    return Vouching("small-1", membership=consortium.membership, needed=2)


def answer(consortium: Consortium, peer: str, ask: Ask) -> tuple[bytes, ...]:
    reply = consortium.firms[peer].participant.handle(ask)
    assert isinstance(reply, Seen)
    return reply.statements


def asked(vouching: Vouching, online: Iterable[str] = NONCES) -> dict[str, tuple[str, ...]]:
    return {peer: ask.firms for peer, ask in vouching.asks(online)}


def test_enough_answers_close_a_question(consortium: Consortium, vouching: Vouching) -> None:
    vouching.open("firm-a", NONCES["firm-a"])
    asks = vouching.asks(NONCES)
    assert [peer for peer, _ in asks] == ["firm-b", "firm-c", "firm-d", "firm-e"][: 2 + SPARE]
    peer, ask = asks[0]
    vouching.take(peer, answer(consortium, peer, ask))
    assert vouching.ready() == {}
    vouching.take(peer, answer(consortium, peer, ask))  # the same firm again is still one
    assert vouching.ready() == {}
    peer, ask = asks[1]
    vouching.take(peer, answer(consortium, peer, ask))
    ready = vouching.ready()
    assert len(ready["firm-a"]) == 2
    assert vouching.ready() == {}
    assert asked(vouching) == {}


def test_a_busy_firm_is_asked_about_all_that_wait_at_once(
    consortium: Consortium, vouching: Vouching
) -> None:
    """Firms that start together cost a few messages each, not one for every pair."""
    vouching.open("firm-a", NONCES["firm-a"])
    (_, first), *_ = vouching.asks(["firm-b"])
    for name in ("firm-c", "firm-d", "firm-e"):
        vouching.open(name, NONCES[name])
        assert asked(vouching, ["firm-b"]) == {}
    vouching.take("firm-b", answer(consortium, "firm-b", first))
    assert asked(vouching, ["firm-b"]) == {"firm-b": ("firm-c", "firm-d", "firm-e")}


def test_a_firm_that_is_lost_leaves_its_place_to_another(vouching: Vouching) -> None:
    vouching.open("firm-a", NONCES["firm-a"])
    assert len(asked(vouching, ["firm-b", "firm-c", "firm-d", "firm-e"])) == 2 + SPARE
    assert asked(vouching, ["firm-f"]) == {}
    vouching.drop("firm-c")
    assert asked(vouching, ["firm-f"]) == {"firm-f": ("firm-a",)}
    vouching.drop("firm-a")  # the asker itself: its question lapses
    assert vouching.ready() == {}


def test_a_firm_that_starts_once_more_asks_anew(consortium: Consortium, vouching: Vouching) -> None:
    vouching.open("firm-a", NONCES["firm-a"])
    (peer, old), *_ = vouching.asks(["firm-b"])
    vouching.open("firm-a", NONCES["firm-a"])  # the same start: nothing changes
    vouching.take(peer, answer(consortium, peer, old))
    vouching.open("firm-a", NONCES["firm-f"])
    assert vouching.ready() == {}
    vouching.take(peer, answer(consortium, peer, old))  # an answer to the old nonce counts nothing
    (_, new), *_ = vouching.asks(["firm-b"])
    assert new.nonces == (NONCES["firm-f"],)


def test_forged_words_are_refused(consortium: Consortium, vouching: Vouching) -> None:
    vouching.open("firm-a", NONCES["firm-a"])
    ask = Ask(run="small-1", firms=("firm-a",), nonces=(NONCES["firm-a"],))
    statements = answer(consortium, "firm-b", ask)
    with pytest.raises(VerificationError):
        vouching.take("firm-b", [statements[0][:-9] + b'AAAAAAA="}'])
    vouching.take("firm-c", statements)  # passed on by another: not its own word
    vouching.take("firm-b", statements)
    assert vouching.ready() == {}


def test_firms_of_one_operator_do_not_make_each_others_answers_enough(memory_path: Path) -> None:
    host = {f"firm-{letter}": "host" for letter in "bcde"}
    consortium = Consortium(memory_path, terms=make_terms(), firms=6, operators=host)
    vouching = Vouching("small-1", membership=consortium.membership, needed=2)
    vouching.open("firm-a", NONCES["firm-a"])
    for peer, ask in vouching.asks(list(host)):
        vouching.take(peer, answer(consortium, peer, ask))
    assert vouching.ready() == {}
    ((peer, ask),) = vouching.asks(["firm-f"])
    vouching.take(peer, answer(consortium, peer, ask))
    assert "firm-a" in vouching.ready()

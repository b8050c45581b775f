from dataclasses import replace

import pytest
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.errors import VerificationError
from greylag_protocols.log_view import (
    LogView,
    choose_cosigners,
    cosignatures_of,
    parse_view,
    show_log,
)
from greylag_protocols.merkle import Frontier, hash_leaf, root_of
from greylag_protocols.signing import Ed25519Signer

LEAD, OTHER = Ed25519Signer(bytes([1]) * 32), Ed25519Signer(bytes([2]) * 32)
LEAVES = [hash_leaf(bytes([number])) for number in range(30)]


def frontier(size: int) -> Frontier:
    edge = Frontier()
    for leaf in LEAVES[:size]:
        edge = edge.append(leaf)
    return edge


def view(first: int, size: int, leaves=LEAVES, signer=LEAD) -> LogView:
    checkpoint = Checkpoint(origin="glass", size=size, root=root_of(leaves[:size]))
    return show_log(signer, checkpoint, leaves[first:size])


def extend(shown: LogView, known: int, origin: str = "glass") -> Frontier:
    return shown.extend(frontier(known), origin=origin, lead_key=LEAD.public_key)


def test_a_log_that_grew_is_followed_wherever_the_view_begins():
    for size in range(31):
        for known in range(size + 1):
            for first in range(known + 1):
                shown = view(first, size)
                assert shown.size == size
                assert extend(shown, known) == frontier(size)
                assert shown.new_leaves(frontier(known)) == frozenset(LEAVES[known:size])


def test_a_view_in_a_message():
    shown = view(3, 9)
    assert parse_view(shown.blob()) == shown


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (view(0, 4), "shrank from 5 entries to 4"),
        (view(6, 9), "only those after 6 were shown"),
        (view(0, 9, leaves=[LEAVES[9], *LEAVES[1:]]), "does not hold what it held"),
        (view(0, 5, leaves=[*LEAVES[:4], LEAVES[9]]), "does not hold what it held"),
        (replace(view(5, 9), leaves=(*LEAVES[5:8], LEAVES[9])), "does not hold what it held"),
        (replace(view(5, 9), root=bytes(32)), "does not hold what it held"),
        (view(5, 9, signer=OTHER), "not signed by"),
    ],
)
def test_a_log_that_did_not_grow_out_of_the_known_one(shown, words):
    with pytest.raises(VerificationError, match=words):
        extend(shown, 5)


def test_the_signature_is_over_one_log():
    with pytest.raises(VerificationError, match="not signed by"):
        extend(view(5, 9), 5, origin="plastics")


def test_cosigners_are_few_and_nobody_s_choice():
    firms = [f"firm-{number:03d}" for number in range(60)]
    chosen = choose_cosigners(firms, context=b"one")
    assert len(chosen) == 16
    assert list(chosen) == sorted(chosen)
    assert set(chosen) < set(firms)
    assert choose_cosigners(firms[::-1], context=b"one") == chosen
    assert choose_cosigners(firms, context=b"two") != chosen
    assert choose_cosigners(firms[:3], context=b"one") == tuple(firms[:3])
    counts = dict.fromkeys(firms, 0)
    for number in range(300):
        for firm in choose_cosigners(firms, context=bytes([number % 256, number // 256])):
            counts[firm] += 1
    assert min(counts.values()) > 40  # 80 on average


def test_cosignatures_in_a_message():
    assert cosignatures_of(b"") == ()
    assert cosignatures_of(bytes(144)) == (bytes(72),) * 2
    with pytest.raises(VerificationError):
        cosignatures_of(bytes(73))

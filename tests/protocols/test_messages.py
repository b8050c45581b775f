import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.encoding import pack_frame, parse_frame
from greylag_protocols.errors import VerificationError
from greylag_protocols.log_view import LogView
from greylag_protocols.membership import SignedMembership
from greylag_protocols.messages import (
    Accepted,
    Close,
    Closed,
    Contribution,
    Cosigned,
    Offer,
    Refusal,
    Round,
    Show,
    SignedBatch,
)
from greylag_protocols.parsing import parse_coordinator_message, parse_firm_message
from greylag_protocols.round import Attempt, RosterKey, initial_seed, roster_keys_digest

KEYS = tuple(bytes([number]) * 32 for number in (1, 2, 3))
BATCH = SignedBatch(statement=b"signed", keys=KEYS)
VIEW = LogView(first=75, leaves=KEYS[:2], root=b"\x0a" * 32, signature=b"\x09" * 64)
WORD = b"\x0d" * 72
ROUND = Round(
    run="r-1",
    round_number=4,
    attempt=5,
    log=VIEW,
    cosigned=70,
    cosignatures=(b"\x0b" * 72, b"\x0c" * 72),
    roster=("a", "b", "c"),
    seen=(3, 0, 9),
    keys=KEYS,
    proofs=((KEYS[0],), (), (KEYS[1], KEYS[2])),
    batches=(b"first", b""),
    weights=np.array([1.5, -0.0, np.inf, np.nan], np.float32),
)
VECTOR = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)


def contribution(**changes) -> Contribution:
    facts = {"attempt": 3, "vector": VECTOR, "entries": (b"receipt",), "batch": None}
    return Contribution(**{"run": "r-1", "cosignature": WORD, **facts, **changes})


COORDINATOR_MESSAGES = [
    Offer(
        run="r-1",
        next_attempt=2,
        seen=1,
        terms=b"{}",
        membership=SignedMembership(document=b"doc", statement=b"st"),
        log=VIEW,
    ),
    Offer(
        run="r-1",
        next_attempt=2,
        seen=3,
        terms=b"{}",
        membership=SignedMembership(document=b"doc", statement=b"st"),
        log=VIEW,
        peers=(b"peer",),
        entries=(b"two", b"three"),
        past=(b"terms",),
        statements=(b"revoked", b"endorsed"),
    ),
    ROUND,
    Close(run="r-1", seen=2**53 - 1),
    Show(run="r-1", log=replace(VIEW, first=0, leaves=())),
]
FIRM_MESSAGES = [
    Accepted(run="r-1", log_size=9, cosignature=WORD, entries=(b"one", b"two"), batch=BATCH),
    Accepted(run="r-1", log_size=0, cosignature=b"", entries=(), batch=BATCH),
    contribution(),
    contribution(batch=BATCH),
    contribution(vector=VECTOR[:0], entries=(), cosignature=b""),
    Closed(run="r-1", entries=(b"closed",)),
    Closed(run="r-1", entries=()),
    Refusal(run="r-1", refusal_class="policy", statement=b"why"),
    Refusal(run="r-1", refusal_class="protocol", statement=b""),
    Cosigned(run="r-1", log_size=2**53 - 1, cosignature=WORD),
    Cosigned(run="r-1", log_size=0, cosignature=b""),
]


def _same(left, right) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.tobytes() == right.tobytes()
    return left == right and type(left) is type(right)


def _assert_equal(left, right):
    assert type(left) is type(right)
    for field in dataclasses.fields(left):
        ours, theirs = getattr(left, field.name), getattr(right, field.name)
        assert _same(ours, theirs), f"{field.name}: {ours!r} != {theirs!r}"


@pytest.mark.parametrize("message", COORDINATOR_MESSAGES, ids=lambda m: type(m).__name__)
def test_coordinator_messages_round_trip(message):
    _assert_equal(parse_coordinator_message(message.encode()), message)
    with pytest.raises(VerificationError):  # and no message of one side passes as the other's
        parse_firm_message(message.encode())


@pytest.mark.parametrize("message", FIRM_MESSAGES, ids=lambda m: type(m).__name__)
def test_firm_messages_round_trip(message):
    _assert_equal(parse_firm_message(message.encode()), message)
    with pytest.raises(VerificationError):
        parse_coordinator_message(message.encode())


def _altered(message, **changes) -> bytes:
    header, blobs = parse_frame(message.encode())
    for key, value in changes.items():
        if value is ...:
            del header[key]
        else:
            header[key] = value
    return pack_frame(header, [bytes(blob) for blob in blobs])


@pytest.mark.parametrize(
    "changes",
    [
        {"round": ...},
        {"round": -1},
        {"round": True},
        {"round": 1.5},
        {"round": "4"},
        {"attempt": 1e30},
        {"attempt": None},
        {"cosigned": -1},
        {"cosigned": ...},
        {"roster": ["a", "b"]},
        {"roster": ["a", "b", "c", "d"]},
        {"roster": ["a", "b", 3]},
        {"roster": "abc"},
        {"roster": ["a"] * 10_001},
        {"seen": [1, 2]},
        {"seen": [1, 2, -3]},
        {"seen": [1, 2, True]},
        {"proof_sizes": [1, 0, 1]},
        {"proof_sizes": [1, 0, 3]},
        {"proof_sizes": [2**53 - 1, 0, 2]},
        {"proof_sizes": [1, 0]},
        {"kind": "rounds"},
        {"kind": ["round"]},
        {"kind": None},
        {"run": 1},
        {"more": 1},
    ],
)
def test_hostile_round_headers_are_refused(changes):
    with pytest.raises(VerificationError):
        parse_coordinator_message(_altered(ROUND, **changes))


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (FIRM_MESSAGES[0], {"entries": 3}),
        (FIRM_MESSAGES[0], {"entries": 1}),
        (FIRM_MESSAGES[0], {"entries": -1}),
        (FIRM_MESSAGES[0], {"entries": 2**53 - 1}),
        (FIRM_MESSAGES[0], {"attempt": 1}),
        (FIRM_MESSAGES[2], {"attempt": ...}),
        (FIRM_MESSAGES[2], {"attempt": -1}),
        (FIRM_MESSAGES[2], {"entries": 0}),
        (FIRM_MESSAGES[2], {"entries": 2}),
        (FIRM_MESSAGES[3], {"entries": 2}),
        (FIRM_MESSAGES[5], {"entries": 0}),
        (FIRM_MESSAGES[5], {"attempt": 0}),
        (FIRM_MESSAGES[7], {"class": "budget"}),
        (FIRM_MESSAGES[7], {"class": ...}),
        (FIRM_MESSAGES[7], {"refusal_class": "policy"}),
        (FIRM_MESSAGES[7], {"text": "epsilon left: 0.3"}),
    ],
)
def test_hostile_firm_headers_are_refused(message, changes):
    with pytest.raises(VerificationError):
        parse_firm_message(_altered(message, **changes))


@pytest.mark.parametrize(
    "blobs",
    [
        [],
        [b""],
        [b"\x00" * 16, b"".join(KEYS), b"".join(KEYS), VIEW.blob()],
        [b"\x00" * 15, b"".join(KEYS), b"".join(KEYS), VIEW.blob(), b""],
        [b"\x00" * 16, b"".join(KEYS)[:-1], b"".join(KEYS), VIEW.blob(), b""],
        [b"\x00" * 16, b"".join(KEYS[:2]), b"".join(KEYS), VIEW.blob(), b""],
        [b"\x00" * 16, b"".join(KEYS), b"".join(KEYS)[:-1], VIEW.blob(), b""],
        [b"\x00" * 16, b"".join(KEYS), b"", VIEW.blob(), b""],
        [b"\x00" * 16, b"".join(KEYS), b"".join(KEYS), VIEW.blob()[:-1], b""],
        [b"\x00" * 16, b"".join(KEYS), b"".join(KEYS), VIEW.blob()[:103], b""],
        [b"\x00" * 16, b"".join(KEYS), b"".join(KEYS), b"\xff" + VIEW.blob()[1:], b""],
        [b"\x00" * 16, b"".join(KEYS), b"".join(KEYS), VIEW.blob(), bytes(71)],
        [b"\x00" * 16, b"".join(KEYS), b"".join(KEYS), VIEW.blob(), b"", *[b""] * 10_001],
    ],
)
def test_hostile_round_bodies_are_refused(blobs):
    header, _ = parse_frame(ROUND.encode())
    with pytest.raises(VerificationError):
        parse_coordinator_message(pack_frame(header, blobs))


@pytest.mark.parametrize("keys", [(), (bytes(32),) * 65])
def test_a_batch_of_no_keys_or_too_many_is_refused(keys):
    batch = SignedBatch(statement=b"", keys=keys)
    message = Accepted(run="r", log_size=0, cosignature=b"", entries=(), batch=batch)
    with pytest.raises(VerificationError, match="1 to 64"):
        parse_firm_message(message.encode())


def test_a_contribution_without_a_vector_is_refused():
    header, _ = parse_frame(FIRM_MESSAGES[2].encode())
    with pytest.raises(VerificationError, match="needs a vector"):
        parse_firm_message(pack_frame(header))


@pytest.mark.parametrize("message", [FIRM_MESSAGES[0], FIRM_MESSAGES[2], FIRM_MESSAGES[9]])
def test_a_cosignature_of_another_length_or_none_at_all(message):
    header, blobs = parse_frame(message.encode())
    for word in (b"\x0d" * 71, None):
        others = [word if bytes(blob) == WORD else bytes(blob) for blob in blobs]
        with pytest.raises(VerificationError):
            parse_firm_message(pack_frame(header, [blob for blob in others if blob is not None]))
    with pytest.raises(VerificationError):
        parse_firm_message(pack_frame(header))


def test_a_contribution_costs_four_bytes_a_weight():
    vector = np.zeros(100_000, np.uint32)
    encoded = contribution(vector=vector, entries=(b"x" * 800,)).encode()
    assert len(encoded) - 4 * len(vector) < 1200


ATTEMPT = Attempt(
    terms=b"\x01" * 32,
    run="r-1",
    round_number=1,
    attempt=2,
    model=b"\x02" * 32,
    checkpoint=Checkpoint(origin="glass", size=9, root=b"\x03" * 32),
    roster=(
        RosterKey(firm="a", key=KEYS[0], proof=()),
        RosterKey(firm="b", key=KEYS[1], proof=()),
    ),
)


def _roster(*entries):
    return tuple(RosterKey(firm=firm, key=key, proof=()) for firm, key in entries)


CHANGES = [
    {"terms": b"\x00" * 32},
    {"run": "r-2"},
    {"round_number": 2},
    {"attempt": 1},
    {"round_number": 2, "attempt": 1},
    {"model": b"\x00" * 32},
    {"checkpoint": Checkpoint(origin="steel", size=9, root=b"\x03" * 32)},
    {"checkpoint": Checkpoint(origin="glass", size=8, root=b"\x03" * 32)},
    {"checkpoint": Checkpoint(origin="glass", size=9, root=b"\x04" * 32)},
    {"roster": _roster(("a", KEYS[0]))},
    {"roster": _roster(("a", KEYS[0]), ("b", KEYS[2]))},
    {"roster": _roster(("a", KEYS[1]), ("b", KEYS[0]))},
    {"roster": _roster(("a", KEYS[0]), ("c", KEYS[1]))},
    {"roster": _roster(("a", KEYS[0]), ("b", KEYS[1]), ("c", KEYS[2]))},
    {"roster": _roster(("ab", KEYS[0]), ("b", KEYS[1]))},
]


def test_the_context_changes_with_every_field():
    assert {name for change in CHANGES for name in change} == set(Attempt.__slots__)
    contexts = [ATTEMPT.context()]
    contexts += [dataclasses.replace(ATTEMPT, **change).context() for change in CHANGES]
    assert len(set(contexts)) == len(contexts)
    assert all(len(context) == 32 for context in contexts)


def test_proofs_are_no_part_of_the_context():
    # They differ in nothing that matters: the key they lead to is bound.
    entry = dataclasses.replace(ATTEMPT.roster[0], proof=(bytes(32),))
    assert dataclasses.replace(ATTEMPT, roster=(entry, ATTEMPT.roster[1])).context() == (
        ATTEMPT.context()
    )


@pytest.mark.parametrize(
    "roster",
    [
        _roster(("b", KEYS[0]), ("a", KEYS[1])),
        _roster(("a", KEYS[0]), ("a", KEYS[1])),
        _roster(("a", KEYS[0]), ("b", KEYS[1]), ("c", KEYS[0])),  # one mask with both signs
    ],
)
def test_rosters_with_doubles_or_out_of_order_have_no_context(roster):
    with pytest.raises(VerificationError, match="roster"):
        dataclasses.replace(ATTEMPT, roster=roster).context()


def test_initial_seed_depends_on_every_acceptance_but_not_on_their_order():
    one, two = b"acceptance of a", b"acceptance of b"
    seed = initial_seed(bytes(32), [one, two])
    assert seed == initial_seed(bytes(32), [two, one])
    others = {
        initial_seed(bytes(32), [one]),
        initial_seed(bytes(32), [one, two, two]),
        initial_seed(bytes(31) + b"\x01", [one, two]),
        initial_seed(bytes(32), [one + two]),
    }
    assert len(others | {seed}) == 5


def test_a_round_message_is_about_one_attempt():
    attempt = ROUND.attempt_under(b"\x01" * 32, origin="glass")
    assert attempt.firms == ROUND.roster
    assert [item.key for item in attempt.roster] == list(ROUND.keys)
    assert (attempt.round_number, attempt.attempt) == (4, 5)
    assert attempt.checkpoint == Checkpoint(origin="glass", size=77, root=b"\x0a" * 32)
    other = dataclasses.replace(ROUND, weights=np.ones(4, np.float32))
    assert other.attempt_under(b"\x01" * 32, origin="glass").context() != attempt.context()


def test_the_digest_over_one_time_keys_is_that_of_the_roster_in_its_order():
    keys = [entry.key for entry in ATTEMPT.roster]
    assert ATTEMPT.keys_digest() == roster_keys_digest(keys)
    assert roster_keys_digest(keys[::-1]) != roster_keys_digest(keys)

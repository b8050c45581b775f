"""Attacks with frames that nobody honest would send.

- **Cut, garbled and random frames to a firm**: an error or a refusal, never another exception, and
  whatever of it is still a message gets one answer per attempt, paid like any other.
- **Counts that are negative, huge, no integer or no number**: refused by shape before any rule
  reads them. Without: an exception that no rule raised, which ends the agent.
- **Garbled answers from one firm to the coordinator**: they void its attempt, once; the next goes
  on without it and the sums are right. Without the check of a vector's length one firm ends the run
  for all.
"""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consortium_in_memory import Consortium, make_terms, run_on
from flwr.app import Message
from greylag_client.app import answer_frame, make_client_app, make_context
from greylag_protocols import log, parsing
from greylag_protocols.encoding import MAGIC
from greylag_protocols.errors import GreylagError, VerificationError
from greylag_protocols.messages import Ask, Close, Contribution, Refusal, Round
from greylag_protocols.parsing import parse_coordinator_message, parse_firm_message
from greylag_protocols.signing import parse_statement
from greylag_server.flight import Flight
from greylag_server.grid_messages import unwrap, wrap_reply
from greylag_server.roster import Firm as ServerFirm
from lying_lead import ALL, Lead
from numpy.typing import NDArray


@pytest.fixture
def lead(memory_path: Path) -> Lead:
    return Lead(Consortium(memory_path, terms=make_terms())).enter()


def ask(lead: Lead, frame: bytes) -> bytes | None:
    """What the victim's app answers to a frame; None if it cannot read it."""
    app, context = make_client_app(lead.victim.participant), make_context()
    try:
        return answer_frame(app, context, frame, train=True)
    except GreylagError:
        return None


def frames_of(lead: Lead) -> dict[str, bytes]:
    """One honest frame of each kind."""
    question = Ask(run=lead.run, firms=("firm-b",), nonces=("ab" * 32,))
    kinds = {"offer": lead.offer(), "ask": question, "round": lead.round(1)}
    return {name: item.encode() for name, item in kinds.items()}


# -- cut and garbled -------------------------------------------------------------------------------


def damaged(frame: bytes, rng: np.random.Generator) -> list[bytes]:
    cuts = [frame[:at] for at in (0, 3, 7, 8, 40, len(frame) // 2, len(frame) - 1)]
    grown = [frame + b"\0", frame * 2, MAGIC + rng.bytes(200), rng.bytes(len(frame))]
    garbled = []
    for _ in range(60):
        other = bytearray(frame)
        for at in rng.integers(0, len(frame), size=int(rng.integers(1, 4))):
            other[at] ^= 1 << int(rng.integers(0, 8))
        garbled.append(bytes(other))
    return cuts + grown + garbled


@pytest.mark.parametrize("kind", ["offer", "ask", "round"])
def test_damaged_frames_change_nothing_that_was_not_asked_for(lead: Lead, kind: str) -> None:
    accounts = lead.victim.ledger.accounts()
    answered = refused = unread = 0
    for frame in damaged(frames_of(lead)[kind], np.random.default_rng(7)):
        reply = ask(lead, frame)
        message = None if reply is None else parse_firm_message(reply)
        answered += isinstance(message, Contribution)
        refused += isinstance(message, Refusal)
        unread += message is None
    assert unread >= 11  # all that were cut or grown, or random
    # A flipped bit in the weights makes another model, and that is a question like any other. But
    # the attempt has one key: what came after it was refused.
    assert answered == len(lead.victim.receipts()) <= 1
    assert refused > 0 or kind == "ask"
    if kind != "round":
        assert lead.victim.ledger.accounts() == accounts
    lead.enter("firm-a")
    lead.answered(lead.round(2, 4))  # the agent is as before


# -- counts ----------------------------------------------------------------------------------------

NOT_COUNTS = ["-1", "1.5", "true", "null", '"1"', "NaN", "Infinity", "1e400", "9007199254740992",
              "1" * 30, "[1]", "{}"]  # fmt: skip


def with_raw(frame: bytes, key: str, value: str) -> bytes:
    """A frame whose header holds ``value``, as written, under ``key`` (in a list: first)."""
    size = int.from_bytes(frame[4:8], "big")
    header = json.loads(frame[8 : 8 + size])
    header[key] = ["@", *header[key][1:]] if isinstance(header[key], list) else "@"
    encoded = json.dumps(header).replace('"@"', value).encode()
    return MAGIC + len(encoded).to_bytes(4, "big") + encoded + frame[8 + size :]


def counts_of(lead: Lead) -> list[bytes]:
    frames = frames_of(lead)
    frames["close"] = Close(run=lead.run, seen=0).encode()
    places = {
        "offer": ("next_attempt", "seen", "peers", "blobs"),
        "round": ("attempt", "round", "cosigned", "seen", "proof_sizes", "blobs"),
        "close": ("seen",),
    }
    return [
        with_raw(frames[kind], key, value)
        for kind, keys in places.items()
        for key in keys
        for value in NOT_COUNTS
    ]


def test_what_is_no_count_is_refused_by_its_shape(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = counts_of(lead)
    before = lead.victim.ledger.tip(), lead.victim.ledger.accounts()
    for frame in frames:
        with pytest.raises(VerificationError):
            parse_coordinator_message(frame)
        assert ask(lead, frame) is None
    assert (lead.victim.ledger.tip(), lead.victim.ledger.accounts()) == before

    def trusting(cls: Callable[..., Any], value: dict[str, Any], *, what: str) -> Any:
        return cls(**value)

    monkeypatch.setattr(parsing, "parse_as", trusting)
    ended = 0
    for frame in frames:
        try:
            ask(lead, frame)
        except (TypeError, ValueError, OverflowError, AttributeError, sqlite3.Error):
            ended += 1
    assert ended > 20


def test_the_largest_count_buys_nothing(lead: Lead) -> None:
    most = 2**53 - 1
    for change in ({"attempt": most}, {"round_number": most}, {"seen": (most, 0, 0, 0)}):
        lead.refused(replace(lead.round(1), **change), "refused (protocol)")
    lead.enter("firm-a", next_attempt=most)
    assert len(lead.batches["firm-a"][0].keys) == 1  # not 64 for attempts that no terms allow
    lead.enter("firm-a")
    lead.answered(lead.round(1))


# -- to the coordinator ----------------------------------------------------------------------------

Spoil = Callable[[Contribution, bytes], bytes]


def shortened(words: int) -> Spoil:
    return lambda message, _: replace(message, vector=message.vector[:words]).encode()


SPOILS: dict[str, Spoil] = {
    "empty": lambda message, frame: b"",
    "cut": lambda message, frame: frame[:-1],
    "random": lambda message, frame: np.random.default_rng(1).bytes(len(frame)),
    "no vector": shortened(0),
    "one word": shortened(1),
    "two words": shortened(2),
    "no receipt": lambda message, _: replace(message, entries=()).encode(),
    "gap": lambda message, _: replace(message, entries=message.entries[-1:] * 2).encode(),
    "no run": lambda message, _: replace(message, run="other").encode(),
    "entries": lambda message, frame: with_raw(frame, "entries", "-1"),
    "nan": lambda message, frame: with_raw(frame, "attempt", "NaN"),
    "keys": lambda message, frame: frame.replace(b"contribution", b"accepted"),
}


def spoiled_run(
    root: Path, spoil: Spoil
) -> tuple[Consortium, Any, list[NDArray[np.int32]], list[log.ChainTip]]:
    """A run in whose second attempt ``firm-d`` answers what ``spoil`` makes of its answer."""
    consortium = Consortium(root, terms=make_terms())
    honest, sums = consortium.firms["firm-d"].answer, []

    def answer(message: Message) -> Message:
        request = parse_coordinator_message(unwrap(message))
        reply = honest(message)
        if not isinstance(request, Round) or request.attempt != 2:
            return reply
        frame = unwrap(reply)
        parsed = parse_firm_message(frame)
        assert isinstance(parsed, Contribution)
        return wrap_reply(spoil(parsed, frame), message)

    store = consortium.open_store()
    coordinator = consortium.coordinator(store, watch_sum=lambda item: sums.append(item.copy()))
    run_on(consortium.local_grid(firm_d=answer), coordinator)
    tips = [store.tip(name) for name in ALL]
    entries = [parse_statement(item) for item in store.entries()]
    return consortium, (coordinator, entries), sums, tips


@pytest.mark.parametrize("name", SPOILS)
def test_a_garbled_answer_voids_one_attempt_and_no_more(memory_path: Path, name: str) -> None:
    consortium, (coordinator, entries), sums, tips = spoiled_run(memory_path, SPOILS[name])
    assert (coordinator.status, coordinator.rounds_done, coordinator.attempts) == ("done", 4, 5)
    (void,) = [item for item in entries if item.kind == log.VOID_KIND]
    assert (void.predicate["attempt"], void.predicate["missing"]) == (2, ["firm-d"])
    rounds = [item for item in entries if item.kind == log.ROUND_KIND]
    for statement, total in zip(rounds, sums, strict=True):
        roster = [item["firm"] for item in statement.predicate["roster"]]
        put_in = [consortium.firms[firm].masks.put_in[statement.digest] for firm in roster]
        np.testing.assert_array_equal(total, np.sum(put_in, axis=0))
    assert tips[:3] == [consortium.firms[firm].ledger.tip() for firm in ALL[:3]]


def test_without_the_check_of_length_one_firm_ends_the_run(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trusting(self: Flight, firm: ServerFirm, message: Contribution, fresh: Any) -> None:
        self.entries.extend(fresh)
        self.words[firm.name] = message.cosignature
        np.add(self.total, message.vector, out=self.total)
        self.waiting.discard(firm.name)

    monkeypatch.setattr(Flight, "add", trusting)
    (memory_path / "one").mkdir()
    _, (coordinator, _), _, _ = spoiled_run(memory_path / "one", SPOILS["one word"])
    assert coordinator.rounds_done == 1  # it was added everywhere, and no mask went away
    (memory_path / "two").mkdir()
    with pytest.raises(ValueError, match="broadcast"):
        spoiled_run(memory_path / "two", SPOILS["two words"])

"""The coordinator, run through its ServerApp on a LocalGrid with real firms."""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consortium_in_memory import PATIENCE, RUN, Consortium, make_terms, run_on
from flwr.app import Message
from greylag_client.policy import Policy
from greylag_protocols import log
from greylag_protocols.endorsement import sign_endorsement
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.log import CHAINED_KINDS, ChainTip
from greylag_protocols.messages import Close, Contribution, Offer, Refusal, Round
from greylag_protocols.optimiser import ModelState, model_digest, take_step
from greylag_protocols.parameters import initial_weights
from greylag_protocols.parsing import parse_coordinator_message, parse_firm_message
from greylag_protocols.round import initial_seed
from greylag_protocols.signing import Statement, parse_statement, verify_statement
from greylag_protocols.terms import terms_digest
from greylag_server.app import say_goodbye
from greylag_server.coordinator import Coordinator
from greylag_server.grid_messages import unwrap, wrap_loss, wrap_reply
from greylag_server.roster import Firm as RosterFirm
from greylag_server.roster import candidates
from greylag_server.store import Store
from numpy.typing import NDArray

Answer = Callable[[Message], Message]


@pytest.fixture
def make_consortium(memory_path: Path) -> Callable[..., Consortium]:
    def make(**options: Any) -> Consortium:
        terms = options.pop("terms", None) or make_terms()
        return Consortium(memory_path, terms=terms, **options)

    return make


def statements(store: Store, *kinds: str) -> list[Statement]:
    found = [parse_statement(envelope) for envelope in store.entries()]
    return [item for item in found if not kinds or item.kind in kinds]


def follow_log(consortium: Consortium, store: Store) -> dict[str, ChainTip]:
    """Every firm's chain as the log holds it; raises where one is broken."""
    tips = {name: ChainTip() for name in consortium.firms}
    for envelope in store.entries():
        statement = parse_statement(envelope)
        if statement.kind in CHAINED_KINDS:
            name = statement.predicate["firm"]
            key = consortium.firms[name].signer.public_key
            tips[name] = tips[name].follow(envelope, firm=name, identity_key=key)
        elif statement.kind != log.REFUSAL_KIND:
            verify_statement(envelope, consortium.lead.public_key, statement.kind)
    return tips


def replay(consortium: Consortium, store: Store) -> ModelState:
    """The model from the log and its artefacts alone, as an auditor would."""
    terms, digest = consortium.terms, terms_digest(consortium.encoded)
    acceptances = [
        envelope
        for envelope in store.entries()
        if parse_statement(envelope).kind == log.ACCEPTANCE_KIND
    ]
    state = ModelState.start(initial_weights(initial_seed(digest, acceptances), terms.parameters))
    for statement in statements(store, log.ROUND_KIND):
        predicate = statement.predicate
        assert predicate["model_in"] == model_digest(state.published()).hex()
        content = store.artefact(bytes.fromhex(predicate["sum"]))
        assert content is not None
        assert log.sum_digest(content).hex() == predicate["sum"]
        state = take_step(
            state,
            np.frombuffer(content, dtype="<i4"),
            rule=terms.step_rule,
            grid_step=float.fromhex(predicate["grid_step"]),
            denominator=terms.denominator,
            noise_variance=terms.noise_variance(len(predicate["roster"])),
        )
        assert predicate["state_out"] == state.digest().hex()
    return state


def put_in(consortium: Consortium, context: bytes, roster: Sequence[str]) -> NDArray[np.int64]:
    """The sum of what the roster's firms laid on the ring in one context, before their masks."""
    vectors = [consortium.firms[name].masks.put_in[context] for name in roster]
    return np.sum(np.stack(vectors).astype(np.int64), axis=0)


def rosters(store: Store, kind: str = log.ROUND_KIND) -> list[tuple[str, ...]]:
    return [
        tuple(item["firm"] for item in statement.predicate["roster"])
        for statement in statements(store, kind)
    ]


def silent(answer: Answer, *attempts: int, after: bool = False) -> Answer:
    """A firm that is lost in some attempts, before or ``after`` it answered."""

    def flaky(message: Message) -> Message:
        request = parse_coordinator_message(unwrap(message))
        if not isinstance(request, Round) or request.attempt not in attempts:
            return answer(message)
        if after:
            answer(message)
        return wrap_loss("gone", message)

    return flaky


# -- whole runs ------------------------------------------------------------------------------------


def test_a_whole_run_adds_up_to_the_integer(make_consortium: Callable[..., Consortium]) -> None:
    consortium = make_consortium()
    store, sums = consortium.open_store(), []
    coordinator = consortium.coordinator(store, watch_sum=lambda item: sums.append(item.copy()))
    run_on(consortium.local_grid(), coordinator)
    assert (coordinator.status, coordinator.reason) == ("done", "")
    assert (coordinator.rounds_done, coordinator.attempts) == (4, 4)
    assert coordinator.settled
    rounds = statements(store, log.ROUND_KIND)
    assert [item.predicate["round"] for item in rounds] == [1, 2, 3, 4]
    assert rosters(store) == [tuple(consortium.firms)] * 4
    for statement, total in zip(rounds, sums, strict=True):
        expected = put_in(consortium, statement.digest, tuple(consortium.firms))
        np.testing.assert_array_equal(total, expected)
        assert np.any(total)
    record = store.run(consortium.terms.run_id)
    assert record.state is not None
    assert replay(consortium, store).digest() == record.state.digest()
    assert record.status == "done"
    for name, tip in follow_log(consortium, store).items():
        assert tip == consortium.firms[name].ledger.tip() == store.tip(name)
        assert tip.seq == 6  # acceptance, four receipts, closed


def test_keys_are_renewed_when_a_batch_runs_out(
    make_consortium: Callable[..., Consortium],
) -> None:
    """More attempts than a batch has keys; a firm that dropped out is back at round 51 and no
    earlier."""
    consortium = make_consortium(terms=make_terms(rounds=66, max_attempts=68))
    away = consortium.firms["firm-b"]
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    run_on(consortium.local_grid(firm_b=silent(away.answer, 2)), coordinator)
    assert (coordinator.status, coordinator.rounds_done) == ("done", 66)
    assert coordinator.attempts == 67
    sizes = [len(roster) for roster in rosters(store)]
    assert sizes == [4] + [3] * 49 + [4] * 16
    assert replay(consortium, store).rounds_done == 66
    assert len(consortium.firms["firm-a"].receipts()) == 67
    assert len(away.receipts()) == 17


# -- lost firms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
def test_a_lost_firm_voids_the_attempt_and_the_next_roster_is_smaller(
    make_consortium: Callable[..., Consortium], after: bool
) -> None:
    consortium = make_consortium()
    names = tuple(consortium.firms)
    store, sums = consortium.open_store(), []
    coordinator = consortium.coordinator(store, watch_sum=lambda item: sums.append(item.copy()))
    lost = silent(consortium.firms["firm-c"].answer, 2, after=after)
    run_on(consortium.local_grid(firm_c=lost), coordinator)
    assert (coordinator.status, coordinator.rounds_done) == ("done", 4)
    assert coordinator.attempts == 5
    (void,) = statements(store, log.VOID_KIND)
    assert void.predicate["missing"] == ["firm-c"]
    assert (void.predicate["round"], void.predicate["attempt"]) == (2, 2)
    rest = ("firm-a", "firm-b", "firm-d")
    assert rosters(store) == [names, rest, rest, rest]
    assert rosters(store, log.VOID_KIND) == [names]
    attempts = [item.predicate["attempt"] for item in statements(store, log.ROUND_KIND)]
    assert attempts == [1, 3, 4, 5]
    # Everybody paid for the void attempt, and for a wholly fresh contribution after it.
    assert len(consortium.firms["firm-a"].receipts()) == 5
    assert len(consortium.firms["firm-c"].receipts()) == 1 + after
    masks = consortium.firms["firm-a"].masks.put_in
    retry = statements(store, log.ROUND_KIND)[1]
    assert not np.array_equal(masks[void.digest], masks[retry.digest])
    np.testing.assert_array_equal(sums[1], put_in(consortium, retry.digest, rest))
    tips = follow_log(consortium, store)
    assert tips["firm-c"] == consortium.firms["firm-c"].ledger.tip()  # its receipt came with closed
    record = store.run(consortium.terms.run_id)
    assert record.state is not None
    assert replay(consortium, store).digest() == record.state.digest()


def test_too_few_firms_end_the_run_early(make_consortium: Callable[..., Consortium]) -> None:
    consortium = make_consortium(firms=3)
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    lost = silent(consortium.firms["firm-c"].answer, 3)
    stop = threading.Event()

    def hurry(seen: Coordinator) -> None:
        if seen.attempts == 3:
            stop.set()

    run_on(consortium.local_grid(firm_c=lost), coordinator, watch=hurry, stop=stop)
    assert coordinator.status == "training"
    assert coordinator.rounds_done == 2
    sends = coordinator.deadline()  # nobody came in time
    assert coordinator.status == "closing"
    assert coordinator.reason == "only 2 firms left; min_firms is 3"
    assert len(sends) >= 2


def test_max_attempts_used_up_ends_the_run_and_says_so(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium(terms=make_terms(rounds=4, max_attempts=5), firms=5)
    lost_b = silent(consortium.firms["firm-b"].answer, 1)
    lost_c = silent(consortium.firms["firm-c"].answer, 3)
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    run_on(consortium.local_grid(firm_b=lost_b, firm_c=lost_c), coordinator)
    assert coordinator.status == "done"
    assert coordinator.rounds_done == 3
    assert coordinator.reason == "max_attempts used up after 5 attempts"
    assert store.run(consortium.terms.run_id).reason == coordinator.reason
    assert max(len(firm.receipts()) for firm in consortium.firms.values()) == 5
    assert coordinator.settled


def test_a_firm_that_refuses_stays_out_and_its_refusal_is_logged(
    make_consortium: Callable[..., Consortium],
) -> None:
    """A policy that allows no change of roster: the firm ends its part after the first."""
    strict = Policy(lifetime_epsilon=1e3, max_epsilon_per_run=1e3, max_roster_changes=0)
    consortium = make_consortium(firms=5, policies={"firm-a": strict})
    lost = silent(consortium.firms["firm-e"].answer, 2)
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    run_on(consortium.local_grid(firm_e=lost), coordinator)
    assert (coordinator.status, coordinator.rounds_done) == ("done", 4)
    (refusal,) = statements(store, log.REFUSAL_KIND)
    assert refusal.predicate == {"firm": "firm-a", "class": "policy"}
    assert rosters(store)[1:] == [("firm-b", "firm-c", "firm-d")] * 3
    assert len(consortium.firms["firm-a"].receipts()) == 2


def test_firms_that_do_not_accept_do_not_hold_the_run_up(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium(policies={"firm-d": Policy(lifetime_epsilon=1.0)})
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    sends = [send for name in consortium.firms for send in coordinator.appeared(name)]
    while sends:
        send = sends.pop(0)
        assert not send.is_round
        reply = consortium.firms[send.firm].participant.handle(
            parse_coordinator_message(send.frame)
        )
        sends += coordinator.receive(send.firm, reply.encode())
    assert (coordinator.status, coordinator.accepted) == ("offering", 3)
    first = coordinator.deadline()
    assert coordinator.status == "training"
    assert [send.firm for send in first] == ["firm-a", "firm-b", "firm-c"]
    assert consortium.firms["firm-d"].ledger.accounts() == []


# -- rosters ---------------------------------------------------------------------------------------


def roster_firm(name: str, **changes: Any) -> RosterFirm:
    firm = RosterFirm(name=name, identity_key=bytes(32), tip=ChainTip(), accepted=True, online=True)
    for field, value in changes.items():
        setattr(firm, field, value)
    return firm


@pytest.mark.parametrize(
    ("rounds_done", "last", "retrying", "expected"),
    [
        (0, (), False, ["a", "b", "c"]),
        (1, ("a", "b"), False, ["a", "b"]),
        (49, ("a", "b"), False, ["a", "b"]),
        (50, ("a", "b"), False, ["a", "b", "c"]),
        (50, ("a", "b"), True, ["a", "b"]),
        (51, ("a", "b"), False, ["a", "b"]),
        (100, ("a",), False, ["a", "b", "c"]),
        (0, (), True, []),
    ],
)
def test_who_may_be_in_the_next_roster(
    rounds_done: int, last: tuple[str, ...], retrying: bool, expected: list[str]
) -> None:
    firms = [
        roster_firm("c"),
        roster_firm("a"),
        roster_firm("b", voids=1),
        roster_firm("d", voids=2),  # two voids and out
        roster_firm("e", online=False),
        roster_firm("f", refused=True),
        roster_firm("g", accepted=False),
    ]
    found = candidates(firms, last=last, rounds_done=rounds_done, retrying=retrying)
    assert [item.name for item in found] == expected


# -- by hand ---------------------------------------------------------------------------------------


class Table:
    """Coordinator and firms, one message at a time; what is ``held`` is not delivered."""

    def __init__(self, consortium: Consortium, coordinator: Coordinator) -> None:
        self.consortium = consortium
        self.coordinator = coordinator
        self.frames: list[tuple[str, bytes]] = []

    def begin(self) -> "Table":
        for name in self.consortium.firms:
            self.deliver(self.coordinator.appeared(name), rounds=False)
        return self

    def deliver(self, sends: Sequence[Any], *, rounds: bool = True, hold: str = "") -> None:
        """Hand messages over, and answers back, until nothing is left."""
        queue = list(sends)
        while queue:
            send = queue.pop(0)
            if send.is_round:
                self.frames.append((send.firm, send.frame))
            if send.firm == hold or (send.is_round and not rounds):
                continue
            queue += self.coordinator.receive(send.firm, self.answer(send.firm, send.frame))

    def answer(self, name: str, frame: bytes) -> bytes:
        firm = self.consortium.firms[name]
        return firm.participant.handle(parse_coordinator_message(frame)).encode()


def test_a_coordinator_that_crashes_resumes_the_same_attempt(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    table = Table(consortium, consortium.coordinator(store)).begin()
    frames = dict(table.frames)
    assert len(set(frames.values())) == 1
    for name in ("firm-a", "firm-b"):  # two have answered when the process dies
        table.coordinator.receive(name, table.answer(name, frames[name]))
    assert len(consortium.firms["firm-a"].receipts()) == 1
    store.close()

    store, sums = consortium.open_store(), []
    again = consortium.coordinator(store, watch_sum=lambda item: sums.append(item.copy()))
    assert (again.status, again.attempts, again.rounds_done) == ("training", 1, 0)
    sent: list[tuple[str, bytes]] = []
    for name in consortium.firms:
        sends = again.appeared(name)
        sent += [(send.firm, send.frame) for send in sends]
    assert dict(sent) == frames  # byte for byte
    for name, frame in sent:
        again.receive(name, table.answer(name, frame))
    assert again.rounds_done == 1
    for name, firm in consortium.firms.items():
        assert len(firm.receipts()) == 1, name  # those that had answered paid nothing more
    context = statements(store, log.ROUND_KIND)[0].digest
    np.testing.assert_array_equal(sums[0], put_in(consortium, context, tuple(frames)))


def test_after_a_crash_the_run_goes_on_to_its_end(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    grid, stop = consortium.local_grid(), threading.Event()
    store = consortium.open_store()
    first = consortium.coordinator(store)
    run_on(grid, first, watch=lambda seen: stop.set() if seen.attempts >= 2 else None, stop=stop)
    assert first.status == "training"
    store.close()
    store = consortium.open_store()
    second = consortium.coordinator(store)
    run_on(grid, second)
    assert (second.status, second.rounds_done) == ("done", 4)
    attempts = [item.predicate["attempt"] for item in statements(store, log.ROUND_KIND)]
    assert attempts == sorted(set(attempts))
    for firm in consortium.firms.values():
        numbers = [item["attempt"] for item in firm.receipts()]
        assert numbers == attempts
    assert follow_log(consortium, store)["firm-a"] == consortium.firms["firm-a"].ledger.tip()
    assert replay(consortium, store).rounds_done == 4


def test_a_firm_and_the_coordinator_that_both_restart_void_the_attempt(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    table = Table(consortium, consortium.coordinator(store)).begin()
    table.answer("firm-b", dict(table.frames)["firm-b"])  # the answer is lost with the process
    consortium.firms["firm-b"].restart()
    store.close()
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    run_on(consortium.local_grid(), coordinator)
    assert (coordinator.status, coordinator.rounds_done) == ("done", 4)
    (void,) = statements(store, log.VOID_KIND)
    assert void.predicate["missing"] == ["firm-b"]
    assert follow_log(consortium, store)["firm-b"] == consortium.firms["firm-b"].ledger.tip()


def test_a_firm_that_comes_back_does_not_join_a_retry(
    make_consortium: Callable[..., Consortium],
) -> None:
    """Not even in round 1, which firms may otherwise join: the next roster is strictly smaller."""
    consortium = make_consortium(firms=5)
    store = consortium.open_store()
    table = Table(consortium, consortium.coordinator(store)).begin()
    for name in ("firm-d", "firm-e"):
        table.deliver(table.coordinator.lost(name), rounds=False)
        assert table.coordinator.appeared(name) == []
    assert table.coordinator.roster == ("firm-a", "firm-b", "firm-c")
    assert [len(roster) for roster in rosters(store, log.VOID_KIND)] == [5, 4]


def test_two_voids_and_out(make_consortium: Callable[..., Consortium]) -> None:
    """The deadline voids; the second void of one firm is its last, even at a rejoining round."""
    consortium = make_consortium(firms=5)
    store = consortium.open_store()
    table = Table(consortium, consortium.coordinator(store)).begin()
    assert len(table.frames) == 5
    table.deliver(table.coordinator.deadline(), rounds=False)  # all five voided attempt 1
    participants = store.participants(consortium.terms.run_id)
    assert [item.voids for item in participants] == [1] * 5
    with store.transaction():
        store.count_void(consortium.terms.run_id, "firm-e")
    again = consortium.coordinator(store)
    for firm in again._firms.values():
        firm.online = True
    able = candidates(again._firms.values(), last=(), rounds_done=50, retrying=False)
    assert [item.name for item in able] == ["firm-a", "firm-b", "firm-c", "firm-d"]


def test_masks_that_do_not_cancel_end_the_run(
    make_consortium: Callable[..., Consortium],
) -> None:
    """A firm that sends noise at will: nobody can tell who, so no roster would be better."""
    consortium = make_consortium()
    honest = consortium.firms["firm-b"].answer

    def spoil(message: Message) -> Message:
        reply = honest(message)
        contribution = parse_firm_message(unwrap(reply))
        if not isinstance(contribution, Contribution):
            return reply
        vector = np.random.default_rng(1).integers(0, 2**32, 50, dtype=np.uint32)
        return wrap_reply(replace(contribution, vector=vector).encode(), message)

    store, sums = consortium.open_store(), []
    coordinator = consortium.coordinator(store, watch_sum=sums.append)
    run_on(consortium.local_grid(firm_b=spoil), coordinator)
    assert coordinator.status == "failed"
    assert "the masks did not cancel" in coordinator.reason
    assert sums == []
    (void,) = statements(store, log.VOID_KIND)
    assert void.predicate["missing"] == []
    assert follow_log(consortium, store)["firm-b"] == consortium.firms["firm-b"].ledger.tip()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda item: replace(item, vector=item.vector[:-1]),
        lambda item: replace(item, entries=()),
        lambda item: replace(item, entries=item.entries[:-1] * 2),
        lambda item: replace(item, run="another"),
    ],
)
def test_an_answer_out_of_protocol_voids_the_attempt(
    make_consortium: Callable[..., Consortium], spoil: Callable[[Contribution], Contribution]
) -> None:
    consortium = make_consortium(firms=5)
    store = consortium.open_store()
    table = Table(consortium, consortium.coordinator(store)).begin()
    name, frame = table.frames[1]
    reply = parse_firm_message(table.answer(name, frame))
    assert isinstance(reply, Contribution)
    before = len(table.frames)
    table.deliver(table.coordinator.receive(name, spoil(reply).encode()), rounds=False)
    (void,) = statements(store, log.VOID_KIND)
    assert void.predicate["missing"] == [name]
    again = {firm for firm, _ in table.frames[before:]}
    assert again == set(consortium.firms) - {name}
    follow_log(consortium, store)


def test_garbage_from_a_firm_voids_the_attempt(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    table = Table(consortium, consortium.coordinator(store)).begin()
    table.coordinator.receive("firm-a", b"garbage")
    assert [item.predicate["missing"] for item in statements(store, log.VOID_KIND)] == [["firm-a"]]


def test_an_answer_counts_once(make_consortium: Callable[..., Consortium]) -> None:
    consortium = make_consortium()
    store, sums = consortium.open_store(), []
    coordinator = consortium.coordinator(store, watch_sum=lambda item: sums.append(item.copy()))
    table = Table(consortium, coordinator).begin()
    frames = dict(table.frames)
    answers = {name: table.answer(name, frame) for name, frame in frames.items()}
    coordinator.receive("firm-a", answers["firm-a"])
    for name, answer in answers.items():
        coordinator.receive(name, answer)
    context = statements(store, log.ROUND_KIND)[0].digest
    np.testing.assert_array_equal(sums[0], put_in(consortium, context, tuple(frames)))


def test_a_late_answer_is_logged_and_not_added(
    make_consortium: Callable[..., Consortium],
) -> None:
    """The receipt was paid for; the vector belongs to an attempt that is void."""
    consortium = make_consortium()
    store, sums = consortium.open_store(), []
    coordinator = consortium.coordinator(store, watch_sum=lambda item: sums.append(item.copy()))
    table = Table(consortium, coordinator).begin()
    frames = dict(table.frames)
    late = {name: table.answer(name, frame) for name, frame in frames.items()}
    table.frames.clear()
    table.deliver(coordinator.lost("firm-d"), rounds=False)
    retry = dict(table.frames)
    assert set(retry) == {"firm-a", "firm-b", "firm-c"}
    for name, answer in late.items():
        assert coordinator.receive(name, answer) == []
        assert store.tip(name) == consortium.firms[name].ledger.tip()
    for name, frame in retry.items():
        coordinator.receive(name, table.answer(name, frame))
    (first,) = statements(store, log.ROUND_KIND)
    np.testing.assert_array_equal(sums[0], put_in(consortium, first.digest, tuple(retry)))


def test_a_round_that_cannot_be_stored_leaves_everything_as_it_was(
    make_consortium: Callable[..., Consortium],
) -> None:
    """The disk is full at the commit: after a restart the attempt is simply taken up again."""
    consortium = make_consortium()
    store = consortium.open_store()
    table = Table(consortium, consortium.coordinator(store)).begin()
    frames = dict(table.frames)
    before = store.checkpoint()
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    *others, last = frames.items()
    for name, frame in others:
        table.coordinator.receive(name, table.answer(name, frame))
    answer = table.answer(*last)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        table.coordinator.receive(last[0], answer)
    assert store.checkpoint() == before
    record = store.run(consortium.terms.run_id)
    assert (record.rounds_done, record.frame) == (0, frames["firm-a"])
    store.close()
    store = consortium.open_store()
    again = consortium.coordinator(store)
    run_on(consortium.local_grid(), again)
    assert (again.status, again.rounds_done, again.attempts) == ("done", 4, 4)
    assert [len(firm.receipts()) for firm in consortium.firms.values()] == [4] * 4


def test_an_acceptance_that_another_firm_signed_is_refused(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    (offer,) = coordinator.appeared("firm-a")
    other = consortium.firms["firm-b"].participant
    request = parse_coordinator_message(offer.frame)
    assert isinstance(request, Offer)
    coordinator.receive("firm-a", other.handle(request).encode())
    assert coordinator.accepted == 0
    assert store.participants(consortium.terms.run_id) == []
    assert store.tip("firm-a") == ChainTip()


def test_firms_that_were_away_at_the_end_close_later(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium(terms=make_terms(rounds=2, max_attempts=4))
    store = consortium.open_store()
    away = silent(consortium.firms["firm-d"].answer, 2)

    def vanish(message: Message) -> Message:
        request = parse_coordinator_message(unwrap(message))
        return wrap_loss("gone", message) if isinstance(request, Close) else away(message)

    coordinator = consortium.coordinator(store)
    hasty = replace(PATIENCE, close_s=0.0)
    run_on(consortium.local_grid(firm_d=vanish), coordinator, patience=hasty)
    assert coordinator.status == "done"
    assert not coordinator.settled
    account = consortium.firms["firm-d"].ledger.account(consortium.terms.run_id)
    assert account is not None
    assert not account.closed
    later = consortium.coordinator(store)
    say_goodbye(consortium.local_grid(), later, PATIENCE)
    assert later.settled
    assert consortium.coordinator(store).settled
    assert follow_log(consortium, store)["firm-d"] == consortium.firms["firm-d"].ledger.tip()


def test_a_run_without_a_membership_does_not_start(
    make_consortium: Callable[..., Consortium],
) -> None:
    consortium = make_consortium()
    store = consortium.open_store()
    record = replace(store.run(consortium.terms.run_id), membership=None)
    with pytest.raises(ConfigError, match="never opened"):
        Coordinator(
            record,
            terms=consortium.terms,
            membership=consortium.membership,
            signer=consortium.lead,
            store=store,
        )


def test_a_forged_chain_does_not_verify(make_consortium: Callable[..., Consortium]) -> None:
    """``follow_log`` above can fail: with one entry left out it does."""
    consortium = make_consortium(terms=make_terms(rounds=1, max_attempts=2))
    store = consortium.open_store()
    run_on(consortium.local_grid(), consortium.coordinator(store))
    entries = [
        item for item in store.entries() if parse_statement(item).predicate.get("firm") == "firm-a"
    ]
    key = consortium.firms["firm-a"].signer.public_key
    tip = ChainTip().follow(entries[0], firm="firm-a", identity_key=key)
    with pytest.raises(VerificationError, match="does not follow"):
        tip.follow(entries[2], firm="firm-a", identity_key=key)


def test_a_firm_that_refused_is_asked_again_when_the_list_is_endorsed(memory_path: Path) -> None:
    consortium = Consortium(memory_path, terms=make_terms())
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    assert len(coordinator.appeared("firm-d")) == 1
    refusal = log.sign_refusal(
        consortium.firms["firm-d"].signer, firm="firm-d", run=RUN, refusal_class="policy"
    )
    frame = Refusal(run=RUN, refusal_class="policy", statement=refusal).encode()
    coordinator.receive("firm-d", frame)
    assert coordinator.reconsider() == []
    word = sign_endorsement(consortium.firms["firm-a"].signer, consortium.membership, by="firm-a")
    digest = consortium.membership.digest()
    with store.transaction():
        assert store.add_endorsement(word, digest)
        assert not store.add_endorsement(word, digest)
    (again,) = coordinator.reconsider()
    message = parse_coordinator_message(again.frame)
    assert again.firm == "firm-d"
    assert isinstance(message, Offer)
    assert message.statements == (word,)
    assert coordinator.reconsider() == []
    store.close()


def test_a_firm_that_paused_comes_back_at_a_rejoining_round(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("greylag_server.coordinator", "greylag_server.roster"):
        monkeypatch.setattr(f"{module}.REJOIN_EVERY", 2)
    monkeypatch.setattr("greylag_client.attempt_rules.REJOIN_EVERY", 2)
    consortium = Consortium(memory_path, terms=make_terms(rounds=5, max_attempts=8))
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    firm = consortium.firms["firm-d"]
    generous = firm.policy
    rosters: dict[int, tuple[str, ...]] = {}

    def watch(state: Coordinator) -> None:
        rosters[state.attempts] = state.roster
        firm.policy = replace(generous, paused=state.rounds_done == 1)

    run_on(consortium.local_grid(), coordinator, watch=watch)
    sizes = [len(roster) for number, roster in sorted(rosters.items()) if number]
    assert (coordinator.status, coordinator.rounds_done) == ("done", 5)
    # It refuses in round 3, which is repeated without it; before round 5 it is asked again.
    assert sizes == [4, 4, 4, 3, 3, 4]
    store.close()

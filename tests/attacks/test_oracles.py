"""Attacks that read a firm's data off how it behaves: by failing, by range, by time.

``firm-a`` is the victim; "without" is the same attack with one rule taken out.

- **Exception**: an engine that breaks on one record sends noise all the same, in a message like any
  other. Without: whether an answer comes says, attempt for attempt, if the record was sampled.
- **Range**: a record with values of 1e12 is clipped like any other, and the sum decodes. Without
  clipping it is the sum that fails, and the run with it: one bit, whatever the noise.
- **Time**: the work is the same for a sample of nothing and of everything, also where gradients
  overflow; the answer leaves at a public offset. Without padding the shapes of the arithmetic are
  the sample's size; a second pass for what overflows adds to it; without offset, or if the lead
  could say that its round is no round, the clock tells.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attacks.machines import Sums, Tripwire, Units, Weights, answered, tripwire_lead
from consortium_in_memory import make_records, make_terms
from greylag_client import app, contribution
from greylag_client.app import answer_frame, make_client_app, make_context
from greylag_client.engine import make_engine
from greylag_client.gate import Gate
from greylag_client.session import ClippedSums
from greylag_protocols.errors import VerificationError
from greylag_protocols.messages import Contribution, FirmMessage, Refusal, Round
from greylag_protocols.parsing import parse_firm_message
from greylag_protocols.terms import Terms
from lying_lead import ALL, Lead
from torch.utils._python_dispatch import TorchDispatchMode

# -- by exception ----------------------------------------------------------------------------------


def breaks(_: Sums) -> Sums:
    raise RuntimeError("no convergence")


def test_an_engine_that_breaks_on_a_record_tells_nobody(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (memory_path / "without").mkdir()
    lead, engine = tripwire_lead(memory_path, breaks)
    frames = [lead.answered(lead.round(attempt)).encode() for attempt in range(1, 9)]
    assert len(set(engine.sampled)) == 2  # it did break, and not always
    others = [
        answered(lead.consortium.firms["firm-b"].participant, lead.round(attempt)).encode()
        for attempt in range(1, 9)
    ]
    assert list(map(len, frames)) == list(map(len, others))

    def unguarded(
        terms: Terms, engine: ClippedSums, weights: Weights, secret: bytes, context: bytes
    ) -> Sums:
        units = contribution.sample_units(
            secret, context, units=len(engine), rate=0.3, cap=terms.batch_cap
        )
        return engine.clipped_sum(weights, units)

    monkeypatch.setattr(contribution, "_clipped_sum", unguarded)
    lead, engine = tripwire_lead(memory_path / "without", breaks)
    silent = []
    for attempt in range(1, 9):
        try:
            lead.answered(lead.round(attempt))
            silent.append(False)
        except RuntimeError:
            silent.append(True)
    assert silent == engine.sampled  # 8 bits of 8: when the record was in the sample


# -- by range --------------------------------------------------------------------------------------


def decodes(lead: Lead, attempt: int) -> bool:
    """Whether the sum over all firms is one that honest firms can make."""
    terms, message = lead.consortium.terms, lead.round(attempt)
    total = np.zeros(terms.dimension, dtype=np.uint32)
    for firm in lead.consortium.firms.values():
        total += answered(firm.participant, message).vector
    try:
        terms.grid(len(ALL)).decode(total)
    except VerificationError:
        return False
    return True


def test_a_huge_record_is_clipped_and_the_sum_decodes(memory_path: Path) -> None:
    lead, _ = tripwire_lead(memory_path, lambda total: total)
    terms = lead.consortium.terms
    records = make_records(terms, seed=0)
    records.inputs[0], records.targets[0] = 1e12, -1e12
    engine = Tripwire(make_engine(terms, records), lambda total: total)
    lead.victim.participant._sessions[lead.run].engine = engine
    lead.weights = np.random.default_rng(1).normal(size=terms.dimension).astype(np.float32)
    assert all(decodes(lead, attempt) for attempt in range(1, 5))
    assert len(set(engine.sampled)) == 2
    # Without clipping the firm's share of the ring still bounds it, but the sum is no sum.
    engine.then, engine.sampled = lambda total: total + 1e12, []
    found = [decodes(lead, attempt) for attempt in range(5, 9)]
    assert found == [not item for item in engine.sampled]
    assert len(set(engine.sampled)) == 2


# -- by time ---------------------------------------------------------------------------------------


class Work(TorchDispatchMode):
    """The arithmetic that torch is asked for: its names and shapes, in order.

    Left out is what writes nought over the places of padding (a view and a fill of at most
    ``batch_cap`` numbers): it is not there when there is no padding.
    """

    PADDING = ("aten.slice.Tensor", "aten.fill_.Tensor")

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, list[tuple[int, ...]]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if str(func) not in self.PADDING:
            # What is picked from a table takes as long as the pick is, however long the table.
            read = (result,) if str(func) == "aten.index.Tensor" else (*args, result)
            shapes = [tuple(item.shape) for item in read if isinstance(item, torch.Tensor)]
            self.done.append((str(func), shapes))
        return result


def work_of(engine: ClippedSums, weights: Weights, units: int) -> list[Any]:
    with Work() as work:
        engine.clipped_sum(weights, np.arange(units))
    return work.done


@pytest.mark.parametrize("unit", ["record", "group"])
def test_the_work_does_not_depend_on_the_sample(unit: str) -> None:
    terms = make_terms(unit=unit)
    records = make_records(terms, seed=0, count=60)
    weights = np.random.default_rng(1).normal(size=terms.dimension).astype(np.float32)
    engine, bare = make_engine(terms, records), make_engine(terms, records, pad=False)
    most = min(terms.batch_cap, len(engine))
    nothing, one, all_ = (work_of(engine, weights, units) for units in (0, 1, most))
    assert len(nothing) > 30
    assert nothing == one == all_
    assert work_of(bare, weights, 1) != work_of(bare, weights, most)  # without padding


def test_the_work_of_a_firm_does_not_depend_on_how_many_rows_it_has() -> None:
    terms = make_terms(unit="firm")
    weights = np.random.default_rng(1).normal(size=terms.dimension).astype(np.float32)

    def work(rows: int, *, pad: bool) -> list[Any]:
        engine = make_engine(terms, make_records(terms, seed=0, count=rows), pad=pad)
        return work_of(engine, weights, 1)

    assert work(1, pad=True) == work(30, pad=True) == work(60, pad=True)
    assert work(1, pad=False) != work(60, pad=False)


@dataclass
class TwoPasses:
    """Without: an engine that leaves out what overflows, and begins again."""

    engine: ClippedSums

    def __len__(self) -> int:
        return len(self.engine)

    def clipped_sum(self, weights: Weights, units: Units) -> Sums:
        alone = [self.engine.clipped_sum(weights, units[at : at + 1]) for at in range(len(units))]
        usable = units[[bool(item.any()) for item in alone]]
        return alone[0] if len(usable) == len(units) else self.engine.clipped_sum(weights, usable)


def test_one_record_whose_gradient_overflows_takes_no_longer() -> None:
    """Sixteen layers that multiply by 1e4: where they light up, a gradient is longer than 1e154,
    and they light up for one record only."""
    terms = make_terms()
    terms = replace(terms, model=replace(terms.model, hidden=(8,) * 16, activation="relu"))
    records = make_records(terms, seed=0)
    records.inputs[:] = -np.abs(records.inputs)
    lit = replace(records, inputs=records.inputs.copy())
    lit.inputs[3] = 1.0
    weights = np.concatenate(
        [np.full(item.size, 1e4 * (len(item.shape) == 2)) for item in terms.parameters]
    ).astype(np.float32)
    engines = [make_engine(terms, held) for held in (records, lit)]
    alone = [engine.clipped_sum(weights, np.array([3])) for engine in engines]
    assert [bool(item.any()) for item in alone] == [True, False]  # the second was zeroed
    works = [work_of(engine, weights, 5) for engine in engines]
    assert works[0] == works[1]
    twice = [work_of(TwoPasses(engine), weights, 5) for engine in engines]
    assert len(twice[1]) > len(twice[0])


class Clock:
    """Time that passes only when somebody works or sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


Send = Callable[[Lead, bytes], bytes]


def through_the_gate(lead: Lead, frame: bytes) -> bytes:
    """As it comes over an engine of the agent's."""
    victim = lead.victim
    gate = Gate(victim.identity, lambda: victim.policy, victim.participant)
    return gate.answer_over("grpc")(frame)


def as_a_question(lead: Lead, frame: bytes) -> bytes:
    """As if the lead could say what kind of message its round is."""
    client = make_client_app(lead.victim.participant)
    return answer_frame(client, make_context(), frame, train=False)


@pytest.mark.parametrize(
    ("send", "offset_s", "told"),
    [(through_the_gate, 5.0, False), (through_the_gate, 0.0, True), (as_a_question, 5.0, False)],
    ids=["offset", "without offset", "whatever kind the lead calls it"],
)
def test_an_answer_leaves_at_the_public_offset(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, send: Send, offset_s: float, told: bool
) -> None:
    clock = Clock()

    def slowly(total: Sums) -> Sums:
        clock.sleep(0.25)
        return total

    lead, engine = tripwire_lead(memory_path, slowly)
    monkeypatch.setattr(app, "time", clock)
    session = lead.victim.participant._sessions[lead.run]
    training = replace(session.terms.training, reply_offset_s=offset_s)
    session.terms = replace(session.terms, training=training)

    def took(message: Round, kind: type[FirmMessage]) -> float:
        start_s = clock.now_s
        assert isinstance(parse_firm_message(send(lead, message.encode())), kind)
        return round(clock.now_s - start_s, 6)

    took_s = [took(lead.round(attempt), Contribution) for attempt in range(1, 9)]
    assert len(set(engine.sampled)) == 2
    if told:
        assert [item > 0 for item in took_s] == engine.sampled  # 8 bits of 8
    else:
        assert set(took_s) == {offset_s}
        assert took(lead.round(8), Contribution) == offset_s  # the same bytes again
        assert took(lead.round(8, 7), Refusal) == offset_s

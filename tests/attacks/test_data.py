"""Attacks on what the sum is made of: who adds to it last, who tells it, what a record moves.

- **The lead's agent submits last**, knowing all other vectors: the sum less its own share is the
  honest firms' data with noise of sigma in full, whatever it chose. Without (noise scaled to all of
  the roster instead of the roster less ``max_colluding``): 0.87 of sigma is left.
- **A lie about the sum**: the log names another sum than was decoded. Whoever replays the log finds
  another state than it states. Without the state in the entry nothing contradicts it. A lead that
  also steps by the false sum cannot be found out: no firm sees the sum, so the log proves that the
  model follows from it, and not that it is what firms held.
- **Scaling fitted to the firm's data, smuggled into a record run**: removing one record moves the
  sum by many times C, where noise covers one. Without the product's engine (which has no such
  step): 27 C. Terms have no key for it, and the model has the terms' parameters only.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attacks.machines import answered, sums_of, watched_lead, wide
from consortium_in_memory import NAME, PLAN, UNITS, Consortium, make_records, make_terms, run_on
from greylag_client.engine import make_engine
from greylag_client.models import build_mlp
from greylag_protocols import log, masking
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import Records
from greylag_protocols.log import AttemptRecord
from greylag_protocols.optimiser import ModelState, take_step
from greylag_protocols.parameters import initial_weights
from greylag_protocols.plan import parse_plan, parse_terms
from greylag_protocols.quantise import RingGrid
from greylag_protocols.round import initial_seed
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import Terms, terms_digest
from greylag_server.books import Books
from greylag_server.flight import Flight
from greylag_server.store import Store
from lying_lead import ALL
from numpy.typing import NDArray

# -- the last word ---------------------------------------------------------------------------------

LEADS_OWN = "firm-d"
Choice = Callable[[NDArray[np.uint32]], NDArray[np.uint32]]


def rushed(root: Path, choose: Choice) -> float:
    """The noise that is left on the honest firms' data for the lead's own agent, in sigma C.

    ``choose`` gives what it puts in from the sum of all that the others sent.
    """
    lead = watched_lead(root, wide(make_terms())).enter()
    terms, message = lead.consortium.terms, lead.round(1)
    firms = lead.consortium.firms
    others = [name for name in ALL if name != LEADS_OWN]
    seen = np.zeros(terms.dimension, dtype=np.uint32)
    for name in others:
        seen += answered(firms[name].participant, message).vector
    own = choose(seen)
    context = message.attempt_under(terms_digest(lead.consortium.encoded), origin=NAME).context()
    private, _ = firms[LEADS_OWN].participant._sessions[lead.run].keys[1].take()
    sent = own.copy()
    keys = [masking.pair_key(private, key, context) for key in message.keys[:-1]]
    masking.add_masks(sent, add=[], subtract=keys)  # it is the last of the roster
    left = (seen + sent - own).view(np.int32)
    step = RingGrid.of(
        firms=len(ALL), max_colluding=terms.privacy.max_colluding, batch_cap=terms.batch_cap,
        clip_norm=terms.privacy.clip_norm, dimension=terms.dimension,
        noise_multiplier=terms.privacy.noise_multiplier,
    ).step  # fmt: skip
    data = sum(sums_of(firms[name].participant, lead.run)[-1] for name in others)
    noise = left * step - data
    return float(noise.std() / (terms.privacy.noise_multiplier * terms.privacy.clip_norm))


@pytest.mark.parametrize(
    "choose", [np.zeros_like, lambda seen: -seen, lambda seen: seen // 2], ids=["0", "-", "half"]
)
def test_whoever_submits_last_meets_the_noise_in_full(memory_path: Path, choose: Choice) -> None:
    # 5,402 values: five standard deviations of their own are 5 %.
    assert 0.95 < rushed(memory_path, choose) < 1.05


def test_noise_shared_with_the_lead_would_be_too_little(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RingGrid.of.__func__  # type: ignore[attr-defined]

    def shared(cls: type[RingGrid], **options: float) -> RingGrid:
        grid: RingGrid = real(cls, **options)
        return replace(grid, noise_std=grid.noise_std * np.sqrt(3 / 4))

    monkeypatch.setattr(RingGrid, "of", classmethod(shared))
    assert 0.82 < rushed(memory_path, np.zeros_like) < 0.915  # sqrt(3/4) = 0.866


# -- a lie about the sum ---------------------------------------------------------------------------


def contradicted(consortium: Consortium, store: Store, *, look_at_state: bool = True) -> list[int]:
    """The rounds whose state does not follow from the sum that the log names, by replay."""
    terms, entries = consortium.terms, list(store.entries())
    found, acceptances = [], [item for item in entries if kind(item) == log.ACCEPTANCE_KIND]
    seed = initial_seed(terms_digest(consortium.encoded), acceptances)
    state = ModelState.start(initial_weights(seed, terms.parameters))
    for predicate in (parse_statement(item).predicate for item in entries if is_round(item)):
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
        if look_at_state and predicate["state_out"] != state.digest().hex():
            found.append(int(predicate["round"]))
    return found


def kind(envelope: bytes) -> str:
    return parse_statement(envelope).kind


def is_round(envelope: bytes) -> bool:
    return kind(envelope) == log.ROUND_KIND


def whole_run(root: Path) -> tuple[Consortium, Store]:
    root.mkdir()
    consortium = Consortium(root, terms=make_terms())
    store = consortium.open_store()
    coordinator = consortium.coordinator(store)
    run_on(consortium.local_grid(), coordinator)
    assert (coordinator.status, coordinator.rounds_done) == ("done", 4)
    return consortium, store


def falsified(integers: NDArray[np.int32]) -> NDArray[np.int32]:
    """Another sum: one coordinate is off by a thousand steps of some millions."""
    other = integers.copy()
    other[0] += 1000
    return other


def test_a_lie_about_the_sum_shows_in_the_state(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert contradicted(*whole_run(memory_path / "honest")) == []
    completed = Books.completed

    def lie(
        self: Books,
        flight: Flight,
        record: AttemptRecord,
        integers: NDArray[np.int32],
        grid: RingGrid,
        state: ModelState,
    ) -> None:
        told = falsified(integers) if record.round_number == 3 else integers
        completed(self, flight, record, told, grid, state)

    monkeypatch.setattr(Books, "completed", lie)
    consortium, store = whole_run(memory_path / "lie")
    assert contradicted(consortium, store) == [3, 4]
    assert contradicted(consortium, store, look_at_state=False) == []


def test_a_lead_that_also_steps_by_its_lie_cannot_be_found_out(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit: that the logged sum is what firms put in is the lead's word."""
    decode = RingGrid.decode
    monkeypatch.setattr(RingGrid, "decode", lambda self, total: falsified(decode(self, total)))
    consortium, store = whole_run(memory_path / "lie")
    assert contradicted(consortium, store) == []
    statement = next(parse_statement(item) for item in store.entries() if is_round(item))
    told = np.frombuffer(store.artefact(bytes.fromhex(statement.predicate["sum"])) or b"", "<i4")
    put_in = sum(
        firm.masks.put_in[statement.digest].astype(np.int64) for firm in consortium.firms.values()
    )
    assert np.flatnonzero(told - put_in).tolist() == [0]


# -- smuggled scaling ------------------------------------------------------------------------------


def standardised(records: Records) -> Records:
    """Scaled by the firm's own means and deviations: a private layer below the model."""
    inputs = (records.inputs - records.inputs.mean(0)) / records.inputs.std(0)
    return replace(records, inputs=inputs)


def moved_by_one(terms: Terms, scale: Callable[[Records], Records]) -> float:
    """How far removing one record moves the firm's sum, in C."""
    records = make_records(terms, seed=1, count=60)
    records = replace(records, inputs=0.01 * records.inputs)
    records.inputs[0] = 1.0  # still within the public range, but unlike the others
    fewer = Records(inputs=records.inputs[1:], targets=records.targets[1:], groups=None)
    weights = np.random.default_rng(2).normal(size=terms.dimension).astype(np.float32)
    sums = []
    for held in (records, fewer):
        engine = make_engine(terms, scale(held), pad=False)
        sums.append(engine.clipped_sum(weights, np.arange(len(engine))))
    return float(np.linalg.norm(sums[0] - sums[1])) / terms.privacy.clip_norm


def test_one_record_moves_the_sum_by_one_clip_norm_unless_scaling_is_fitted() -> None:
    terms = make_terms()
    terms = replace(terms, privacy=replace(terms.privacy, clip_norm=0.1))
    assert moved_by_one(terms, lambda records: records) <= 1.0
    assert moved_by_one(terms, standardised) > 20.0


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("data", "standardise = true"),
        ("data", 'scaler = "fit"'),
        ("model", "private_layers = 1"),
        ("model", 'head = "local"'),
        ("training", "personal_epochs = 3"),
    ],
)
def test_terms_have_no_word_for_it(section: str, key: str) -> None:
    extra, rate = UNITS["record"]
    options = {"rounds": 4, "max_attempts": 8, "min_firms": 3, "unit": "record"}
    plan = PLAN.format(data=extra, rate=rate, **options)
    assert parse_plan(plan)
    with pytest.raises(ConfigError, match="unknown key"):
        parse_plan(plan.replace(f"[{section}]", f"[{section}]\n{key}"))
    encoded = make_terms().encode().replace(b'"standard"', b'"standardise":true,"standard"', 1)
    with pytest.raises(ConfigError, match="unknown key"):
        parse_terms(encoded)


@pytest.mark.parametrize("unit", UNITS)
def test_the_model_is_the_terms_parameters_and_nothing_else(unit: str) -> None:
    terms = make_terms(unit=unit)
    module = build_mlp(terms)
    named = [(name, tuple(item.shape)) for name, item in module.named_parameters()]
    assert named == [(item.name, item.shape) for item in terms.parameters]
    assert list(module.buffers()) == []  # no running mean that a record could leave a trace in

"""The probe: its statistics, its canaries, and that faults put into this build's parts are found.

Probes here are small; whole ones by the command stand in tests/e2e/test_probe.py.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from greylag_client import contribution, sampling
from greylag_client.contribution import make_vector
from greylag_client.local_training import LocalTrainer
from greylag_client.masks import PairwiseMasks
from greylag_client.trainer import Trainer
from greylag_lab.cli import app
from greylag_lab.probe import bounds, canaries, experiments, findings
from greylag_lab.probe.findings import Probe, run_probe
from greylag_lab.probe.release import NoData, leave
from greylag_lab.probe.variants import WrongParts, wrong_builds
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.quantise import CLIP_SLACK, RingGrid
from greylag_protocols.terms import Terms
from numpy.typing import NDArray
from typer.testing import CliRunner

torch.set_num_threads(1)  # as the agent does

PLAN = """
[run]
name = "made-up"
purpose = "numbers made up for a test"
[data]
standard = "made-up@1.0"
task = "regression"
targets = [ { name = "y", range = [-10, 10] } ]
features = [ { names = ["a", "b"], range = [-1, 1] }, { names = ["k"], categories = ["u", "v"] } ]
group = "g"
expected_records = 300
expected_groups = 60
expected_firms = 5
max_records_per_firm = 100
max_groups_per_firm = 40
max_records_per_group = 3
[model]
hidden = [12]
[privacy]
unit = "UNIT"
noise_multiplier = 3.0
delta = 1e-5
clip_norm = 0.5
max_colluding = 1
min_firms = 5
max_attempts = 2
[training]
rounds = 2
sampling_rate = RATE
"""


def make_terms(unit: str = "record") -> Terms:
    text = PLAN.replace("UNIT", unit).replace("RATE", "1.0" if unit == "firm" else "0.3")
    return settle_terms(parse_plan(text), consortium="makers", run_id="made-up-1")


def probe(terms: Terms, seed: int = 1) -> Probe:
    return run_probe(terms, firms=5, seed=bytes([seed] * 32), progress=lambda done, total: None)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "CANARIES", {"record": 400, "group": 200, "firm": 200})
    monkeypatch.setattr(experiments, "RESIDUALS", 2500)
    monkeypatch.setattr(experiments, "TRIALS", 4000)


# -- statistics ----------------------------------------------------------------------------------


def test_bound_is_what_binomials_say_by_hand() -> None:
    guesses = bounds.Guesses(canaries=20, made=10, right=10)
    rate = math.e / (1 + math.e)
    gained = max(
        sum(math.comb(10, 10 - k) * rate ** (10 - k) * (1 - rate) ** k for k in range(1, i + 1)) / i
        for i in range(1, 11)
    )
    assert guesses.p_value(1.0, 0.0) == pytest.approx(rate**10)
    assert guesses.p_value(1.0, 0.01) == pytest.approx(rate**10 + 2 * 20 * 0.01 * gained)
    bound = guesses.epsilon_bound(0.0, 0.01)
    assert (1 / (1 + math.exp(-bound))) ** 10 == pytest.approx(0.01)
    assert guesses.epsilon_bound(0.0, 1e-4) == 0.0  # ten coins fall alike more often than that


def test_bound_stays_below_a_mechanism_whose_epsilon_is_known() -> None:
    # Randomised response of epsilon 1, and a reader of what it answers.
    rng = np.random.default_rng(5)
    found = []
    for _ in range(40):
        present = rng.random(2000) < 0.5
        truthful = rng.random(2000) < math.e / (1 + math.e)
        scores = np.where(truthful, present, ~present) + 0.1 * rng.random(2000)
        found.append(bounds.bound_by_canaries(scores, present, delta=1e-9, level=0.05))
    assert sum(bound > 1.0 for bound in found) <= 6  # 2 expected at most; 7: probability 0.003
    assert min(found) > 0.5


def test_bound_of_coins_is_nought_and_of_knowledge_the_largest() -> None:
    rng = np.random.default_rng(1)
    present = rng.random(1000) < 0.5
    args = {"delta": 1e-9, "level": 1e-5}
    assert bounds.bound_by_canaries(rng.random(1000), present, **args) < 0.3
    knows = bounds.bound_by_canaries(present.astype(float), present, **args)
    assert 3.5 < knows <= bounds.largest_bound(1000, **args)
    assert bounds.bound_by_canaries(-present.astype(float), present, **args) == 0.0


@pytest.mark.parametrize(("factor", "low"), [(1.0, 1e-3), (0.9, 0.0), (1.1, 0.0)])
def test_variance_is_tested_on_both_sides(factor: float, low: float) -> None:
    values = np.random.default_rng(2).normal(0.0, 3.0 * factor, 20_000)
    ratio, p_value = bounds.p_of_variance([values[:5000], values[5000:]], 9.0)
    assert ratio == pytest.approx(factor**2, rel=0.05)
    assert p_value > low if factor == 1.0 else p_value < bounds.LEVEL


def test_count_is_tested_on_both_sides() -> None:
    assert bounds.p_of_count(30, 100, 0.3) > 0.5
    assert bounds.p_of_count(0, 10, 0.5) == pytest.approx(2 / 1024)
    assert bounds.p_of_count(10, 10, 0.5) == pytest.approx(2 / 1024)
    assert bounds.p_of_count(7, 7, 1.0) == 1.0
    assert bounds.p_of_count(6, 7, 1.0) == 0.0


def test_all_levels_together_are_below_what_is_stated() -> None:
    assert bounds.LEVEL * bounds.STATISTICAL_TESTS <= bounds.FALSE_ALARM < 1e-4


# -- canaries and wrong builds ---------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["record", "group"])
def test_each_canary_moves_its_own_weight_by_the_clip_norm(unit: str) -> None:
    terms = make_terms(unit)
    rng = np.random.default_rng(3)
    real = canaries.made_up_records(terms, 2, rng)
    everywhere = np.arange(terms.dimension)
    audit = experiments.audit_terms(terms, terms.dimension + 2)
    trainer = canaries.CanaryTrainer(audit, real, coordinates=everywhere, loud=5.0)
    weights = canaries.seeded_weights(terms, rng)
    for unit_number in range(2, len(trainer)):
        total = trainer.clipped_sum(weights, np.array([unit_number]))
        expected = np.zeros(terms.dimension)
        expected[unit_number - 2] = 0.5 * (1 - CLIP_SLACK)
        np.testing.assert_allclose(total, expected, atol=1e-6)
    plain = Trainer(terms, real).clipped_sum(weights, np.array([0, 1]))
    np.testing.assert_array_equal(
        canaries.CanaryTrainer(audit, real, coordinates=everywhere, loud=5.0, pad=False)
        .clipped_sum(weights, np.array([0, 1])).astype(np.float32),
        plain.astype(np.float32),
    )  # fmt: skip


def test_canary_firm_sends_one_weight_and_an_emptied_one_nothing() -> None:
    terms = make_terms("firm")
    real = canaries.made_up_records(terms, 4, np.random.default_rng(3))
    weights = np.ones(terms.dimension, dtype=np.float32)
    there, away = (
        canaries.CanaryFirm(terms, real, coordinate=spot, loud=5.0).clipped_sum(
            weights, np.array([0])
        )
        for spot in (7, None)
    )
    assert there[7] == pytest.approx(0.5 * (1 - CLIP_SLACK))
    assert np.count_nonzero(there) == 1
    assert not away.any()


def test_wrong_parts_without_a_wrong_figure_are_this_build_to_the_bit() -> None:
    terms = make_terms()
    engine = Trainer(terms, canaries.made_up_records(terms, 30, np.random.default_rng(4)))

    def vector(contribute: Callable[..., NDArray[np.uint32]]) -> NDArray[np.uint32]:
        return contribute(
            terms, engine, weights=np.ones(terms.dimension, dtype=np.float32), firms=5,
            secret=b"s" * 32, context=b"c" * 32, apply_masks=leave,
        )  # fmt: skip

    np.testing.assert_array_equal(vector(WrongParts()), vector(make_vector))
    for wrong in (WrongParts(noise=0.5), WrongParts(noise_per_honest=True)):
        assert np.any(vector(wrong) != vector(make_vector))


# -- whole probes ----------------------------------------------------------------------------------


@pytest.fixture
def alone(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small, and without the builds that are wrong."""
    monkeypatch.setattr(findings, "wrong_builds", lambda terms: ())


@pytest.mark.usefixtures("small")
def test_this_build_is_sound_and_every_wrong_one_is_flagged() -> None:
    found = probe(make_terms())
    assert found.this.flagged_by == ()
    assert found.missed == ()
    assert found.verdict == "sound"
    caught = {item.build: item.flagged_by for item in found.wrong}
    assert {"canaries", "noise"} <= set(caught["no noise"])
    assert {"canaries", "clipping"} <= set(caught["no clipping"])
    for build, test in (
        ("noise / h", "noise"),
        ("sigma / 2", "noise"),
        ("same randomness again", "fresh noise"),
        ("no sampling", "sampling"),
    ):
        assert test in caught[build]


def no_masks(*args: object) -> Callable[[NDArray[np.uint32]], None]:
    return leave


def one_sided(*args: object) -> Callable[[NDArray[np.uint32]], None]:
    def apply(vector: NDArray[np.uint32]) -> None:
        vector += np.uint32(1)

    return apply


def narrow(secret: bytes, context: bytes, size: int) -> NDArray[np.float64]:
    return 0.85 * sampling.draw_normals(secret, context, size)


def wide(secret: bytes, context: bytes, size: int) -> NDArray[np.float64]:
    return 1.2 * sampling.draw_normals(secret, context, size)


def stale(secret: bytes, context: bytes, size: int) -> NDArray[np.float64]:
    fixed = int.from_bytes(sampling.NOISE_TAG[:4], "little") + len(secret)
    return np.random.default_rng(fixed).standard_normal(size)


def eager(secret: bytes, context: bytes, *, units: int, rate: float, cap: int) -> NDArray[np.intp]:
    return sampling.sample_units(secret, context, units=units, rate=min(1.0, 1.3 * rate), cap=cap)


def first_units(
    secret: bytes, context: bytes, *, units: int, rate: float, cap: int
) -> NDArray[np.intp]:
    count = len(sampling.sample_units(secret, context, units=units, rate=rate, cap=cap))
    return np.arange(count, dtype=np.intp)


def slack(self: Trainer, squares: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    factors = (0.501 / squares.sqrt().clamp(min=1e-30)).clamp(max=1.0)
    return torch.where(taken & torch.isfinite(squares), factors, 0.0)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("owner", "part", "fault", "test"),
    [
        (contribution, "draw_normals", narrow, "noise"),
        (contribution, "draw_normals", wide, "noise"),
        (contribution, "draw_normals", stale, "fresh noise"),
        (contribution, "sample_units", eager, "sampling"),
        (contribution, "sample_units", first_units, "fresh sample"),
        (Trainer, "_factors", slack, "clipping"),
        (PairwiseMasks, "agree", no_masks, "masks"),
        (PairwiseMasks, "agree", one_sided, "masks"),
    ],
    ids=lambda item: getattr(item, "__name__", str(item)),
)
def test_a_fault_in_a_part_of_this_build_is_flagged(
    monkeypatch: pytest.MonkeyPatch, owner: object, part: str, fault: object, test: str
) -> None:
    monkeypatch.setattr(owner, part, fault)
    found = probe(make_terms())
    assert found.verdict == "broken"
    assert test in found.this.flagged_by


@pytest.mark.usefixtures("alone")
def test_a_firm_that_does_not_clip_its_update_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(
        self: LocalTrainer, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        return np.nan_to_num(weights.astype(np.float64) - self._train(weights), posinf=1.0)

    monkeypatch.setattr(LocalTrainer, "clipped_sum", unclipped)
    assert "clipping" in probe(make_terms("firm")).this.flagged_by


@pytest.mark.usefixtures("alone")
def test_noise_of_a_grid_for_another_roster_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    # Divided by the whole roster, as if nobody worked together: 4 of 5 firms supply 4/5 of it.
    real = RingGrid.encode

    def less(
        self: RingGrid, total: NDArray[np.float64], normals: NDArray[np.float64]
    ) -> NDArray[np.int32]:
        return real(self, total, normals * math.sqrt(4 / 5))

    monkeypatch.setattr(RingGrid, "encode", less)
    assert "noise" in probe(make_terms()).this.flagged_by


@pytest.mark.usefixtures("small")
def test_a_probe_that_misses_a_wrong_build_says_that_it_is_blind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "LEVEL", 0.0)  # nothing that chance could do is ever flagged
    found = probe(make_terms())
    assert found.verdict == "blind"
    assert "sigma / 2" in found.missed


@pytest.mark.usefixtures("alone")
def test_an_engine_that_fails_is_not_taken_for_an_empty_firm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object) -> None:
        raise ValueError("no such layer")

    monkeypatch.setattr(Trainer, "_trace", fail)
    with pytest.raises(Exception, match="no such layer"):
        probe(make_terms())


@pytest.mark.usefixtures("alone")
def test_a_seed_repeats_a_probe_and_another_does_not() -> None:
    terms = make_terms()
    assert probe(terms) == probe(terms)
    assert probe(terms).this != probe(terms, seed=2).this


def test_what_is_too_small_or_too_large_is_refused() -> None:
    terms = make_terms()
    with pytest.raises(ConfigError, match="leaves fewer than 2 honest firms"):
        run_probe(terms, firms=2, seed=bytes(32), progress=lambda done, total: None)
    with pytest.raises(ConfigError, match="fewer firms"):
        run_probe(terms, firms=10_000_000, seed=bytes(32), progress=lambda done, total: None)


def test_all_wrong_builds_stand_beside_a_plan_that_samples() -> None:
    assert [build.name for build in wrong_builds(make_terms())] == [
        "no noise", "noise / h", "sigma / 2", "no clipping", "same randomness again", "no sampling"
    ]  # fmt: skip
    assert len(NoData(make_terms())) == 0


@pytest.mark.usefixtures("alone")
def test_command_tells_a_broken_build_by_its_exit_code_and_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.replace("UNIT", "record").replace("RATE", "0.3"))
    sound = CliRunner().invoke(app, ["probe", str(plan), "--seed", "1"])
    assert (sound.exit_code, "Nothing speaks against" in sound.stdout) == (0, True)
    monkeypatch.setattr(contribution, "draw_normals", narrow)
    broken = CliRunner().invoke(app, ["probe", str(plan), "--seed", "1"])
    assert broken.exit_code == 1
    assert "THIS BUILD BREAKS" in broken.stdout
    assert "FLAGGED noise" in broken.stdout
    document = CliRunner().invoke(app, ["probe", str(plan), "--format", "json"])
    assert document.exit_code == 1
    assert json.loads(document.stdout)["verdict"] == "broken"

"""What firms reach alone and pooled, and the scores they are compared by."""

import json
from dataclasses import replace

import numpy as np
import pytest
from greylag_client.table import Table
from greylag_lab.baselines import fit_alone, fit_pooled
from greylag_lab.metrics import Outcome, average_precision, clearly_worse, score
from greylag_lab.report import mean_metrics
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms, Feature, ModelTerms, Target

MODEL = ModelTerms(hidden=(16,), activation="tanh")
ONE = DataTerms(
    standard="s@1.0",
    task="regression",
    targets=(Target(name="y", unit="K", range=(0, 100)),),
    features=(Feature(names=("a", "b"), range=(0, 1)),),
    group="g",
    expected_records=1000,
    max_records_per_firm=1000,
)
TWO = replace(ONE, targets=(*ONE.targets, Target(name="z", unit="MPa", range=(-10, 10))))
YES_NO = replace(ONE, task="classification", targets=(Target(name="y", classes=("no", "yes")),))


def make_table(data: DataTerms, rows: int, seed: int = 0, group_size: int = 4) -> Table:
    """y is smooth in a and b, z is a step in a; a quarter of each is not measured."""
    rng = np.random.default_rng(seed)
    groups = [f"g{row // group_size}" for row in range(rows)]
    centres = rng.random((rows // group_size + 1, 2))
    values = np.clip(centres[np.arange(rows) // group_size] + rng.normal(0, 0.03, (rows, 2)), 0, 1)
    y = 20 + 50 * values[:, 0] + 20 * np.sin(3 * values[:, 1]) + rng.normal(0, 1, rows)
    z = np.where(values[:, 0] > 0.5, 6.0, -6.0) + rng.normal(0, 0.3, rows)
    if data.task == "classification":
        targets = (z > 0).astype(float)[:, np.newaxis]
    elif len(data.targets) == 1:
        targets = y[:, np.newaxis]
    else:
        targets = np.stack([y, z], axis=1)
        draws = rng.random(rows)
        targets[draws < 0.25, 0] = np.nan
        targets[draws > 0.75, 1] = np.nan
    cut = rows * 3 // 4 // group_size * group_size
    return Table(
        data=data,
        features=values,
        targets=targets,
        groups=tuple(groups),
        train=np.arange(cut),
        holdout=np.arange(cut, rows),
    )


def test_alone_learns_both_targets_despite_gaps() -> None:
    table = make_table(TWO, 240)
    fitted = fit_alone(table, TWO, MODEL, seed=0)
    predicted = fitted(table.features[table.holdout])
    error = predicted - table.targets[table.holdout]
    spread = np.nanstd(table.targets, axis=0)
    assert predicted.shape == (60, 2)
    assert (np.sqrt(np.nanmean(error**2, axis=0)) < 0.5 * spread).all()


def test_alone_takes_what_its_own_validation_prefers() -> None:
    smooth = fit_alone(make_table(ONE, 120), ONE, MODEL, seed=0)
    assert smooth.kind == "mlp"
    rng = np.random.default_rng(0)  # a fine chequerboard, which trees cut and a small network blurs
    table = make_table(ONE, 400, group_size=2)
    values = rng.random((400, 2))
    cells = np.floor(values * 4).sum(axis=1) % 2
    table = replace(table, features=values, targets=20 + 60 * cells[:, np.newaxis])
    assert fit_alone(table, ONE, ModelTerms(hidden=(2,)), seed=0).kind == "trees"


def test_alone_never_looks_at_held_out_rows() -> None:
    table = make_table(TWO, 120)
    probe = np.random.default_rng(5).random((20, 2))
    features, targets = table.features.copy(), table.targets.copy()
    features[table.holdout], targets[table.holdout] = 0.5, -9.0
    other = replace(table, features=features, targets=targets)
    first, second = (fit_alone(t, TWO, MODEL, seed=3)(probe) for t in (table, other))
    np.testing.assert_array_equal(first, second)


def test_fits_repeat_with_the_seed() -> None:
    table = make_table(TWO, 48)
    probe = np.random.default_rng(5).random((20, 2))
    runs = [fit_alone(table, TWO, MODEL, seed)(probe) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_target_multipliers_do_not_change_the_baselines() -> None:
    scaled = replace(TWO, targets=tuple(replace(t, multiplier=5.0) for t in TWO.targets))
    table, probe = make_table(TWO, 80), np.random.default_rng(5).random((20, 2))
    plain, other = (fit_pooled([table], data, MODEL, 0)(probe) for data in (TWO, scaled))
    np.testing.assert_allclose(plain, other, atol=1e-3)


def test_classes_come_as_probabilities() -> None:
    tables = [make_table(YES_NO, 160, seed) for seed in range(2)]
    for fitted in (fit_alone(tables[0], YES_NO, MODEL, 0), fit_pooled(tables, YES_NO, MODEL, 0)):
        rows = tables[0].holdout
        predicted = fitted(tables[0].features[rows])
        np.testing.assert_allclose(predicted.sum(axis=1), 1.0)
        assert (predicted.argmax(axis=1) == tables[0].targets[rows, 0]).mean() > 0.85


@pytest.mark.parametrize("data", [TWO, YES_NO], ids=["regression", "classes"])
def test_firms_too_small_to_fit_still_predict(data: DataTerms) -> None:
    tiny = make_table(data, 8)
    fitted = fit_alone(tiny, data, MODEL, 0)
    assert fitted.kind == "mean"
    predicted = fitted(tiny.features)
    assert predicted.shape == (8, 2)
    if data is TWO:
        np.testing.assert_allclose(predicted[0], np.nanmean(tiny.targets[tiny.train], axis=0))
    one_group = replace(make_table(data, 40), groups=("g",) * 40)
    assert fit_alone(one_group, data, MODEL, 0).kind == "trees"
    with pytest.raises(ConfigError, match="fewer than two groups"):
        fit_pooled([replace(one_group, train=np.arange(3))], data, MODEL, 0)


def outcome(firm: str, truth: object, predicted: object, train_rows: int = 20) -> Outcome:
    truth = np.array(truth, dtype=float)
    groups = tuple(f"g{row // 2}" for row in range(len(truth)))
    return Outcome(
        firm=firm, train_rows=train_rows, truth=truth, predicted=np.array(predicted), groups=groups
    )


def test_rmse_of_one_target_pools_rows_of_firms() -> None:
    zeros, threes = np.zeros((6, 1)), np.full((2, 1), 3.0)
    near = outcome("near", zeros, zeros + 1.0)
    far = outcome("far", zeros, zeros - 2.0)
    scores = score(ONE, [near, far, outcome("few", threes, threes)])  # 2 held-out rows: left out
    assert scores.headline.name == "rmse y"
    assert scores.headline.unit == "K"
    assert scores.headline.value == pytest.approx(np.sqrt((6 * 1 + 6 * 4) / 12))
    assert scores.per_firm == pytest.approx({"near": 1.0, "far": 2.0})
    assert scores.rows == 12
    untrained = outcome("untrained", zeros, zeros, train_rows=19)
    with pytest.raises(ConfigError, match="no firm has 20 training"):
        score(ONE, [untrained])


def test_headline_of_several_targets_is_relative_to_their_ranges() -> None:
    nan = np.nan
    truth = [[0, nan], [0, 0], [nan, 0], [0, 0], [0, nan]]
    predicted = [[3, 9], [3, 1], [99, 1], [3, -1], [3, 9]]
    scores = score(TWO, [outcome("a", truth, predicted)])
    assert scores.headline.value == pytest.approx((3 / 100 + 1 / 20) / 2)
    assert [(e.name, e.unit, e.value) for e in scores.details[1:]] == [
        ("rmse y", "K", pytest.approx(3)),
        ("rmse z", "MPa", pytest.approx(1)),
    ]
    assert json.loads(json.dumps(scores.to_json()))["per_firm"]["a"] == pytest.approx(0.04)


def test_each_target_is_reported_by_itself_over_the_seeds() -> None:
    nan = np.nan
    truth = [[0, nan], [0, 0], [nan, 0], [0, 0], [0, nan]]
    seeds = [
        {"shared": score(TWO, [outcome("a", truth, [[error, error]] * 5)])} for error in (2.0, 4.0)
    ]
    shared = mean_metrics(seeds)["shared"]
    assert shared["name"] == "rmse / range"
    named = {item["name"]: (item["unit"], item["value"]) for item in shared["details"]}
    assert named == {"rmse y": ("K", pytest.approx(3)), "rmse z": ("MPa", pytest.approx(3))}
    one = score(ONE, [outcome("a", np.zeros((5, 1)), np.ones((5, 1)))])
    assert "details" not in mean_metrics([{"shared": one}])["shared"]


def test_a_firm_without_any_value_of_a_target_is_not_called_worse() -> None:
    nan = np.nan
    half = outcome("half", [[0, nan]] * 6, [[5.0, 5.0]] * 6)
    full = outcome("full", [[0, 0]] * 6, [[5.0, 5.0]] * 6)
    half, full = (replace(item, groups=tuple("abcdef")) for item in (half, full))
    better = [replace(item, predicted=item.predicted - 4.0) for item in (half, full)]
    assert clearly_worse(TWO, [half, full], better) == ["full"]


def test_interval_draws_groups_and_repeats_with_the_seed() -> None:
    rng = np.random.default_rng(0)
    errors = np.repeat(rng.normal(0, 1, 100), 2)[:, np.newaxis]  # both rows of a group err alike
    grouped = outcome("a", np.zeros((200, 1)), errors)
    single = replace(grouped, groups=tuple(map(str, range(200))))
    wide, narrow = score(ONE, [grouped]).headline, score(ONE, [single]).headline
    assert wide.low < wide.value < wide.high
    # For squared errors of normals the RMSE's standard error is 1 / sqrt(2 groups).
    assert (wide.high - wide.low) / (2 * 1.96) == pytest.approx(1 / np.sqrt(200), rel=0.25)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2**0.5, rel=0.15)
    assert score(ONE, [grouped], seed=0).headline == wide
    assert score(ONE, [grouped], seed=1).headline != wide


def test_accuracy_and_average_precision_by_hand() -> None:
    yes = np.array([0.9, 0.8, 0.7, 0.6, 0.2])
    truth = [[1], [0], [1], [0], [0]]
    scores = score(YES_NO, [outcome("a", truth, np.stack([1 - yes, yes], axis=1))])
    assert scores.headline.name == "accuracy"
    assert scores.headline.value == pytest.approx(3 / 5)
    assert scores.details[1].name == "average precision"
    assert scores.details[1].value == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert not scores.lower_is_better


def test_average_precision_with_ties_and_weights_is_scikit_learns() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    positive, values = rng.random(60) < 0.3, np.round(rng.random(60), 1)
    weights = rng.integers(0, 3, (4, 60)).astype(float)
    found = average_precision(positive, values, weights)
    expected = [average_precision_score(positive, values, sample_weight=w) for w in weights]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(average_precision(np.zeros(60, dtype=bool), values, weights)).all()


def test_wins_are_counted_firm_by_firm() -> None:
    zeros = np.zeros((6, 1))
    ours = score(ONE, [outcome("a", zeros, zeros + 1), outcome("b", zeros, zeros + 3)])
    theirs = score(ONE, [outcome("a", zeros, zeros + 2), outcome("b", zeros, zeros + 2)])
    assert ours.wins_over(theirs) == (1, 2)
    assert theirs.wins_over(ours) == (1, 2)
    assert ours.wins_over(ours) == (0, 2)


def test_outcome_takes_the_held_out_rows() -> None:
    table = make_table(ONE, 40)
    taken = Outcome.of("a", table, lambda values: values[:, :1] * 100)
    assert taken.train_rows == len(table.train)
    np.testing.assert_array_equal(taken.truth, table.targets[table.holdout])
    np.testing.assert_array_equal(taken.predicted[:, 0], table.features[table.holdout, 0] * 100)
    assert taken.groups == table.groups[-len(table.holdout) :]

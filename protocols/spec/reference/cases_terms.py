"""Cases for terms and plans (see ``gen_vectors``)."""

import copy
from typing import Any

from reference import slow_bytes as b
from reference import slow_numbers as n
from reference.vector_file import Vectors

CONSORTIUM, RUN = "glass", "glass-tg-1"

TERMS: dict[str, Any] = {
    "version": "terms/v1", "consortium": CONSORTIUM, "run_id": RUN,
    "run": {"name": "glass-tg", "purpose": "glass transition of new recipes", "suite": "v1"},
    "data": {
        "standard": "glass-recipes@1.0", "task": "regression",
        "targets": [{"name": "tg_k", "unit": "K", "range": [300.0, 1300.0], "classes": None,
                     "multiplier": 1.0}],
        "features": [{"names": ["SiO2", "B2O3"], "unit": "mol%", "range": [0.0, 100.0],
                      "scale": "sqrt", "multiplier": 8.0}],
        "missing": "zero-and-flag", "group": "ref_id", "holdout": 0.2, "split_seed": 0,
        "expected_records": 18000, "max_records_per_firm": 5000, "expected_groups": None,
        "max_groups_per_firm": None, "max_records_per_group": None, "expected_firms": None,
    },
    "model": {"family": "mlp", "hidden": [16, 8], "activation": "tanh"},
    "privacy": {"unit": "record", "epsilon": 2.05, "noise_multiplier": 10.07, "delta": 1e-6,
                "clip_norm": 1.0, "max_colluding": 6, "min_firms": 8, "max_attempts": 500},
    "training": {"rounds": 450, "sampling_rate": 0.2, "optimiser": "adam",
                 "learning_rate": 0.003, "momentum": 0.9, "second_moment": 0.999,
                 "stabiliser": 1e-8, "schedule": "linear", "ema": 0.98, "reply_offset_s": 0.0,
                 "local_epochs": 1, "local_batches": 1, "local_learning_rate": 0.1},
}  # fmt: skip
GROUP = {
    "data.expected_groups": 1060, "data.max_groups_per_firm": 300,
    "data.max_records_per_group": 40, "privacy.unit": "group", "privacy.epsilon": 1.7,
    "privacy.noise_multiplier": 4.5, "privacy.max_attempts": 64, "training.rounds": 60,
}  # fmt: skip
FIRM = {
    "data.expected_firms": 65, "privacy.unit": "firm", "privacy.epsilon": 2.3,
    "privacy.noise_multiplier": 20.0, "privacy.max_attempts": 100, "training.rounds": 100,
    "training.sampling_rate": 1.0,
}  # fmt: skip
BAD_TERMS: dict[str, dict[str, Any]] = {
    "unknown_key": {"privacy.epsilom": 2.0},
    "unknown_section": {"extra": {}},
    "other_version": {"version": "terms/v2"},
    "other_suite": {"run.suite": "v2"},
    "unknown_unit": {"privacy.unit": "row"},
    "no_epsilon": {"privacy.epsilon": None},
    "epsilon_text": {"privacy.epsilon": "2.05"},
    "epsilon_understated": {"privacy.epsilon": 1.9},
    "noise_too_small": {"privacy.noise_multiplier": 0.29},
    "noise_halved": {"privacy.noise_multiplier": 5.0},
    "delta_too_large": {"privacy.delta": 0.01},
    "delta_too_small": {"privacy.delta": 9e-13},
    "coalition_too_large": {"privacy.max_colluding": 7},
    "no_coalition": {"privacy.max_colluding": 0},
    "two_firms": {"privacy.min_firms": 2},
    "fewer_attempts_than_rounds": {"privacy.max_attempts": 449},
    "attempts_true": {"privacy.max_attempts": True},
    "rounds_too_many": {"training.rounds": 100_001, "privacy.max_attempts": 10**6},
    "rounds_fractional": {"training.rounds": 450.5},
    "no_sampling": {"training.sampling_rate": 0.0},
    "sampling_above_one": {"training.sampling_rate": 1.5},
    "ema_one": {"training.ema": 1.0},
    "negative_offset": {"training.reply_offset_s": -1.0},
    "group_unit_without_bounds": {"privacy.unit": "group"},
    "firm_unit_sampled": {**FIRM, "training.sampling_rate": 0.5},
    "firm_unit_without_count": {**FIRM, "data.expected_firms": None},
    "range_reversed": {"data.features.0.range": [100.0, 0.0]},
    "range_of_three": {"data.features.0.range": [0.0, 1.0, 2.0]},
    "column_twice": {"data.features.0.names": ["SiO2", "SiO2"]},
    "feature_is_target": {"data.features.0.names": ["SiO2", "tg_k"]},
    "group_is_feature": {"data.group": "SiO2"},
    "class_with_range": {"data.targets.0.classes": ["a", "b"]},
    "no_features": {"data.features": []},
    "multiplier_zero": {"data.features.0.multiplier": 0.0},
    "run_id_upper_case": {"run_id": "Glass"},
    "other_family": {"model.family": "cnn"},
    "layer_of_none": {"model.hidden": [0]},
    "too_many_weights": {"model.hidden": [8192, 8192]},
    "batch_beyond_float_error": {"data.max_records_per_firm": 10**9},
    "padded_beyond_limit": {**GROUP, "data.max_groups_per_firm": 100_000,
                            "data.max_records_per_group": 100_000},
}  # fmt: skip


# Numbers, an order, categories with and without a place for others, and flags for two of them.
MIXED = {
    "data.features": [
        {"names": ["SiO2", "B2O3"], "unit": "mol%", "range": [0.0, 100.0], "scale": "sqrt",
         "multiplier": 8.0},
        {"names": ["grade"], "unit": "", "scale": "linear", "multiplier": 3.0,
         "categories": ["low", "mid", "high"], "ordered": True},
        {"names": ["furnace", "next"], "unit": "", "scale": "linear", "multiplier": 2.0,
         "categories": ["A", "B"], "other": True, "missing": "refuse"},
        {"names": ["mould"], "unit": "", "scale": "linear", "multiplier": 1.0,
         "categories": ["\u6a21 1", "none"]},
    ],
    "data.missing_values": ["-99", "?"],
}  # fmt: skip
MIXED_INPUTS = 2 + 1 + 6 + 2 + 4
ROWS: list[list[float | None]] = [
    [0.0, 100.0, 0.0, 0.0, 1.0, 0.0],
    [30.5, 0.1, 1.0, 1.0, 2.0, 1.0],
    [None, 250.0, 2.0, 2.0, 0.0, None],
    [-1.0, None, None, 1.0, 1.0, 1.0],
]
BAD_MIXED: dict[str, dict[str, Any]] = {
    "range_and_categories": {"data.features.1.range": [0.0, 1.0]},
    "neither_range_nor_categories": {"data.features.1.categories": None},
    "ordered_numbers": {"data.features.0.ordered": True},
    "other_numbers": {"data.features.0.other": True},
    "other_in_an_order": {"data.features.1.other": True},
    "one_category": {"data.features.3.categories": ["A"]},
    "no_category": {"data.features.2.categories": []},
    "category_twice": {"data.features.3.categories": ["A", "A"]},
    "empty_category": {"data.features.3.categories": ["A", ""]},
    "category_too_long": {"data.features.3.categories": ["A", "b" * 101]},
    "category_with_blanks": {"data.features.3.categories": ["A", " B"]},
    "too_many_categories": {"data.features.3.categories": [f"c{n}" for n in range(1001)]},
    "too_many_inputs_of_categories": {
        "data.features.3.categories": [f"c{n}" for n in range(1000)],
        "data.features.3.names": [f"f{n}" for n in range(12)],
        "model.hidden": [1],
    },
    "category_that_is_a_gap": {"data.features.3.categories": ["A", "NA"]},
    "category_declared_missing": {"data.features.3.categories": ["A", "?"]},
    "category_with_unit": {"data.features.3.unit": "K"},
    "category_with_scale": {"data.features.3.scale": "sqrt"},
    "missing_value_empty": {"data.missing_values": [""]},
    "missing_value_with_blanks": {"data.missing_values": ["- "]},
    "missing_value_a_number": {"data.missing_values": [-99]},
    "too_many_missing_values": {"data.missing_values": [f"m{n}" for n in range(65)]},
    "unknown_way_with_gaps": {"data.features.0.missing": "impute"},
}  # fmt: skip


def edited(value: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    value = copy.deepcopy(value)
    for path, new in changes.items():
        *way, last = path.split(".")
        place: Any = value
        for name in way:
            place = place[int(name) if name.isdigit() else name]
        place[last] = new
    return value


def terms(v: Vectors) -> None:
    def good(name: str, changes: dict[str, Any], rows: int, units: int, expected: float,
             inputs: int = 4) -> None:  # fmt: skip
        value = edited(TERMS, changes)
        privacy, text = value["privacy"], b.jcs(value)
        dimension = sum(size for size, _ in n.mlp_bounds(inputs, value["model"]["hidden"], 1))
        cap = n.batch_cap(units, value["training"]["sampling_rate"])
        grid = n.grid(8, privacy["max_colluding"], privacy["clip_norm"],
                      privacy["noise_multiplier"], cap, dimension)  # fmt: skip
        out = {"digest": b.tagged_hash("greylag/terms/v1", text), "dimension": dimension,
               "batch_cap": cap, "rows_per_unit": rows, "grid_of_8": grid,
               "denominator": value["training"]["sampling_rate"] * expected}  # fmt: skip
        v.good(name, "terms", out, text=text.decode())

    good("terms_record", {}, 1, 5000, 18000)
    good("terms_group", GROUP, 40, 300, 1060)
    good("terms_firm", FIRM, 5000, 1, 65)
    good("terms_mixed", MIXED, 1, 5000, 18000, MIXED_INPUTS)
    mixed = edited(TERMS, MIXED)
    data, text = mixed["data"], b.jcs(mixed).decode()
    right = [n.inputs(data, row) for row in ROWS]
    v.good("inputs_mixed", "inputs", right, text=text, rows=ROWS)
    wrong = [row[:3] + row[6:9] + row[3:6] + row[9:] for row in right]
    v.differs("inputs_bad_order", "inputs", right, wrong, "columns change places", text=text,
              rows=ROWS)  # fmt: skip
    wrong = [row[:11] + [float(cell is None) for cell in cells]
             for row, cells in zip(right, ROWS, strict=True)]  # fmt: skip
    v.differs("inputs_bad_flags", "inputs", right, wrong, "flags of all columns", text=text,
              rows=ROWS)  # fmt: skip
    for name, changes in BAD_TERMS.items():
        text = b.jcs(edited(TERMS, changes)).decode()
        v.bad(f"terms_bad_{name}", "terms", name.replace("_", " "), text=text)
    for name, changes in BAD_MIXED.items():
        text = b.jcs(edited(mixed, changes)).decode()
        v.bad(f"terms_bad_{name}", "terms", name.replace("_", " "), text=text)
    text = b.jcs(TERMS).decode()
    for name, broken in {
        "key_twice": text.replace('"delta"', '"clip_norm":1,"delta"'),
        "key_missing": text.replace('"delta":0.000001,', ""),
        "nan": text.replace("0.000001", "NaN"),
        "infinite": text.replace("0.000001", "1e999"),
        "not_an_object": f"[{text}]",
    }.items():
        v.bad(f"terms_bad_{name}", "terms", name.replace("_", " "), text=broken)
    plan = (
        '[run]\nname = "x"\npurpose = "y"\n[data]\nstandard = "s"\ntask = "regression"\n'
        'targets = [{ name = "t", range = [0, 1] }]\nfeatures = [{ names = ["f"], range = [0, 1] }]'
        "\nexpected_records = 100\nmax_records_per_firm = 50\n[training]\nrounds = 10\n"
        "sampling_rate = 0.5\n[privacy]\ndelta = 1e-6\nmax_colluding = 1\nmin_firms = 3\n"
    )
    for given in ("epsilon = 2.0", "noise_multiplier = 3.0"):
        v.good(f"plan_{given.split()[0]}", "plan", None, text=plan + given)
    v.bad("plan_bad_both", "plan", "both", text=plan + "epsilon = 2.0\nnoise_multiplier = 3.0")
    v.bad("plan_bad_neither", "plan", "neither epsilon nor noise", text=plan)
    v.bad("plan_bad_unknown_key", "plan", "unknown key", text=plan + "epsilon = 2.0\nsigma = 1")
    v.bad("plan_bad_nan", "plan", "not a number", text=plan + "epsilon = nan")

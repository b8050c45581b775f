"""Cases for grid, privacy loss and step (see ``gen_vectors``)."""

import math
import struct
from fractions import Fraction
from typing import Any

from reference import slow_bytes as b
from reference import slow_numbers as n
from reference.vector_file import Vectors

GRID = {"firms": 8, "max_colluding": 6, "clip_norm": 1.0, "noise_multiplier": 10.07,
        "batch_cap": 1182, "dimension": 24}  # fmt: skip


def grid_of(facts: dict[str, Any]) -> dict[str, Any]:
    names = ("firms", "max_colluding", "clip_norm", "noise_multiplier", "batch_cap", "dimension")
    return n.grid(*(facts[name] for name in names))


def quantisation(v: Vectors) -> None:
    for name, change in {
        "glass": {},
        "large": {"firms": 200, "max_colluding": 50, "dimension": 10**6, "clip_norm": 1.5},
        "firms_as_units": {"batch_cap": 1, "noise_multiplier": 1.3},
        "two_honest_of_three": {"firms": 3, "max_colluding": 1, "dimension": 1},
        "tiny_clip": {"clip_norm": 1e-9},
        "coarse": {"firms": 1000, "batch_cap": 90_000, "dimension": 10_000},
    }.items():
        facts = {**GRID, **change}
        v.good(f"grid_{name}", "grid", grid_of(facts), **facts)
    right = grid_of(facts)  # of the coarse grid: rounding costs as much as a record there
    noise, width = float.fromhex(right["noise_std"]), float.fromhex(right["step"])
    blind = 1 + width * math.sqrt(facts["dimension"])
    for name, wrong, why in (
        ("over_all_firms", noise * math.sqrt(994 / 1000), "the coalition's noise counted"),
        ("without_rounding", noise / blind, "sensitivity C alone"),
        ("rounding_once", noise * (1 + (blind - 1) / 2) / blind, "one rounding error, not two"),
    ):
        v.differs(f"grid_bad_noise_{name}", "grid", right, {**right, "noise_std": wrong.hex()},
                  why, **facts)  # fmt: skip
    for name, change in {
        "one_honest_firm": {"max_colluding": 7},
        "noise_below_ten_steps": {"noise_multiplier": 0.3, "firms": 4000, "batch_cap": 200_000},
        "noise_beyond_the_ring": {"noise_multiplier": 20_000.0, "dimension": 20_000_000},
        "batch_beyond_float_error": {"batch_cap": 200_001},
    }.items():
        v.bad(f"grid_bad_{name}", "grid", name.replace("_", " "), **{**GRID, **change})

    grid = grid_of(GRID)
    step, scale = (float.fromhex(grid[key]) for key in ("step", "noise_std"))
    half, reach = step / 2, grid["share"] * step
    data = [0.0, half, 3 * half, -half, -3 * half, 5 * half, step, 0.7, -0.7, reach, -reach,
            2 * reach, 1e300, -1e300, math.inf, -math.inf, math.nan, half * 0.999999, 1e-300,
            -0.0, 1000.25, -999.125, 0.1, 0.4 * step]  # fmt: skip
    normals = [0.0] * 9 + [1.5, -1.5, -9.0, 0.0, 0.0, 0.25, -0.25, 1.0, 0.0, 0.0, 0.0, -3.5, 4.25,
                           half / scale, 0.4 * step / scale]  # fmt: skip
    facts = {**GRID, "data": data, "normals": normals}
    right_encoding = n.encode(grid, data, normals)
    v.good("encode", "encode", right_encoding, **facts)
    finite = [value if math.isfinite(value) else 0.0 for value in data]
    clamped = [max(-reach, min(reach, value)) for value in finite]
    pairs = list(zip(clamped, normals, strict=True))
    together = [round(Fraction(x + z * scale) / Fraction(step)) for x, z in pairs]
    upwards = [math.floor(x / step + 0.5) + round(z * (scale / step)) for x, z in pairs]
    free = [round(x / step) + round(z * (scale / step)) for x, z in pairs]

    def within(values: list[int]) -> list[int]:
        return [max(-grid["share"], min(grid["share"], value)) for value in values]

    for name, wrong, why in (
        ("rounded_together", within(together), "data and noise rounded as one"),
        ("half_up", within(upwards), "ties rounded up, not to even"),
        ("not_clamped", free, "the sum not clamped to the firm's share"),
    ):
        v.differs(f"encode_bad_{name}", "encode", right_encoding, wrong, why, **facts)
    v.good("encode_clamps_both_ways", "encode", [grid["share"], -grid["share"]],
           **{**GRID, "data": [reach, -reach], "normals": [100.0, -100.0]})  # fmt: skip

    limit = float.fromhex(grid["norm_limit"])
    for name, length in (("within", 1 - 1e-6), ("zero", 0.0)):
        values = [int(length * limit / math.sqrt(24)) * (-1) ** at for at in range(24)]
        v.good(f"decode_{name}", "decode", values, **GRID, total=[x % 2**32 for x in values])
    for name, values in {
        "over_norm_limit": [int((1 + 1e-6) * limit / math.sqrt(24)) + 1] * 24,
        "wrapped": [-(2**31)] * 24,
        "one_firm_at_will": [2**31 - 1] * 12 + [-(2**31)] * 12,
    }.items():
        v.bad(f"decode_bad_{name}", "decode", "longer than honest firms can make it",
              **GRID, total=[x % 2**32 for x in values])  # fmt: skip
    for records, rate in ((5000, 0.2), (10, 0.5), (1, 1.0), (100_000, 0.001), (300, 0.2)):
        right_cap = n.batch_cap(records, rate)
        v.good(f"batch_cap_{records}_{rate}", "batch_cap", right_cap, records=records, rate=rate)
    v.differs("batch_cap_bad_normal_tail", "batch_cap", n.batch_cap(300, 0.2),
              math.ceil(60 + 6 * math.sqrt(48)), "small samples have longer tails than a normal",
              records=300, rate=0.2)  # fmt: skip


def accounting(v: Vectors) -> None:
    # What is not in the slow sum: samples cut at the cap (below 1.5e-8 a release) and the
    # accountant's own grid. 1 % covers both.
    def sampled(name: str, width: float, size: int, copies: int, **facts: Any) -> float:
        low, high = n.sampled_epsilon(
            facts["rate"], facts["sigma"], facts["releases"], facts["delta"],
            width=width, size=size, copies=copies,
        )  # fmt: skip
        op = "epsilon" if copies == 1 else "epsilon_of_copies"
        extra = {"event": "poisson-gaussian/v1"} if copies == 1 else {"copies": copies}
        v.between(name, op, 0.99 * low, 1.01 * high, **extra, **facts)
        return low

    glass = {"rate": 0.2, "sigma": 10.07, "records": 5000, "releases": 500, "delta": 1e-6}
    group = {"rate": 0.2, "sigma": 4.5, "records": 300, "releases": 64, "delta": 1e-6}
    sampled("epsilon_records", 2e-4, 2**16, 1, **glass)
    low = sampled("epsilon_groups", 1e-3, 2**13, 1, **group)
    few = {**glass, "releases": 20}
    one = n.sampled_epsilon(0.2, 10.07, 20, 1e-6, width=2e-4, size=2**14, copies=1)[1]
    pair = sampled("epsilon_of_two_copies", 2e-4, 2**14, 2, **few)
    mu = group["rate"] * math.sqrt(group["releases"] * math.expm1(group["sigma"] ** -2))
    gdp = n.gaussian_epsilon(1 / mu, 1, 1e-6)
    if gdp >= 0.99 * low or 2 * one >= 0.99 * pair:
        raise SystemExit("these mistakes show nothing here")
    v.above("epsilon_bad_gaussian_limit", "epsilon", gdp, "a Gaussian-DP approximation",
            event="poisson-gaussian/v1", **group)  # fmt: skip
    v.above("epsilon_bad_copies_added", "epsilon_of_copies", 2 * one, "copies merely added up",
            copies=2, **few)  # fmt: skip
    for sigma, releases, delta in ((5.0, 10, 1e-5), (20.0, 100, 1e-6), (3.0, 1, 1e-6)):
        facts = {"rate": 1.0, "sigma": sigma, "records": 1, "releases": releases, "delta": delta}
        exact = n.gaussian_epsilon(sigma, releases, delta)
        v.between(f"epsilon_firms_{releases}", "epsilon", exact - 1e-6, 1.01 * exact,
                  event="firm-gaussian/v1", **facts)  # fmt: skip
    naive = releases * math.sqrt(2 * math.log(1.25 / delta)) / sigma / 2
    v.above("epsilon_bad_half_the_shift", "epsilon", min(naive, 0.9 * exact),
            "noise against half the sensitivity", event="firm-gaussian/v1", **facts)  # fmt: skip
    v.between("epsilon_of_nothing", "epsilon", 0.0, 0.0, event="poisson-gaussian/v1",
           **{**glass, "releases": 0})  # fmt: skip
    v.bad("epsilon_bad_promises_nothing", "epsilon", "beyond 1000", event="firm-gaussian/v1",
          rate=1.0, sigma=0.3, records=1, releases=100_000, delta=1e-6)  # fmt: skip
    for epsilon, delta in ((2.0, 1e-6), (0.5, 1e-8)):
        facts = {"epsilon": epsilon, "delta": delta}
        scaled = delta * (1 + math.exp(epsilon)) * 1e9
        v.good(f"finer_unit_epsilon_{epsilon}", "finer_unit_epsilon", 2 * epsilon, **facts)
        v.between(f"finer_unit_delta_{epsilon}", "finer_unit_delta_e9", scaled - 1e-5,
                  scaled + 1e-5, **facts)  # fmt: skip
        v.above(f"finer_unit_bad_delta_{epsilon}", "finer_unit_delta_e9", 2 * delta * 1e9,
                "delta merely doubled", **facts)  # fmt: skip


def step(v: Vectors) -> None:
    terms, entries = bytes([1]) * 32, [b'{"b":1}', b'{"a":1}']
    seed = b.tagged_hash("greylag/initial-seed/v1", terms, *sorted(entries))
    unsorted = b.tagged_hash("greylag/initial-seed/v1", terms, *entries)
    v.good("initial_seed", "initial_seed", seed, terms=terms, acceptances=entries)
    v.differs("initial_seed_bad_unsorted", "initial_seed", seed, unsorted,
              "acceptances in order of arrival", terms=terms, acceptances=entries)  # fmt: skip
    shape: dict[str, Any] = {"seed": seed, "inputs": 3, "hidden": [2], "outputs": 1}
    layers = n.mlp_bounds(3, [2], 1)
    weights = n.initial_weights(seed, layers)
    v.good("initial_weights", "initial_weights", weights, **shape)
    two = {**shape, "hidden": [2, 2], "outputs": 2}
    v.good("initial_weights_two_layers", "initial_weights",
           n.initial_weights(seed, n.mlp_bounds(3, [2, 2], 2)), **two)  # fmt: skip
    v.good("initial_weights_linear", "initial_weights",
           n.initial_weights(seed, n.mlp_bounds(3, [], 1)), **{**shape, "hidden": []})  # fmt: skip
    v.differs("initial_weights_bad_zeros_without_sign", "initial_weights", weights,
              [value + 0.0 for value in weights], "-0.0 taken for 0.0", **shape)  # fmt: skip
    v.good("model_digest", "model_digest", n.model_digest(weights), weights=weights)
    big = b.tagged_hash("greylag/model/v1", n.singles(weights)[::-1])
    v.differs("model_digest_bad_endian", "model_digest", n.model_digest(weights), big,
              "bytes the other way round", weights=weights)  # fmt: skip
    sums = [[1000003 * (at + 1) * (turn + 2) * (-1) ** (at + turn) for at in range(11)]
            for turn in range(5)]  # fmt: skip
    sums[1][:3] = [2**31 - 1, -(2**31), 0]
    little = b"".join(value.to_bytes(4, "little", signed=True) for value in sums[0])
    v.good("sum_digest", "sum_digest", b.tagged_hash("greylag/sum/v1", little), sum=sums[0])
    rules: dict[str, dict[str, Any]] = {
        "adam": {"optimiser": "adam", "learning_rate": 0.003, "schedule": "linear", "rounds": 50,
                 "momentum": 0.9, "second_moment": 0.999, "stabiliser": 1e-8, "ema": 0.98},
    }  # fmt: skip
    rules["momentum"] = {**rules["adam"], "optimiser": "momentum", "schedule": "constant"}
    rules["adam_constant_no_average"] = {**rules["adam"], "schedule": "constant", "ema": 0.0}
    rules["momentum_linear_no_memory"] = {**rules["momentum"], "schedule": "linear",
                                          "momentum": 0.0}  # fmt: skip
    # The noise lies among the squares: some moments stay above the floor, others do not.
    gamma, denominator, noise = 1.25e-6, 3600.0, 1e-6
    rules["adam_warmup"] = {**rules["adam"], "warmup_rounds": 3}
    rules["adam_tail"] = {**rules["adam"], "rounds": 5, "tail_rounds": 3}
    rules["adam_noise_floor"] = {**rules["adam"], "noise_floor": 0.25}

    def run(rule: dict[str, Any], **changes: Any) -> dict[str, Any]:
        state, digests = n.start(weights), []
        for integers in sums:
            state = n.step(state, integers, rule, gamma, denominator, noise, **changes)
            digests.append(n.state_digest(state))
        return {"weights": state["weights"], "average": state["average"], "states": digests,
                "published": n.model_digest(state["weights"]),
                "released": n.model_digest(state["average"])}  # fmt: skip

    for name, rule in rules.items():
        facts = {**shape, "rule": rule, "grid_step": gamma, "denominator": denominator}
        if "noise_floor" in rule:
            facts["noise_variance"] = noise
        right = run(rule)
        v.good(f"steps_{name}", "steps", right, **facts, sums=sums)
        for key in ("warmup_rounds", "tail_rounds", "noise_floor"):
            if key in rule:
                plain = run({other: value for other, value in rule.items() if other != key})
                v.differs(f"steps_bad_without_{key}", "steps", right, plain, f"{key} left out",
                          **facts, sums=sums)  # fmt: skip
        if name in ("adam", "momentum"):
            v.differs(f"steps_bad_fused_{name}", "steps", right, run(rule, multiply_add=n.fused),
                      "products and sums rounded once", **facts, sums=sums)  # fmt: skip
            other = run({**rule, "rounds": 49, "ema": 0.97})
            v.differs(f"steps_bad_other_rule_{name}", "steps", right, other,
                      "another rule", **facts, sums=sums)  # fmt: skip
            short = n.start([value + 0.0 for value in n.initial_weights(seed, layers)])
            for integers in sums:
                short = n.step(short, integers, rule, gamma, denominator)
                kept = struct.unpack("<11f", n.singles(short["weights"]))
                short["weights"] = list(kept)
            wrong = {**right, "weights": short["weights"]}
            v.differs(f"steps_bad_single_precision_{name}", "steps", right, wrong,
                      "weights kept in float32 between rounds", **facts, sums=sums)  # fmt: skip

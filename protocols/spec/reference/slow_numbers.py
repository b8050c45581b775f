"""The slow reference, second half: numbers. Grid, first weights, steps, privacy loss.

Standard library alone, no code of the package. The grid is computed in exact rationals, each
operation rounded once; the step in Python's floats, which are IEEE 754 doubles, weight by weight.
"""

import cmath
import hashlib
import math
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from reference.slow_bytes import tagged_hash

# -- quantisation: every operation exact in rationals, then rounded once to a double ---------------


def root(value: float) -> float:
    """The correctly rounded square root, from integers alone."""
    ratio = Fraction(value)
    scale = 4 ** max(0, 140 - ratio.numerator.bit_length() // 2)
    whole = math.isqrt(ratio.numerator * scale * ratio.denominator)
    # A truncated root of 140 bits and a sticky bit: rounding it rounds the true root.
    exact = whole * whole == ratio.numerator * scale * ratio.denominator
    return float(Fraction(2 * whole + (not exact), 2 * math.isqrt(scale) * ratio.denominator))


def fl(value: Fraction | int) -> Fraction:
    """A rational, rounded to the nearest double (ties to even), as a rational again."""
    return Fraction(float(value))


def grid(
    firms: int, max_colluding: int, clip_norm: float, sigma: float, batch_cap: int, dimension: int
) -> dict[str, Any]:
    clip, slack = Fraction(clip_norm), fl(1 + Fraction(1e-6))
    share = (2**31 - 1) // firms
    root_honest = Fraction(root(firms - max_colluding))
    root_d = Fraction(root(dimension))
    width = fl(Fraction(sigma) / root_honest)
    steps = fl(share - fl(fl(13 * width) * root_d))
    reach = fl(fl(batch_cap * clip) + fl(fl(fl(13 * width) * clip) * slack))
    step = fl(reach / steps)
    sensitivity = fl(fl(clip * slack) + fl(step * root_d))
    noise = fl(fl(Fraction(sigma) * sensitivity) / root_honest)
    spread = fl(Fraction(root(firms * dimension)) + fl(13 * Fraction(root(firms))))
    signal = fl(firms * batch_cap * clip)
    limit = fl(fl(fl(signal + fl(noise * spread)) / step) + fl(root_d * firms))
    return {
        "share": share,
        "step": float(step).hex(),
        "noise_std": float(noise).hex(),
        "norm_limit": float(limit).hex(),
    }


def encode(grid_: dict[str, Any], data: Sequence[float], normals: Sequence[float]) -> list[int]:
    step, noise = (Fraction(float.fromhex(grid_[key])) for key in ("step", "noise_std"))
    share, scale = grid_["share"], fl(noise / step)
    reach, result = fl(share * step), []
    for value, normal in zip(data, normals, strict=True):
        exact = Fraction(value) if math.isfinite(value) else Fraction(0)
        rounded = round(fl(max(-reach, min(reach, exact)) / step))  # Fraction: ties to even
        rounded += round(fl(Fraction(normal) * scale))
        result.append(max(-share, min(share, rounded)))
    return result


def batch_cap(records_cap: int, rate: float) -> int:
    mean = records_cap * rate
    slack = 6.0 * math.sqrt(mean * (1 - rate)) + 12.0
    return max(1, min(records_cap, math.ceil(mean + slack)))


# -- the step: one weight at a time, one rounding for each operation -------------------------------

Bounds = Sequence[tuple[int, float]]  # (how many weights, half-width of their first values)


def mlp_bounds(inputs: int, hidden: Sequence[int], outputs: int) -> list[tuple[int, float]]:
    widths, layers = [inputs, *hidden, outputs], []
    for at in range(len(widths) - 1):
        bound = 0.0 if at == len(widths) - 2 else math.sqrt(3 / widths[at])
        layers += [(widths[at] * widths[at + 1], bound), (widths[at + 1], 0.0)]
    return layers


def inputs(data: dict[str, Any], row: Sequence[float | None]) -> list[float]:
    """A row as the model sees it: of a category its number, of a gap None."""
    found: list[float] = []
    flags: list[float] = []
    cells = iter(row)
    for feature in data["features"]:
        labels, times = feature.get("categories"), feature["multiplier"]
        low, high = feature.get("range") or (0.0, len(labels) - 1.0)
        for _ in feature["names"]:
            cell = next(cells)
            if feature.get("missing", data["missing"]) == "zero-and-flag":
                flags.append(float(cell is None))
            if labels is not None and not feature.get("ordered"):
                places = range(len(labels) + feature.get("other", False))
                found += [times if cell == place else 0.0 for place in places]
            elif cell is None:
                found.append(0.0)
            else:
                share = min(max((cell - low) / (high - low), 0.0), 1.0)
                share = root(share) if feature["scale"] == "sqrt" else 2.0 * share - 1.0
                found.append(times * share)
    return found + flags


def initial_weights(seed: bytes, layers: Bounds) -> list[float]:
    bounds = [bound for size, bound in layers for _ in range(size)]
    stream = hashlib.shake_256(b"greylag/initial-weights/v1|" + seed).digest(4 * len(bounds))
    words = struct.unpack(f"<{len(bounds)}I", stream)
    return [
        ((word + 0.5) / 2.0**31 - 1.0) * bound for word, bound in zip(words, bounds, strict=True)
    ]


def start(weights: Sequence[float]) -> dict[str, Any]:
    zeros = [0.0] * len(weights)
    return {
        "done": 0, "weights": list(weights), "first": zeros, "second": zeros,
        "average": list(weights), "b1": 1.0, "b2": 1.0,
    }  # fmt: skip


def step(
    state: dict[str, Any],
    sums: Sequence[int],
    rule: dict[str, Any],
    gamma: float,
    denominator: float,
    noise: float = 0.0,
    multiply_add: Callable[[float, float, float], float] = lambda a, b, c: a * b + c,
) -> dict[str, Any]:
    """``multiply_add`` is replaced only to show what a fused one would do."""
    rate = rule["learning_rate"]
    if rule["schedule"] == "linear":
        rate = rate * ((rule["rounds"] - state["done"]) / rule["rounds"])
    if state["done"] < rule.get("warmup_rounds", 0):
        rate = rate * ((state["done"] + 1) / rule["warmup_rounds"])
    beta, beta2, ema = rule["momentum"], rule["second_moment"], rule["ema"]
    adam, floor = rule["optimiser"] == "adam", rule.get("noise_floor")
    tail = rule.get("tail_rounds", 0)
    late = state["done"] + 1 - (rule["rounds"] - tail)
    b1 = state["b1"] * beta if adam else 1.0
    b2 = state["b2"] * beta2 if adam else 1.0
    rows = zip(
        sums, state["weights"], state["first"], state["second"], state["average"], strict=True
    )
    out = []
    for integer, w, m, v, mean in rows:
        g = float(integer) * gamma / denominator
        if adam:
            m = multiply_add(m, beta, g * (1.0 - beta))
            square = g * g if floor is None else g * g - noise
            v = multiply_add(v, beta2, square * (1.0 - beta2))
            moment = v / (1.0 - b2)
            if floor is not None:
                moment = max(moment, noise * floor)
            w = w - m / (1.0 - b1) / (math.sqrt(moment) + rule["stabiliser"]) * rate
        else:
            m = multiply_add(m, beta, g)
            w = w - m * rate
        if not tail:
            mean = multiply_add(mean, ema, w * (1.0 - ema))
        else:
            mean = w if late <= 1 else mean + (w - mean) / float(late)
        out.append((w, m, v, mean))
    names = ("weights", "first", "second", "average")
    columns = {name: [row[at] for row in out] for at, name in enumerate(names)}
    return {"done": state["done"] + 1, **columns, "b1": b1, "b2": b2}


def fused(a: float, b: float, c: float) -> float:
    return float(Fraction(a) * Fraction(b) + Fraction(c))


def doubles(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def singles(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def state_digest(state: dict[str, Any]) -> bytes:
    scalars = [doubles([float(state[name])]) for name in ("done", "b1", "b2")]
    vectors = [doubles(state[name]) for name in ("weights", "first", "second", "average")]
    return tagged_hash("greylag/model-state/v1", scalars[0], *vectors, *scalars[1:])


def model_digest(weights: Sequence[float]) -> bytes:
    return tagged_hash("greylag/model/v1", singles(weights))


# -- privacy loss, by exact composition of a loss rounded down -------------------------------------


def normal_tail(x: float) -> float:
    return math.erfc(x / math.sqrt(2)) / 2


def solve(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a falling function passes ``target``."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > target else (low, middle)
    return high


def gaussian_epsilon(sigma: float, releases: int, delta: float) -> float:
    """Balle and Wang 2018, theorem 8: releases of one Gaussian are one with less noise."""
    mu = math.sqrt(releases) / sigma

    def spent(epsilon: float) -> float:
        near = normal_tail(epsilon / mu - mu / 2)
        return near - math.exp(epsilon) * normal_tail(epsilon / mu + mu / 2)

    return solve(spent, delta, 0.0, 100.0)


def fourier(values: list[complex], sign: int) -> list[complex]:
    size = len(values)
    if size == 1:
        return values
    even, odd = fourier(values[::2], sign), fourier(values[1::2], sign)
    half, turn = size // 2, sign * 2j * cmath.pi / size
    odd = [cmath.exp(turn * k) * value for k, value in enumerate(odd)]
    return [even[k] + odd[k] for k in range(half)] + [even[k] - odd[k] for k in range(half)]


def sampled_epsilon(
    rate: float, sigma: float, releases: int, delta: float, *, width: float, size: int, copies: int
) -> tuple[float, float]:
    """Bounds of epsilon for ``copies`` equal units sampled on their own, add or remove.

    The shifted side is a mixture of normals at 0..copies with binomial weights. The loss of one
    release is rounded down to multiples of ``width`` and composed by a Fourier transform of
    ``size`` points; rounding up instead moves the composed loss by ``releases * width``, no more.
    """
    weights = [
        math.comb(copies, k) * rate**k * (1 - rate) ** (copies - k) for k in range(copies + 1)
    ]

    def loss(x: float) -> float:
        return math.log(
            sum(w * math.exp((2 * k * x - k * k) / (2 * sigma**2)) for k, w in enumerate(weights))
        )

    def above(x: float, shifted: bool) -> float:
        if not shifted:
            return normal_tail(x / sigma)
        return sum(w * normal_tail((x - k) / sigma) for k, w in enumerate(weights))

    low, high = -12 * sigma, 12 * sigma + copies
    found = []
    for removed in (True, False):
        sign = 1 if removed else -1
        ends = sorted(math.floor(sign * loss(x) / width) for x in (low, high))
        composed = [0j] * size
        edges = [
            solve(lambda x: -loss(x), -sign * k * width, low, high)
            for k in range(ends[0], ends[1] + 2)
        ]
        for at, k in enumerate(range(ends[0], ends[1] + 1)):
            mass = above(edges[at], removed) - above(edges[at + 1], removed)
            composed[k % size] += sign * mass
        powers = [value**releases for value in fourier(composed, 1)]
        masses = [value.real / size for value in fourier(powers, -1)]

        def spent(epsilon: float, masses: list[float] = masses) -> float:
            first = math.floor(epsilon / width) + 1
            return sum(
                masses[k] * (1 - math.exp(epsilon - k * width)) for k in range(first, size // 2)
            )

        found.append(solve(spent, delta, 0.0, size // 2 * width))
    return max(found), max(found) + releases * width

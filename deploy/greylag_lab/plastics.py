"""Recipes of engineering plastics for the demo: made up, but by rules that compounders know.

Each firm is a compounder with a home market: a few base polymers, a window of fillers. The rest of
its work is commissioned and strays into what other firms know better. Recipes come in
families, near-copies that differ by a step of one ingredient or of the process. Two properties are
measured, each with gaps.

The property laws follow the textbook shapes, with constants set to land on data-sheet values:
Halpin and Kardos (1976) for filled modulus with a fibre length that melt processing shortens, a
percolation-like threshold for rubber toughening (Wu 1985), embrittlement by rigid fillers and by
overheating. Everything follows from the seed.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

POLYMERS = ("pa6", "pa66", "pbt", "pc", "abs")
ADDITIVES = (
    "glass_fibre",
    "mineral",
    "impact_modifier",
    "flame_retardant",
    "stabiliser",
    "lubricant",
    "colourant",
)
INGREDIENTS = POLYMERS + ADDITIVES  # wt%, one decimal, summing to 100
PROCESS = ("melt_temperature_c", "mould_temperature_c")
PROPERTIES = ("tensile_modulus_mpa", "notched_impact_kj_m2")
PROPERTY_LIMITS = ((500.0, 20_000.0), (1.0, 120.0))
MELT_LIMITS_C = (210.0, 330.0)
MOULD_LIMITS_C = (30.0, 130.0)
LEAD = "lead"
COMMISSIONED_SHARE = (0.45, 0.70)  # of a firm's families
FAMILY_SIZES = (4, 5, 5, 6, 6, 6)  # how many copies of a recipe get tried

Vector = NDArray[np.float64]

# Per polymer, in the order of POLYMERS.
DENSITY = np.array([1.13, 1.14, 1.31, 1.20, 1.05])  # g/cm3
MODULUS_MPA = np.array([2900.0, 3100.0, 2600.0, 2350.0, 2300.0])  # unfilled, dry
IMPACT_KJ_M2 = np.array([5.0, 4.5, 5.5, 62.0, 20.0])  # unfilled, notched
TOUGH_KJ_M2 = np.array([85.0, 75.0, 60.0, 66.0, 34.0])  # once the rubber network has formed
RUBBER_THRESHOLD = np.array([14.0, 16.0, 13.0, 6.0, 9.0])  # wt% where it forms
MELT_C = np.array([255.0, 285.0, 258.0, 292.0, 243.0])  # recommended
MOULD_C = np.array([80.0, 85.0, 75.0, 90.0, 60.0])
CRYSTALLINE = np.array([1.0, 1.0, 0.8, 0.0, 0.0])
MAX_MAIN_ADDITIVES_WT = 62.0  # the polymers must still hold it together
MAX_ADDITIVE_WT = np.array([52.0, 42.0, 25.0, 25.0, 2.0, 2.0, 3.0])
ADDITIVE_DENSITY = np.array([2.56, 2.75, 0.88, 1.60, 1.10, 1.00, 1.90])


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What one kind of compounder makes: Dirichlet weights of its polymers, and for each main
    additive how often it is used and between which wt%."""

    polymers: Mapping[str, float]
    glass_fibre: tuple[float, float, float]
    mineral: tuple[float, float, float]
    impact_modifier: tuple[float, float, float]
    flame_retardant: tuple[float, float, float]


MARKETS = (
    Market(  # structural polyamide
        polymers={"pa6": 3.0, "pa66": 3.0},
        glass_fibre=(0.9, 15, 50),
        mineral=(0.2, 5, 20),
        impact_modifier=(0.2, 3, 10),
        flame_retardant=(0.1, 6, 14),
    ),
    Market(  # electrical polyamide
        polymers={"pa66": 4.0, "pa6": 0.7},
        glass_fibre=(0.7, 10, 35),
        mineral=(0.2, 5, 15),
        impact_modifier=(0.15, 3, 8),
        flame_retardant=(0.8, 8, 22),
    ),
    Market(  # connectors
        polymers={"pbt": 4.0, "pc": 0.6},
        glass_fibre=(0.75, 10, 35),
        mineral=(0.2, 5, 20),
        impact_modifier=(0.25, 4, 12),
        flame_retardant=(0.5, 8, 20),
    ),
    Market(  # housings
        polymers={"pc": 3.0, "abs": 2.0},
        glass_fibre=(0.15, 5, 20),
        mineral=(0.25, 5, 15),
        impact_modifier=(0.3, 3, 10),
        flame_retardant=(0.4, 6, 15),
    ),
    Market(  # tough polyamide
        polymers={"pa6": 4.0, "pa66": 0.6},
        glass_fibre=(0.3, 5, 25),
        mineral=(0.1, 5, 10),
        impact_modifier=(0.9, 5, 25),
        flame_retardant=(0.05, 6, 10),
    ),
    Market(  # bumpers and panels
        polymers={"pc": 2.5, "pbt": 2.5},
        glass_fibre=(0.2, 5, 20),
        mineral=(0.2, 5, 15),
        impact_modifier=(0.8, 5, 20),
        flame_retardant=(0.05, 6, 10),
    ),
    Market(  # interior
        polymers={"abs": 4.0, "pa6": 1.2},
        glass_fibre=(0.25, 5, 20),
        mineral=(0.3, 5, 20),
        impact_modifier=(0.5, 3, 14),
        flame_retardant=(0.2, 6, 16),
    ),
    Market(  # mineral-filled, low warpage
        polymers={"pa6": 2.0, "pbt": 1.5, "pa66": 1.0},
        glass_fibre=(0.4, 8, 25),
        mineral=(0.9, 10, 35),
        impact_modifier=(0.3, 3, 10),
        flame_retardant=(0.2, 6, 14),
    ),
)
COMMISSIONED = Market(  # commissioned work: whatever the customer asks for
    polymers=dict.fromkeys(POLYMERS, 0.5),
    glass_fibre=(0.5, 5, 45),
    mineral=(0.3, 5, 25),
    impact_modifier=(0.45, 3, 22),
    flame_retardant=(0.3, 6, 20),
)


def make_firms(
    firms: int = 8, seed: int = 0, rows: Sequence[int] | None = None
) -> dict[str, pl.DataFrame]:
    """One table per firm, the lead's first.

    Columns: ``family`` (text), INGREDIENTS (wt%), PROCESS (deg C), PROPERTIES (MPa, kJ/m2; null
    where not measured, never both). Each firm has 160 to 420 rows, or as many as
    ``rows`` says for it; 45 to 70 % of its families are commissioned. The same arguments give the
    same tables; a firm does not depend on how many follow it.
    """
    names = [LEAD, *(f"supplier-{number:02d}" for number in range(1, firms))]
    return {
        name: _make_firm(name, MARKETS[index % len(MARKETS)], seed, rows[index] if rows else None)
        for index, name in enumerate(names[:firms])
    }


def write_firms(directory: Path, firms: int = 8, seed: int = 0) -> dict[str, Path]:
    """Write ``make_firms`` as one CSV per firm, ``directory/<firm>.csv``; returns the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, frame in make_firms(firms, seed).items():
        paths[name] = directory / f"{name}.csv"
        frame.write_csv(paths[name])
    return paths


def _make_firm(name: str, market: Market, seed: int, count: int | None) -> pl.DataFrame:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    drawn = int(rng.integers(160, 421))
    rows = drawn if count is None else count
    commissioned = rng.uniform(*COMMISSIONED_SHARE)
    gaps = rng.uniform(0.10, 0.25, size=len(PROPERTIES))
    prefix = name[0].upper() + name.removeprefix(LEAD).removeprefix("supplier-")
    families: list[str] = []
    shares: list[Vector] = []
    process: list[Vector] = []
    offsets: list[Vector] = []
    number = 0
    while len(families) < rows:
        number += 1
        left = rows - len(families)
        size = min(int(rng.choice(FAMILY_SIZES)), left)
        if left - size == 1:  # a family of one would follow
            size -= 1
        style = COMMISSIONED if rng.random() < commissioned else market
        recipe, settings = _design(style, rng)
        batch = rng.normal(0.0, (0.025, 0.06))  # one lot of raw material serves a family
        for copy in range(size):
            varied, varied_settings = (
                (recipe, settings) if copy == 0 else _vary(recipe, settings, rng)
            )
            families.append(f"{prefix}-{number:03d}")
            shares.append(_round_to_100(varied))
            process.append(varied_settings)
            offsets.append(batch)
    wt, settings_c = np.array(shares), np.array(process)
    noise = np.array(offsets) + rng.normal(0.0, (0.04, 0.11), size=(rows, 2))  # moulding and lab
    measured = _properties(wt, settings_c) * np.exp(noise)
    low, high = np.array(PROPERTY_LIMITS).T
    digits = np.array([1.0, 10.0])  # whole MPa, tenths of kJ/m2
    measured = np.rint(np.clip(measured, low, high) * digits) / digits
    measured[_gaps(rows, gaps, rng)] = np.nan
    columns: dict[str, object] = {"family": families}
    columns.update(zip(INGREDIENTS, wt.T, strict=True))
    columns.update(zip(PROCESS, settings_c.T, strict=True))
    columns.update(zip(PROPERTIES, measured.T, strict=True))
    return pl.DataFrame(columns).with_columns(pl.col(PROPERTIES).fill_nan(None))


def _design(market: Market, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """A new recipe (wt% in the order of INGREDIENTS) and its process settings."""
    additives = np.zeros(len(ADDITIVES))
    windows = (
        market.glass_fibre, market.mineral, market.impact_modifier, market.flame_retardant,
    )  # fmt: skip
    for index, (chance, low, high) in enumerate(windows):
        if rng.random() < chance:
            additives[index] = rng.uniform(low, high)
    rigid = additives[[0, 1, 3]].sum()
    if rigid > 60.0:  # beyond this nothing flows into the mould
        additives[[0, 1, 3]] *= 60.0 / rigid
    additives *= min(1.0, MAX_MAIN_ADDITIVES_WT / max(additives.sum(), 1.0))
    additives[4:] = rng.uniform((0.1, 0.1, 0.0), (1.2, 0.8, 2.0))
    weights = np.array([market.polymers.get(polymer, 0.0) for polymer in POLYMERS])
    blend = np.zeros(len(POLYMERS))
    used = weights > 0
    blend[used] = rng.dirichlet(weights[used] * 0.6)
    blend[blend < 0.05] = 0.0  # nobody doses a trace of a second polymer
    blend /= blend.sum()
    recipe = np.concatenate([blend * (100.0 - additives.sum()), additives])
    melt = blend @ MELT_C + rng.normal(4.0, 9.0)
    mould = blend @ MOULD_C + rng.normal(0.0, 14.0)
    return recipe, _settings(melt, mould)


def _vary(recipe: Vector, settings: Vector, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """A near-copy: one used ingredient a step up or down, at slightly other settings."""
    varied = recipe.copy()
    main = np.flatnonzero(varied > 1.0)
    step = rng.choice(main)
    varied[step] *= 1.0 + np.clip(rng.normal(0.0, 0.08), -0.2, 0.2)
    additives = varied[len(POLYMERS) :]
    np.minimum(additives, MAX_ADDITIVE_WT, out=additives)
    stabiliser = INGREDIENTS.index("stabiliser")
    varied[stabiliser] = np.clip(varied[stabiliser] + rng.normal(0.0, 0.1), 0.0, 2.0)
    melt, mould = settings + rng.normal(0.0, (4.0, 5.0))
    return varied, _settings(float(melt), float(mould))


def _settings(melt: float, mould: float) -> Vector:
    return np.array(
        [round(np.clip(melt, *MELT_LIMITS_C)), round(np.clip(mould, *MOULD_LIMITS_C))],
        dtype=np.float64,
    )


def _round_to_100(recipe: Vector) -> Vector:
    """Tenths of a percent that sum to exactly 1000; the largest share takes the remainder."""
    tenths = np.rint(recipe / recipe.sum() * 1000.0)
    tenths[np.argmax(tenths)] += 1000.0 - tenths.sum()
    return np.asarray(tenths / 10.0)


def _gaps(rows: int, rates: Vector, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which values were not measured, shape (rows, 2); at least one of a row always was."""
    draws = rng.random(rows)
    return np.stack([draws < rates[0], draws > 1.0 - rates[1]], axis=1)


def _properties(wt: Vector, settings: Vector) -> Vector:
    """Tensile modulus (MPa) and notched impact strength (kJ/m2) without lab noise, shape (n, 2)."""
    polymer_wt, additive_wt = wt[:, : len(POLYMERS)], wt[:, len(POLYMERS) :]
    volumes = np.concatenate([polymer_wt / DENSITY, additive_wt / ADDITIVE_DENSITY], axis=1)
    volumes /= volumes.sum(axis=1, keepdims=True)
    blend = polymer_wt / polymer_wt.sum(axis=1, keepdims=True)
    fibre, mineral, rubber, retardant = volumes[:, len(POLYMERS) : len(POLYMERS) + 4].T
    melt_excess = settings[:, 0] - blend @ MELT_C  # deg C above what the blend likes
    mould_excess = settings[:, 1] - blend @ MOULD_C

    crystals = blend @ CRYSTALLINE * np.tanh(mould_excess / 40.0)
    matrix = blend @ MODULUS_MPA * (1.0 + 0.08 * crystals) * np.exp(-2.3 * rubber)
    # Cold melts break fibres: the aspect ratio that counts falls, and with it the stiffening.
    aspect = 22.0 + 7.0 * np.tanh(melt_excess / 15.0)
    bond = 0.6 + 0.4 * (blend @ np.array([1.0, 1.0, 0.9, 0.45, 0.35]))
    stiffness = _halpin_tsai(72_000.0, matrix, fibre, aspect) * bond + (1 - bond) * matrix
    stiffness = _halpin_tsai(25_000.0, stiffness, mineral + 0.6 * retardant, np.full(len(wt), 3.0))

    rubber_wt = additive_wt[:, 2]
    formed = 1.0 / (1.0 + np.exp(-(rubber_wt - blend @ RUBBER_THRESHOLD) / 1.8))
    pc, abs_ = blend[:, 3], blend[:, 4]
    # An ABS phase keeps polycarbonate tough: the blend beats the mean of its parts.
    unfilled = blend @ IMPACT_KJ_M2 + 40.0 * pc * abs_
    tough = np.maximum(blend @ TOUGH_KJ_M2, unfilled)
    ductile = unfilled + (tough - unfilled) * formed
    # Rigid particles end ductility; in a brittle matrix fibres bridge cracks instead.
    ductile *= np.exp(-6.0 * fibre - 9.0 * mineral - 5.0 * retardant)
    bridging = 65.0 * fibre * bond * (0.6 + 0.4 * np.tanh(melt_excess / 15.0))
    hot = 1.0 / (1.0 + np.exp(-(melt_excess - 18.0) / 5.0))
    impact = (ductile + bridging) * (1.0 - 0.45 * hot) * (1.0 - 0.12 * crystals)
    return np.stack([stiffness, impact], axis=1)


def _halpin_tsai(filler: float, matrix: Vector, volume: Vector, aspect: Vector) -> Vector:
    """Modulus of a filled polymer (MPa); ``aspect`` is length over diameter, halved for the
    in-plane scatter of moulded fibres."""
    ratio = filler / matrix
    eta = (ratio - 1.0) / (ratio + aspect)
    return np.asarray(matrix * (1.0 + aspect * eta * volume) / (1.0 - eta * volume))

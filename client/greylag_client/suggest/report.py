"""What was found: as a document, as a table on the terminal, and as rows to fill in."""

import hashlib
import io
from typing import Any

import numpy as np
import polars as pl
from greylag_protocols.features import Matrix
from greylag_protocols.terms import DataTerms
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from greylag_client.personal.artefact import NOTE
from greylag_client.suggest.goal import COVERAGE, Goal, whole
from greylag_client.suggest.search import Found
from greylag_client.suggest.space import Space
from greylag_client.suggest.wishes import Wishes

WIDTH = 130
# What a flag says, in English and in Chinese.
FLAGS = {
    "outside-band": ("the prediction is outside the target's band", "预测值不在目标区间内"),
    "far": ("unlike every recipe of your table; the interval may be too narrow",
            "与自有配方差异较大，区间可能偏窄"),
    "models-differ": ("the models behind the prediction differ by more than their usual error",
                      "组成模型之间分歧超过通常误差"),
    "neighbour-missed": ("at the nearest known recipe the prediction misses what was measured",
                         "模型在最近已知配方处的预测与实测不符"),
}  # fmt: skip
TO_MEASURE = (
    "These are proposals to be measured in the lab, not results. Where a recipe was chosen because "
    "the model likes it, the model errs more than elsewhere."
)
TO_MEASURE_ZH = "以上为待实验验证的建议，并非结果。按模型偏好挑选出的配方，其误差往往大于平时。"
STAYS = f"Made with {NOTE}. The same holds for these proposals."
STAYS_ZH = "建议来自本企业专有版本（未加噪声、非私有），仅限本企业内部使用。"
TABLE_STAYS = "Your own table went into these proposals: keep them in the firm."
TABLE_STAYS_ZH = "建议用到了本企业自己的数据表，仅限本企业内部使用。"
NO_INTERVAL = (
    "No interval: this is the shared release, which states none for your rows. Give --from a table "
    "with measured targets of at least four groups that the plan holds out, or personalise."
)
NO_INTERVAL_ZH = (
    "无区间：共享模型未给出适用于本企业的误差；"
    "请用 --from 提供带实测值的数据表，或先执行 personalise。"
)


def as_document(
    goal: Goal, space: Space, wishes: Wishes, found: Found, *, seed: int
) -> dict[str, Any]:
    """All facts, for programs; the page is made of it too."""
    data = space.data
    names = data.feature_names
    known = goal.known
    allowed = [name for name, on, high in zip(names, space.summed, space.high, strict=True)
               if on and high > 0]  # fmt: skip
    stays = notes_of(goal)
    return {
        "run": goal.predictor.terms.run_id,
        "private": goal.predictor.private and known is None,
        "notes": [english for english, _ in stays],
        "notes_zh": [chinese for _, chinese in stays],
        "targets": [
            {"name": band.name, "unit": band.unit, "low": band.low, "high": band.high}
            for band in wishes.bands
        ],
        "constraints": {
            "sum": wishes.total,
            "fix": {name: _shown_span(data, name, span) for name, span in wishes.fixes.items()},
            "max_components": space.most if wishes.total is not None else None,
            "sum_of": list(wishes.summed),
            "components": allowed,  # what may be in a proposal
        },
        "interval": None if goal.reach is None else {
            "coverage": COVERAGE,
            "from": goal.reach.origin,
            "rows": goal.reach.rows,
            "groups": goal.reach.groups,
            "targets": dict(zip(data.target_names, goal.reach.half.tolist(), strict=True)),
        },
        "known": None if known is None else {
            "file": known.name,
            "recipes": len(known.values),
            "usual_distance": None if goal.yardstick is None else goal.yardstick[0],
            "far_from": goal.far,
        },
        "proposals": [_proposal(goal, space, wishes, found, at) for at in range(len(found.values))],
        "apart": found.apart,
        "seed": seed,
    }  # fmt: skip


def notes_of(goal: Goal) -> list[tuple[str, str]]:
    """What has to be said with every list of proposals, in both languages."""
    notes = [(TO_MEASURE, TO_MEASURE_ZH)]
    if goal.reach is None:
        notes.append((NO_INTERVAL, NO_INTERVAL_ZH))
    if not goal.predictor.private:
        notes.append((STAYS, STAYS_ZH))
    elif goal.known is not None:
        notes.append((TABLE_STAYS, TABLE_STAYS_ZH))
    return notes


def _proposal(goal: Goal, space: Space, wishes: Wishes, found: Found, at: int) -> dict[str, Any]:
    judged, data = found.judged, space.data
    predicted = judged.predicted[at]
    bounds = goal.bounds(judged.predicted[[at]])
    nearest = None
    if goal.known is not None:
        row = int(judged.nearest[at])
        measured = goal.known.measured[row]
        nearest = {
            "row": int(goal.known.rows[row]),
            "distance": float(judged.distance[at]),
            "recipe": recipe_of(space, goal.known.values[row]),
            "measured": {
                name: whole(float(value))
                for name, value in zip(data.target_names, measured, strict=True)
            },
        }
    flags = []
    if not goal.inside(judged.predicted[[at]]).all():
        flags.append("outside-band")
    if goal.known is not None and judged.distance[at] > goal.far:
        flags.append("far")
    if (judged.spread[at] > goal.deviation)[goal.wanted].any():
        flags.append("models-differ")
    if goal.reach is not None and goal.known is not None:
        missed = goal.residuals[judged.nearest[at]] > goal.reach.half
        flags += ["neighbour-missed"] * bool(missed[goal.wanted].any())
    return {
        "rank": at + 1,
        "recipe": recipe_of(space, found.values[at]),
        "predictions": {
            name: {
                "predicted": float(predicted[index]),
                "low": None if bounds is None else float(bounds[0][0, index]),
                "high": None if bounds is None else float(bounds[1][0, index]),
                "unit": data.targets[index].unit,
            }
            for index, name in enumerate(data.target_names)
        },
        "chance": whole(float(judged.chance[at])),
        "cost": whole(float(judged.cost[at])),
        "nearest": nearest,
        "flags": flags,
    }


def recipe_of(space: Space, row: Matrix) -> dict[str, float | str]:
    """A recipe by column: components that are in it, the largest first, then all else."""
    names = np.array(space.data.feature_names)
    amounts = [at for at in np.argsort(-row, kind="stable") if space.summed[at] and row[at] > 0]
    rest = [at for at in range(len(row)) if not space.summed[at]]
    return {str(names[at]): _shown(space.data, str(names[at]), row[at]) for at in amounts + rest}


def _shown(data: DataTerms, name: str, value: float) -> float | str:
    labels = data.by_feature[name].categories
    if labels is None:
        return float(value)
    return labels[int(value)] if int(value) < len(labels) else "(other)"


def _shown_span(data: DataTerms, name: str, span: tuple[float, float]) -> list[float | str]:
    return [_shown(data, name, value) for value in span]


def as_text(found: dict[str, Any]) -> str:
    """For people at a terminal."""
    grid = Grid(show_edge=False, pad_edge=False)
    grid.add_column("#", justify="right")
    grid.add_column("recipe", ratio=1)
    names = list(found["proposals"][0]["predictions"]) if found["proposals"] else []
    for name in names:
        unit = found["proposals"][0]["predictions"][name]["unit"]
        grid.add_column(escape(f"{name}{f' ({unit})' if unit else ''}"), justify="right")
    columns = {"chance": found["interval"] is not None,
               "cost": any(item["cost"] is not None for item in found["proposals"]),
               "nearest": found["known"] is not None}  # fmt: skip
    for column, shown in columns.items():
        if shown:
            grid.add_column(column, justify="right")
    grid.add_column("flags")
    for item in found["proposals"]:
        cells = [str(item["rank"]), escape(say_recipe(item["recipe"]))]
        cells += [_say_prediction(item["predictions"][name]) for name in names]
        if columns["chance"]:
            cells.append(f"{item['chance']:.0%}")
        if columns["cost"]:
            cells.append(f"{item['cost']:.4g}")
        if columns["nearest"]:
            cells.append(_say_nearest(item["nearest"], [t["name"] for t in found["targets"]]))
        grid.add_row(*cells, "\n".join(item["flags"]))
    drawn = io.StringIO()
    Console(file=drawn, width=WIDTH).print(grid)
    lines = [_headline(found), "", *(line.rstrip() for line in drawn.getvalue().splitlines()), ""]
    lines += [f"{flag}: {FLAGS[flag][0]}." for flag in FLAGS
              if any(flag in item["flags"] for item in found["proposals"])]  # fmt: skip
    if found["interval"] is not None:
        lines.append(
            f"Intervals are meant to hold the truth in {COVERAGE:.0%} of new groups' rows; chance: "
            "of all targets at once, if errors are as there."
        )
    if found["known"] is not None:
        lines.append(
            f"Away: the share of the recipe that differs from that row of {found['known']['file']}"
            f" (other columns in parts of their range); far from {found['known']['far_from']:.2f}."
        )
    return "\n".join([*lines, *found["notes"], *found["notes_zh"]])


def _headline(found: dict[str, Any]) -> str:
    wanted = ", ".join(
        f"{item['name']} {item['low']:g} to {item['high']:g}"
        f"{' ' + item['unit'] if item['unit'] else ''}"
        for item in found["targets"]
    )
    hits = sum("outside-band" not in item["flags"] for item in found["proposals"])
    return f"{len(found['proposals'])} proposals for {wanted}; {hits} predicted inside"


def say_recipe(recipe: dict[str, float | str]) -> str:
    """A recipe in one line."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in recipe.items()
    )


def _say_prediction(item: dict[str, Any]) -> str:
    if item["low"] is None:
        return f"{item['predicted']:.4g}"
    return f"{item['predicted']:.4g}\n({item['low']:.4g} to {item['high']:.4g})"


def _say_nearest(item: dict[str, Any], wanted: list[str]) -> str:
    known = [item["measured"][name] for name in wanted if item["measured"][name] is not None]
    lines = [f"row {item['row']}, {item['distance']:.2f} away"]
    if known:
        lines.append(f"(measured {', '.join(f'{value:.4g}' for value in known)})")
    return "\n".join(lines)


def as_rows(found: dict[str, Any], data: DataTerms) -> bytes:
    """A CSV file in the plan's own columns, targets empty: measured and filled in, it is a table
    of new rows. Columns that a plan does not know are ignored by what reads it then."""
    rows = []
    named = repr([item["recipe"] for item in found["proposals"]]).encode()
    mark = hashlib.sha256(named).hexdigest()[:8]
    for item in found["proposals"]:
        row: dict[str, Any] = {}
        if data.group is not None:
            row[data.group] = f"suggested-{mark}-{item['rank']}"
        row |= {name: item["recipe"].get(name, 0.0) for name in data.feature_names}
        row |= dict.fromkeys(data.target_names)
        for name, said in item["predictions"].items():
            row |= {f"suggest:{name}:{end}": said[end] for end in ("predicted", "low", "high")}
        nearest = item["nearest"] or {}
        row |= {
            "suggest:chance": item["chance"],
            "suggest:cost": item["cost"],
            "suggest:nearest_row": nearest.get("row"),
            "suggest:distance": nearest.get("distance"),
            "suggest:flags": " ".join(item["flags"]),
        }
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None).write_csv().encode()

"""What was chosen and why, for people and for programs."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from greylag_protocols.terms import Terms

from greylag_client.personal.artefact import AUDIENCE, NOTE
from greylag_client.personal.fitting import Fitted


def as_document(
    terms: Terms, fitted: Fitted, held_out: dict[str, Any] | None, out: Path
) -> dict[str, Any]:
    """All facts; no cell of the table is among them."""
    target = terms.data.targets[0]
    if terms.data.task == "classification":
        validated, measure, unit, scale = "log loss", "share of wrong answers", "", 1.0
    elif len(terms.data.targets) == 1 and target.range is not None:
        unit, scale = target.unit, target.range[1] - target.range[0]
        validated = measure = f"rmse {target.name}"
    else:
        validated, measure, unit, scale = "rms error / range", "mean rmse / range", "", 1.0
    return {
        "run": terms.run_id,
        "private": False,
        "audience": AUDIENCE,
        "note": NOTE,
        "rows": fitted.rows,
        "groups": fitted.groups,
        "chosen": [
            {"part": part.name, "weight": weight}
            for part, weight in zip(fitted.blend.parts, fitted.blend.weights, strict=True)
        ],
        "why": fitted.why,
        "gain_in_standard_errors": fitted.gain,
        "kept_of_the_blend": fitted.kept,
        "validation": {
            "measure": validated,
            "unit": unit,
            "candidates": [
                {
                    "name": item.name,
                    "error": scale * item.error,
                    "low": scale * item.low,
                    "high": scale * item.high,
                    "weight": item.weight,
                }
                for item in fitted.candidates
            ],
        },
        "held_out": None if held_out is None else {"measure": measure, "unit": unit} | held_out,
        "intervals": None
        if fitted.intervals is None
        else asdict(fitted.intervals)
        | {"reach": list(fitted.intervals.reach), "targets": list(terms.data.target_names)},
        "out": str(out),
    }


def as_text(found: dict[str, Any]) -> str:
    """The document for people at a terminal."""
    unit = found["validation"]["unit"]
    suffix = f" {unit}" if unit else ""
    lines = [
        f"A version of {found['run']} for this firm, from {found['rows']} training rows of "
        f"{found['groups']} groups, in {found['out']}",
        f"Chosen: {found['why']}",
    ]
    if found["validation"]["candidates"]:
        lines += ["", f"{found['validation']['measure']} on rows that a model had not seen"
                  f"{f' ({unit})' if unit else ''}, 95 % interval:"]  # fmt: skip
    for item in found["validation"]["candidates"]:
        weight = "" if item["name"] == "the choice" else f"   weight {item['weight']:.0%}"
        lines.append(
            f"  {item['name']:<18} {item['error']:>8.4g}   {item['low']:.4g} to "
            f"{item['high']:.4g}{weight}"
        )
    held_out = found["held_out"]
    if held_out is not None:
        lines += ["", f"{held_out['measure']} on the plan's {held_out['rows']} held-out rows of "
                  f"{held_out['groups']} groups: "
                  + ", ".join(f"{name} {held_out[name]:.4g}{suffix}"
                              for name in ("alone", "shared", "personalised"))]  # fmt: skip
    intervals = found["intervals"]
    if intervals is None:
        lines.append("No intervals: too few groups to tell how far predictions may be off.")
    elif found["validation"]["measure"] == "log loss":
        lines.append(
            f"Classes with a probability of at least {intervals['reach'][0]:.3g} count as "
            "possible: meant to hold the true one in "
            f"{intervals['coverage']:.0%} of new groups' rows."
        )
    else:
        named = ", ".join(
            f"{name} +-{reach:.3g}"
            for name, reach in zip(intervals["targets"], intervals["reach"], strict=True)
        )
        lines.append(
            f"Intervals ({named}{suffix}) are meant to hold the truth in "
            f"{intervals['coverage']:.0%} of new groups' rows."
        )
    lines += [
        "",
        f"Not private: {found['note']}.",
        "非私有：本版本用本企业数据拟合且未加噪声，仅限本企业内部使用。",
    ]
    return "\n".join(lines)

"""The lab's one JSON document, and the same for people."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from greylag_protocols.terms import Terms
from rich.console import Console
from rich.table import Table

from greylag_lab.metrics import Estimate, Scores


def run_facts(terms: Terms, *, firms: int, rounds: int, attempts: int) -> dict[str, Any]:
    """The keys that `demo` and `simulate` share."""
    privacy = terms.privacy
    return {
        "run": terms.run_id,
        "firms": firms,
        "rounds": rounds,
        "attempts": attempts,
        "unit": privacy.unit,
        "epsilon": privacy.epsilon,
        "delta": privacy.delta,
        "noise_multiplier": privacy.noise_multiplier,
        "max_colluding": privacy.max_colluding,
    }


def mean_metrics(seeds: Sequence[Mapping[str, Scores]]) -> dict[str, Any]:
    """Each model's headline over the split seeds: mean of the values and of the interval's ends.
    Under ``details`` the other metrics, of several targets one each."""
    means = {}
    for model in seeds[0]:
        by_seed = [{item.name: item for item in seed[model].details} for seed in seeds]
        headline = seeds[0][model].headline.name
        details = [
            _mean([found[name] for found in by_seed])
            for name in by_seed[0]
            if name != headline and all(name in found for found in by_seed)
        ]
        means[model] = _mean([found[headline] for found in by_seed])
        means[model] |= {"details": details} if details else {}
    return means


def _mean(scores: Sequence[Estimate]) -> dict[str, Any]:
    return {
        "name": scores[0].name,
        "unit": scores[0].unit,
        "value": sum(item.value for item in scores) / len(scores),
        "low": sum(item.low for item in scores) / len(scores),
        "high": sum(item.high for item in scores) / len(scores),
    }


def gap_closed(metrics: Mapping[str, Any], model: str = "shared") -> float | None:
    """The share of the gap from `alone` to `pooled` that `model` closes."""
    if not {"alone", "pooled", model} <= metrics.keys():
        return None
    alone, pooled, closed = (metrics[name]["value"] for name in ("alone", "pooled", model))
    return float((alone - closed) / (alone - pooled)) if alone != pooled else None


def to_json(facts: Mapping[str, Any]) -> str:
    """One document."""
    return json.dumps(facts, ensure_ascii=False)


LABELS = {
    "alone": "each firm alone, no privacy",
    "shared": "together, with greylag",
    "personalised": "together, then each firm's own version",
    "pooled": "all data in one place, no privacy (nobody may do this)",
}


def describe(facts: Mapping[str, Any], per_firm: Mapping[str, Scores] | None = None) -> str:
    """The document as tables."""
    console = Console(width=100)
    with console.capture() as capture:
        console.print(
            f"{facts['run']}: {facts['firms']} firms, {facts['rounds']} rounds in "
            f"{facts['attempts']} attempts, {facts['wall_s']:.0f} s\n"
            f"one {facts['unit']}: epsilon {facts['epsilon']:g} at delta {facts['delta']:g}, "
            f"against the lead and up to {facts['max_colluding']} colluding firms\n",
            highlight=False,
        )
        table = Table(show_edge=False)
        for column in ("model", "error on held-out rows", "95 % interval"):
            table.add_column(column)
        for name, item in facts["metrics"].items():
            unit = f" {item['unit']}" if item["unit"] else ""
            interval = f"{item['low']:.4g} to {item['high']:.4g}"
            table.add_row(LABELS.get(name, name), f"{item['value']:.4g}{unit}", interval)
        console.print(table)
        if per_firm is not None and {"alone", "shared"} <= per_firm.keys():
            console.print(_firm_table(per_firm))
        if facts.get("gap_closed") is not None:
            console.print(f"gap from alone to pooled closed: {facts['gap_closed']:.0%}")
        if facts.get("gap_closed_personalised") is not None:
            console.print(f"... by firms' own versions: {facts['gap_closed_personalised']:.0%}")
        if facts.get("personalised_worse") is not None:
            for other, firms in facts["personalised_worse"].items():
                console.print(f"own version worse than {other} beyond noise: {len(firms)} firms")
        if facts.get("newcomers"):
            console.print(_newcomer_table(facts["newcomers"]))
    return capture.get().rstrip()


def _newcomer_table(sizes: Sequence[Mapping[str, Any]]) -> Table:
    title = "\nfirms that did not train, with a few rows of their own"
    table = Table(title=title, show_edge=False, title_justify="left")
    for column in ("own rows", "firms", "alone", "shared", "own version", "gain over alone"):
        table.add_column(column, justify="right")
    for size in sizes:
        gain = size["gain_over_alone"]
        table.add_row(
            str(size["own_rows"]),
            str(size["firms"]),
            *(f"{size[name]['value']:.4g}" for name in ("alone", "shared", "personalised")),
            f"{gain['value']:.4g} ({gain['low']:.4g} to {gain['high']:.4g})",
        )
    return table


def _firm_table(per_firm: Mapping[str, Scores]) -> Table:
    alone, shared = per_firm["alone"].per_firm, per_firm["shared"].per_firm
    table = Table(title="\nfirm by firm", show_edge=False, title_justify="left")
    for column in ("firm", "alone", "together", ""):
        table.add_column(column, justify="left" if column in ("firm", "") else "right")
    for firm in sorted(alone.keys() & shared.keys()):
        better = shared[firm] < alone[firm] if per_firm["shared"].lower_is_better else (
            shared[firm] > alone[firm]
        )  # fmt: skip
        table.add_row(
            firm, f"{alone[firm]:.4g}", f"{shared[firm]:.4g}", "better" if better else "worse"
        )
    return table

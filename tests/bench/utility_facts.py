"""From what models predicted to tables of figures: means over splits, gaps closed, who gains."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from greylag_lab.metrics import Estimate, Outcome, Scores, clearly_worse, gain_over, score
from greylag_lab.newcomers import Newcomers, newcomer_facts
from greylag_lab.report import gap_closed, mean_metrics
from greylag_protocols.terms import DataTerms
from scipy.stats import t as student
from utility_runs import Found, Split
from utility_tables import Case


def judge(case: Case, found: Found) -> dict[str, Scores]:
    """The lab's scores with the case's own metric in front."""
    scored = {}
    for model, outcomes in found.items():
        scores = score(case.plan.data, outcomes)
        first = next(item for item in scores.details if item.name == case.metric)
        rest = [item for item in scores.details if item.name != case.metric]
        scored[model] = replace(scores, headline=first, details=(first, *rest))
    return scored


def table_facts(
    case: Case, seeds: Sequence[int], splits: Sequence[Split], left_out: Sequence[Any]
) -> dict[str, Any]:
    """One table's part of the document."""
    return {
        "metric": case.metric,
        "lower_is_better": case.plan.data.task == "regression",
        "delta": case.plan.privacy.delta,
        "max_colluding": case.plan.privacy.max_colluding,
        "split_seeds": list(seeds),
        "epsilons": [
            _at_epsilon(case, epsilon, [split[epsilon] for split in splits], left_out)
            for epsilon in splits[0]
        ],
    }


def _at_epsilon(
    case: Case, epsilon: float, found: Sequence[Found], left_out: Sequence[Mapping[float, Any]]
) -> dict[str, Any]:
    by_seed = [judge(case, item) for item in found]
    means = mean_metrics(by_seed)
    facts: dict[str, Any] = {
        "epsilon": epsilon,
        "firms": [
            max((len(item.per_firm) for item in split.values()), default=0) for split in by_seed
        ],
        "models": means,
        "by_split": {
            model: [split[model].headline.value for split in by_seed] for model in by_seed[0]
        },
        "gap_closed": {
            model: gap_closed(means, model) for model in means if model not in ("alone", "pooled")
        },
    }
    if {"record", "central"} <= means.keys():
        facts["record_minus_central"] = paired(by_seed, "record", "central")
    # Firm by firm the lab compares by its own headline; of rare classes, accuracy says nothing.
    if "alone" in means and case.metric != "average precision":
        facts["against_alone"] = {
            model: against_alone(case.plan.data, model, found, by_seed)
            for model in ("record", "group", "personalised")
            if model in means
        }
    if case.lead and "alone" in means:
        facts["lead_and_small"] = {
            model: lead_and_small(case.plan.data, model, found)
            for model in ("record", "personalised")
            if model in means
        }
    newcomers: list[Newcomers] = [item[epsilon] for item in left_out if epsilon in item]
    if newcomers:
        facts["newcomers"] = newcomer_facts(case.plan.data, newcomers)
    return facts


def paired(by_seed: Sequence[Mapping[str, Scores]], one: str, other: str) -> dict[str, float]:
    """Mean difference over splits with Student's 95 % interval, and each model's own spread."""
    differences = [split[one].headline.value - split[other].headline.value for split in by_seed]
    facts = {"splits": len(differences), "mean": fmean(differences)}
    if len(differences) > 1:
        half = float(student.ppf(0.975, len(differences) - 1)) * stdev(differences)
        half /= len(differences) ** 0.5
        facts |= {"low": facts["mean"] - half, "high": facts["mean"] + half}
        for model in (one, other):
            facts[f"spread_{model}"] = stdev(split[model].headline.value for split in by_seed)
    return facts


def against_alone(
    data: DataTerms, model: str, found: Sequence[Found], by_seed: Sequence[Mapping[str, Scores]]
) -> dict[str, Any]:
    """At how many firms a model wins; at which it loses beyond noise."""
    pairs = [split[model].wins_over(split["alone"]) for split in by_seed]
    return {
        "better": sum(won for won, _ in pairs),
        "of": sum(both for _, both in pairs),
        "clearly_better": sum(len(clearly_worse(data, s["alone"], s[model])) for s in found),
        "clearly_worse": sum(len(clearly_worse(data, s[model], s["alone"])) for s in found),
    }


def lead_and_small(data: DataTerms, model: str, found: Sequence[Found]) -> dict[str, Any]:
    """What the firm with the most rows gains over alone, and what the others gain."""
    sides: dict[str, dict[str, list[Outcome]]] = {"lead": {}, "small": {}}
    for name in (model, "alone"):
        for number, split in enumerate(found):
            for item in split[name]:
                largest = max(split[name], key=lambda each: each.train_rows)
                side = sides["lead" if item.firm == largest.firm else "small"]
                side.setdefault(name, []).append(replace(item, firm=f"{number}/{item.firm}"))
    facts: dict[str, Any] = {}
    for side, outcomes in sides.items():
        gain: Estimate = gain_over(data, outcomes[model], outcomes["alone"])
        facts[side] = {
            "alone": score(data, outcomes["alone"]).headline.value,
            "error": score(data, outcomes[model]).headline.value,
            "gain": gain.to_json(),
        }
    ours, alone = (score(data, sides["small"][name]).per_firm for name in (model, "alone"))
    shares = [1.0 - ours[firm] / alone[firm] for firm in ours.keys() & alone.keys()]
    facts["small"] |= {
        "firms": len(shares),
        "better": sum(share > 0 for share in shares),
        "mean_share": fmean(shares),
        "mean_share_error": stdev(shares) / len(shares) ** 0.5,
    }
    return facts

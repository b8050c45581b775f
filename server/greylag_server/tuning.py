"""``greylag-server plan tune``: sampling, rounds, clipping, rate and model size from public facts.

Only what stands in the plan and the number of firms are looked at, never data: a choice that was
made by looking would have to be paid for. The rules and the measurements behind them are in
docs/tuning.md. They turn on one number, the **noise share**: how long the noise is in the mean of
all rounds' gradients, against the longest mean gradient that clipping allows,

    share = sigma sqrt(n / (n - t)) sqrt(d) / (q * units * sqrt(rounds))

for a roster of ``n``, all of whom add noise scaled for ``n - t``. In large batches ``sigma`` grows
with ``q sqrt(rounds)``, so the share hardly depends on either: it is what epsilon, delta, the units
and the model's size leave to work with.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from greylag_protocols import accounting
from greylag_protocols.errors import ConfigError
from greylag_protocols.parameters import dimension
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.terms import Plan, Terms, mechanism_of, parameters_of

from greylag_server.terminal import errors, read_text, say

RATES = (1.0, 0.5, 0.2, 0.1, 0.05)
RATE_ALLOWANCE = 0.02  # so much more noise is worth smaller batches
WIDTHS = (64, 48, 32, 24, 16)  # of two hidden layers
WIDEST_SHARE = 0.03
MOST_ROUNDS, FEWEST_ROUNDS = 500, 200
NOISE_A_ROUND = 1.25  # of the longest mean gradient
REACH = 16.0  # how far noise may carry the whole weight vector
CLIP_OF_MULTIPLIER = 8.0  # gradients of a target are cut at its multiplier over this

AVERAGED = 10  # an average's memory is the run over this

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One key: what is proposed, what the plan has, and why."""

    key: str
    proposed: Any
    now: Any
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A proposed plan, its reasons, and the noise of both plans."""

    plan: Plan
    proposals: tuple[Proposal, ...]
    noise: dict[str, dict[str, float]]


def noise_share(terms: Terms, firms: int) -> float:
    """The noise share (see above) of settled terms with a roster of ``firms``."""
    privacy = terms.privacy
    one_round = privacy.noise_multiplier * math.sqrt(firms / (firms - privacy.max_colluding))
    one_round *= math.sqrt(terms.dimension) / terms.denominator
    return one_round / math.sqrt(terms.training.rounds)


def choose_width(share_of: Callable[[int], float]) -> int:
    """The widest pair of layers whose noise share is small enough, or the smallest pair."""
    return next((width for width in WIDTHS if share_of(width) <= WIDEST_SHARE), WIDTHS[-1])


def choose_rounds(share: float) -> int:
    """As many rounds as leave one round's noise below ``NOISE_A_ROUND``, in fifties."""
    fifties = int(min(1e6, (NOISE_A_ROUND / share) ** 2)) // 50 * 50
    return max(FEWEST_ROUNDS, min(MOST_ROUNDS, fifties))


def choose_learning_rate(rounds: int, weights: int) -> float:
    """Steps by which noise carries all weights together equally far, whatever the number of either;
    two digits."""
    return float(f"{REACH / math.sqrt(rounds * weights):.1e}")


def tune(plan: Plan, *, firms: int, tick: Tick = lambda: None) -> Tuned:
    """Propose better constants for ``plan``, for a roster of ``firms``.

    Raises:
        ConfigError: the plan's unit, noise or number of firms leaves nothing to propose from.
    """
    privacy = plan.privacy
    if privacy.epsilon is None:
        raise ConfigError("plan: give privacy.epsilon, not noise_multiplier, for tuning to solve")
    if privacy.unit == "firm":
        raise ConfigError(
            'privacy.unit = "firm": the rules are for records and groups; a round is '
            "local training there (docs/units.md), so try plans with greylag-lab simulate"
        )
    if firms < privacy.min_firms:
        raise ConfigError(f"--firms {firms} is below the plan's min_firms = {privacy.min_firms}")
    now = _settle(plan, firms)
    tick()
    by_itself = plan.model.family == "mlp"  # a plugin's size is the plugin's own
    whole = _with(plan, rounds=MOST_ROUNDS, rate=1.0)
    sigma = _noise_of(whole)
    tick()

    def size_of(width: int) -> int:
        model = replace(plan.model, hidden=(width, width)) if by_itself else plan.model
        return dimension(parameters_of(plan.data, model))

    def share_of(width: int) -> float:
        per_weight = sigma * math.sqrt(firms / (firms - privacy.max_colluding))
        units = now.denominator / plan.training.sampling_rate
        return per_weight * math.sqrt(size_of(width)) / (units * math.sqrt(MOST_ROUNDS))

    width = choose_width(share_of)
    share = share_of(width)
    rounds = choose_rounds(share)
    hidden = (width, width) if by_itself else plan.model.hidden
    clip = _clip_norm(plan)
    tuned = _with(plan, rounds=rounds, rate=1.0)
    tuned = replace(
        tuned,
        model=replace(plan.model, hidden=hidden),
        training=replace(
            tuned.training, learning_rate=choose_learning_rate(rounds, size_of(width))
        ),
        privacy=replace(tuned.privacy, clip_norm=clip),
    )
    tuned, excess = _choose_sampling_rate(tuned, firms, tick)
    settled = _settle(tuned, firms)
    training, had = tuned.training, plan.training
    part = f"the noise is {100 * share:.2g} % of the longest gradient, averaged over all rounds"
    proposals = [
        Proposal(
            key="training.sampling_rate",
            proposed=training.sampling_rate,
            now=had.sampling_rate,
            why=f"the smallest batches that need at most {100 * RATE_ALLOWANCE:.0f} % more noise "
            f"than whole passes (here {100 * excess:.1f} %)",
        ),
        Proposal(
            key="training.rounds",
            proposed=rounds,
            now=had.rounds,
            why=f"{part}; in one round {noise_share(settled, firms) * math.sqrt(rounds):.2f} of it "
            f"(at most {NOISE_A_ROUND}), {FEWEST_ROUNDS} to {MOST_ROUNDS} rounds",
        ),
        Proposal(
            key="training.learning_rate",
            proposed=training.learning_rate,
            now=had.learning_rate,
            why=f"{REACH:.0f} / sqrt(rounds x weights): a step is mostly noise, and so carries the "
            "weights equally far",
        ),
        Proposal(
            key="privacy.clip_norm",
            proposed=clip,
            now=privacy.clip_norm,
            why="half or double hardly matters under Adam; a target's multiplier sets the scale",
        ),
    ]
    if training.ema != had.ema:
        proposals.append(
            Proposal(
                key="training.ema",
                proposed=training.ema,
                now=had.ema,
                why=f"1 - {AVERAGED} / rounds: the average forgets the untrained model in time",
            )
        )
    if by_itself:
        proposals.append(
            Proposal(
                key="model.hidden",
                proposed=list(hidden),
                now=list(plan.model.hidden),
                why=f"the widest of {WIDTHS[-1]} to {WIDTHS[0]} whose noise is at most "
                f"{100 * WIDEST_SHARE:.0f} % of the longest gradient (here {100 * share:.2g} %)",
            )
        )
    if privacy.max_attempts is not None:
        proposals.append(
            Proposal(
                key="privacy.max_attempts",
                proposed=settled.privacy.max_attempts,
                now=privacy.max_attempts,
                why="a tenth more than rounds, all of it paid for",
            )
        )
    noise = {"proposed": _noise_facts(settled, firms), "now": _noise_facts(now, firms)}
    return Tuned(plan=tuned, proposals=tuple(proposals), noise=noise)


def as_toml(proposals: tuple[Proposal, ...]) -> str:
    """The proposals as tables to paste over the plan's own keys."""
    lines: dict[str, list[str]] = {}
    for item in sorted(proposals, key=lambda item: item.key):
        table, key = item.key.split(".")
        lines.setdefault(table, []).append(f"{key} = {item.proposed}")
    return "\n".join(f"[{table}]\n" + "\n".join(keys) + "\n" for table, keys in lines.items())


def _with(plan: Plan, *, rounds: int, rate: float) -> Plan:
    training = plan.training
    return replace(
        plan,
        privacy=replace(plan.privacy, max_attempts=None),
        training=replace(
            training,
            rounds=rounds,
            sampling_rate=rate,
            ema=min(training.ema, 1.0 - AVERAGED / rounds),
            warmup_rounds=min(training.warmup_rounds, rounds),
            tail_rounds=min(training.tail_rounds, rounds),
        ),
    )


def _settle(plan: Plan, firms: int) -> Terms:
    terms = settle_terms(plan, consortium="tuning", run_id="tuning")
    terms.grid(firms)
    return terms


def _noise_of(plan: Plan) -> float:
    """``sigma`` of a plan that need not be one that could be run."""
    privacy = plan.privacy
    return accounting.solve_noise_multiplier(
        mechanism_of(plan.data, plan.training, privacy.unit, 1.0),
        epsilon=privacy.epsilon or 0.0,
        delta=privacy.delta,
        releases=-(-11 * plan.training.rounds // 10),
    )


def _choose_sampling_rate(plan: Plan, firms: int, tick: Tick) -> tuple[Plan, float]:
    """The plan with the smallest rate that costs little noise, and how much. Rates whose batches
    do not fit the ring are passed over."""
    least = _noise_of(plan)
    candidates: list[tuple[Plan, float]] = []
    for rate in RATES:
        tick()
        candidate = replace(plan, training=replace(plan.training, sampling_rate=rate))
        excess = _noise_of(candidate) / rate / least - 1.0
        candidates.append((candidate, excess))
        if excess > RATE_ALLOWANCE:
            break
    affordable = [item for item in candidates if item[1] <= RATE_ALLOWANCE]
    problem = None
    for candidate, excess in affordable[::-1] + candidates[len(affordable) :]:
        tick()
        try:
            _settle(candidate, firms)
        except ConfigError as error:
            problem = error
            continue
        return candidate, excess
    raise problem or ConfigError("no sampling rate fits this plan")


def _clip_norm(plan: Plan) -> float:
    if plan.data.task == "classification":
        return 1.0
    return max(target.multiplier for target in plan.data.targets) / CLIP_OF_MULTIPLIER


def _noise_facts(terms: Terms, firms: int) -> dict[str, float]:
    return {
        "noise_multiplier": terms.privacy.noise_multiplier,
        "weights": terms.dimension,
        "noise_share": noise_share(terms, firms),
    }


plan_app = typer.Typer(help="Work on a plan before anybody is asked. 在征询各方之前完善计划。")


@plan_app.callback()
def _plan() -> None:
    """So that ``tune`` stays a command of its own name."""


@plan_app.command("tune")
def tune_command(
    plan: Annotated[Path, typer.Argument(help="the plan, TOML")],
    firms: Annotated[
        int | None, typer.Option(help="firms of a roster (default: the plan's min_firms)")
    ] = None,
    output: Annotated[str, typer.Option("--format", help="text or json")] = "text",
) -> None:
    """Propose sampling rate, rounds, clip norm, learning rate and model size, with reasons, from
    public facts alone. 仅凭公开信息提出参数建议，并说明理由。"""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    parsed = parse_plan(read_text(plan))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("solving the noise")
        roster = firms if firms is not None else parsed.privacy.min_firms
        tuned = tune(parsed, firms=roster, tick=lambda: progress.advance(task))
    fragment = as_toml(tuned.proposals)
    facts = {
        "firms": roster,
        "unit": parsed.privacy.unit,
        "epsilon": parsed.privacy.epsilon,
        "delta": parsed.privacy.delta,
        "proposals": [
            {"key": item.key, "proposed": item.proposed, "now": item.now, "why": item.why}
            for item in tuned.proposals
        ],
        "noise": tuned.noise,
        "toml": fragment,
    }
    say(facts, _describe(tuned, fragment, roster), output)


def _describe(tuned: Tuned, fragment: str, firms: int) -> str:
    rows = [
        f"{item.key} = {item.proposed} (now {item.now})\n    {item.why}" for item in tuned.proposals
    ]
    noise = [
        f"{when}: noise_multiplier {facts['noise_multiplier']:.4g}, {facts['weights']:,} weights, "
        f"noise {100 * facts['noise_share']:.2g} % of the longest gradient"
        for when, facts in tuned.noise.items()
    ]
    return "\n".join(
        [f"From public facts alone, for {firms} firms:", "", *rows, "", *noise, "", fragment]
    ).rstrip()

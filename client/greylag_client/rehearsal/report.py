"""The rehearsal as text for a terminal and as one JSON document."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from greylag_protocols.terms import Terms
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from greylag_client.quality.findings import plain
from greylag_client.rehearsal.cost import Bill, Cost
from greylag_client.rehearsal.effort import Effort
from greylag_client.rehearsal.gain import CHINESE, COVERAGE, Gain
from greylag_client.rehearsal.sight import Sight

WIDTH = 100
NAMES_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """All that was found out. ``gain`` is None where ``too_little`` says why."""

    terms: Terms
    firms: int
    rows: int
    cost: Cost
    bill: Bill | None
    gain: Gain | None
    too_little: str
    sight: Sight
    effort: Effort
    quality: tuple[str, ...]

    @property
    def advice(self) -> str:
        return "too little data to say" if self.gain is None else self.gain.advice


def as_document(found: Rehearsal) -> dict[str, Any]:
    """All facts; no cell of the table is among them."""
    gain, bill, effort = found.gain, found.bill, found.effort
    up, down = effort.total_bytes(effort.max_attempts)
    return {
        "run": found.terms.run.name,
        "purpose": found.terms.run.purpose,
        "firms": found.firms,
        "rows": found.rows,
        "advice": found.advice,
        "too_little": found.too_little,
        "refused": list(bill.refused) if bill else None,
        "cost": asdict(found.cost)
        | {
            "copies": [{"copies": count, "epsilon": value} for count, value in found.cost.copies],
            "budgets": [asdict(item) | {"left": item.left} for item in bill.budgets]
            if bill
            else None,
            "reads": list(bill.reads) if bill else None,
            "rules": [asdict(item) for item in bill.rules] if bill else None,
        },
        "gain": None
        if gain is None
        else asdict(gain) | {"gain": list(gain.gain), "coverage_wanted": COVERAGE},
        "sight": {
            "noise": found.sight.noise,
            "parties": {who: list(lines) for who, lines in found.sight.parties},
            "columns_read": list(found.sight.read),
            "columns_untouched": list(found.sight.untouched),
        },
        "effort": asdict(effort) | {"total_up_bytes": up, "total_down_bytes": down},
        "quality": list(found.quality),
        "sent": False,
        "reserved": False,
    }


def as_text(found: Rehearsal) -> str:
    """For people at a terminal."""
    terms = found.terms
    console = Console(width=WIDTH, color_system=None)
    with console.capture() as capture:

        def part(title: str, lines: Sequence[str]) -> None:
            console.print()
            console.print(Text(title))
            for line in lines:
                margin = "  - " if cell_len(line) else ""
                for at, piece in enumerate(Text(line).wrap(console, WIDTH - 4)):
                    console.print(Text(margin if at == 0 else "    ") + piece)

        console.print(
            Text(
                f"Rehearsal of '{plain(terms.run.name)}' ({plain(terms.run.purpose)}): "
                f"{found.firms} firms, {terms.training.rounds} rounds. "
                "Nothing was reserved or sent."
            ),
            soft_wrap=True,
        )
        part(_verdict(found), [])
        part("1. What it would cost", _cost(found.cost, found.bill))
        part("2. Whether it would help, against working alone", _gain(found.gain, found.too_little))
        part("3. Who would see what", _sight(found.sight))
        part("4. What it asks of this machine", _effort(found.effort))
        part("5. This table", found.quality)
        part("中文摘要", _chinese(found))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _verdict(found: Rehearsal) -> str:
    if found.bill is not None and found.bill.refused:
        return f"Your own rules would refuse this run. Apart from that: {found.advice}."
    return f"Advice: {found.advice}."


def _cost(cost: Cost, bill: Bill | None) -> list[str]:
    lines = [
        f"epsilon {cost.epsilon:g} (delta {cost.delta:g}) for each {cost.unit}: somebody who knows "
        f"all but whether one given {cost.unit} took part is right at most {cost.odds:.0f} times "
        "in 100; a coin is right 50 times",
    ]
    for count, epsilon in cost.copies:
        what = "as the largest group has" if count == cost.largest_group else "that are equal"
        worth = "no promise worth a number" if epsilon is None else f"epsilon {epsilon:.3g}"
        lines.append(f"{count} rows {what}: {worth}")
    alone = "nothing" if cost.lone is None else f"epsilon {cost.lone:.3g}"
    lines.append(f"if all other firms worked together against you, your own noise: {alone}")
    if bill is None:
        lines.append("budget and policy: not looked at; name the firm's directory with --dir")
        return lines
    lines += [
        f"data set {item.name}: limit {item.limit:g}, held {item.held:g}, "
        + (
            f"{item.after - item.held:g} would be reserved, left after that {item.left:g}"
            if item.after > item.held
            else f"left {item.left:g}; nothing new would be reserved"
        )
        for item in bill.budgets
    ]
    for rule in bill.rules:
        verdict = "allowed" if rule.allowed else "REFUSED"
        lines.append(f"{verdict}: {rule.name} = {rule.yours}; the run: {plain(rule.asked)}")
    return [*lines, *(f"REFUSED: {reason}" for reason in bill.refused)]


def _gain(gain: Gain | None, why: str) -> list[str]:
    if gain is None:
        return [f"too little data to say: {why}"]
    low, middle, high = (_number(value, gain.unit) for value in gain.together)
    least, expected, most = (_number(value, gain.unit) for value in gain.gain)
    here, (exponent, spread) = gain.exponent_here, gain.exponent
    steps = ", ".join(f"{rows} rows {error:.3g}" for rows, error in gain.curve)
    return [
        f"it {gain.advice}"
        if gain.advice != "hard to say"
        else "hard to say: the range holds both",
        f"alone: {gain.measure} {_number(gain.alone, gain.unit)} on {gain.held_out_rows} held-out "
        f"rows of {gain.held_out_groups} groups",
        f"together, in {COVERAGE:.0%} of cases: {low} to {high}, middle {middle}; that is better "
        f"by {least} to {most}, middle {expected} (negative: worse)",
        f"chance that together is better, as far as this can be told: {gain.chance:.0%}",
        f"behind it: alone with {steps}; from {gain.own_rows} to {gain.pooled_rows} rows the error "
        f"falls as rows^-b, b = {exponent:.2f} +- {spread:.2f} (measured here {here:.2f}); the "
        f"plan's rounds on your rows: {gain.clean:.3g} without, {gain.noisy:.3g} with the noise of "
        "everybody's sum",
        "assumed: your rows stand for everybody's. Other firms' data may differ, in your favour or "
        "against it; the range allows for what was seen on public data (docs/try.md), no more",
    ]


def _sight(sight: Sight) -> list[str]:
    lines = [f"{who}: {line}" for who, seen in sight.parties for line in seen]
    return [
        *lines,
        f"columns read ({len(sight.read)}): {_names(sight.read)}",
        f"columns not touched ({len(sight.untouched)}): {_names(sight.untouched) or 'none'}",
    ]


def _effort(effort: Effort) -> list[str]:
    up, down = effort.total_bytes(effort.max_attempts)
    lines = [
        f"gradients: {1000 * effort.round_s:.0f} ms a round, measured here on {effort.batch} rows "
        f"(always as many); {effort.round_s * effort.rounds:.0f} s in {effort.rounds} rounds",
        f"line: {_bytes(effort.up_bytes)} up and {_bytes(effort.down_bytes)} down a round; "
        f"{_bytes(up)} up and {_bytes(down)} down for all {effort.max_attempts} attempts",
    ]
    if effort.memory_bytes is not None:
        lines.append(f"memory: {_bytes(effort.memory_bytes)} at most so far, training included")
    return lines


def _chinese(found: Rehearsal) -> list[str]:
    cost, gain = found.cost, found.gain
    unit = {"record": "一行记录", "group": "一组记录", "firm": "整个企业"}[cost.unit]
    lines = [
        f"花费：每个单位（{unit}）epsilon {cost.epsilon:g}；"
        f"知道其余一切的人猜对其是否参与，100 次中至多 {cost.odds:.0f} 次（抛硬币为 50 次）。"
    ]
    if found.bill is not None:
        lines += [
            f"数据集 {item.name}：上限 {item.limit:g}，已占用 {item.held:g}，"
            f"之后剩余 {item.left:g}。"
            for item in found.bill.budgets
        ]
        verdict = "本企业的规则会拒绝此次运行。" if found.bill.refused else "本企业的规则允许。"
        lines.append(verdict)
    if gain is None:
        lines.append("收益：数据太少，无法判断。")
    else:
        low, _, high = (_number(value, gain.unit) for value in gain.together)
        lines.append(
            f"收益：{CHINESE[gain.advice]}。单独误差 {_number(gain.alone, gain.unit)}；"
            f"共同训练 {COVERAGE:.0%} 的情形在 {low} 到 {high} 之间。"
        )
    return [*lines, *found.sight.chinese, "本次试算未预留预算，也未发送任何内容。"]


def _number(value: float, unit: str) -> str:
    return f"{value:.3g}{' ' * bool(unit)}{unit}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(plain(name) for name in names[:NAMES_SHOWN])
    rest = len(names) - NAMES_SHOWN
    return shown + f" and {rest} more (--format json has all)" * (rest > 0)

"""The proposals as one page for a browser: everything is in the file, no script, no request."""

from datetime import datetime
from html import escape
from typing import Any

from greylag_client.suggest.plots import bars, clean, legend, prediction_plot
from greylag_client.suggest.report import FLAGS, say_recipe

# What a browser may do with the page, should a name in it ever get past the escaping: nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #566270; --line: #d6dce3;
  --paper: #fff; --card: #f5f7f9; --band: #2a7d4f; --dot: #1d5fa8; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaef; --soft: #a3afbd; --line: #3a4653;
  --paper: #161c23; --card: #1f2730; --band: #57c084; --dot: #7db4f0; --warn: #e0a93b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
[lang=zh] { color: var(--soft); }
.note { padding: .75rem 1rem; border-left: .3rem solid var(--warn); background: var(--card);
  margin: 1rem 0; } .note p { margin: 0 0 .4rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: 1rem; margin: 0 0 1rem; }
.facts { margin: .5rem 0 0; padding: 0; list-style: none; font-size: .92rem; }
.flag { color: var(--warn); font-weight: 600; }
table { border-collapse: collapse; font-size: .92rem; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
th { font-weight: 600; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
svg .soft { fill: var(--soft); } svg .line { stroke: var(--line); }
svg .band { fill: var(--band); opacity: .2; } svg .edge { stroke: var(--band); stroke-width: 1.5; }
svg .reach { stroke: var(--dot); stroke-width: 3; stroke-linecap: round; }
svg .dot { fill: var(--dot); } svg .ring { fill: var(--paper); stroke: var(--ink); }
.legend { font-size: .88rem; display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .5rem 0; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem;
  margin-right: .3rem; vertical-align: -.05rem; }
.wide { overflow-x: auto; }
footer { margin-top: 3rem; color: var(--soft); font-size: .9rem; }
"""


def as_page(found: dict[str, Any], *, made: datetime) -> str:
    """The whole page from ``report.as_document``. Every name passes through ``clean``."""
    targets = [item["name"] for item in found["targets"]]
    notes = zip(found["notes"], found["notes_zh"], strict=True)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{clean(', '.join(targets))}: proposed recipes 配方建议</title>",
        f"<style>{STYLE}</style></head><body><main>",
        f"<h1>{both('Proposed recipes', '配方建议')}: {clean(', '.join(targets))}</h1>",
        f'<div class="note">{"".join(paragraph(*note) for note in notes)}</div>',
        f"<h2>{both('Asked for', '要求')}</h2>{_asked(found)}",
    ]
    if not found["proposals"]:
        parts.append(paragraph("No recipe was found.", "未找到配方。"))
    parts += [
        f"<h2>{both('Prediction and target', '预测与目标')}: {clean(wanted['name'])}</h2>"
        f"{prediction_plot(found, wanted)}{_caption(found)}"
        for wanted in found["targets"]
        if found["proposals"]
    ]
    parts += [
        f"<h2>{both('Recipes', '配方')}</h2>",
        legend(found),
        *(_proposal(found, item) for item in found["proposals"]),
        f"<footer>{clean(found['run'])} · {made:%Y-%m-%d %H:%M} · ",
        both("Made on this machine; nothing was sent.", "在本机生成，未外发任何内容。"),
        "</footer></main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def both(english: str, chinese: str) -> str:
    """A label in both languages; both are text, not markup."""
    return f'{escape(english)} <span lang="zh">{escape(chinese)}</span>'


def paragraph(english: str, chinese: str) -> str:
    return f'<p>{escape(english)}<br><span lang="zh">{escape(chinese)}</span></p>'


def _asked(found: dict[str, Any]) -> str:
    limits, rows = found["constraints"], []
    for item in found["targets"]:
        span = f"{item['low']:g} – {item['high']:g} {item['unit']}"
        rows.append((both("target", "目标"), clean(item["name"]), clean(span)))
    for name, (low, high) in limits["fix"].items():
        span = f"{say(low)} – {say(high)}" if low != high else say(low)
        rows.append((both("fixed", "限定"), clean(name), clean(span)))
    if limits["sum"] is not None:
        names = ", ".join(limits["components"])
        rows.append((both("sum", "总和"), clean(names), f"{limits['sum']:g}"))
        most = str(limits["max_components"])
        rows.append((both("most components", "最多组分数"), "", most))
    cells = "".join(
        f'<tr><th scope="row">{kind}</th><td>{name}</td><td class="n">{span}</td></tr>'
        for kind, name, span in rows
    )
    return f'<div class="wide"><table><tbody>{cells}</tbody></table></div>'


def _caption(found: dict[str, Any]) -> str:
    green = (
        "Green: the target. Dot: the prediction. ",
        "绿色：目标区间；圆点：预测值；",
    )
    line = (
        ("Line: meant to hold the truth in 80 % of new groups' rows. ", "横线：80% 区间；")
        if found["interval"] is not None
        else ("No intervals. ", "无区间；")
    )
    ring = (
        ("Ring: measured at the nearest known recipe.", "空心圆：最近已知配方的实测值。")
        if found["known"] is not None
        else ("", "")
    )
    return paragraph(green[0] + line[0] + ring[0], green[1] + line[1] + ring[1])


def _proposal(found: dict[str, Any], item: dict[str, Any]) -> str:
    facts = []
    for name, said in item["predictions"].items():
        value = f"{said['predicted']:.4g} {said['unit']}"
        if said["low"] is not None:
            value += f" ({said['low']:.4g} – {said['high']:.4g})"
        facts.append(f"{clean(name)}: {clean(value)}")
    if item["chance"] is not None:
        facts.append(f"{both('chance of all targets', '全部达标的可能性')}: {item['chance']:.0%}")
    if item["cost"] is not None:
        facts.append(f"{both('cost of one unit', '单位成本')}: {item['cost']:.4g}")
    nearest = item["nearest"]
    if nearest is not None:
        where = f"{found['known']['file']}, row {nearest['row']}"
        facts.append(
            f"{both('nearest known recipe', '最近的已知配方')}: {clean(where)}; "
            f"{both('distance', '距离')} {nearest['distance']:.2f}{_measured(item)}<br>"
            f"≈ {clean(say_recipe(nearest['recipe']))}"
        )
    facts += [f'<span class="flag">{both(*FLAGS[flag])}</span>' for flag in item["flags"]]
    listed = "".join(f"<li>{fact}</li>" for fact in facts)
    return (
        f"<article><h3>{item['rank']}. {clean(say_recipe(item['recipe']))}</h3>"
        f'{bars(found, item)}<ul class="facts">{listed}</ul></article>'
    )


def _measured(item: dict[str, Any]) -> str:
    known = [
        f"{name} {value:.4g}"
        for name, value in item["nearest"]["measured"].items()
        if value is not None
    ]
    return f"; {both('measured', '实测')} {clean(', '.join(known))}" if known else ""


def say(value: float | str) -> str:
    """A number or category in a cell."""
    return value if isinstance(value, str) else f"{value:g}"

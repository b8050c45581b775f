"""The report as one page for a browser: a file with everything in it, no script, no request."""

from datetime import datetime
from html import escape

from greylag_client.quality.checks import edge_share
from greylag_client.quality.columns import Column
from greylag_client.quality.findings import DIMENSIONS, LEVELS, Finding, plain, say_share
from greylag_client.quality.report import ALIKE_SHOWN, UNDATED, Report, drift_sentences
from greylag_client.quality.scores import Score

ROLES = {"feature": "特征", "category": "分类特征", "target": "目标", "class": "类别"}
# What a browser may do with the page, should a name in it ever get past the escaping: nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5a6675; --line: #d6dce3;
  --paper: #fff; --card: #f5f7f9; --good: #2a7d4f; --fair: #9a6700; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaef; --soft: #a3afbd; --line: #3a4653;
  --paper: #161c23; --card: #1f2730; --good: #57c084; --fair: #e0a93b; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
[lang=zh] { color: var(--soft); }
.verdict { padding: .75rem 1rem; border-left: .3rem solid; background: var(--card);
  margin: 1rem 0; }
.scores { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .75rem 1rem; }
.number { font-size: 1.9rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.card ul { margin: .5rem 0 0; padding-left: 1.1rem; font-size: .92rem; }
.bar { display: block; height: .5rem; border-radius: .25rem; background: var(--line);
  overflow: hidden; min-width: 5rem; }
.bar i { display: block; height: 100%; background: currentColor; }
.good { color: var(--good); } .fair { color: var(--fair); } .bad { color: var(--bad); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; } th [lang=zh] { display: block; font-weight: 400; }
td.role { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.level { white-space: nowrap; font-weight: 600; } td p { margin: 0 0 .4rem; }
summary { cursor: pointer; padding: .2rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 3rem; color: var(--soft); font-size: .9rem; }
"""


def as_page(report: Report, *, made: datetime) -> str:
    """The whole page. Every name from the table passes through ``_text``."""
    tone = "bad" if report.misfit else "good"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(report.name)}: data quality 数据质量</title>",
        f"<style>{STYLE}</style></head><body><main>",
        f"<h1>{_both('Data quality', '数据质量')}: {_text(report.name)}</h1>",
        f'<p class="verdict {tone}">{_verdict(report)}</p>',
        f"<pre>{_lines(report.misfit)}</pre>" if report.misfit else "",
        _heading("Scores", "评分"),
        f'<div class="scores">{_cards(report)}</div>',
        _heading("What was found", "检查结果"),
        _findings(report),
        _heading("Groups", "分组"),
        _paragraph(*report.group_sentences),
        _classes(report),
        _heading("Drift", "分布变化"),
        _paragraph(*drift_sentences(report.examined)),
        _heading("Columns", "各列"),
        _columns(report),
        f"<footer>{made:%Y-%m-%d %H:%M} · ",
        _both(
            "Made on this machine for this firm alone; nothing of it was sent. It holds names and "
            "counts, and no value of the table.",
            "在本机为本企业生成，未外发任何内容。仅含名称与计数，不含表中数值。",
        ),
        "</footer></main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _text(name: str) -> str:
    return escape(plain(name), quote=True)


def _lines(text: str) -> str:
    kept = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    return escape(kept, quote=True)


def _both(english: str, chinese: str) -> str:
    """A label in both languages; both are text, not markup."""
    return f'{escape(english)} <span lang="zh">{escape(chinese)}</span>'


def _heading(english: str, chinese: str) -> str:
    return f"<h2>{_both(english, chinese)}</h2>"


def _paragraph(english: str, chinese: str) -> str:
    return f'<p>{escape(english)}<br><span lang="zh">{escape(chinese)}</span></p>'


def _verdict(report: Report) -> str:
    examined = report.examined
    if report.misfit:
        return _both(
            f"{examined.rows} rows. The table does not fit the plan yet.",
            f"{examined.rows} 行。该表尚不符合计划。",
        )
    return _both(
        f"{examined.rows} rows fit the plan: {examined.train} to train on, "
        f"{examined.holdout} held out.",
        f"{examined.rows} 行符合计划：{examined.train} 行训练，{examined.holdout} 行留出。",
    )


def _bar(share: float) -> str:
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i></span>'


def _cards(report: Report) -> str:
    cards = "".join(map(_card, report.scores))
    if report.examined.dated:
        return cards
    name = _both("Timeliness", DIMENSIONS["timeliness"])
    return f'{cards}<section class="card"><div>{name}</div>{_paragraph(*UNDATED)}</section>'


def _card(score: Score) -> str:
    tone = "good" if score.value >= 95 else "fair" if score.value >= 80 else "bad"
    fixes = "".join(f"<li>{_both(*fix)}</li>" for fix in score.fixes)
    return (
        f'<section class="card"><div>'
        f"{_both(score.dimension.capitalize(), DIMENSIONS[score.dimension])}</div>"
        f'<div class="{tone}"><span class="number">{score.value:g}</span> / 100'
        f"{_bar(score.value / 100)}</div>{f'<ul>{fixes}</ul>' if fixes else ''}</section>"
    )


def _findings(report: Report) -> str:
    if not report.by_kind:
        return _paragraph("Nothing was found that needs a look.", "未发现需要处理的问题。")
    rows = "".join(map(_kind, report.by_kind))
    return f'<div class="wide"><table><tbody>{rows}</tbody></table></div>'


def _kind(alike: list[Finding]) -> str:
    words = alike[0].words
    tone = {"problem": "bad", "warning": "fair", "note": ""}[words.level]
    said = "".join(map(_finding, alike[:ALIKE_SHOWN]))
    if more := alike[ALIKE_SHOWN:]:
        label = _both(f"{len(more)} more of this kind", f"另有同类 {len(more)} 项")
        said += f"<details><summary>{label}</summary>{''.join(map(_finding, more))}</details>"
    return (
        f'<tr><td class="level {tone}">{_both(words.level, LEVELS[words.level])}</td>'
        f'<td class="level">{_both(words.dimension, DIMENSIONS[words.dimension])}</td>'
        f"<td>{said}</td><td>{_paragraph(words.fix_en, words.fix_zh)}</td></tr>"
    )


def _finding(item: Finding) -> str:
    return _paragraph(item.english, item.chinese)


def _classes(report: Report) -> str:
    classes = report.examined.classes
    total = sum(classes.values())
    if not total:
        return ""
    rows = "".join(
        f'<tr><td>{_text(name)}</td><td class="n">{count}</td>'
        f"<td>{_bar(count / total)}{escape(say_share(count / total))}</td></tr>"
        for name, count in classes.items()
    )
    return f"{_heading('Classes', '类别')}<table><tbody>{rows}</tbody></table>"


def _columns(report: Report) -> str:
    labels = [
        ("column", "列"),
        ("role", "角色"),
        ("missing", "缺失"),
        ("unreadable", "不可读"),
        ("out of range", "超范围"),
        ("at the ends", "在端点"),
        ("PSI", "稳定性指数"),
    ]
    head = "".join(
        f'<th scope="col"{" class=n" if at > 1 else ""}>{_both(*label)}</th>'
        for at, label in enumerate(labels)
    )
    rows = "".join(
        _column(column, report.examined.index.get(column.name))
        for column in report.examined.columns
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _column(column: Column, index: float | None) -> str:
    marks = (column.gaps, column.unread, column.outside)
    counts = "".join(f'<td class="n">{int(mark.sum()) or "·"}</td>' for mark in marks)
    share = edge_share(column)
    ends = say_share(share) if share else "·"
    drift = "" if index is None else f"{index:.2f}"
    return (
        f'<tr><td>{_text(column.name)}</td><td class="role">'
        f"{_both(column.role, ROLES[column.role])}</td>"
        f'{counts}<td class="n">{escape(ends)}</td><td class="n">{drift}</td></tr>'
    )

"""Tables of 800 recipes as suppliers keep them, each with what it says in truth.

Plastics are made up by the demo's rules and run anywhere; glasses are real recipes from patents.
"""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pytest
from greylag_lab.plastics import ADDITIVES, INGREDIENTS, POLYMERS, PROCESS, PROPERTIES, make_firms

ROOT = Path(__file__).parents[1]
REAL = ROOT / ".." / "shared" / "data" / "glass_tg_by_firm.csv.gz"
EXAMPLES = ROOT / "docs" / "examples"
ROWS = 800
MODULUS, IMPACT = PROPERTIES
CHINESE = {
    "family": "配方系列", "pa6": "尼龙6", "pa66": "尼龙66", "pbt": "PBT", "pc": "聚碳酸酯",
    "abs": "ABS树脂", "glass_fibre": "玻纤", "mineral": "滑石粉", "impact_modifier": "增韧剂",
    "flame_retardant": "阻燃剂", "stabiliser": "抗氧剂", "lubricant": "润滑剂",
    "colourant": "色母粒", "melt_temperature_c": "熔体温度", "mould_temperature_c": "模温",
    MODULUS: "拉伸模量", IMPACT: "缺口冲击强度",
}  # fmt: skip
OXIDES = {
    "SiO2": "二氧化硅", "B2O3": "三氧化二硼", "Al2O3": "氧化铝", "Na2O": "氧化钠", "K2O": "氧化钾",
    "Li2O": "氧化锂", "CaO": "氧化钙", "MgO": "氧化镁", "BaO": "氧化钡", "ZnO": "氧化锌",
    "TiO2": "二氧化钛", "ZrO2": "氧化锆",
}  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True)
class Messy:
    """A file, its plan, and the truth.

    Attributes:
        answers: what a person who knows the table answers: a word of the question, a word of the
            choice.
        truth: the plan's values of each row that can be used, by its row in the file.
        notes: what must be said about the rest.
        options: further options of `map`.
    """

    path: Path
    plan: Path
    answers: Sequence[tuple[str, str]]
    truth: dict[int, Row]
    notes: Sequence[str] = ()
    options: Sequence[str] = ()
    tolerance: float = 1e-9


def plastics() -> list[Row]:
    """800 made-up recipes in the plan's own units; a property that was not measured is None."""
    return pl.concat(make_firms(8, seed=5).values()).head(ROWS).to_dicts()


def glasses() -> list[Row]:
    """800 real recipes of the twelve commonest oxides, in mol% and K."""
    if not REAL.exists():
        pytest.skip("the public glass recipes are not on this machine")
    whole = (pl.sum_horizontal(OXIDES.keys()) - 100).abs() < 0.02
    names = ["ref_id", *OXIDES, "tg_k"]
    return pl.read_csv(REAL).filter(whole).select(names).head(ROWS).to_dicts()


def plastics_plan(directory: Path) -> Path:
    """The demo's plan with room for 800 rows of one firm."""
    text = (EXAMPLES / "plastics.toml").read_text(encoding="utf-8")
    path = directory / "plastics.toml"
    path.write_text(text.replace("max_records_per_firm = 500", "max_records_per_firm = 1000"))
    return path


def _used(row: Row) -> bool:
    return row[MODULUS] is not None or row[IMPACT] is not None


def layered(directory: Path) -> Messy:
    """English. Wrong sheets first, a title, two rows of headings with merged cells, shares as
    fractions, kelvin and GPa."""
    book = openpyxl.Workbook()
    cover: Any = book.active
    cover.title = "Cover"
    for line in (["Compounding laboratory"], ["Edition", 7], ["PA6", "the house grade"]):
        cover.append(line)
    example = book.create_sheet("How to fill in")
    example.append(["Family", *INGREDIENTS, "Melt temp.", "Mould temp.", "Modulus"])
    example.append(["X-1", 0.7, *[0] * 6, 0.3, *[0] * 4, 550, 350, 3.1])
    sheet = book.create_sheet("Recipes")
    sheet.append(["All compounds 2019 to 2024, confidential"])
    sheet.append([])
    shares, process = len(INGREDIENTS), len(PROCESS)
    sheet.append(
        ["No.", "Recipe", "Composition (weight fraction)", *[None] * (shares - 1),
         "Processing", None, "Properties", None, "Remarks"]
    )  # fmt: skip
    sheet.append(
        [None, "family", *[name.replace("_", " ").title() for name in INGREDIENTS],
         "Melt temperature [K]", "Mold temp. [K]", "Tensile modulus / GPa",
         "Charpy notched (kJ/m²)", None]
    )  # fmt: skip
    sheet.merge_cells(start_row=1, end_row=1, start_column=1, end_column=shares + 6)
    sheet.merge_cells(start_row=3, end_row=3, start_column=3, end_column=shares + 2)
    sheet.merge_cells(start_row=3, end_row=3, start_column=shares + 3, end_column=shares + 4)
    sheet.merge_cells(start_row=3, end_row=3, start_column=shares + 5, end_column=shares + 6)
    truth = {}
    for number, row in enumerate(plastics()):
        modulus = row[MODULUS] / 1000 if row[MODULUS] is not None else None
        sheet.append(
            [number + 1, row["family"], *[row[name] / 100 for name in INGREDIENTS],
             *[row[name] + 273.15 for name in PROCESS], modulus, row[IMPACT],
             "see B-12 (2020), 3 % more" if number % 9 == 0 else None]
        )  # fmt: skip
        truth[number + 5] = row
    assert process == 2
    book.save(directory / "compounds.xlsx")
    return Messy(
        path=directory / "compounds.xlsx",
        plan=plastics_plan(directory),
        answers=[],
        truth={at: row for at, row in truth.items() if _used(row)},
        notes=["multiplied by 100"],
    )


def typed_by_hand(directory: Path) -> Messy:
    """English and German habits. Numbers as text with decimal commas, "<0,1", "n.d.", blank rows,
    kelvin without a word, a row of means and one of sums at the end."""
    book = openpyxl.Workbook()
    sheet: Any = book.active
    sheet.append([])
    sheet.append(
        ["Series", *[f"{name} wt.-%" for name in INGREDIENTS], "Melt temp", "Mould temp",
         "E-Modulus (MPa)", "notched impact kJ/m2"]
    )  # fmt: skip
    truth = {}
    for number, row in enumerate(plastics()):
        if number % 50 == 0:
            sheet.append([])
        shares = [_comma(row[name], 1) if row[name] else "" for name in INGREDIENTS]
        row = dict(row)
        for at, name in enumerate(INGREDIENTS):
            if number % 7 == 3 and name in ADDITIVES[4:] and row[name] == 0.1:
                shares[at], row[name] = "<0,1", 0.05
        properties = [
            "n.d." if row[MODULUS] is None else f"{row[MODULUS]:,.0f}".replace(",", "."),
            "n.d." if row[IMPACT] is None else _comma(row[IMPACT], 1),
        ]
        process = [_comma(row[name] + 273.15, 2) for name in PROCESS]
        sheet.append([row["family"], *shares, *process, *properties])
        truth[sheet.max_row] = row
    sheet.append([])
    sheet.append(["Mean", *["8,3"] * len(INGREDIENTS), "530,1", "350,2", "4.100", "20,5"])
    sheet.append(["Sum:", *["6.666,7"] * len(INGREDIENTS), None, None, None, None])
    book.save(directory / "Kopie von Rezepte (2).xlsx")
    return Messy(
        path=directory / "Kopie von Rezepte (2).xlsx",
        plan=plastics_plan(directory),
        answers=[("Which column says", "Series"), ("Melt temp", "K"), ("Mould temp", "K")],
        truth={at: row for at, row in truth.items() if _used(row)},
        notes=["sums or means", "became half of x"],
    )


def chinese_glasses(directory: Path, *, text: bool = False) -> Messy:
    """Chinese names, full-width digits and brackets, the unit in a title row; as a workbook, or as
    text in GB18030."""
    head = ["序号", "专利号", *[f"{name}（mol％）" for name in OXIDES.values()]]
    head += ["玻璃化转变温度（℃）", "备注"]
    lines: list[list[Any]] = [["玻璃配方一览表（内部资料）"], [], head]
    truth = {}
    for number, row in enumerate(glasses()):
        shares = [_wide(f"{row[name]:g}") if row[name] else "" for name in OXIDES]
        temperature = _wide(f"{row['tg_k'] - 273.15:.2f}")
        note = "重复测量，偏差３％" if number % 11 == 0 else ""
        lines.append([number + 1, str(row["ref_id"]), *shares, temperature, note])
        truth[len(lines)] = row
    if text:
        path = directory / "玻璃配方.csv"
        rows = [";".join(map(str, line)) for line in lines]
        path.write_bytes("\r\n".join(rows).encode("gb18030"))
    else:
        path = directory / "玻璃配方.xlsx"
        book = openpyxl.Workbook()
        sheet: Any = book.active
        sheet.title = "配方"
        for line in lines:
            sheet.append(line)
        book.save(path)
    return Messy(path=path, plan=EXAMPLES / "glass.toml", answers=[], truth=truth, tolerance=0.006)


def chinese_plastics(directory: Path) -> Messy:
    """Chinese names, percent signs, a row of subtotals behind every family, notes between, sums
    that are not 100."""
    book = openpyxl.Workbook()
    sheet: Any = book.active
    sheet.title = "配方数据"
    sheet.append(["改性塑料配方与性能汇总"])
    units = dict.fromkeys(INGREDIENTS, "（%）") | dict.fromkeys(PROCESS, "/℃")
    units |= {"family": "", MODULUS: "（MPa）", IMPACT: "(kJ/m2)"}
    names = ["family", *INGREDIENTS, *PROCESS, MODULUS, IMPACT]
    sheet.append([*[CHINESE[name] + units[name] for name in names], "合计", "工艺备注", "客户"])
    truth: dict[int, Row] = {}
    before = None
    rows = plastics()
    for number, row in enumerate([*rows, {"family": None}]):
        if before not in (None, row["family"]):
            sheet.append([f"{before} 小计", *[f"{8 * k}.5%" for k in range(len(INGREDIENTS))]])
        before = row["family"]
        if before is None:
            break
        scale = 0.98 if number % 40 == 7 else 1.0
        shares = [f"{row[name] * scale:.3f}%" for name in INGREDIENTS]
        total = f"{sum(row[name] for name in INGREDIENTS) * scale:.1f}%"
        properties = [row[MODULUS], row[IMPACT] if row[IMPACT] is not None else "未测"]
        process = [f"{row[name]:g}℃" for name in PROCESS]
        note = "螺杆转速300 rpm，真空-0.08 MPa" if number % 5 == 0 else None
        sheet.append([row["family"], *shares, *process, *properties, total, note, "甲厂"])
        truth[sheet.max_row] = row
    book.save(directory / "配方汇总2024(最终版).xlsx")
    return Messy(
        path=directory / "配方汇总2024(最终版).xlsx",
        plan=plastics_plan(directory),
        answers=[],
        truth={at: row for at, row in truth.items() if _used(row)},
        notes=["sums or means", "scaled to add up to 100: "],
        options=["--normalise"],
        tolerance=2e-3,
    )


def grown(directory: Path) -> Messy:
    """English. A column twice (a plan and what was weighed in), hidden rows and columns, dates,
    formulas with their saved values, a column of doses that are formulas of others."""
    book = openpyxl.Workbook()
    sheet: Any = book.active
    sheet.title = "Sheet1"
    sheet.append(
        ["Date", "Recipe family", *POLYMERS, "Polymers total", *ADDITIVES, "sum", "PA6",
         "Melt temp °C", "Mould temp °C", "tensile modulus MPa", "HDT", "notched impact kJ/m²"]
    )  # fmt: skip
    saved: dict[str, float] = {}
    truth = {}
    first = datetime(2019, 1, 7)
    for number, row in enumerate(plastics()):
        at = number + 2
        polymers = round(sum(row[name] for name in POLYMERS), 1)
        sheet.append(
            [first + timedelta(days=number), row["family"], *[row[n] for n in POLYMERS],
             f"=SUM(C{at}:G{at})", *[row[n] for n in ADDITIVES], f"=H{at}+SUM(I{at}:O{at})", None,
             *[row[n] for n in PROCESS], row[MODULUS], "pending", row[IMPACT]]
        )  # fmt: skip
        if row["pa6"]:
            sheet[f"C{at}"] = f"=100-SUM(D{at}:G{at})-SUM(I{at}:O{at})"
            saved[f"C{at}"] = row["pa6"]
        saved |= {f"H{at}": polymers, f"P{at}": 100.0}
        truth[at] = row
    sheet.column_dimensions["H"].hidden = True
    sheet.column_dimensions["C"].hidden = True
    for at in range(100, 140):
        sheet.row_dimensions[at].hidden = True
    path = directory / "data.xlsx"
    book.save(path)
    save_values(path, saved)
    return Messy(
        path=path,
        plan=plastics_plan(directory),
        answers=[],
        truth={at: row for at, row in truth.items() if _used(row)},
        notes=["hidden"],
    )


def turned(directory: Path) -> Path:
    """Recipes side by side, one in each column: beyond what is guessed."""
    book = openpyxl.Workbook()
    sheet: Any = book.active
    rows = plastics()[:60]
    for name in ("family", *INGREDIENTS, *PROCESS, *PROPERTIES):
        sheet.append([name, *[row[name] for row in rows]])
    book.save(directory / "turned.xlsx")
    return directory / "turned.xlsx"


def in_weight_percent(directory: Path) -> Path:
    """Glasses in wt%, though the plan wants mol%: never converted."""
    book = openpyxl.Workbook()
    sheet: Any = book.active
    sheet.append(["ref_id", "SiO2 (wt%)", "Na2O (wt%)", "Tg (K)"])
    for number in range(20):
        sheet.append([number // 4, 70 + number / 10, 30 - number / 10, 800])
    book.save(directory / "weight.xlsx")
    return directory / "weight.xlsx"


def save_values(path: Path, values: dict[str, float]) -> None:
    """Put values behind formulas, as a spreadsheet program saves them."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"].decode()
    formula = re.compile(r'(<c r="([A-Z]+\d+)"[^>]*><f>[^<]*</f>)<v ?(?:/>|></v>)')
    sheet = formula.sub(lambda match: f"{match[1]}<v>{values[match[2]]}</v>", sheet)
    parts["xl/worksheets/sheet1.xml"] = sheet.encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in parts.items():
            new.writestr(name, content)


def _comma(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace(".", ",")


def _wide(text: str) -> str:
    """With full-width digits."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)

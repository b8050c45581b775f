"""What may be found about a table, and how it is said in English and Chinese.

A finding names columns, counts and rows (as a spreadsheet counts them), never values: reports are
mailed and kept, and terminals are logged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from greylag_client.table import FIRST_ROW, NAME_SHOWN, ROWS_SHOWN

Level = Literal["problem", "warning", "note"]
Dimension = Literal["completeness", "validity", "uniqueness", "consistency", "timeliness"]
DIMENSIONS: dict[Dimension, str] = {
    "completeness": "完整性",
    "validity": "有效性",
    "uniqueness": "唯一性",
    "consistency": "一致性",
    "timeliness": "时效性",
}
LEVELS: dict[Level, str] = {"problem": "问题", "warning": "警告", "note": "提示"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How one kind of finding is said. Templates take column, count, of, share and figure."""

    dimension: Dimension
    level: Level
    en: str
    zh: str
    fix_en: str
    fix_zh: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found.

    Attributes:
        kind: a key of ``KINDS``.
        column: the column it is about, or empty for whole rows.
        count, of: how many rows or values, out of how many.
        rows: the first rows concerned, as a spreadsheet numbers them.
        figure: a further number that the sentence needs.
    """

    kind: str
    column: str = ""
    count: int
    of: int
    rows: tuple[int, ...] = ()
    figure: float = 0.0

    @property
    def words(self) -> Words:
        return KINDS[self.kind]

    @property
    def share(self) -> float:
        return self.count / self.of if self.of else 0.0

    @property
    def english(self) -> str:
        return self._say(self.words.en) + self._where("; row {}{}")

    @property
    def chinese(self) -> str:
        return self._say(self.words.zh) + self._where("；行 {}{}")

    def _say(self, template: str) -> str:
        # The name comes last, so that braces in it mean nothing.
        said = template.format(
            count=f"{self.count:,}",
            of=f"{self.of:,}",
            share=say_share(self.share),
            figure=f"{round(self.figure, 2):g}",
            column="\0",
        )
        return said.replace("\0", f"'{plain(self.column)}'")

    def _where(self, template: str) -> str:
        if not self.rows:
            return ""
        return template.format(
            ", ".join(map(str, self.rows)), ", ..." if self.count > len(self.rows) else ""
        )


def plain(name: str) -> str:
    """A name fit for a terminal and a page: no control or direction marks, bounded."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name[:NAME_SHOWN])


def say_share(share: float) -> str:
    """A share as a percentage, never rounded up to 100 % nor down to nothing."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{100 * share:.3g} %"


def first_rows(marked: NDArray[np.bool_]) -> tuple[int, ...]:
    """The first marked rows, numbered as in a spreadsheet."""
    return tuple(int(row) + FIRST_ROW for row in np.flatnonzero(marked)[:ROWS_SHOWN])


def of_rows(
    kind: str, marked: NDArray[np.bool_], *, column: str = "", of: int | None = None
) -> list[Finding]:
    """A finding about the marked rows, or none if there are none."""
    count = int(marked.sum())
    total = len(marked) if of is None else of
    if not count:
        return []
    return [Finding(kind=kind, column=column, count=count, of=total, rows=first_rows(marked))]


def of_dimension(findings: Sequence[Finding], dimension: Dimension) -> list[Finding]:
    """Those of one dimension, the gravest first."""
    levels = list(LEVELS)
    found = [item for item in findings if item.words.dimension == dimension]
    return sorted(found, key=lambda item: (levels.index(item.words.level), -item.share))


KINDS: dict[str, Words] = {
    "absent_column": Words(
        dimension="completeness",
        level="problem",
        en="column {column} of the plan is not in the table",
        zh="表中没有计划要求的列 {column}",
        fix_en="export it too, or rename the column that holds it",
        fix_zh="请一并导出该列，或将对应的列改名",
    ),
    "missing": Words(
        dimension="completeness",
        level="warning",
        en="{column}: missing values: {count} of {of} ({share})",
        zh="{column}：{of} 个值中缺 {count} 个（{share}）",
        fix_en="fill the gaps from the source; leave rows out only where the plan refuses gaps",
        fix_zh="从原始记录补齐缺口；仅当计划不接受缺口时才去掉这些行",
    ),
    "unread": Words(
        dimension="validity",
        level="problem",
        en="{column}: values that are no number, class or category of the plan where due: {count}",
        zh="{column}：{count} 个值不是计划所要求的数字或类别",
        fix_en="write plain numbers with a decimal point, names as in the plan, gaps as empty",
        fix_zh="数字用小数点书写，类别按计划书写，缺口留空",
    ),
    "outside": Words(
        dimension="validity",
        level="problem",
        en="{column}: values outside the public range: {count}",
        zh="{column}：{count} 个值超出公开范围",
        fix_en="check the unit and the decimal point; correct or remove them",
        fix_zh="检查单位与小数点；更正或删除",
    ),
    "at_edge": Words(
        dimension="validity",
        level="note",
        en="{column}: values exactly at an end of the public range: {count} of {of} ({share})",
        zh="{column}：{of} 个值中有 {count} 个恰在公开范围的端点（{share}）",
        fix_en="see whether a sensor or an export cut them off there",
        fix_zh="请查看是否被传感器或导出程序截断",
    ),
    "duplicate": Words(
        dimension="uniqueness",
        level="warning",
        en="rows that repeat an earlier one in every column of the plan: {count}",
        zh="{count} 行与前面的行在计划的所有列上完全相同",
        fix_en="remove repeated rows: privacy per row protects a copied row less",
        fix_zh="删除重复行：按行计的隐私保护对有副本的行较弱",
    ),
    "near_copy": Words(
        dimension="uniqueness",
        level="warning",
        en="held-out rows with a near-copy among the rows to train on: {count} of {of} ({share})",
        zh="{of} 个留出行中有 {count} 行在训练行中有近似副本（{share}）",
        fix_en="ask for a group column in the plan, or the score on held-out rows will flatter",
        fix_zh="请在计划中设定分组列，否则留出行上的成绩会虚高",
    ),
    "near_copy_between_groups": Words(
        dimension="uniqueness",
        level="note",
        en="held-out rows with a near-copy to train on in another group: {count} of {of} ({share})",
        zh="{of} 个留出行中有 {count} 行在其他组的训练行中有近似副本（{share}）",
        fix_en="see whether such groups are one in truth and should share their name",
        fix_zh="请查看这些组是否本为一组，应使用同一名称",
    ),
    "group_on_both_sides": Words(
        dimension="uniqueness",
        level="warning",
        en="rows with one value of {column} resemble each other, but the plan has no group: "
        "held-out rows whose value stands among the rows to train on: {count} of {of} ({share})",
        zh="{column} 相同的行彼此相似，而计划没有分组列："
        "{of} 个留出行中有 {count} 行与训练行同组（{share}）",
        fix_en="ask the lead to set data.group to such a column",
        fix_zh="请主导企业将 data.group 设为此类列",
    ),
    "contradiction": Words(
        dimension="consistency",
        level="warning",
        en="rows with the features of another row and a quite different target: {count}",
        zh="{count} 行与另一行特征相同而目标差异明显",
        fix_en="look for a typing error, or for a condition that no column records",
        fix_zh="请查找录入错误，或未被任何列记录的条件",
    ),
    "constant": Words(
        dimension="consistency",
        level="warning",
        en="{column}: all {count} values are the same",
        zh="{column}：全部 {count} 个值相同",
        fix_en="see whether the export filled it in; a constant teaches a model nothing",
        fix_zh="请查看是否为导出时的填充；常数列对模型没有信息",
    ),
    "always_zero": Words(
        dimension="consistency",
        level="note",
        en="{column}: always zero, the low end of its range",
        zh="{column}：始终为零（范围下限）",
        fix_en="nothing to do if this firm does not use it",
        fix_zh="如本企业不使用该项，无需处理",
    ),
    "drift": Words(
        dimension="consistency",
        level="warning",
        en="{column}: differs strongly from the last checked data (PSI {figure})",
        zh="{column}：与上次检查的数据差异很大（PSI {figure}）",
        fix_en="find out what changed: unit, instrument, product or period",
        fix_zh="查明变化原因：单位、仪器、产品或时段",
    ),
    "some_drift": Words(
        dimension="consistency",
        level="note",
        en="{column}: differs somewhat from the last checked data (PSI {figure})",
        zh="{column}：与上次检查的数据略有差异（PSI {figure}）",
        fix_en="see whether the change is meant",
        fix_zh="请确认该变化是否合理",
    ),
    "one_class": Words(
        dimension="consistency",
        level="warning",
        en="{column}: all rows have one class",
        zh="{column}：所有行同属一个类别",
        fix_en="add rows of the other classes, if there are any",
        fix_zh="如有其他类别的行，请补充",
    ),
    "rare_class": Words(
        dimension="consistency",
        level="warning",
        en="{column}: rows of the rarest class of the plan: {count} of {of} ({share})",
        zh="{column}：计划中最少的类别仅有 {count} 行，共 {of} 行（{share}）",
        fix_en="add rows of rare classes, or ask the lead to join classes",
        fix_zh="补充稀有类别的行，或请主导企业合并类别",
    ),
    "large_group": Words(
        dimension="consistency",
        level="note",
        en="rows of the largest group: {count} of {of} ({share})",
        zh="最大的组有 {count} 行，共 {of} 行（{share}）",
        fix_en="see whether it mixes things that should be told apart",
        fix_zh="请查看其中是否混入了应区分的内容",
    ),
    "cut_group": Words(
        dimension="consistency",
        level="note",
        en="rows beyond max_records_per_group of their group, which will not be used: {count}",
        zh="{count} 行超出所在组的 max_records_per_group，将不被使用",
        fix_en="put the rows that matter most first",
        fix_zh="请将最重要的行排在前面",
    ),
    "undated": Words(
        dimension="timeliness",
        level="warning",
        en="{column}: rows without a date that can be read: {count}",
        zh="{column}：{count} 行没有可识别的日期",
        fix_en="write dates as YYYY-MM-DD",
        fix_zh="日期请写成 YYYY-MM-DD",
    ),
    "future": Words(
        dimension="timeliness",
        level="warning",
        en="{column}: rows with a date in the future: {count}",
        zh="{column}：{count} 行的日期在未来",
        fix_en="correct the dates, or this machine's clock",
        fix_zh="更正日期，或校准本机时钟",
    ),
    "stale": Words(
        dimension="timeliness",
        level="warning",
        en="{column}: rows older than {figure} days: {count} of {of} ({share})",
        zh="{column}：{of} 行中有 {count} 行早于 {figure} 天之前（{share}）",
        fix_en="add newer rows, or leave out what no longer holds",
        fix_zh="补充较新的行，或去掉已不适用的行",
    ),
}

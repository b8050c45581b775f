"""A release in plain words: ``card.md``, in English with a summary in Chinese; ``LICENCE.txt``."""

from typing import Any

from greylag_protocols.terms import Terms

UNIT_MEANINGS = {
    "record": "one row of one firm's table",
    "group": "all rows of one firm's table that share a key",
    "firm": "everything that one firm holds",
}
UNIT_MEANINGS_ZH = {
    "record": "某企业表中的一行",
    "group": "某企业表中同一键值的所有行",
    "firm": "某企业的全部数据",
}
METRICS = {
    "error": ("mean error as a share of the range", "误差占取值范围的比例"),
    "log_loss": ("mean log loss", "平均对数损失"),
}


def make_card(terms: Terms, facts: dict[str, Any]) -> str:
    """The card. ``facts`` are those of ``release.json``."""
    targets = ", ".join(
        f"`{item.name}`" + (f" ({item.unit})" if item.unit else "") for item in terms.data.targets
    )
    unit = terms.privacy.unit
    copies = "; ".join(
        f"{count} copies: {value:.2f}" for count, value in facts["epsilon_for_copies"].items()
    )
    if copies:
        copies = (
            f"A {unit} whose content stands in the data several times is protected less: epsilon "
            f"for {copies}. "
        )
    return f"""# {facts["run"]}: {facts["name"]} v{facts["version"]}

{terms.run.purpose}. Predicts {targets} from {len(terms.data.feature_names)} columns of the data
standard `{terms.data.standard}`; trained by {facts["firms"]} firms together in {facts["rounds"]}
rounds. No firm's table left the firm, and no single firm's update was
ever opened.

## What is promised

Whoever sees everything that the coordinator saw, and the updates of any
{terms.privacy.max_colluding} firms besides, can hardly tell whether one **{unit}**
({UNIT_MEANINGS[unit]}) was used at all: epsilon {facts["epsilon"]:.3g} at delta
{facts["delta"]:.1g}, add/remove neighbours, for all {terms.privacy.max_attempts} releases that were
planned ({facts["attempts"]} took place: {facts["epsilon_used"]:.3g}). The noise multiplier was
{facts["noise_multiplier"]}.

{copies}If all other firms colluded, a firm's own noise alone would leave epsilon
{facts["epsilon_if_all_collude"]:.3g}.

## What is not promised

* That firms told the truth, or really added their noise: both are signed claims, not proofs.
* Anything about more than one {unit} at a time, or about data used elsewhere.
* That predictions are right outside the ranges in `terms.json`.
{_holdout(facts)}
## Licence

{facts["licence"]} Permitted: {"; ".join(facts["permitted_uses"])}. Issued {facts["issued"]}, valid
until {facts["expires"]}. The lead may withdraw it before.

## Evidence

Check before use: `greylag-client verify-release .` looks at checksums, the lead's signature, the
log's proof, firms' cosignatures, licence and withdrawal, before any model file is opened.
`model.sig` is also checked by `model_signing verify key`, with `model.pub`; that this key is the
lead's stands in the log entry alone.

Audit state: `{facts["audit"]}`: nothing here proves itself. The lead writes a bundle
(`greylag-server bundle {facts["run"]} OUT`), and anyone with keys from elsewhere checks it:
`greylag-audit verify` says which promises were kept, `greylag-audit replay` whether these weights
follow, bit by bit, from the logged sums.

| digest | value |
|---|---|
| model | `{facts["model"]}` |
| terms | `{facts["terms"]}` |

{_chinese(terms, facts)}"""


def _holdout(facts: dict[str, Any]) -> str:
    holdout = facts["holdout"]
    if holdout is None:
        return "* How good it is: the lead named no rows to measure that.\n"
    before = holdout["before"]
    compared = "" if before is None else f"; the version before had {before:.4g} on the same rows"
    why = f" It was released nevertheless: {facts['because']}." if facts["because"] else ""
    return (
        f"* How good it is. {METRICS[holdout['metric']][0].capitalize()} on {holdout['rows']} rows "
        f"of the lead's own:\n  {holdout['value']:.4g}{compared}. This was {holdout['note']}.{why}"
        "\n"
    )


def _chinese(terms: Terms, facts: dict[str, Any]) -> str:
    unit, holdout = terms.privacy.unit, facts["holdout"]
    measured = "牵头企业未提供留出数据，模型好坏不在保证之内"
    if holdout is not None:
        measured = (
            f"牵头企业自有的 {holdout['rows']} 行留出数据上，"
            f"{METRICS[holdout['metric']][1]}为 {holdout['value']:.4g}；"
            "该数据他人看不到，不在任何保证之内，也不受审计"
        )
    rounds = f"{facts['firms']} 家企业共同训练 {facts['rounds']} 轮"
    uses = "；".join(facts["permitted_uses"])
    return f"""## 中文摘要

{rounds}。各企业的表格未离开企业，单个企业的更新从未被打开。

* 保证：以{UNIT_MEANINGS_ZH[unit]}为单位，epsilon {facts["epsilon"]:.3g}，delta
  {facts["delta"]:.1g}，至多 {terms.privacy.max_colluding} 家企业与协调方串通时仍成立。
* 不保证：企业所报数据真实、确实加了噪声；取值范围之外的预测正确。
* 模型好坏：{measured}。
* 许可：{facts["licence"]} 用途：{uses}。有效期至 {facts["expires"]}。
* 使用前请核验：`greylag-client verify-release .`
"""


def make_licence(facts: dict[str, Any]) -> str:
    """The licence as a file of its own, so that it is read where models are kept."""
    uses = "\n".join(f"  - {item}" for item in facts["permitted_uses"])
    return f"""{facts["name"]} v{facts["version"]} ({facts["run"]})

Licence / 许可: {facts["licence"]}
Permitted uses / 许可用途:
{uses}
Issued / 发布日期: {facts["issued"]}
Valid until / 有效期至: {facts["expires"]}

The lead may withdraw this version; a withdrawn or expired one is refused by greylag's programs.
牵头企业可撤回本版本；已撤回或已过期的版本会被 greylag 程序拒绝。
"""

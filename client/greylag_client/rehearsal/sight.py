"""What each party would come to see of this firm, and what nobody would: from the terms."""

from collections.abc import Sequence
from dataclasses import dataclass

from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the parties see, in English and in Chinese, and the columns that are read.

    Attributes:
        noise: standard deviation, per coordinate, of the noise in the sum over the firms that do
            not collude, in units of one record's (group's, firm's) largest influence.
        parties: who, and what they see; the last entry is what nobody sees.
        chinese: the same in short.
    """

    noise: float
    read: tuple[str, ...]
    untouched: tuple[str, ...]
    parties: tuple[tuple[str, tuple[str, ...]], ...]
    chinese: tuple[str, ...]


def sight_of(terms: Terms, *, firms: int, columns: Sequence[str], member: str | None) -> Sight:
    """What would be seen in a run of ``firms`` firms.

    Args:
        columns: of the firm's file.
        member: the firm's name in the consortium, where it has one.

    Raises:
        ConfigError: the number of firms does not fit the terms.
    """
    privacy, data = terms.privacy, terms.data
    if firms < privacy.min_firms:
        raise ConfigError(
            f"{firms} firms are fewer than the plan's min_firms = {privacy.min_firms}; say how "
            "many would take part with --firms"
        )
    honest, grid, name = firms - privacy.max_colluding, terms.grid(firms), member or "this firm"
    noise = grid.noise_std * honest**0.5 / privacy.clip_norm
    named = [*data.feature_names, *data.target_names, *([data.group] if data.group else [])]
    read = tuple(column for column in named if column in columns)
    untouched = tuple(column for column in columns if column not in named)
    words, answers, d = f"{terms.dimension:,}", f"{privacy.max_attempts:,}", terms.dimension
    lead = (
        f"in each of at most {answers} answers one vector of {words} words, which by itself is "
        "uniformly random (0 to 4,294,967,295): without all other firms' masks it says nothing",
        f"only the sum over all {honest} firms or more that do not collude, with noise of standard "
        f"deviation {noise:.2f} in each number; one {privacy.unit} can move the whole sum by 1 at "
        "most (measured in its largest influence)",
        "from sums over different rosters a rough estimate of this firm's own sum, with noise of "
        f"{2**0.5 * noise:.2f} a pair; your policy's max_roster_changes limits how many"
        + ("" if privacy.unit == "firm" else ', and only unit = "firm" bounds what that shows'),
        f"that {name} is a member, that it accepted the terms, which attempts it answered and when;"
        " its network address; its signed receipts (run, round, attempt, releases charged so far)",
        "on a refusal: whether policy or protocol refused, not which rule and not what is left",
    )
    others = (
        f"the list of members with {name}'s name, operator and public keys; who is in each roster",
        "the model after each round (from the noisy sums), and the released model",
        f"up to {privacy.max_colluding} of them together with the lead: what the lead sees, no more"
        " than that",
    )
    auditor = (
        "the log: signed acceptances, receipts, rosters, and the noisy sum of each round",
        "no vector of one firm",
    )
    public = (
        "what the lead hands on: a released model with its terms, and the log if it shows it",
    )
    unused = f", and the {len(untouched)} columns that are not read" if untouched else ""
    nobody = (
        f"a row, a cell, a name of a group or the number of rows of {name}{unused}",
        "this firm's own sum or gradient as it is, its held-out rows and errors, its policy, its "
        "budget",
    )
    return Sight(
        noise=noise,
        read=read,
        untouched=untouched,
        parties=(
            ("the lead", lead),
            ("other firms", others),
            ("an auditor", auditor),
            ("the public", public),
            ("nobody", nobody),
        ),
        chinese=(
            f"链主：每轮一份 {d:,} 个均匀随机数；只有至少 {honest} 家之和可读，"
            f"每个数的噪声标准差为 {noise:.2f}（以一个单位的最大影响为 1）；"
            "另知本企业是成员、何时应答。",
            "其他企业：成员名单与公钥、每轮模型；审计：日志与各轮之和；公众：发布的模型。",
            f"任何人都看不到：任何一行或一格数据、行数、本企业自己的梯度；"
            f"未使用的 {len(untouched)} 列不会被读取。",
        ),
    )

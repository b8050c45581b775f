"""What one check found, and all of them as text and as JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from greylag_protocols.errors import GreylagError

Status = Literal["ok", "warn", "fail", "skip"]
MAX_SHOWN_CHARS = 400

# The checks in the order in which they are shown, and what a failure means.
IN_CHINESE = {
    "versions": "软件版本不合要求或缺少组件",
    "settings": "企业目录损坏，或本企业已退出",
    "clock": "本机时钟不准，请校准",
    "disk": "磁盘不可写或空间不足",
    "files": "密钥文件可被其他用户读取",
    "name": "无法解析链主的主机名",
    "proxy": "代理服务器不放行，请联系 IT 部门",
    "enrolment-port": "无法连接链主的注册端口",
    "training-port": "无法连接链主的训练端口",
    "enrolment-tls": "注册端口的 TLS 证书不符，连接可能被中途解密",
    "training-tls": "训练端口的 TLS 证书不符，连接可能被中途解密",
    "certificate": "本企业的证书无效或已过期",
    "acceptance": "链主不接受本企业的证书",
    "membership": "成员名单无效或已过期",
    "policy": "policy.toml 有误，所有请求都会被拒绝",
    "data": "数据文件不可用",
    "ledger": "账本不可用，请从备份恢复",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        status: ``skip`` is what could not be checked; ``found`` says why.
        found: what is the case.
        advice: what to do; empty if nothing is.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def make_check(name: str, status: Status, found: str, advice: str = "") -> Check:
    """A check whose text can be shown on a terminal, whoever wrote parts of it."""
    return Check(name=name, status=status, found=shown(found), advice=advice)


def shown(text: str) -> str:
    """A text without control characters, and not without end."""
    return "".join(char for char in text[:MAX_SHOWN_CHARS] if char.isprintable())


def try_check(name: str, work: Callable[[], Check]) -> Check:
    """What ``work`` says; its error is a failure of the check."""
    try:
        return work()
    except (GreylagError, OSError) as error:
        return make_check(name, "fail", str(error))


def in_order(checks: Sequence[Check]) -> list[Check]:
    """The checks as they are shown."""
    order = list(IN_CHINESE)
    return sorted(checks, key=lambda item: order.index(item.name))


def as_document(checks: Sequence[Check]) -> dict[str, Any]:
    """The JSON document."""
    return {
        "ok": not any(item.status == "fail" for item in checks),
        "checks": [asdict(item) for item in checks],
    }


def as_text(checks: Sequence[Check]) -> str:
    """For people, in English; a failure is summed up in Chinese too."""
    width = max(len(item.name) for item in checks)
    lines = []
    for item in checks:
        lines.append(f"{item.status.upper():4}  {item.name:{width}}  {item.found}")
        if item.advice:
            lines.append(f"{'':4}  {'':{width}}  -> {item.advice}")
        if item.status == "fail":
            lines.append(f"{'':4}  {'':{width}}  {IN_CHINESE[item.name]}")
    counts = {
        status: sum(item.status == status for item in checks)
        for status in ("fail", "warn", "skip", "ok")
    }
    lines.append(
        f"{counts['fail']} failed, {counts['warn']} to look at, {counts['skip']} not checked, "
        f"{counts['ok']} in order"
    )
    return "\n".join(lines)

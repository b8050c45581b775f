"""The answer to "is all well?": what holds, what to look at, what waits for somebody's act."""

from collections.abc import Sequence

from greylag_client.page.view import (
    DAY_S,
    FEW_DAYS,
    LITTLE_LEFT,
    ChecksView,
    Connection,
    Finding,
    MembersView,
    Paused,
    Text,
)
from greylag_client.policy import Policy
from greylag_client.spending import Account

ORDER = ("act", "look", "good")


def find(
    *,
    connection: Connection,
    policy: Policy | None,
    problems: Sequence[str],
    paused: Paused,
    budgets: Sequence[Account],
    members: MembersView | None,
    checks: ChecksView | None,
    certificate_left_s: float | None,
    left: bool,
) -> list[Finding]:
    """All findings, what needs somebody first.

    Args:
        policy: None if it cannot be read: everything is refused then.
        problems: files that cannot be read, in a program's words.
        certificate_left_s: None if it cannot be read.
    """
    findings = [Finding(level="act", text=Text.of("file_broken"), detail=item) for item in problems]
    findings.append(_chain(checks))
    findings += [_budget(item) for item in budgets]
    if not left:
        findings.append(_members(members, policy))
        findings.append(_connection(connection, paused))
        findings.append(_certificate(certificate_left_s))
    findings = [item for item in findings if item.text.key]
    return sorted(findings, key=lambda item: ORDER.index(item.level))


NOTHING = Finding(level="good", text=Text.of(""))


def _chain(checks: ChecksView | None) -> Finding:
    if checks is None:
        return NOTHING
    if checks.broken:
        text = Text.of("chain_broken")
        return Finding(level="act", text=text, detail=checks.broken, part="checks")
    if not checks.entries:
        return Finding(level="good", text=Text.of("chain_empty"), part="checks")
    if checks.checked < checks.entries:
        text = Text.of("chain_partly", checked=checks.checked, entries=checks.entries)
        return Finding(level="good", text=text, part="checks")
    return Finding(level="good", text=Text.of("chain_whole", n=checks.entries), part="checks")


def _budget(account: Account) -> Finding:
    limit = account.limits.lifetime_epsilon
    share = account.left / limit
    percent = int(100 * share)
    key = "budget_left" if share >= LITTLE_LEFT else "budget_low" if share > 0 else "budget_none"
    text = Text.of(key, dataset=account.name, percent=percent)
    return Finding(level="good" if share >= LITTLE_LEFT else "look", text=text, part="budgets")


def _members(members: MembersView | None, policy: Policy | None) -> Finding:
    if members is None:
        return NOTHING
    if members.expired:
        text = Text.of("members_expired", epoch=members.epoch)
        return Finding(level="look", text=text, part="members")
    if members.approved:
        text = Text.of("members_approved", epoch=members.epoch, n=len(members.members))
        return Finding(level="good", text=text, part="members")
    if policy is not None and (policy.approving_keys or policy.approve_by_peers):
        text = Text.of("members_by_rule", epoch=members.epoch)
        return Finding(level="look", text=text, part="members")
    text = Text.of("members_waiting", epoch=members.epoch)
    return Finding(level="act", text=text, part="members")


def _connection(connection: Connection, paused: Paused) -> Finding:
    key = f"connection_{connection.state}"
    if connection.state == "trying":
        return Finding(level="look", text=Text.of(key))
    if connection.state == "away":
        return Finding(level="act", text=Text.of(key), detail=connection.reason)
    if connection.state == "connected" and paused:
        key = "connection_paused"
    return Finding(level="good", text=Text.of(key))


def _certificate(left_s: float | None) -> Finding:
    if left_s is None:
        return Finding(level="act", text=Text.of("certificate_unreadable"))
    days = int(left_s // DAY_S)
    if left_s <= 0:
        return Finding(level="act", text=Text.of("certificate_expired"))
    if days < FEW_DAYS:
        return Finding(level="look", text=Text.of("certificate_soon", days=days))
    return Finding(level="good", text=Text.of("certificate_good", days=days))

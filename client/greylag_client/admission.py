"""``greylag-client join``, ``members``, ``endorse``, ``revoke``, ``leave``: who belongs.

Nothing heavy is imported here: a firm that joins is not to wait for a training stack.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.endorsement import sign_endorsement
from greylag_protocols.errors import ConfigError
from greylag_protocols.invite import parse_invite
from greylag_protocols.membership import MAX_DOCUMENT_BYTES, Membership, revoked_in

from greylag_client.endorsing import endorse_latest, read_body_key
from greylag_client.firm import FirmDirectory
from greylag_client.firm_files import read_file, write_private
from greylag_client.firm_membership import describe
from greylag_client.join import JoinResult, typed_path
from greylag_client.join import join as join_consortium
from greylag_client.terminal import Directory, Format, read_text, say

QUESTION = (
    "Where does this firm's data lie? A CSV, Excel or Parquet file; it stays where it is.\n"
    "数据文件在哪里？ (Enter: later) "
)


def join(
    invite: Annotated[str, typer.Argument(help="the invite, a file that holds it, or - for stdin")],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", "-d", help="a new directory; the firm's name if not given"),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="the firm's table: CSV, Excel or Parquet; only remembered")
    ] = None,
    approve_members: Annotated[
        str | None,
        typer.Option(help="approve the membership with this SHA-256 digest, or the one 'shown'"),
    ] = None,
    output: Format = "text",
) -> None:
    """Join a consortium: keys are made here and stay here. Asks for the data's place if it is not
    given; asks nothing in scripts."""

    text = _invite_text(invite)
    parse_invite(text)  # a question about data is no answer to a wrong invite
    if data is None and sys.stdin.isatty():
        data = _ask(QUESTION)
    result = join_consortium(
        text,
        directory,
        data=typed_path(data or ""),
        approve_members=approve_members,
        now_s=time.time(),
    )
    firm = result.firm
    facts = {
        "firm": firm.settings.firm,
        "consortium": firm.settings.consortium,
        "directory": str(firm.root),
        "policy": str(firm.policy_path),
        "data": firm.settings.data,
        "membership": result.digest,
        "members": [
            {"name": item.name, "operator": item.operator} for item in result.membership.members
        ],
        "approved": result.approved,
        "recovery_key": result.recovery_key,
    }
    say(facts, _describe_join(result), output)


def _describe_join(result: JoinResult) -> str:
    firm, root = result.firm, result.firm.root
    approve = (
        "You have approved this list."
        if result.approved
        else "Compare the fingerprints with these firms, by phone. Then approve the list:\n"
        f"  greylag-client members {root} --approve {result.digest}"
    )
    data = firm.settings.data or f"not named yet: set `data` in {root / 'firm.toml'}"
    return (
        f"{firm.settings.firm} has joined {firm.settings.consortium}.\n\n"
        f"MEMBERS\n{describe(result.membership)}\n{approve}\n"
        "Each firm that joins later makes a new list.\n\n"
        "RECOVERY KEY, shown this once and stored nowhere. Write it down and keep it offline. If\n"
        "this machine or its keys are ever stolen, it takes this firm's identity back:\n"
        f"  {result.recovery_key}\n"
        f"  greylag-client revoke {root} --out FILE     (asks for the key)\n\n"
        f"DATA  {data}\n"
        f"RULES {firm.policy_path}: this firm's own law; read and adapt it\n"
        f"NEXT  greylag-client run {root}"
    )


def members(
    directory: Directory,
    approve: Annotated[
        str | None, typer.Option(help="SHA-256 digest of the membership to approve")
    ] = None,
    revocation: Annotated[
        Path | None, typer.Option(help="a revocation that another firm handed you")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="write the list to a file, for a body that endorses it")
    ] = None,
    output: Format = "text",
) -> None:
    """Show the latest membership list; approve it once you know these firms and operators."""

    firm = FirmDirectory.open(directory)
    if revocation is not None:
        firm.memberships.store_revocation(
            read_text(revocation).strip().encode(), firm.memberships.latest()
        )
    untold = ""
    if approve is not None:
        firm.approve(approve)
        untold = endorse_latest(firm)
    latest = firm.memberships.latest()
    if export is not None:
        write_private(export, latest.encode())
    digest = latest.digest().hex()
    approved = digest in firm.approved()
    revoked = sorted(revoked_in(latest, firm.memberships.revocations()))
    facts = {
        "epoch": latest.epoch,
        "digest": digest,
        "approved": approved,
        "members": [{"name": item.name, "operator": item.operator} for item in latest.members],
        "revoked": revoked,
        "endorsement_untold": untold,
    }
    state = "approved here" if approved else f"NOT approved. To approve: --approve {digest}"
    if untold:
        state += f"\nThe lead could not be told ({untold}); the agent does it when it starts"
    if revoked:
        state += f"\nREVOKED: {', '.join(revoked)}; rosters with them are refused here"
    say(facts, f"{describe(latest)}\n{state}", output)


def endorse(
    members_file: Annotated[Path, typer.Argument(help="from `members DIR --export FILE`")],
    key: Annotated[Path, typer.Option(help="the body's Ed25519 key, a PEM file")],
    by: Annotated[str, typer.Option(help="the body's name")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the endorsement, a file")],
    digest: Annotated[
        str,
        typer.Option(help="the list's SHA-256 digest, once it has been compared with the firms"),
    ] = "",
    output: Format = "text",
) -> None:
    """For an independent body, such as an association: endorse a member list. Firms whose
    policy.toml names the body's key then take the list without being asked."""

    value = parse_json(read_file(members_file), max_bytes=MAX_DOCUMENT_BYTES)
    membership = parse_as(Membership, value, what=members_file.name)
    signer, found = read_body_key(key), membership.digest().hex()
    if digest.strip().lower() != found:
        raise ConfigError(
            f"compare this list with the firms, then say --digest {found}\n{describe(membership)}"
        )
    write_private(out, sign_endorsement(signer, membership, by=by))
    public = signer.public_key.hex()
    say(
        {"membership": found, "by": by, "key": public, "endorsement": str(out)},
        f"{out} endorses epoch {membership.epoch}; hand it to the lead (greylag-server endorse).\n"
        f'Firms that rely on it write into policy.toml: approving_keys = ["{public}"]',
        output,
    )


def revoke(
    directory: Directory,
    out: Annotated[Path, typer.Option("--out", "-o", help="the revocation, a file to hand out")],
    output: Format = "text",
) -> None:
    """Take back this firm's identity with its recovery key (asked for, or read from stdin)."""
    from greylag_client.recovery import make_revocation

    firm = FirmDirectory.open(directory)
    key = typer.prompt("recovery key", hide_input=True, err=True)
    envelope = make_revocation(key, firm.memberships.latest(), firm.settings.firm)
    write_private(out, envelope)
    say(
        {"firm": firm.settings.firm, "revocation": str(out)},
        f"{out} takes back the identity of {firm.settings.firm}, for ever. Hand it to the lead\n"
        f"(greylag-server revoke) and to every firm (greylag-client members --revocation); it is\n"
        "no secret.",
        output,
    )


def leave(
    directory: Directory,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask whether this is meant")] = False,
    output: Format = "text",
) -> None:
    """Leave the consortium for good. Open runs are closed, the lead takes this firm off the list,
    and its private keys are overwritten and deleted here. Ledger and policy stay.

    Copies of the keys in backups, or that the disk itself keeps, are not destroyed; they open
    nothing any more once the lead knows."""
    from greylag_client.leave import leave as leave_consortium

    firm = FirmDirectory.open(directory)
    name, consortium = firm.settings.firm, firm.settings.consortium
    if not yes and firm.left is None:
        answer = _ask(f"{name} leaves {consortium} for good. Type the firm's name to confirm: ")
        if answer.strip() != name:
            raise ConfigError("nothing was done; in scripts, say --yes")
    result = leave_consortium(firm, now_s=time.time())
    facts = {
        "firm": name,
        "consortium": consortium,
        "closed": list(result.closed),
        "statement": str(result.statement),
        "lead_told": not result.untold,
        "reason": result.untold,
    }
    runs = f"Runs closed: {', '.join(result.closed)}.\n" if result.closed else ""
    told = (
        "The lead has taken it off the member list."
        if not result.untold
        else f"THE LEAD DOES NOT KNOW YET: {result.untold}.\n"
        f"Run this command again later, or hand {result.statement}\n"
        "to the lead (greylag-server revoke FILE); it is no secret."
    )
    say(
        facts,
        f"{name} has left {consortium}. Its private keys here are destroyed; backups of\n"
        f"{directory} may still hold them.\n{runs}{told}\n"
        f"What was spent stays in the ledger: greylag-client budget {directory}",
        output,
    )


def _invite_text(invite: str) -> str:
    """The line itself, what a file holds, or with ``-`` what stdin brings."""

    if invite == "-":
        return sys.stdin.readline()
    path = Path(invite)
    return read_text(path) if len(invite) < 255 and path.is_file() else invite


def _ask(question: str) -> str:
    """A person's answer; empty at the end of input. stdout belongs to the result alone."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline()

"""``greylag-client verify-release``, and the same before a release is used."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from greylag_protocols.errors import ConfigError

from greylag_client.terminal import Format, check_format, errors, say

NOT_VERIFIED = (
    "not verified: only checksums were looked at. With --dir FIRM the lead's signature, the log's "
    "proof and the licence are checked before the model is read; see greylag-client verify-release"
)


def verify_release(
    release: Annotated[Path, typer.Argument(help="a release's directory")],
    directory: Annotated[
        Path | None, typer.Option("--dir", "-d", help="the firm's directory: the keys it approved")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(help="a trust file from a firm's export-trust, instead")
    ] = None,
    withdrawal: Annotated[
        list[Path] | None,
        typer.Option(help="a withdrawal that the lead handed out; kept in the firm's directory"),
    ] = None,
    cosigners: Annotated[
        int | None,
        typer.Option(min=1, help="firms that must have cosigned; default: max_colluding + 1"),
    ] = None,
    output: Format = "text",
) -> None:
    """Check a release before its first use: the lead's signature, every file, the terms, the log's
    proof with firms' cosignatures, licence and withdrawal. No model file is opened.
    首次使用前核验发布：签名、文件、条款、日志证明、许可与撤回。"""
    from greylag_client.verify_release.checks import ReleaseRefusedError, Verifier
    from greylag_client.verify_release.keys import (
        MAX_STATEMENT_BYTES,
        keys_of_file,
        keys_of_firm,
        read_limited,
    )

    check_format(output)
    if (directory is None) == (trust is None):
        raise ConfigError("name the firm's directory with --dir DIR, or a trust file with --trust")
    handed = [read_limited(path, MAX_STATEMENT_BYTES) for path in withdrawal or ()]
    if directory is not None:
        keys = keys_of_firm(directory, handed)
        _keep(directory, handed, keys.lead_key)
    else:
        keys = keys_of_file(trust or Path(), handed)
    verifier = Verifier(
        root=release,
        keys=keys,
        now_s=time.time(),
        cosigners=cosigners,
        tell=lambda finding: print(finding.line(), flush=True) if output == "text" else None,
    )
    facts: dict[str, Any] = {"release": str(release)}
    try:
        run, said = verifier.run()
    except ReleaseRefusedError as error:
        facts |= {"verified": False, "checks": verifier.to_json()}
        say(facts, "refused; do not use it", output)
        errors.print(str(error), style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    facts |= {"verified": True, "run": run, "name": said.name, "version": said.version}
    facts["checks"] = verifier.to_json()
    say(facts, f"{said.name} v{said.version} may be used", output)


def check_before_use(release: Path, directory: Path | None) -> None:
    """What ``predict`` and ``personalise`` do first: with a firm's keys all checks but that of
    ``model.sig``; without them one note on stderr. A firm's own version is nobody's release.

    Raises:
        ReleaseRefusedError: a check failed.
        ConfigError: ``directory`` is no firm's, or nobody approved a member list there.
    """
    from greylag_client.personal.artefact import FACTS_FILE

    own = (release / FACTS_FILE).exists()
    if own and directory is not None:
        raise ConfigError(
            f"{release} is a firm's own version, which nobody signed; leave --dir out"
        )
    if directory is None:
        if not own:
            errors.print(f"note: {NOT_VERIFIED}", highlight=False, markup=False)
        return
    from greylag_client.verify_release.checks import Verifier
    from greylag_client.verify_release.keys import keys_of_firm

    Verifier(root=release, keys=keys_of_firm(directory), now_s=time.time()).run(signature=False)


def _keep(directory: Path, statements: list[bytes], lead_key: bytes) -> None:
    """Remember withdrawals that are the lead's; others are an error, whatever else is in order."""
    from greylag_protocols.log import entry_head
    from greylag_protocols.releases import WITHDRAW_KIND, parse_withdrawal
    from greylag_protocols.signing import verify_statement

    from greylag_client.verify_release.keys import keep_withdrawal

    for content in statements:
        envelope = content.strip()
        parse_withdrawal(verify_statement(envelope, lead_key, WITHDRAW_KIND))
        keep_withdrawal(directory, entry_head(envelope).hex(), envelope)

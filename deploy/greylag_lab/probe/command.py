"""``greylag-lab probe``: test the privacy of this build on one machine."""

import os
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def probe(
    plan: Annotated[Path, typer.Argument(help="the plan, TOML")],
    firms: Annotated[
        int | None, typer.Option(help="roster size; else the plan's min_firms", min=3)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="repeat a probe exactly; else fresh entropy", min=0)
    ] = None,
    output: Annotated[str, typer.Option("--format", help="text or json")] = "text",
) -> None:
    """Test the privacy of this build's own contributions under a plan: canaries, noise, sampling,
    clipping, masks. Builds broken on purpose must be found out in the same run.
    检验本机程序是否兑现方案中的隐私承诺；故意弄坏的版本必须在同一次检验中被发现。

    Exit code 1: this build was flagged, or a broken one was not."""
    from greylag_client.terminal import check_format, read_text, say
    from greylag_protocols.plan import parse_plan, settle_terms

    from greylag_lab.probe.findings import run_probe
    from greylag_lab.probe.report import as_document, as_text

    check_format(output)
    started_s = time.monotonic()
    parsed = parse_plan(read_text(plan))
    entropy = os.urandom(32) if seed is None else sha256(b"probe|%d" % seed).digest()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("probe", total=None)
        terms = settle_terms(parsed, consortium="probe", run_id="probe")
        found = run_probe(
            terms,
            firms=firms or terms.privacy.min_firms,
            seed=entropy,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    wall_s = time.monotonic() - started_s
    say(as_document(found, wall_s=wall_s), as_text(found, wall_s=wall_s), output)
    if found.verdict != "sound":
        sys.exit(1)

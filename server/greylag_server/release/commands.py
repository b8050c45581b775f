"""``greylag-server release``, ``releases``, ``rollback``, ``withdraw``: what the operator types."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from greylag_protocols.errors import ConfigError
from greylag_protocols.releases import ReleaseHistory, Version, day

from greylag_server.terminal import Dir, Format, errors, say

if TYPE_CHECKING:
    from rich.progress import TaskID

Run = Annotated[str, typer.Argument(help="run id, or its plan's name")]


@contextmanager
def _waiting() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that shows how many firms have cosigned, from the first look on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        tasks: list[TaskID] = []

        def progress(count: int, wanted: int) -> None:
            if not tasks:
                tasks.append(bar.add_task("waiting for firms to cosign", total=wanted))
            bar.update(tasks[0], completed=count)

        yield progress


def release(
    run: Run,
    directory: Dir,
    out: Annotated[Path, typer.Option(help="a new directory for the release")],
    holdout: Annotated[
        Path | None, typer.Option(help="a CSV of your own rows: not worse than the last release")
    ] = None,
    because: Annotated[
        str, typer.Option(help="why to release although the holdout is worse; it is logged")
    ] = "",
    licence: Annotated[
        str | None, typer.Option(help="the licence; default: for the consortium's members")
    ] = None,
    permitted_use: Annotated[
        list[str] | None, typer.Option(help="what it may be used for; may be given again")
    ] = None,
    expires: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="valid for so many days; default 365")
    ] = None,
    cosigners: Annotated[
        int | None,
        typer.Option(min=1, help="firms that must have cosigned; default: max_colluding + 1"),
    ] = None,
    wait_s: Annotated[float, typer.Option(help="how long to wait for cosignatures")] = 60.0,
    again: Annotated[
        bool, typer.Option("--again", help="a released run becomes a new version")
    ] = False,
    output: Format = "text",
) -> None:
    """Release a finished run's model, if the gate lets it through: the log, its caps and a replay
    hold, firms cosigned the entry, and the holdout is not worse. `serve` must be running.
    审核通过后发布模型：日志、上限与重放均成立，且多家企业已共同签名。"""
    from greylag_server.consortium import Consortium
    from greylag_server.enrolment import Enrolment
    from greylag_server.release.facts import outcome
    from greylag_server.release.gate import Check, Checks, GateClosedError
    from greylag_server.release.making import Release, Wishes
    from greylag_server.service import open_store

    if output not in ("text", "json"):
        raise ConfigError(f"--format is 'text' or 'json', not {output!r}")
    consortium, now_s = Consortium.open(directory), time.time()
    store = open_store(consortium)
    signed = Enrolment(consortium).current_membership(now_s)
    membership = signed.verify(
        consortium.signer.public_key, consortium=consortium.settings.id, now_s=now_s
    )

    def tell(check: Check) -> None:
        if output == "text":
            print(check.line(), flush=True)

    wishes = Wishes(
        licence=licence,
        permitted_uses=tuple(permitted_use) if permitted_use else None,
        expires_days=expires,
        holdout=holdout,
        because=because,
        cosigners=cosigners,
        wait_s=wait_s,
        again=again,
    )
    checks = Checks(tell)
    with _waiting() as progress:
        making = Release(
            consortium=consortium,
            store=store,
            membership=membership,
            checks=checks,
            progress=progress,
            now_s=now_s,
        )
        try:
            draft = making.make(store.run(run), out, wishes)
        except GateClosedError as error:
            facts = {"run": run, "released": False, "checks": checks.to_json()}
            say(facts, "not released; nothing was written", output)
            errors.print(str(error), style="red", highlight=False, markup=False)
            raise typer.Exit(1) from None
    said = outcome(draft.facts, draft.run, draft.model)
    facts = {**said, "released": True, "out": str(out), "checks": checks.to_json()}
    name = f"{said['name']} v{said['version']}"
    say(
        facts,
        f"{out}: {name}, model {said['model'][:16]} of run {said['run']}; read card.md.\n"
        f"Whoever gets it checks it before use: greylag-client verify-release {out} --dir FIRM",
        output,
    )


def releases(
    directory: Dir,
    name: Annotated[str | None, typer.Argument(help="a plan's name; default: all")] = None,
    output: Format = "text",
) -> None:
    """List the versions of a plan's model, as the log tells them. 列出模型的各个版本。"""

    _, _, history = _open(directory)
    if name is not None and name not in history.versions:
        known = ", ".join(sorted(history.versions)) or "none yet"
        raise ConfigError(f"no release of {name!r}; released plans: {known}")
    names = sorted(history.versions) if name is None else [name]
    rows = [_row(history, item) for each in names for item in history.versions[each]]
    lines = [
        f"{'*' if row['current'] else ' '} {row['name']} v{row['version']}  run {row['run']}  "
        f"model {row['model'][:16]}  {row['state']}"
        for row in rows
    ]
    if rows:
        lines.append("* is the current version; greylag-server rollback NAME --to V names another")
    say({"releases": rows}, "\n".join(lines) or "no releases yet", output)


def rollback(
    name: Annotated[str, typer.Argument(help="a plan's name")],
    directory: Dir,
    to: Annotated[str, typer.Option(help="the version to use from now on, as 2 or v2")],
    because: Annotated[str, typer.Option(help="why; it is logged")] = "",
    output: Format = "text",
) -> None:
    """Make another version the current one. It is an entry of the log. 回退到另一版本。"""
    from greylag_server.release.versions import roll_back

    number = to.removeprefix("v")
    if not number.isdecimal() or len(number) > 6:
        raise ConfigError(f"--to is a version's number, as in --to 2, not {to!r:.40}")
    consortium, store, _ = _open(directory)
    version = roll_back(store, consortium, name, int(number), because=because)
    facts = {"name": name, "version": version.version, "run": version.run}
    say(facts, f"{name}: v{version.version} of run {version.run} is the current one", output)


def withdraw(
    run: Run,
    directory: Dir,
    because: Annotated[str, typer.Option(help="why; it is logged, and told to who asks")],
    out: Annotated[
        Path | None, typer.Option(help="also write the signed withdrawal, to be handed on")
    ] = None,
    output: Format = "text",
) -> None:
    """Withdraw all releases of a run: logged, signed; greylag's programs refuse them from then on.
    撤回某次训练的全部发布。"""
    from greylag_server.consortium import write_private
    from greylag_server.release.versions import withdraw_run

    if not because.strip():
        raise ConfigError("--because is empty; say why, for those who use the model")
    consortium, store, _ = _open(directory)
    found = store.run(run).run
    envelope, word = withdraw_run(store, consortium, found, because=because, now_s=time.time())
    if out is not None:
        write_private(out, envelope + b"\n")
    numbers = ", ".join(f"v{number}" for number in word.versions)
    facts: dict[str, Any] = {
        "run": found,
        "name": word.name,
        "versions": list(word.versions),
        "because": word.because,
        "withdrawn": day(word.withdrawn_s),
        "statement": None if out is None else str(out),
    }
    told = (
        f"Hand {out} to everybody who has it: greylag-client verify-release --withdrawal {out}"
        if out is not None
        else f"Tell everybody who has it: greylag-server withdraw {found} --because .. --out FILE "
        "writes the statement that their programs take"
    )
    say(facts, f"{word.name} {numbers} is withdrawn: {word.because}\n{told}", output)


def _open(directory: Path) -> tuple[Any, Any, ReleaseHistory]:
    from greylag_server.consortium import Consortium
    from greylag_server.release.versions import read_history
    from greylag_server.service import open_store

    consortium = Consortium.open(directory)
    store = open_store(consortium)
    return consortium, store, read_history(store, consortium)


def _row(history: ReleaseHistory, version: Version) -> dict[str, Any]:
    facts, withdrawn = version.facts, version.withdrawn
    current = history.current.get(version.name) == version.version
    until = "" if facts is None else f"valid until {day(facts.expires_s)}"
    return {
        "name": version.name,
        "version": version.version,
        "run": version.run,
        "model": version.model.hex(),
        "entry": version.position,
        "current": current,
        "issued": None if facts is None else day(facts.issued_s),
        "expires": None if facts is None else day(facts.expires_s),
        "withdrawn": None if withdrawn is None else withdrawn.because,
        "state": until if withdrawn is None else f"withdrawn: {withdrawn.because}",
    }

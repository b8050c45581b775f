"""``greylag-client suggest``: recipes for wanted properties, to be measured in the lab."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from greylag_protocols.errors import ConfigError

if TYPE_CHECKING:
    from greylag_client.suggest.search import Tick

MAX_COUNT = 100


def suggest(
    model: Annotated[Path, typer.Argument(help="your own version's directory, or a release's")],
    target: Annotated[
        list[str], typer.Option(help="NAME=LOW..HIGH, LOW.., ..HIGH or VALUE; several may be given")
    ],
    fix: Annotated[
        list[str] | None, typer.Option(help="COLUMN=LOW..HIGH or VALUE; several may be given")
    ] = None,
    total: Annotated[float | None, typer.Option("--sum", help="what shares add up to")] = None,
    sum_of: Annotated[
        str | None, typer.Option(help="A,B,C: of these columns; default: all in mol%, wt% ...")
    ] = None,
    max_components: Annotated[
        int | None, typer.Option(min=1, help="most components; default: as in --from, or 8")
    ] = None,
    own: Annotated[
        Path | None, typer.Option("--from", help="CSV with your own recipes: search near them")
    ] = None,
    cost: Annotated[
        Path | None, typer.Option(help="CSV with the columns column and cost (of one unit)")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="proposals wanted")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="another seed finds other recipes")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV with the targets empty, for the lab")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="also write a web page with plots")] = None,
    output: Annotated[str, typer.Option("--format", help="text or json")] = "text",
) -> None:
    """Propose recipes that the model expects to reach the targets, inside your constraints, near to
    what you have made, with intervals. Nothing is sent. They are to be measured in the lab.
    在约束内寻找有望达到目标性能的配方，供实验验证；不发送任何内容。"""
    from greylag_client.firm_files import write_private
    from greylag_client.prediction import Predictor
    from greylag_client.suggest.goal import Goal
    from greylag_client.suggest.known import read_known
    from greylag_client.suggest.report import as_document, as_rows, as_text
    from greylag_client.suggest.search import search
    from greylag_client.suggest.space import Space
    from greylag_client.suggest.wishes import parse_wishes, read_prices
    from greylag_client.terminal import check_format, say

    check_format(output)
    _check_paths(own, cost, out, page)
    predictor = Predictor.load(model)
    data = predictor.terms.data
    wishes = parse_wishes(
        data, targets=target, fixes=fix or (), total=total, sum_of=sum_of, most=max_components,
        prices={} if cost is None else read_prices(cost, data),
    )  # fmt: skip
    known = None if own is None else read_known(own, data)
    space = Space.of(data, wishes, known)
    goal = Goal(predictor, wishes, known)
    with _progress() as tick:
        found = search(space, goal, count=count, seed=seed, tick=tick)
    document = as_document(goal, space, wishes, found, seed=seed)
    text = as_text(document)
    if out is not None:
        write_private(out, as_rows(document, data))
        document["out"] = str(out)
        text += f"\nFor the lab: {out}, targets empty; fill them in and check it with the plan."
    if page is not None:
        from datetime import datetime

        from greylag_client.suggest.page import as_page

        write_private(page, as_page(document, made=datetime.now()).encode())
        document["page"] = str(page)
    say(document, text, output)


def _check_paths(own: Path | None, cost: Path | None, out: Path | None, page: Path | None) -> None:
    read = {path.resolve() for path in (own, cost) if path is not None}
    written = [path.resolve() for path in (out, page) if path is not None]
    for path in written:
        if path in read or written.count(path) > 1:
            raise ConfigError(f"{path} would be written over; name another file")
    if out is not None and out.suffix.lower() != ".csv":
        raise ConfigError(f"--out {out}: a name that ends in .csv is needed")


@contextmanager
def _progress() -> "Iterator[Tick]":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("search for recipes")
        yield lambda done, total: bar.update(task, completed=done, total=total)

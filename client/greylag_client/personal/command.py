"""``greylag-client personalise``: a version of the shared model for this firm's own conditions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from greylag_protocols.errors import ConfigError

if TYPE_CHECKING:  # these bring polars, torch and scikit-learn
    from greylag_client.personal.fitting import Fitted
    from greylag_client.prediction import Predictor
    from greylag_client.table import Table


def personalise(
    release: Annotated[Path, typer.Argument(help="the release's directory")],
    out: Annotated[Path, typer.Option("--out", "-o", help="a new directory for your version")],
    data: Annotated[Path | None, typer.Option(help="a CSV file with your own rows")] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", "-d", help="the firm's directory: its data")
    ] = None,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="fit on the plan's held-out rows too; none judge it")
    ] = False,
    output: Annotated[str, typer.Option("--format", help="text or json")] = "text",
) -> None:
    """Fit the shared model to your own rows: after a run, or as a firm that did not take part. The
    better of several ways by your own cross-validation; the shared model stays as it is where
    nothing is clearly better. Nothing is sent; the result is not private and for you alone.
    用本企业数据微调共享模型，仅供本企业内部使用，不发送任何内容。"""
    from greylag_client.personal.report import as_document, as_text
    from greylag_client.prediction import Predictor
    from greylag_client.terminal import check_format, say
    from greylag_client.verify_release.command import check_before_use

    check_format(output)
    if (directory is None) == (data is None):
        raise ConfigError("name your rows with --data FILE, or the firm's directory with --dir DIR")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty directory; name a new one")
    check_before_use(release, directory)
    shared = Predictor.load(release)
    if shared.personal is not None:
        raise ConfigError(f"{release} is a firm's own version already; name the shared release")
    table = _read_rows(shared, data, directory)
    if all_rows:
        table = _with_all_rows(table)
    fitted = _fit(shared, table)
    held_out = _judge_held_out(shared, fitted, table)
    document = as_document(shared.terms, fitted, held_out, out)
    text = as_text(document)
    _write(out, release, fitted, text, document)
    say(document, text, output)


def _read_rows(shared: "Predictor", data: Path | None, directory: Path | None) -> "Table":
    from greylag_client.data_files import FirmData
    from greylag_client.firm import FirmDirectory
    from greylag_client.ledger import copied_ledger
    from greylag_client.table import load_table

    terms = shared.terms.data
    if data is not None:
        return load_table(data, terms)
    firm = FirmDirectory.open(directory or Path())
    with copied_ledger(firm.ledger_path) as ledger:
        files = FirmData(firm.keys, firm.data_path, ledger)
        names = files.fitting(shared.terms)
        paths = {item.name: Path(item.path) for item in files.datasets() if item.name in names}
        return files.read(paths, terms)[0]


def _with_all_rows(table: "Table") -> "Table":
    from dataclasses import replace

    import numpy as np

    everything = np.arange(len(table), dtype=np.intp)
    return replace(table, train=everything, holdout=everything[:0])


def _fit(shared: "Predictor", table: "Table") -> "Fitted":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from greylag_client.personal.fitting import fit_personal

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("cross-validation on your own rows")
        return fit_personal(
            shared.terms,
            shared.layers,
            table,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _judge_held_out(shared: "Predictor", fitted: "Fitted", table: "Table") -> dict[str, Any] | None:
    """Errors on rows that no choice has looked at, if the plan holds some out."""
    from greylag_client.local_models.alone import fit_alone
    from greylag_client.personal.fitting import headline_error

    if not len(table.holdout) or not len(table.train):
        return None
    terms = shared.terms
    data, activation = terms.data, terms.model.activation
    values, truth = table.features[table.holdout], table.targets[table.holdout]
    predicted = {
        "alone": fit_alone(table, data, terms.model, seed=0)(values),
        "shared": shared.predict(values),
        "personalised": fitted.blend.predict(data, activation, values),
    }
    found: dict[str, Any] = {
        name: headline_error(data, guess, truth) for name, guess in predicted.items()
    }
    return found | {"rows": len(truth), "groups": len({table.groups[row] for row in table.holdout})}


def _write(out: Path, release: Path, fitted: "Fitted", text: str, document: dict[str, Any]) -> None:
    import json

    from greylag_client.firm_files import stage_directory, write_private
    from greylag_client.personal.artefact import (
        NOTE,
        Personal,
        checksums,
        encode_personal,
        facts_of,
    )
    from greylag_client.prediction import CHECKSUMS_FILE, MODEL_FILE, TERMS_FILE

    weights = (release / MODEL_FILE).read_bytes()
    facts = facts_of(
        fitted.blend, weights, rows=fitted.rows, groups=fitted.groups, intervals=fitted.intervals
    )
    files = encode_personal(Personal(facts=facts, blend=fitted.blend)) | {
        TERMS_FILE: (release / TERMS_FILE).read_bytes(),
        MODEL_FILE: weights,
        "choice.json": json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n",
        "card.md": f"# Not private\n\nThis is {NOTE}.\n\n```\n{text}\n```\n".encode(),
    }
    with stage_directory(out, last=CHECKSUMS_FILE) as staged:
        for name, content in files.items():
            write_private(staged / name, content)
        write_private(staged / CHECKSUMS_FILE, checksums(files))

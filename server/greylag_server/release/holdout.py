"""How good a model is on rows of the lead's own. Nobody else sees them, so this proves nothing."""

import csv
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from greylag_protocols.data_terms import MISSING
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import target_bounds
from greylag_protocols.releases import Holdout
from greylag_protocols.terms import DataTerms, Terms
from numpy.typing import NDArray

from greylag_server.model_graph import INPUT, OUTPUT

MAX_FILE_BYTES = 1 << 30
LEAST_PROBABILITY = 1e-12
WORSE = 1.0 + 1e-6  # one model on the same rows twice may differ in the last digits


def measure(path: Path, terms: Terms, graph: bytes, *, before: float | None) -> Holdout:
    """Errors of a model on the rows of a CSV file.

    Args:
        graph: the model as ``model_graph.onnx_graph`` makes it.
        before: the same of the version before.

    Raises:
        ConfigError: the file cannot be read, or lacks columns, or holds something else than values.
    """
    value, rows = error_of(path, terms, graph)
    classes = terms.data.task == "classification"
    metric: Literal["error", "log_loss"] = "log_loss" if classes else "error"
    return Holdout(rows=rows, metric=metric, value=value, before=before)


def error_of(path: Path, terms: Terms, graph: bytes) -> tuple[float, int]:
    """The error (see ``Holdout``) and the number of rows.

    Raises:
        ConfigError: see ``measure``.
    """
    import onnxruntime  # slow to import, and only needed here

    features, targets = read_rows(path, terms.data)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (predicted,) = session.run([OUTPUT], {INPUT: features.astype(np.float32)})
    if terms.data.task == "classification":
        chosen = predicted[np.arange(len(targets)), targets[:, 0].astype(np.intp)]
        return float(-np.log(np.maximum(chosen, LEAST_PROBABILITY)).mean()), len(targets)
    low, high = target_bounds(terms.data)
    wrong = (predicted.astype(np.float64) - targets) / (high - low)
    known = ~np.isnan(wrong)
    if not known.any(axis=0).all():
        raise ConfigError(f"{path}: a target has no value in any row; add rows that have one")
    squares = np.where(known, wrong, 0.0) ** 2
    return float(np.sqrt(squares.sum(axis=0) / known.sum(axis=0)).mean()), len(targets)


def read_rows(path: Path, data: DataTerms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features, shape (n, features), and targets, shape (n, targets), of a CSV file with a heading;
    NaN where a value is missing, of texts and classes their numbers.

    Raises:
        ConfigError: names the row and column at fault.
    """
    classes = {item.name: item.classes for item in data.targets}
    columns = [*data.feature_names, *data.target_names]
    gaps = {*MISSING, *data.missing_values}
    may_miss = dict(zip(data.feature_names, data.may_miss, strict=True))
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes; name fewer rows")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; export it again as CSV in UTF-8") from None
    reader = csv.DictReader(text.splitlines(), strict=True)
    rows = []
    try:
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise ConfigError(f"{path}: no column {', '.join(lacking)}; the plan names them")
        for number, row in enumerate(reader, start=2):
            values = []
            for name in columns:
                cell = (row[name] or "").strip()
                known = classes.get(name) or _texts(data, name)
                value = math.nan if cell in gaps else _value(cell, known)
                target = name in classes
                if value is None or (
                    math.isnan(value) and (classes[name] if target else not may_miss[name])
                ):
                    raise ConfigError(
                        f"{path}, line {number}, column {name}: {cell!r:.40} is not a value that "
                        "the plan allows"
                    )
                values.append(value)
            rows.append(values)
    except csv.Error as error:
        raise ConfigError(f"{path} is not CSV: {error}") from None
    if not rows:
        raise ConfigError(f"{path} has no rows")
    table = np.array(rows, dtype=np.float64)
    return table[:, : len(data.feature_names)], table[:, len(data.feature_names) :]


def _texts(data: DataTerms, name: str) -> tuple[str, ...] | None:
    feature: Any = data.by_feature.get(name)
    if feature is None or feature.categories is None:
        return None
    return (*feature.categories, "") if feature.other else feature.categories


def _value(cell: str, texts: tuple[str, ...] | None) -> float | None:
    """A number, or the place of a text; None if it is neither."""
    if texts is None:
        try:
            value = float(cell)
        except ValueError:
            return None
        return value if math.isfinite(value) else None
    if cell in texts:
        return float(texts.index(cell))
    return float(len(texts) - 1) if texts[-1] == "" else None

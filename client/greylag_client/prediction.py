"""Predictions from a released model, in numpy alone: no torch where a model is only used.

A release is a directory. ``terms.json`` holds the canonical terms, ``model.safetensors`` the
weights (float32, named as in ``parameters.mlp_parameters``), ``SHA256SUMS`` the digests of its
files in the format of ``sha256sum``. Whatever it holds came from outside and is checked before use.

A firm's own version (``personal.artefact``) is the same directory with two files more.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import safetensors.numpy
from greylag_protocols.encoding import MAX_HEADER_BYTES
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.features import Matrix, target_bounds
from greylag_protocols.plan import parse_terms
from greylag_protocols.terms import Terms
from numpy.typing import NDArray
from safetensors import SafetensorError

from greylag_client.local_models.layers import Layers, predict_layers
from greylag_client.personal.artefact import (
    FACTS_FILE,
    MAX_FACTS_BYTES,
    MAX_PARTS_BYTES,
    PARTS_FILE,
    Personal,
    parse_personal,
)
from greylag_client.table import (
    Problems,
    check_columns,
    outside_range,
    parse_features,
    read_cells,
    with_declared_gaps,
)

MODEL_FILE = "model.safetensors"
TERMS_FILE = "terms.json"
CHECKSUMS_FILE = "SHA256SUMS"
OUT_OF_RANGE = "out_of_range"
MAX_CHECKSUMS_BYTES = 1 << 20
MAX_TENSOR_HEADER_BYTES = 1 << 16  # names and shapes of at most 17 layers
CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._-]{0,199})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A released model, or a firm's own version of one; build it with ``load``.

    Attributes:
        terms: what the model was trained under: its columns, bounds and units.
        layers: weight (outputs, inputs) and bias (outputs,) of each layer, float64.
        personal: what makes it a firm's own, else None.
    """

    terms: Terms
    layers: Layers
    personal: Personal | None = None

    @classmethod
    def load(cls, release_dir: Path) -> "Predictor":
        """Read a release, trusting nothing in it but that the directory was meant.

        The checksums guard against damage and mix-ups. That the release is the consortium's own
        is a matter of its signature and log, which ``verify-release`` checks.

        Raises:
            ConfigError: a model of a plugin.
            VerificationError: a file is absent, too large, unlike its checksum or malformed; or
                tensors with other names, shapes or types than the terms say, or not finite.
        """
        sums = _parse_checksums(_read(release_dir / CHECKSUMS_FILE, MAX_CHECKSUMS_BYTES))
        encoded = _read_checked(release_dir, TERMS_FILE, sums, MAX_HEADER_BYTES)
        try:
            terms = parse_terms(encoded)
        except ConfigError as error:
            raise VerificationError(f"{release_dir / TERMS_FILE}: {error}") from None
        if terms.model.plugin is not None:
            raise ConfigError(
                f"{release_dir}: its model is {terms.model.family!r}, which only the package "
                "behind that name computes; predict knows the family 'mlp'"
            )
        limit = 4 * terms.dimension + MAX_TENSOR_HEADER_BYTES
        weights = _read_checked(release_dir, MODEL_FILE, sums, limit)
        tensors = _parse_tensors(weights, terms)
        names = [item.name for item in terms.parameters]
        layers = tuple(
            (tensors[weight].astype(np.float64), tensors[bias].astype(np.float64))
            for weight, bias in zip(names[::2], names[1::2], strict=True)
        )
        personal = None
        if FACTS_FILE in sums or (release_dir / FACTS_FILE).exists():
            facts = _read_checked(release_dir, FACTS_FILE, sums, MAX_FACTS_BYTES)
            parts = _read_checked(release_dir, PARTS_FILE, sums, MAX_PARTS_BYTES)
            personal = parse_personal(facts, parts, terms, weights)
        return cls(terms=terms, layers=layers, personal=personal)

    @property
    def private(self) -> bool:
        """Whether the terms' epsilon holds for what this model shows."""
        return self.personal is None

    def predict(self, values: Matrix) -> Matrix:
        """Predictions for raw features.

        Args:
            values: shape (n, features), in the order of the terms; NaN is missing. Values outside
                their public range are clamped to it: see ``table.outside_range``.

        Returns: regression: shape (n, targets), physical units; classification: shape
            (n, classes), probabilities that sum to 1.
        """
        data, activation = self.terms.data, self.terms.model.activation
        if self.personal is not None:
            return self.personal.blend.predict(data, activation, values)
        return predict_layers(data, activation, self.layers, values)

    def bounds(self, predicted: Matrix) -> tuple[Matrix, Matrix] | None:
        """Ends of the intervals of a regression's predictions, shape (n, targets) each; None where
        there are no intervals."""
        intervals = self.personal.facts.intervals if self.personal is not None else None
        if intervals is None or self.terms.data.task == "classification":
            return None
        low, high = target_bounds(self.terms.data)
        reach = np.array(intervals.reach)
        return np.maximum(low, predicted - reach), np.minimum(high, predicted + reach)

    def possible(self, predicted: Matrix) -> NDArray[np.bool_] | None:
        """Classes that the interval leaves, shape (n, classes), the likeliest always; None where
        there are no intervals."""
        intervals = self.personal.facts.intervals if self.personal is not None else None
        if intervals is None or self.terms.data.task != "classification":
            return None
        likeliest = predicted.argmax(axis=1)[:, np.newaxis] == np.arange(predicted.shape[1])
        return np.asarray((predicted >= intervals.reach[0] - 1e-12) | likeliest)


def predict_csv(model: Path | Predictor, csv_in: Path) -> pl.DataFrame:
    """A CSV file's own columns and what the model (or that in a directory) predicts for each row.

    Added columns: ``<target>_predicted`` (a number in the target's unit, or the likeliest class),
    for classes also ``<target>_probability_<class>``, and ``out_of_range``: true where a feature
    lies outside the public range, so that the prediction is for the nearest value inside. With
    intervals also ``<target>_low`` and ``<target>_high``, or ``<target>_possible``: the classes
    that cannot be ruled out. Target and group columns need not be there.

    Raises:
        ConfigError: the file lacks features or holds text, unknown categories, NaN or forbidden
            gaps in them, or already has a column by one of the added names.
        VerificationError: see ``Predictor.load``.
    """
    predictor = model if isinstance(model, Predictor) else Predictor.load(model)
    data = predictor.terms.data
    cells = read_cells(csv_in)
    problems = Problems(csv_in.name)
    check_columns(cells, data.feature_names, problems)
    problems.raise_if_any()
    if cells.height == 0:
        problems.add("the table has no rows; export it again with its data")
    known = with_declared_gaps(cells, data)
    values = parse_features(known, data, problems, refuse_outside=False)
    problems.raise_if_any()
    added = _name_columns(predictor, predictor.predict(values))
    added.append(pl.Series(OUT_OF_RANGE, outside_range(data, values)))
    for series in added:
        if series.name in cells.columns:
            problems.add(f"column {series.name!r} is there already; rename or remove it")
    problems.raise_if_any()
    return cells.with_columns(added)


def _name_columns(predictor: Predictor, predicted: Matrix) -> list[pl.Series]:
    terms = predictor.terms
    target = terms.data.targets[0]
    if target.classes is None:
        columns = [("predicted", predicted)]
        if (bounds := predictor.bounds(predicted)) is not None:
            columns += [("low", bounds[0]), ("high", bounds[1])]
        return [
            pl.Series(f"{name}_{what}", numbers[:, index])
            for index, name in enumerate(terms.data.target_names)
            for what, numbers in columns
        ]
    likeliest = [target.classes[number] for number in predicted.argmax(axis=1)]
    named = [pl.Series(f"{target.name}_predicted", likeliest, dtype=pl.String)]
    for label, column in zip(target.classes, predicted.T, strict=True):
        named.append(pl.Series(f"{target.name}_probability_{label}", column))
    if (possible := predictor.possible(predicted)) is not None:
        texts = ["|".join(np.array(target.classes)[row]) for row in possible]
        named.append(pl.Series(f"{target.name}_possible", texts, dtype=pl.String))
    return named


def _read(path: Path, limit: int) -> bytes:
    """A regular file's bytes, at most ``limit``: nothing outside decides how much is read."""
    try:
        if not path.is_file():  # a pipe or device would block or never end
            raise VerificationError(
                f"{path}: no such file; a release holds {TERMS_FILE}, {MODEL_FILE} and "
                f"{CHECKSUMS_FILE}"
            )
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise VerificationError(f"{path}: cannot be read ({error}); fetch it again") from None
    if len(content) > limit:
        raise VerificationError(f"{path}: larger than the {limit} bytes it may have; refused")
    return content


def _read_checked(directory: Path, name: str, sums: dict[str, str], limit: int) -> bytes:
    """A file whose digest is as listed; the bytes hashed are the bytes returned."""
    if name not in sums:
        raise VerificationError(f"{CHECKSUMS_FILE} does not list {name}; fetch the release again")
    content = _read(directory / name, limit)
    if hashlib.sha256(content).hexdigest() != sums[name]:
        raise VerificationError(
            f"{directory / name} does not match {CHECKSUMS_FILE}: it was changed or damaged; "
            "fetch the release again"
        )
    return content


def _parse_checksums(content: bytes) -> dict[str, str]:
    """Digest by file name; only plain names, so that none points out of the directory."""
    sums: dict[str, str] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        match = CHECKSUM_LINE.fullmatch(line)
        if match is None or match[2] in sums:
            raise VerificationError(
                f"{CHECKSUMS_FILE}, line {number}: not '<sha256>  <file name>' or named twice; "
                "fetch the release again"
            )
        sums[match[2]] = match[1]
    return sums


def _parse_tensors(content: bytes, terms: Terms) -> dict[str, NDArray[np.float32]]:
    try:
        tensors = safetensors.numpy.load(content)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        # Types that numpy lacks (bfloat16, float8) surface as KeyError or TypeError.
        raise VerificationError(f"{MODEL_FILE}: not readable as safetensors ({error!r})") from None
    expected = {item.name: item.shape for item in terms.parameters}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != expected or any(item.dtype != np.float32 for item in tensors.values()):
        raise VerificationError(
            f"{MODEL_FILE}: tensors are not the float32 ones that the terms describe"
        )
    if not all(np.isfinite(item).all() for item in tensors.values()):
        raise VerificationError(f"{MODEL_FILE}: holds weights that are not finite numbers")
    return tensors

"""A release as it is served: checked, loaded, warmed; and whether it still may be used."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.plan import parse_terms
from greylag_protocols.releases import (
    ENTRY_FILE,
    ONNX_FILE,
    RELEASE_KIND,
    TERMS_FILE,
    ReleasedFile,
    ReleaseFacts,
    ReleaseHistory,
    check_usable,
    parse_release,
)
from greylag_protocols.signing import MAX_ENVELOPE_BYTES, verify_statement
from greylag_protocols.terms import DataTerms, Terms, terms_digest
from numpy.typing import NDArray

from greylag_server.consortium import Consortium

PERSONAL_FILE = "personal.json"
MAX_FILE_BYTES = 1 << 30
MAX_ROWS = 65_536  # of one request

Rows = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The public shape of a row: what the terms say of the features, ready to be compared."""

    names: tuple[str, ...]
    low: Rows
    high: Rows
    may_miss: Flags
    categories: Flags

    @classmethod
    def of(cls, data: DataTerms) -> "Schema":
        features = data.by_feature.values()
        # In float32, as values come: 0.1 is not outside [0, 0.1] because it was rounded.
        low, high = np.array([item.bounds for item in features], dtype=np.float32).T
        return cls(
            names=data.feature_names,
            low=low,
            high=high,
            may_miss=np.array(data.may_miss),
            categories=np.array([item.categories is not None for item in features]),
        )

    def fault(self, rows: Rows) -> str:
        """What is wrong with the values, shape (n, features); empty if nothing is."""
        categories = self.categories.any()
        if not categories and np.isfinite(rows).all():  # the usual case, in one pass
            return ""
        gaps = np.isnan(rows)
        if np.isinf(rows).any():
            return self._said(np.isinf(rows), "infinity; send a number, or NaN for a gap")
        if (wrong := gaps & ~self.may_miss).any():
            return self._said(wrong, "a gap, which the terms do not allow here; fill it")
        if categories:
            whole = (rows == np.floor(rows)) & (rows >= self.low) & (rows <= self.high)
            if (wrong := self.categories & ~gaps & ~whole).any():
                return self._said(wrong, "no number of a category; see the model's metadata")
        return ""

    def _said(self, wrong: Flags, what: str) -> str:
        return f"column {self.names[int(wrong.any(axis=0).argmax())]!r} holds {what}"

    def outside(self, rows: Rows) -> Flags:
        """Which rows have a value outside its public range, shape (n,)."""
        return np.asarray(((rows < self.low) | (rows > self.high)).any(axis=1))


class ServedModel:
    """One version, loaded; build it with ``load``.

    Attributes:
        name, version: what requests ask for.
        run, digest, facts: what the log says of it.
    """

    def __init__(
        self, terms: Terms, digest: bytes, run: str, facts: ReleaseFacts, graph: bytes, threads: int
    ) -> None:
        self.terms, self.digest, self.run, self.facts = terms, digest, run, facts
        self.name, self.version = facts.name, str(facts.version)
        self.schema = Schema.of(terms.data)
        self.outputs = terms.data.outputs
        self.columns = len(self.schema.names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # A thread that waits in a loop would take the core from TLS.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
            # A row of gaps has the right shape for every graph, and is what warms it.
            found = self.predict(np.full((2, self.columns), np.nan, dtype=np.float32))
        except Exception as error:  # noqa: BLE001 - the runtime has no error tree of its own
            raise VerificationError(f"{ONNX_FILE} does not run: {error!s:.200}") from None
        if found.shape != (2, self.outputs):
            raise VerificationError(f"{ONNX_FILE} does not give what the terms describe")

    @classmethod
    def load(cls, root: Path, consortium: Consortium, *, threads: int = 1) -> "ServedModel":
        """Read a release of this consortium, trusting nothing in it but the lead's signature.

        Raises:
            VerificationError: a file is absent, or not what the log's entry names.
            ConfigError: a firm's own version, or a release without a graph.
        """
        if (root / PERSONAL_FILE).exists():
            raise ConfigError(
                f"{root} is a firm's own version, fitted without noise: only that firm may use it. "
                "Serve the release that it came from"
            )
        entry = _read(root / ENTRY_FILE, MAX_ENVELOPE_BYTES + 1)
        statement = verify_statement(entry.strip(), consortium.signer.public_key, RELEASE_KIND)
        facts = parse_release(statement)
        if facts.consortium != consortium.settings.id:
            raise VerificationError(f"{root} is a release of {facts.consortium!r:.80}")
        named = {item.name: item for item in facts.files}
        if ONNX_FILE not in named:
            raise ConfigError(f"{root} has no {ONNX_FILE}: models of a plugin cannot be served")
        encoded, graph = (_named(root, named, name) for name in (TERMS_FILE, ONNX_FILE))
        if terms_digest(encoded).hex() != facts.terms:
            raise VerificationError(f"{root / TERMS_FILE} is not what the log's entry names")
        terms = parse_terms(encoded)
        return cls(terms, statement.digest, statement.subject, facts, graph, threads)

    def predict(self, rows: Rows) -> Rows:
        """Shape (n, outputs); values outside their range are clamped to it by the graph."""
        return np.asarray(self._session.run(None, {"features": rows})[0])

    def check(self, history: ReleaseHistory, *, now_s: float) -> None:
        """It may be used now.

        Raises:
            VerificationError: withdrawn, expired, or not in this log.
        """
        known = history.versions.get(self.name, [])
        found = known[self.facts.version - 1] if self.facts.version <= len(known) else None
        if found is None or (found.run, found.model) != (self.run, self.digest):
            raise VerificationError(
                f"{self.name} v{self.version} is not in this consortium's log; serve a release "
                "that greylag-server release made from it"
            )
        if found.withdrawn is not None:
            raise VerificationError(
                f"{self.name} v{self.version} was withdrawn: {found.withdrawn.because}; serve "
                "another version (greylag-server releases lists them)"
            )
        check_usable(self.run, self.digest, self.facts, now_s=now_s)

    def columns_json(self) -> str:
        """What a firm needs for making rows: each column's unit, range and categories."""
        data = self.terms.data
        columns = [
            {
                "name": name,
                "unit": item.unit,
                "range": list(item.bounds),
                "categories": None if item.categories is None else list(item.categories),
                "may_miss": bool(may),
            }
            for (name, item), may in zip(data.by_feature.items(), data.may_miss, strict=True)
        ]
        return json.dumps(columns, ensure_ascii=False)

    def to_json(self) -> dict[str, Any]:
        """For the operator's programs."""
        return {
            "name": self.name,
            "version": self.facts.version,
            "run": self.run,
            "model": self.digest.hex(),
            "expires_s": self.facts.expires_s,
        }


def _read(path: Path, limit: int) -> bytes:
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; name the directory of a release")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise VerificationError(f"{path} is larger than the {limit} bytes that it may have")
    return content


def _named(root: Path, named: dict[str, ReleasedFile], name: str) -> bytes:
    """A file that the log's entry names; the bytes hashed are the bytes returned."""
    if name not in named:
        raise VerificationError(f"{root}: the log's entry names no {name}; release it again")
    content = _read(root / name, min(named[name].bytes, MAX_FILE_BYTES))
    if hashlib.sha256(content).hexdigest() != named[name].sha256:
        raise VerificationError(
            f"{root / name} is not the one that the log's entry names: it was changed or damaged; "
            "write the release again"
        )
    return content

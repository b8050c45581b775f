"""Whether a model is worse than the last release on the lead's own rows."""

from pathlib import Path

from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_terms
from greylag_protocols.releases import ONNX_FILE, TERMS_FILE, Holdout, Version

from greylag_server.release.artefacts import Model
from greylag_server.release.gate import Checks
from greylag_server.release.holdout import WORSE, error_of, measure
from greylag_server.store import Store

CHECK = "holdout"


def compare_holdout(
    checks: Checks,
    store: Store,
    model: Model,
    *,
    last: Version | None,
    path: Path | None,
    because: str,
) -> tuple[Holdout | None, str]:
    """Measure ``model`` on the rows at ``path``, and the last version's model on the same ones; the
    result is noted in ``checks``.

    Returns: what was measured, and the reason that the check was overridden for, or nothing.

    Raises:
        ConfigError: the rows cannot be used, or the model cannot be computed here.
    """
    recorded = None if last is None or last.facts is None else last.facts.holdout
    if path is None:
        if recorded is None:
            text = "not measured: no rows were named (--holdout), nor at the last release"
            return None, _judge(checks, True, text, because)
        text = "not measured, as the last release was: name the rows with --holdout"
        return None, _judge(checks, False, text, because)
    if model.graph is None:
        raise ConfigError(
            f"--holdout: a model of the family {model.terms.model.family!r} is computed by a "
            "package of the firms; leave it out"
        )
    before = _before(store, last, path)
    if before is None and recorded is not None:
        before = recorded.value
    found = measure(path, model.terms, model.graph, before=before)
    text = f"{found.metric} {found.value:.4g} on {found.rows} rows"
    if before is None:
        text += "; there is no release before to compare with"
        return found, _judge(checks, True, text, because)
    text += f", {before:.4g} at the last release"
    return found, _judge(checks, found.value <= before * WORSE, text, because)


def _judge(checks: Checks, fine: bool, text: str, because: str) -> str:
    if not fine and because:
        checks.add(CHECK, True, f"{text}; overridden, and logged: {because}")
        return because
    checks.add(CHECK, fine, text if fine else f"{text}. --because TEXT overrides this, logged")
    return ""


def _before(store: Store, last: Version | None, path: Path) -> float | None:
    """What the last version has on the same rows, if its files are here and the rows fit it."""
    if last is None or last.facts is None:
        return None
    files = {item.name: bytes.fromhex(item.sha256) for item in last.facts.files}
    graph = store.artefact(files.get(ONNX_FILE, b""))
    encoded = store.artefact(files.get(TERMS_FILE, b""))
    if graph is None or encoded is None:
        return None
    try:
        return error_of(path, parse_terms(encoded), graph)[0]
    except ConfigError:
        return None  # of other columns: then its own record is all there is

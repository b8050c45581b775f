"""``greylag-audit report``: writes a report, as what its file's name ends in."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from greylag_protocols.errors import ConfigError
from greylag_protocols.trust import Trust

from greylag_audit.bundle_files import Bundle
from greylag_audit.report.blocks import Report
from greylag_audit.report.contents import to_json, write_report
from greylag_audit.report.facts import ReportFacts, gather
from greylag_audit.verify import Progress, verify

KINDS = ("html", "json", "pdf")
LANGUAGES = ("en", "zh")


def check_wish(out: Path | None, lang: str) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        ConfigError: an unknown language, or a file of no known kind.
    """
    if lang not in LANGUAGES:
        raise ConfigError(f"--lang is 'en' or 'zh', not {lang!r:.40}")
    if out is not None and not _is_directory(out) and out.suffix[1:] not in KINDS:
        raise ConfigError(
            f"--out {out} must end in .html, .pdf or .json, or name a directory, which then gets "
            "all three"
        )


def make_report(
    bundle: Bundle, *, trust: Trust | None, lang: str, progress: Progress
) -> tuple[ReportFacts, Report]:
    """Audit, replay and reckon.

    Raises:
        ConfigError: it is no bundle, or tells nothing of its run.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)  # the accountants warn of orders they skip
    verdict = verify(bundle, trust=trust, progress=progress)
    facts = gather(bundle, verdict, trust=trust, progress=progress)
    return facts, write_report(facts, lang)


def write_files(out: Path, facts: ReportFacts, report: Report) -> list[Path]:
    """The report at ``out``: one file, or all three kinds in a directory.

    Raises:
        ConfigError: it cannot be written.
    """
    paths = [out / f"report.{kind}" for kind in KINDS] if _is_directory(out) else [out]
    for path in paths:
        content = _MAKERS[path.suffix[1:]](facts, report)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written ({error.strerror}); name another file with --out"
            ) from None
    return paths


def _is_directory(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _html(facts: ReportFacts, report: Report) -> bytes:
    from greylag_audit.report.html import to_html

    return to_html(report).encode()


def _pdf(facts: ReportFacts, report: Report) -> bytes:
    from greylag_audit.report.pdf import to_pdf

    return to_pdf(report)


def _json(facts: ReportFacts, report: Report) -> bytes:
    return json.dumps(to_json(facts, report), ensure_ascii=False, indent=1).encode() + b"\n"


_MAKERS: dict[str, Callable[[ReportFacts, Report], bytes]] = {
    "html": _html,
    "json": _json,
    "pdf": _pdf,
}

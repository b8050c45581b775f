"""The report: the same facts in two languages and three forms, whatever the bundle says."""

import copy
import json
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from audit_evidence import Evidence
from consortium_in_memory import make_terms
from greylag_audit import cli
from greylag_audit.bundle_files import open_bundle
from greylag_audit.report import odds
from greylag_audit.report.command import check_wish, write_files
from greylag_audit.report.contents import right_of, to_json, write_report
from greylag_audit.report.facts import ReportFacts, firm_rows, gather
from greylag_audit.report.findings_zh import FINDINGS_ZH
from greylag_audit.report.html import to_html
from greylag_audit.report.pdf import to_pdf
from greylag_audit.report.plots import number, ticks
from greylag_audit.report.texts import LANGUAGES, Texts
from greylag_audit.texts import ENGLISH
from greylag_audit.verify import Verdict, verify
from greylag_protocols import log
from greylag_protocols.accounting import advantage_of, epsilon_of_copies, poisson_gaussian
from greylag_protocols.errors import ConfigError
from greylag_protocols.trust import Trust

ENEMY = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{0}</style>"


@pytest.fixture(scope="module")
def quick_odds() -> Iterator[None]:
    """The many loss distributions of small noise take long; one test looks at a few of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(odds, "COPIES", ())
        patch.setattr(odds, "MOST_POINTS", 3)
        yield


def facts_of(bundle: Path, trust: Trust | None) -> tuple[Verdict, ReportFacts]:
    with open_bundle(bundle) as opened:
        verdict = verify(opened, trust=trust)
        return verdict, gather(opened, verdict, trust=trust)


@pytest.fixture(scope="module")
def audited(quick_odds: None, real: Evidence, real_bundle: Path) -> tuple[Verdict, ReportFacts]:
    return facts_of(real_bundle, real.trust())


@pytest.fixture(scope="module")
def facts(audited: tuple[Verdict, ReportFacts]) -> ReportFacts:
    return audited[1]


class Reader(HTMLParser):
    """What a browser would make of a page: tags, attributes and visible texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if data.strip() and self.tags[-1] != "style":
            self.texts.append(data.strip())


def names_in(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize(
    ("english", "chinese"), [(LANGUAGES["en"], LANGUAGES["zh"]), (ENGLISH, FINDINGS_ZH)]
)
def test_every_sentence_is_there_in_both_languages(
    english: dict[str, str], chinese: dict[str, str]
) -> None:
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert names_in(text) == names_in(chinese[key]), key


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_says_what_was_found(facts: ReportFacts, lang: str) -> None:
    page = to_html(write_report(facts, lang))
    reader = Reader(page)
    told = "\n".join(reader.texts)
    assert facts.outcome == "holds"
    assert facts.holds
    for row in facts.firms:
        assert row.firm in told
    if lang == "en":
        for item in facts.findings:
            assert item.text() in told
    else:
        assert not any(item.text() in told for item in facts.findings)
        assert ("lang", "zh-Hans") in reader.attributes
    assert "mapped, not certified / 对照，非认证" in told
    assert facts.odds is not None
    assert reader.tags.count("circle") >= 100
    assert f"{right_of(facts.odds.percent)} %" in told
    for name in ("dots", "spending", "cumulative", "rosters", "detection"):
        assert ("id", f"{name}-d") in reader.attributes


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_what_the_bundle_says_stays_text(facts: ReportFacts, lang: str) -> None:
    assert facts.terms is not None
    evil = replace(
        facts,
        origin=ENEMY,
        run=ENEMY,
        released=ENEMY,
        terms=replace(facts.terms, run=replace(facts.terms.run, purpose=ENEMY)),
        firms=tuple(replace(row, firm=ENEMY, operator=ENEMY) for row in facts.firms),
        findings=tuple(replace(item, firm=ENEMY) for item in facts.findings),
    )
    report = write_report(evil, lang)
    reader = Reader(to_html(report))
    assert not {"script", "img", "iframe", "object", "link", "form"} & set(reader.tags)
    assert reader.tags.count("style") == 1
    for name, value in reader.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "style", "srcset", "action", "data")
        if name == "href":
            assert value.startswith("#")
    assert ENEMY in "\n".join(reader.texts)
    assert to_pdf(report).startswith(b"%PDF-")
    assert to_json(evil, report)["firms"][0]["firm"] == ENEMY


def test_the_page_may_do_nothing(facts: ReportFacts) -> None:
    reader = Reader(to_html(write_report(facts, "en")))
    (policy,) = [value for name, value in reader.attributes if value.startswith("default-src")]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    else:
        yield str(value)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_json_has_all_that_the_page_has(facts: ReportFacts, lang: str) -> None:
    report = write_report(facts, lang)
    document = json.loads(json.dumps(to_json(facts, report)))
    known = "\n".join(strings(document))
    drawn = ("plot.",)
    labels = [text for key, text in LANGUAGES[lang].items() if key.startswith(drawn)]
    fixed = {*report.words.values(), "✓", "✗", "?"}
    for text in Reader(to_html(report)).texts:
        bare = text.removesuffix(":")
        inside = bare in fixed or bare in known
        assert (
            inside
            or any(bare.startswith(label.partition("{")[0]) for label in labels)
            or (
                bare.replace(".", "").isdigit()  # of an axis
            )
        ), text


@pytest.mark.parametrize("make", [lambda report: to_html(report).encode(), to_pdf])
def test_the_same_bundle_gives_the_same_bytes(
    facts: ReportFacts, make: Callable[..., bytes]
) -> None:
    assert make(write_report(facts, "zh")) == make(write_report(facts, "zh"))


def test_a_broken_promise_comes_first(quick_odds: None, evidence: Evidence, tmp_path: Path) -> None:
    at = evidence.find(log.RECEIPT_KIND, firm="firm-b", nth=2)
    evidence.sign(at, charged=9)
    evidence.rechain("firm-b")
    _, found = facts_of(evidence.write(tmp_path / "bundle"), evidence.trust())
    assert found.outcome == "broken"
    assert not found.holds
    report = write_report(found, "en")
    first = report.to_json()[0]["blocks"][0]
    lines = first["items"][0]["findings"]
    assert {"state": "broken", "place": f"entry {at}, firm-b"}.items() <= lines[0].items()
    rows = next(item for item in report.to_json() if item["id"] == "europe")["blocks"][-1]["rows"]
    (budget,) = [row for row in rows if "35(7)(d)" in row[0]]
    assert budget[-1] == LANGUAGES["en"]["mapped.broken"]


def test_without_trust_nothing_holds(
    quick_odds: None, real_bundle: Path, facts: ReportFacts
) -> None:
    _, found = facts_of(real_bundle, None)
    assert (found.outcome, found.holds) == ("unsigned", False)
    report = write_report(found, "en")
    assert report.verdict == LANGUAGES["en"]["verdict.unsigned"]
    assert (found.witnessed_s, found.witnesses) == (facts.witnessed_s, 5)


def test_terms_that_are_missing_leave_the_rest(
    audited: tuple[Verdict, ReportFacts],
) -> None:
    bare = replace(audited[1], terms=None, odds=None, cumulative=(), firms=())
    for lang in ("en", "zh"):
        report = write_report(bare, lang)
        assert to_html(report)
        assert to_pdf(report)
        assert [item.id for item in report.sections] == ["short", "evidence", "china", "europe"]


def test_what_was_spent_before_is_counted(audited: tuple[Verdict, ReportFacts]) -> None:
    book = audited[0].runs[audited[0].run]
    earlier = copy.copy(book)
    earlier.run = "earlier"
    earlier.firms = {"firm-a": replace(book.firms["firm-a"], accepted=0)}
    later = copy.copy(book)
    later.run = "later"
    later.firms = {"firm-a": replace(book.firms["firm-a"], accepted=9999, charged=0, closed=None)}
    rows = {row.firm: row for row in firm_rows(book, [earlier, book, later])}
    cost = rows["firm-a"].limit
    assert (rows["firm-a"].before, rows["firm-a"].spent, rows["firm-a"].reserved) == (cost,) * 3
    assert rows["firm-a"].after == 2 * cost
    assert (rows["firm-b"].before, rows["firm-b"].reserved, rows["firm-b"].after) == (0, 0, cost)


def test_odds_are_those_of_the_accountant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odds, "COPIES", (2, 5))
    terms = make_terms(rounds=2, max_attempts=2)
    terms = replace(terms, privacy=replace(terms.privacy, noise_multiplier=9.0))
    found = odds.odds_of(terms, largest_roster=5)
    assert found is not None
    advantage = advantage_of(terms.mechanism, releases=2)
    assert found.percent == pytest.approx(50 * (1 + advantage))
    assert len(found.copies) == 2
    for count, epsilon, percent in found.copies:
        wanted = epsilon_of_copies(
            terms.mechanism, copies=count, releases=2, delta=terms.privacy.delta
        )
        assert epsilon is not None
        assert wanted <= epsilon <= 1.01 * wanted
        assert percent > found.percent
    assert found.lone is not None
    assert found.lone[1] > found.percent
    # The best test on the curve is as much better than chance as the total variation says.
    best = max(found - alarm for alarm, found in found.curve)
    assert best == pytest.approx(advantage, abs=2e-3)
    heights = [height for _, height in found.curve]
    assert heights == sorted(heights)
    assert all(height >= alarm - 1e-9 for alarm, height in found.curve)


@pytest.mark.parametrize("unit", ["group", "firm"])
def test_other_units_are_named(quick_odds: None, facts: ReportFacts, unit: str) -> None:
    terms = make_terms(rounds=2, max_attempts=2, unit=unit)
    found = odds.odds_of(terms, largest_roster=4)
    assert found is not None
    other = replace(facts, terms=terms, odds=found)
    for lang in ("en", "zh"):
        say = Texts(lang)
        told = "\n".join(strings(to_json(other, write_report(other, lang))))
        assert say.unit(terms) in told
        assert (say("odds.firm") in told) is (unit == "firm")
        assert "?" not in say.unit(terms)


def test_what_no_machine_could_reckon_is_left_out(facts: ReportFacts) -> None:
    terms = make_terms(rounds=2, max_attempts=2)
    privacy = replace(terms.privacy, noise_multiplier=0.3, max_attempts=100_000)
    wild = replace(terms, privacy=privacy)
    assert odds.odds_of(wild, largest_roster=4) is None
    assert odds.cumulative_epsilon(wild, 100_000) == ()
    assert to_html(write_report(replace(facts, terms=wild, odds=None, cumulative=()), "en"))


def test_a_sum_with_hardly_any_noise_of_its_own_says_so() -> None:
    mechanism = poisson_gaussian(sampling_rate=0.2, noise_multiplier=1.0, records_cap=50)
    assert mechanism.scaled(20**-0.5).noise_multiplier < 0.3
    terms = make_terms(rounds=1, max_attempts=1)
    terms = replace(terms, privacy=replace(terms.privacy, noise_multiplier=1.0))
    assert odds._lone(terms, 21) is None


@pytest.mark.parametrize(
    ("most", "whole", "wanted"),
    [(1.0, False, 6), (8, True, 5), (3, True, 4), (0, True, 1), (7.3e-5, False, 4)],
)
def test_axes_have_round_numbers(most: float, whole: bool, wanted: int) -> None:
    found = ticks(most, whole=whole)
    assert len(found) == wanted
    assert found[0] == 0
    assert found[-1] <= most * 1.000001


def test_numbers_are_short() -> None:
    assert [number(x) for x in (0, 3, 1.354, 19.27)] == ["0", "3", "1.35", "19.3"]
    assert (right_of(55.97), right_of(56.0), right_of(50.000001)) == (56, 56, 51)


def test_what_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    check_wish(tmp_path, "zh")
    check_wish(tmp_path / "a.pdf", "en")
    with pytest.raises(ConfigError, match=r"must end in \.html"):
        check_wish(tmp_path / "a.docx", "en")
    with pytest.raises(ConfigError, match="--lang is 'en' or 'zh'"):
        check_wish(None, "de")


def test_all_three_kinds_are_written(facts: ReportFacts, tmp_path: Path) -> None:
    report = write_report(facts, "zh")
    paths = write_files(tmp_path / "new", facts, report)
    assert [path.name for path in paths] == ["report.html", "report.json", "report.pdf"]
    assert json.loads(paths[1].read_bytes())["verdict"] == report.verdict
    with pytest.raises(ConfigError, match="cannot be written"):
        write_files(paths[0] / "a.html", facts, report)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_pdf_can_be_read(facts: ReportFacts, lang: str) -> None:
    pdfium = pytest.importorskip("pypdfium2")
    report = write_report(facts, lang)
    with pdfium.PdfDocument(to_pdf(report)) as document:
        assert document.get_metadata_dict()["Title"] == report.title
        page = document[0].get_textpage().get_text_bounded()
    for text in (report.title, report.sections[0].title):
        assert text in page


def test_the_command(
    quick_odds: None,
    real: Evidence,
    real_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["greylag-audit", "report", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    out = tmp_path / "report.html"
    code, told = run(str(real_bundle), "--out", str(out), "--format", "json", "--lang", "zh")
    assert code == 1  # nobody's keys are known
    assert json.loads(told)["outcome"] == "unsigned"
    assert out.read_bytes().startswith(b"<!doctype html>")
    assert run(str(real_bundle))[0] == 2
    assert run(str(real_bundle), "--lang", "fr", "--format", "json")[0] == 2

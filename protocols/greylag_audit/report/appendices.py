"""What others' documents ask for, beside what a bundle shows: mapped, never certified.

A row names the checks that its claim rests on, so that it says "kept" only where they held.
"""

from greylag_protocols.terms import Terms

from greylag_audit.report.blocks import Section, Table, Words
from greylag_audit.report.facts import ReportFacts
from greylag_audit.report.plots import number
from greylag_audit.report.texts import Texts

# Row: checks; without any, nothing in a bundle bears on it.
CHINA = {
    "jrt.channel": "entry.signature members.identity",
    "jrt.log": "log.tree log.history chain receipt.match",
    "jrt.rest": "",
    "gbt.general": "",
    "gbt.data": "entry.signature log.tree",
    "gbt.rest": "",
    "tds.plan": "members.list members.identity run.acceptance",
    "tds.contract": "terms.known run.acceptance",
    "tds.rest": "",
}
EUROPE = {
    "dpia.a": "terms.known run.acceptance",
    "dpia.b": "terms.epsilon roster.size",
    "dpia.c": "terms.epsilon attempt.limit",
    "dpia.d": "receipt.charge roster.size log.tree",
    "dpia.rest": "",
    "ai.1": "release.follows",
    "ai.2": "terms.known run.start replay.follows",
    "ai.3": "",
    "ai.4": "",
    "ai.5": "",
    "ai.6": "log.history",
    "ai.rest": "",
}
NIST = {  # the kind of evidence, and the checks that it rests on
    "parameters": ("proved", "terms.epsilon"),
    "unit": ("claim", "terms.known run.acceptance"),
    "variant": ("claim", "terms.known run.acceptance"),
    "budget": ("proved", "receipt.charge attempt.limit"),
    "mechanism": ("claim", "terms.known round.step"),
    "trust": ("claim", "roster.size roster.operators"),
    "accounting": ("proved", "terms.epsilon"),
    "correctness": ("beyond", ""),
    "utility": ("beyond", ""),
    "security": ("beyond", ""),
    "collection": ("beyond", ""),
}
REGISTRY = {
    "curator": 1,
    "use": 1,
    "product": 1,
    "date": 1,
    "flavor": 2,
    "unit": 2,
    "loss": 2,
    "model": 2,
    "domain": 3,
    "unprotected": 3,
    "accounting": 3,
    "implementation": 3,
}


def appendices(facts: ReportFacts, say: Texts) -> list[Section]:
    """The fields of others' forms, then one appendix for each reader."""
    sections = []
    if facts.terms is not None:
        sections = [_nist(facts, facts.terms, say), _registry(facts, facts.terms, say)]
    return [*sections, _mapped("china", CHINA, facts, say), _mapped("europe", EUROPE, facts, say)]


def _mapped(name: str, rows: dict[str, str], facts: ReportFacts, say: Texts) -> Section:
    table = Table(
        caption=say(f"{name}.table"),
        columns=tuple(say(f"mapped.{key}") for key in ("clause", "shows", "lacks", "here")),
        rows=tuple(
            (
                say(f"{name}.{key}"),
                say(f"{name}.{key}.shows"),
                say(f"{name}.{key}.lacks"),
                _state(checks, facts, say),
            )
            for key, checks in rows.items()
        ),
    )
    blocks = (Words(text=say("mapped"), tone="look"), Words(text=say(f"{name}.intro")), table)
    return Section(id=name, title=say(name), blocks=blocks)


def _state(checks: str, facts: ReportFacts, say: Texts) -> str:
    """The worst of the checks that a row rests on; one that found nothing at all is unknown."""
    states = {facts.of(check) or "unknown" for check in checks.split()}
    for state in ("broken", "unknown", "holds"):
        if state in states:
            return say(f"mapped.{state}")
    return say("mapped.nothing")


def _class(evidence: str, checks: str, facts: ReportFacts, say: Texts) -> str:
    """The kind of evidence, where the checks that it rests on held."""
    states = {facts.of(check) for check in checks.split()} - {"holds"}
    return _state(checks, facts, say) if states else say(f"evidence.{evidence}.one")


def _nist(facts: ReportFacts, terms: Terms, say: Texts) -> Section:
    told = _told(facts, terms, say)
    table = Table(
        caption=say("nist.table"),
        columns=(say("nist.topic"), say("nist.run"), say("nist.class")),
        rows=tuple(
            (
                say(f"nist.{key}"),
                say(f"nist.{key}.run", **told),
                _class(evidence, checks, facts, say),
            )
            for key, (evidence, checks) in NIST.items()
        ),
    )
    return Section(id="nist", title=say("nist"), blocks=(Words(text=say("nist.intro")), table))


def _registry(facts: ReportFacts, terms: Terms, say: Texts) -> Section:
    told = _told(facts, terms, say)
    table = Table(
        caption=say("registry.table"),
        columns=(say("registry.field"), say("registry.tier"), say("registry.value")),
        rows=tuple(
            (say(f"registry.{key}"), str(tier), say(f"registry.{key}.value", **told))
            for key, tier in REGISTRY.items()
        ),
        numbers=frozenset({1}),
    )
    blocks = (Words(text=say("registry.intro")), table)
    return Section(id="registry", title=say("registry"), blocks=blocks)


def _told(facts: ReportFacts, terms: Terms, say: Texts) -> dict[str, object]:
    privacy = terms.privacy
    mechanism = say(f"mechanism.{'firm' if privacy.unit == 'firm' else 'sampled'}")
    return {
        "epsilon": number(privacy.epsilon),
        "delta": f"{privacy.delta:g}",
        "unit": say.unit_name(terms),
        "attempts": privacy.max_attempts,
        "colluding": privacy.max_colluding,
        "least": privacy.min_firms,
        "mechanism": mechanism,
        "sigma": f"{privacy.noise_multiplier:g}",
        "rate": f"{terms.training.sampling_rate:g}",
        "clip": f"{privacy.clip_norm:g}",
        "origin": facts.origin,
        "purpose": terms.run.purpose,
        "family": terms.model.family,
        "dimension": terms.dimension,
        "standard": terms.data.standard,
        "suite": terms.run.suite,
        "firms": len(facts.firms),
    }

"""How a report finds its sentences: by language and key, with facts filled in as plain text."""

from greylag_protocols.terms import Terms

from greylag_audit.findings import Finding
from greylag_audit.report.findings_zh import FINDINGS_ZH
from greylag_audit.report.standards_en import STANDARDS_EN
from greylag_audit.report.standards_zh import STANDARDS_ZH
from greylag_audit.report.texts_en import ENGLISH
from greylag_audit.report.texts_zh import CHINESE
from greylag_audit.texts import TABLES

LANGUAGES = {"en": {**ENGLISH, **STANDARDS_EN}, "zh": {**CHINESE, **STANDARDS_ZH}}
TAGS = {"en": "en", "zh": "zh-Hans"}
WORDS_ZH = {  # facts that the audit gives as English words
    "left": "退出",
    "was revoked": "被吊销",
    "acceptance": "接受",
    "receipt": "收据",
    "closed": "关闭",
    "round": "轮次",
    "void": "作废",
    "release": "发布",
    "start": "开始",
    "terms": "条款",
    "membership": "成员名单",
}


class Texts:
    """The sentences of one language: ``say(key, name=value)``."""

    def __init__(self, lang: str) -> None:
        self._lang = lang
        self._table = LANGUAGES[lang]
        self.tag = TAGS[lang]

    def __call__(self, key: str, **facts: object) -> str:
        return self._table[key].format_map({name: str(value) for name, value in facts.items()})

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def unit(self, terms: Terms) -> str:
        """One of what is protected, as it stands in a sentence."""
        return self(f"unit.{terms.privacy.unit}", group=terms.data.group or "?")

    def unit_name(self, terms: Terms) -> str:
        """The kind of what is protected."""
        return self(f"unit.name.{terms.privacy.unit}", group=terms.data.group or "?")

    def finding(self, item: Finding) -> str:
        """A finding's sentence; English where this language has none yet."""
        if self._lang == "en" or self._lang in TABLES or item.message not in FINDINGS_ZH:
            return item.text(self._lang)
        facts = {name: WORDS_ZH.get(value, value) for name, value in item.facts}
        return FINDINGS_ZH[item.message].format_map(_Known(facts))


class _Known(dict[str, str]):
    """A sentence is never lost for want of a fact."""

    def __missing__(self, key: str) -> str:
        return "?"

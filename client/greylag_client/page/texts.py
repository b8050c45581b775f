"""Every text of the page, in each language under the same keys. ``{names}`` are filled in."""

from greylag_client.page.texts_en import ENGLISH
from greylag_client.page.texts_zh import CHINESE

LANGUAGES = {"en": ENGLISH, "zh": CHINESE}
NAMES = {"en": "English", "zh": "中文"}


def choose_language(asked: str | None, kept: str | None, accepted: str) -> str:
    """The language to show: what was asked for, else what was kept, else the browser's wish.

    Args:
        asked: of the address, ``?lang=``.
        kept: of a cookie.
        accepted: the header Accept-Language.
    """
    for choice in (asked, kept):
        if choice in LANGUAGES:
            return str(choice)
    wishes = []
    for item in accepted[:200].lower().split(","):
        tag, _, quality = item.strip().partition(";q=")
        try:
            wishes.append((-float(quality or 1), tag.partition("-")[0]))
        except ValueError:
            continue
    for _, language in sorted(wishes, key=lambda wish: wish[0]):
        if language in LANGUAGES:
            return language
    return "en"

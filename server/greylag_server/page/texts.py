"""Every text of the page, in each language under the same keys. ``{names}`` are filled in."""

from greylag_server.page.texts_en import ENGLISH
from greylag_server.page.texts_zh import CHINESE

LANGUAGES = {"en": ENGLISH, "zh": CHINESE}
NAMES = {"en": "English", "zh": "中文"}


def choose_language(asked: str | None, kept: str | None, accepted: str) -> str:
    """What was asked for in the address, else what a cookie kept, else Chinese if the browser puts
    it before English."""
    for choice in (asked, kept):
        if choice in LANGUAGES:
            return str(choice)
    tags = (
        item.strip().partition("-")[0].partition(";")[0] for item in accepted.lower().split(",")
    )
    return next((tag for tag in tags if tag in LANGUAGES), "en")

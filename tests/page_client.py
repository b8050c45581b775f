"""A browser at the firm's page, without a network, for its tests."""

import hashlib
import re

from firm_with_page import Office
from greylag_client.page.app import make_app
from greylag_client.page.door import Door
from starlette.testclient import TestClient

PORT = 8123
HERE = f"http://127.0.0.1:{PORT}"
HOSTILE = "<script>alert(1)</script>'\"&"


class Browser:
    """A browser at the page of one firm."""

    def __init__(self, at: Office) -> None:
        self.office = at
        self.now_s = 0.0
        self.links: list[str] = []
        self.count = 0
        self.door = Door(
            entropy=self._entropy, clock=lambda: self.now_s, show_link=self.links.append
        )
        self.looks_left = 10**6
        app = make_app({"firm-a": at.house}, self.door, port=PORT, stopping=self._stopping)
        self.client = TestClient(app, base_url=HERE, follow_redirects=False)

    def _entropy(self, count: int) -> bytes:
        self.count += 1
        return hashlib.sha256(self.count.to_bytes(4)).digest()[:count]

    def _stopping(self) -> bool:
        self.looks_left -= 1
        return self.looks_left < 0

    def enter(self) -> "Browser":
        assert self.client.get("/", params={"token": self.links[-1]}).status_code == 303
        return self

    def page(self, **query: str) -> str:
        answer = self.client.get("/firm/firm-a", params=query)
        assert answer.status_code == 200
        return answer.text

    def word(self) -> str:
        found = re.search(r'name="word" value="([0-9a-f]{64})"', self.page())
        assert found is not None
        return found[1]

    def act(self, action: str, **form: str) -> str:
        """Sends a form; the notice that the answer leads to."""
        form = {"word": self.word(), **form}
        answer = self.client.post(f"/firm/firm-a/act/{action}", data=form)
        assert answer.status_code == 303
        return answer.headers["location"].partition("said=")[2]

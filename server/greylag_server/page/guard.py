"""Before any handler: whence a request came, how much it may bring, what a browser may do with the
answer."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_FORM_BYTES = 4096
FORM = "application/x-www-form-urlencoded"
OWN = ("script", "style", "img", "connect")
POLICY = "; ".join(
    ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"]
    + [f"{kind}-src 'self'" for kind in OWN]
)
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Wraps the page.

    Args:
        secure: it is served over TLS.
        hosts: names under which it may be asked for, besides those of the loopback. A tunnel may
            give that any port.
    """

    def __init__(self, app: ASGIApp, *, secure: bool, hosts: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._scheme = "https" if secure else "http"
        self._hosts = LOOPBACK | hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = scope.get("path", "").startswith("/static/") and message["status"] in (
                    200,
                    304,
                )
                kept = {"cache-control": "no-cache"} if own else {}  # asked about, not sent again
                MutableHeaders(scope=message).update(HEADERS | kept)
            await send(message)

        app = self._app
        if scope["type"] == "http":
            why = self._refusal(scope["method"], Headers(scope=scope))
            app = app if why is None else PlainTextResponse(f"{why}\n", status_code=403)
        await app(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        hosts = headers.getlist("host")
        try:
            name = urlsplit(f"//{hosts[0]}").hostname if len(hosts) == 1 else None
        except ValueError:
            name = None
        if name not in self._hosts or "@" in hosts[0]:
            # Another's name may be made to lead here (DNS rebinding).
            return "The operator's page is not served under this name."
        if method in ("GET", "HEAD"):
            return None
        size = headers.get("content-length", "")
        small = size.isascii() and size.isdigit() and len(size) < 5 and int(size) <= MAX_FORM_BYTES
        if not small or headers.get("content-type", "").partition(";")[0] != FORM:
            return "This is not a form of this page."
        # Under our referrer policy an honest form's origin may be "null"; then the browser's own
        # word on whose page it was decides.
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if site not in (None, "same-origin") or (origin == "null" and site is None):
            return "This form comes from another page."
        if origin not in (None, "null", f"{self._scheme}://{hosts[0]}"):
            return "This form comes from another page."
        return None

"""What holds for every request and answer, before any handler: whence it came, what a browser may
do with what it gets."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Wraps an application that is served on loopback at ``port``."""

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self._app = app
        self._hosts = {f"{host}:{port}" for host in HOSTS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # lifespan; no sockets of other kinds are routed
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        app = self._app if refusal is None else PlainTextResponse(refusal, status_code=403)
        await app(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        # A name that somebody else's server hands out may lead here too (DNS rebinding).
        host = headers.get("host", "")
        if headers.getlist("host") != [host] or host not in self._hosts:
            return "This page is at 127.0.0.1 alone; open the link that the agent gave."
        if method in ("GET", "HEAD"):
            return None
        # A browser says whence a form came. Pages at other ports of this machine are strangers. (By
        # our referrer policy an honest form's origin may be "null"; then the other header speaks.)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        own = origin in (None, f"http://{host}") and site in (None, "same-origin")
        if own or (origin == "null" and site == "same-origin"):
            return None
        return "This form does not come from this page; load the page again."

"""The page's addresses, and what guards them. Served on loopback alone (``serve``).

Every action is a plain form and works without a script; with one, htmx sends the same form and
takes the page's content out of the answer. An event stream names the parts that have changed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from greylag_protocols.errors import ConfigError, GreylagError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from greylag_client.page.actions import ACTIONS
from greylag_client.page.door import Door, Session, TooManyError, right_word
from greylag_client.page.guard import Guard
from greylag_client.page.rendering import PARTS, Renderer, versions
from greylag_client.page.source import House
from greylag_client.page.texts import LANGUAGES, choose_language

logger = logging.getLogger(__name__)

MAX_FORM_BYTES = 4096
LOOK_S = 1.0
STATIC = Path(__file__).parent / "static"
LANGUAGE_COOKIE = "greylag-language"
LANGUAGE_S = 365 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Page:
    """The application's handlers.

    Args:
        houses: the firms by name; the first is shown by default.
        port: where it is served.
        stopping: whether the server is about to end; event streams end then.
    """

    houses: Mapping[str, House]
    door: Door
    port: int
    stopping: Callable[[], bool]
    renderer: Renderer

    @property
    def cookie(self) -> str:
        """Cookies do not know ports, so each page's has a name of its own."""
        return f"greylag-page-{self.port}"

    # -- door --------------------------------------------------------------------------------------

    async def home(self, request: Request) -> Response:
        """The first firm; a link's token opens a session and disappears from the address."""
        if (token := request.query_params.get("token")) is not None:
            return self._enter(request, token)
        if self._session(request) is None:
            return self._closed(request)
        return self._to(next(iter(self.houses)))

    async def enter(self, request: Request) -> Response:
        """The token typed into the door's own form."""
        return self._enter(request, (await _read_form(request)).get("token", ""))

    def _enter(self, request: Request, token: str) -> Response:
        try:
            cookie = self.door.enter(token.strip())
        except TooManyError:
            return self._closed(request, "door_slow", 429)
        if cookie is None:
            return self._closed(request, "door_wrong", 403)
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(self.cookie, cookie, httponly=True, samesite="strict")
        return response

    async def leave(self, request: Request) -> Response:
        """Sign out."""
        if await self._form(request) is None:
            return self._wrong_form(request)
        self.door.leave(request.cookies.get(self.cookie))
        response = self._closed(request, "door_out", 200)
        response.delete_cookie(self.cookie)
        return response

    def _closed(self, request: Request, notice: str = "", status: int = 401) -> Response:
        return self.renderer.door(self._language(request), notice, status)

    # -- pages -------------------------------------------------------------------------------------

    async def firm(self, request: Request) -> Response:
        """One firm's page."""
        session, house = self._session(request), self._house(request)
        if session is None:
            return self._closed(request)
        language = self._language(request)
        if house is None:
            return self.renderer.error(language, "error_absent", 404)
        try:
            view = await run_in_threadpool(partial(house.look, now_s=time.time()))
        except GreylagError as error:
            logger.warning("%s: the page cannot be shown: %s", house.name, error)
            return self.renderer.error(language, "error_title", 503, str(error))
        notice = request.query_params.get("said", "")
        response = self.renderer.page(
            language,
            view,
            house.firm.root,
            session,
            at=request.path_params["name"],
            names=list(self.houses),
            notice=notice,
        )
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE, language, max_age=LANGUAGE_S, httponly=True, samesite="strict"
            )
        return response

    async def part(self, request: Request) -> Response:
        """One part of it, for htmx."""
        session, house = self._session(request), self._house(request)
        name = request.path_params["part"]
        if session is None or house is None or name not in PARTS:
            return Response(status_code=404)  # htmx leaves the part as it is
        try:
            view = await run_in_threadpool(partial(house.look, now_s=time.time()))
        except GreylagError:
            return Response(status_code=503)
        language, at = self._language(request), request.path_params["name"]
        return self.renderer.part(language, name, view, house.firm.root, session, at=at)

    async def events(self, request: Request) -> Response:
        """Names of parts that changed, as they change, until the session ends."""
        house = self._house(request)
        if self._session(request) is None or house is None:
            return Response(status_code=404)
        return StreamingResponse(
            self._changes(request, house), media_type="text/event-stream; charset=utf-8"
        )

    async def _changes(self, request: Request, house: House) -> AsyncIterator[str]:
        yield "retry: 3000\n\n"
        stamp: object = None
        # What the browser shows: as it was told by the page, or by the stream before this one.
        told = request.headers.get("last-event-id") or request.query_params.get("seen", "")
        known = dict(zip(PARTS, told.split("-"), strict=False))
        while not self.stopping() and self._session(request) is not None:
            now = await run_in_threadpool(house.stamp)
            if now == stamp:
                yield ": here\n\n"  # a browser that has gone is noticed by this
            else:
                try:
                    view = await run_in_threadpool(partial(house.look, now_s=time.time()))
                except GreylagError:
                    pass  # the stamp stays the old one, so it is tried again
                else:
                    stamp, before, known = now, known, versions(view)
                    seen = "-".join(known.values())
                    for name in PARTS:
                        if known[name] != before.get(name):
                            yield f"id: {seen}\nevent: part\ndata: {name}\n\n"
            await asyncio.sleep(LOOK_S)

    # -- actions -----------------------------------------------------------------------------------

    async def act(self, request: Request) -> Response:
        """A click that changes something: pause, resume, approve."""
        form, house = await self._form(request), self._house(request)
        if form is None:
            return self._wrong_form(request)
        action = ACTIONS.get(request.path_params["action"])
        if house is None or action is None:
            return self.renderer.error(self._language(request), "error_absent", 404)
        try:
            said = await run_in_threadpool(action, house, form)
        except ConfigError as error:
            logger.warning("%s: %s", house.name, error)
            said = "failed"
        return self._to(request.path_params["name"], said)

    async def _form(self, request: Request) -> dict[str, str] | None:
        """The fields of a form that this page gave to this session."""
        session = self._session(request)
        if session is None:
            return None
        form = await _read_form(request)
        return form if right_word(session, form.get("word", "")) else None

    def _wrong_form(self, request: Request) -> Response:
        return self.renderer.error(self._language(request), "error_form", 403)

    # -- common ------------------------------------------------------------------------------------

    def _session(self, request: Request) -> Session | None:
        return self.door.session(request.cookies.get(self.cookie))

    def _house(self, request: Request) -> House | None:
        return self.houses.get(request.path_params["name"])

    def _language(self, request: Request) -> str:
        return choose_language(
            request.query_params.get("lang"),
            request.cookies.get(LANGUAGE_COOKIE),
            request.headers.get("accept-language", ""),
        )

    def _to(self, name: str, said: str = "") -> Response:
        query = f"?{urlencode({'said': said})}" if said else ""
        return RedirectResponse(f"/firm/{name}{query}", status_code=303)


async def _read_form(request: Request) -> dict[str, str]:
    """The fields of a small form; of one that is too large, or of another kind, none."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM_BYTES:
                return {}
        fields = parse_qs(body.decode("ascii"), max_num_fields=10, keep_blank_values=True)
    except (ClientDisconnect, ValueError):
        return {}
    return {key: items[0] for key, items in fields.items()}


def make_app(
    houses: Mapping[str, House],
    door: Door,
    *,
    port: int,
    stopping: Callable[[], bool] = lambda: False,
) -> Guard:
    """The page of some firms as an ASGI application."""
    page = Page(houses=houses, door=door, port=port, stopping=stopping, renderer=Renderer())
    routes = [
        Route("/", page.home),
        Route("/enter", page.enter, methods=["POST"]),
        Route("/leave", page.leave, methods=["POST"]),
        Route("/firm/{name}", page.firm),
        Route("/firm/{name}/part/{part}", page.part),
        Route("/firm/{name}/events", page.events),
        Route("/firm/{name}/act/{action}", page.act, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Guard(Starlette(routes=routes), port=port)

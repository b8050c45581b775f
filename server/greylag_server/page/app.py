"""The page's addresses. Every action is a plain form and works without a script; with one, parts
that changed ask for themselves again."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from greylag_protocols.errors import GreylagError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from greylag_server.page.accounts import Account, Accounts
from greylag_server.page.actions import STEPS, Actions
from greylag_server.page.door import Door, Session, same
from greylag_server.page.facts import Asked, Facts
from greylag_server.page.guard import Guard
from greylag_server.page.rendering import Renderer, version
from greylag_server.page.source import Desk
from greylag_server.page.texts import LANGUAGES, choose_language
from greylag_server.page.view import PAGES, make_parts

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
LANGUAGE_COOKIE, LANGUAGE_S = "greylag-language", 365 * 24 * 3600
LOOK_S, SLOW_LOOKS = 1.0, 5
SLOW = frozenset({"charges", "cosigners", "head", "pace"})  # big ones change with every round
PLACES = ("overview", "firms", "runs", "log", "releases", "journal")
MOST_WANTED = 100  # characters of a filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who asks, and in which session."""

    account: Account
    session: Session

    @property
    def may_act(self) -> bool:
        return self.account.role == "operator"


@dataclass(frozen=True, kw_only=True)
class Page:
    """The application's handlers.

    Args:
        secure: it is served over TLS.
        stopping: whether the server is about to end; event streams end then.
    """

    desk: Desk
    door: Door
    accounts: Accounts
    actions: Actions
    renderer: Renderer
    secure: bool
    port: int
    stopping: Callable[[], bool]

    # -- signing in --------------------------------------------------------------------------------

    async def login(self, request: Request) -> Response:
        """The form."""
        return self._closed(request)

    async def enter(self, request: Request) -> Response:
        """A name and a password. What was wrong is not told."""
        form = await _fields(request)
        if not same(self.door.word_for(request.cookies.get(self._form_cookie, "")), form["word"]):
            return self._closed(request, "door_old", 403)
        name, who = form["name"].strip(), request.client.host if request.client else ""
        tries = (f"account {name[:80]}", f"address {who}")
        wait_s = self.door.wait_s(*tries)
        if wait_s > 0:
            return self._closed(request, "door_slow", 429, wait_s=math.ceil(wait_s))
        account = await run_in_threadpool(self.accounts.check, name, form["password"])
        if account is None:
            known = await run_in_threadpool(self.accounts.find, name)
            if known is not None:  # others' names may be passwords, typed into the wrong field
                self.accounts.note(name, "sign_in", who, "failed")
            return self._closed(request, "door_wrong", 403)
        cookie = self.door.enter(account.name, account.number, *tries)
        self.accounts.note(account.name, "sign_in", who)
        response = RedirectResponse("/", 303)
        self._set(response, self._cookie, cookie)
        return response

    async def leave(self, request: Request) -> Response:
        """Sign out."""
        visitor, form = await self._visitor(request), await _fields(request)
        if visitor is None or not same(visitor.session.word, form["word"]):
            return self._error(request, "error_form", 403)
        self.door.leave(request.cookies.get(self._cookie))
        response = self._closed(request, "door_out")
        response.delete_cookie(self._cookie, httponly=True, samesite="strict", secure=self.secure)
        return response

    def _closed(
        self, request: Request, notice: str = "", status: int = 200, wait_s: int = 0
    ) -> Response:
        cookie = request.cookies.get(self._form_cookie) or self.door.new_cookie()
        values = {"notice": notice, "wait_s": wait_s, "word": self.door.word_for(cookie)}
        response = self.renderer.answer("door.html", self._language(request), values, status)
        self._set(response, self._form_cookie, cookie)
        if wait_s:
            response.headers["retry-after"] = str(wait_s)
        return self._keep_language(request, response)

    @property
    def _cookie(self) -> str:
        """Cookies do not know ports, so each page's has a name of its own."""
        return "__Host-greylag-lead" if self.secure else f"greylag-lead-{self.port}"

    @property
    def _form_cookie(self) -> str:
        return f"{self._cookie}-form"

    def _set(self, response: Response, name: str, value: str) -> None:
        response.set_cookie(name, value, httponly=True, samesite="strict", secure=self.secure)

    async def _visitor(self, request: Request, *, busy: bool = True) -> Visitor | None:
        """Who asks. An account that was removed or given anew has no session any more."""
        cookie = request.cookies.get(self._cookie)
        session = self.door.session(cookie, busy=busy)
        if session is None:
            return None
        account = await run_in_threadpool(self.accounts.find, session.name)
        if account is None or account.number != session.number:
            self.door.leave(cookie)
            return None
        return Visitor(account=account, session=session)

    # -- looking -----------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """One of the pages."""
        visitor = await self._visitor(request)
        if visitor is None:
            return RedirectResponse("/login", 303)
        name = _page_of(request)
        try:
            facts = await run_in_threadpool(self.desk.look)
        except GreylagError as error:
            logger.warning("the operator's page cannot be shown: %s", error)
            return self._error(request, "error_files", 503, str(error))
        asked = self._asked(request, facts)
        if name == "run" and asked.run is None:
            return self._error(request, "error_absent", 404)
        parts = await run_in_threadpool(make_parts, name, facts, asked)
        said, visitor.session.said = visitor.session.said, None
        values = self._values(request, visitor, name, facts, asked) | {
            "views": parts,
            "seen": "-".join(version(view) for view in parts.values()),
            "said": said,
            "places": PLACES,
        }
        response = self.renderer.answer("page.html", self._language(request), values)
        return self._keep_language(request, response)

    async def part(self, request: Request) -> Response:
        """One part of a page, for htmx. It keeps no session alive."""
        visitor = await self._visitor(request, busy=False)
        name, part = _page_of(request), request.path_params["part"]
        if visitor is None or part not in PAGES.get(name, ()):
            return Response(status_code=404)  # htmx leaves the part as it is
        try:
            facts = await run_in_threadpool(self.desk.look)
        except GreylagError:
            return Response(status_code=503)
        asked = self._asked(request, facts)
        view = (await run_in_threadpool(make_parts, name, facts, asked))[part]
        values = self._values(request, visitor, name, facts, asked) | {"view": view}
        return self.renderer.answer(f"part_{part}.html", self._language(request), values)

    def _values(
        self, request: Request, visitor: Visitor, name: str, facts: Facts, asked: Asked
    ) -> dict[str, Any]:
        can = self.actions.names if visitor.may_act else frozenset[str]()
        return {
            "page": name,
            "run": asked.run.run if asked.run is not None else "",
            "wanted": asked.wanted,
            "consortium": facts.consortium,
            "account": visitor.account,
            "word": visitor.session.word,
            "can": can,
            "now_s": facts.now_s,
        }

    def _asked(self, request: Request, facts: Facts) -> Asked:
        name = request.path_params.get("run") or request.query_params.get("run", "")
        run = next((item for item in facts.runs if item.run == name), None)
        phases = self.desk.live.phases(run.run) if run is not None and self.desk.live else ()
        return Asked(
            run=run,
            wanted=request.query_params.get("q", "")[:MOST_WANTED],
            phases=tuple(phases),
            epsilon=self.desk.epsilon,
        )

    async def events(self, request: Request) -> Response:
        """Names of parts that changed, as they change, until the session ends."""
        if await self._visitor(request, busy=False) is None or _page_of(request) not in PAGES:
            return Response(status_code=204)  # which tells the browser not to ask again
        return StreamingResponse(
            self._changes(request), media_type="text/event-stream; charset=utf-8"
        )

    async def _changes(self, request: Request) -> AsyncIterator[str]:
        yield "retry: 3000\n\n"
        name, looks, stamp = _page_of(request), 0, None
        told = request.headers.get("last-event-id") or request.query_params.get("seen", "")
        known = dict(zip(PAGES[name], told.split("-"), strict=False))
        while not self.stopping():
            if await self._visitor(request, busy=False) is None:
                yield "event: out\ndata: 1\n\n"
                return
            now = await run_in_threadpool(self.desk.stamp)
            slow = looks % SLOW_LOOKS == 0
            if now == stamp and not slow:
                yield ": here\n\n"  # a browser that has gone is noticed by this
            else:
                try:
                    facts = await run_in_threadpool(self.desk.look)
                    asked = self._asked(request, facts)
                    views = await run_in_threadpool(make_parts, name, facts, asked)
                except GreylagError:
                    stamp = None  # so that it is tried again
                else:
                    stamp = now
                    for part, view in views.items():
                        if (slow or part not in SLOW) and known.get(part) != version(view):
                            known[part] = version(view)
                            seen = "-".join(known.get(item, "") for item in views)
                            yield f"id: {seen}\nevent: part\ndata: {part}\n\n"
            looks += 1
            await asyncio.sleep(LOOK_S)

    # -- acting ------------------------------------------------------------------------------------

    async def confirm(self, request: Request) -> Response:
        """Asks before something is done that cannot be taken back by the same click."""
        visitor = await self._visitor(request)
        if visitor is None:
            return RedirectResponse("/login", 303)
        action = request.path_params.get("action", "remove")
        if action not in self.actions.names:
            return self._error(request, "error_absent", 404)
        if not visitor.may_act:
            return self._error(request, "error_viewer", 403)
        facts = await run_in_threadpool(self.desk.look)
        about = request.path_params.get("run") or request.path_params["firm"]
        firm = next((item for item in facts.firms if item.name == about), None)
        asked = self._asked(request, facts)
        if (firm if action == "remove" else asked.run) is None:
            return self._error(request, "error_absent", 404)
        values = self._values(request, visitor, "confirm", facts, asked) | {
            "action": action,
            "about": about,
            "back": "/firms" if action == "remove" else f"/runs/{about}",
            "places": PLACES,
        }
        response = self.renderer.answer("confirm.html", self._language(request), values)
        return self._keep_language(request, response)

    async def act(self, request: Request) -> Response:
        """A click that changes something."""
        visitor, form = await self._visitor(request), await _fields(request)
        action = request.path_params["action"]
        if visitor is None:
            return RedirectResponse("/login", 303)
        if not same(visitor.session.word, form["word"]):
            return self._error(request, "error_form", 403)
        about = form["run"] or form["firm"]
        if not visitor.may_act:
            self.accounts.note(visitor.account.name, action, about, "refused")
            return self._error(request, "error_viewer", 403)
        if action not in self.actions.names:
            return self._error(request, "error_absent", 404)
        said = await run_in_threadpool(
            partial(self.actions.act, action, form, by=visitor.account.name)
        )
        visitor.session.said = said
        if said.key == "said_not_typed":
            visitor.session.said = replace(said, firm=form["firm"])
        return RedirectResponse(f"/runs/{about}" if action in STEPS else "/firms", 303)

    # -- common ------------------------------------------------------------------------------------

    def _error(self, request: Request, key: str, status: int, detail: str = "") -> Response:
        values = {"key": key, "detail": detail}
        return self.renderer.answer("error.html", self._language(request), values, status)

    def _language(self, request: Request) -> str:
        return choose_language(
            request.query_params.get("lang"),
            request.cookies.get(LANGUAGE_COOKIE),
            request.headers.get("accept-language", "")[:200],
        )

    def _keep_language(self, request: Request, response: Response) -> Response:
        if (asked := request.query_params.get("lang")) in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE, str(asked), LANGUAGE_S, httponly=True, samesite="strict"
            )
        return response


def _page_of(request: Request) -> str:
    """Which page is asked for, or which one a part or stream belongs to."""
    if (page := request.path_params.get("page")) is not None:
        return str(page)
    return "run" if "run" in request.path_params else request.url.path.strip("/") or "overview"


class _Fields(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


async def _fields(request: Request) -> Mapping[str, str]:
    """A form's fields as text; the guard has seen to its kind and size. Absent ones are empty."""
    form = await request.form(max_files=0, max_fields=20)
    return _Fields((key, value) for key, value in form.items() if isinstance(value, str))


def make_app(page: Page, *, hosts: frozenset[str]) -> Guard:
    """The page as an ASGI application; ``hosts`` are its names besides those of the loopback."""
    paths = ["/", "/runs/{run}", *(f"/{place}" for place in PLACES[1:])]
    routes = [
        *(Route(path, page.page) for path in paths),
        Route("/login", page.login, methods=["GET"]),
        Route("/login", page.enter, methods=["POST"]),
        Route("/leave", page.leave, methods=["POST"]),
        Route("/part/{page}/{part}", page.part),
        Route("/events/{page}", page.events),
        Route("/act/{action}", page.act, methods=["POST"]),
        Route("/firms/{firm}/remove", page.confirm),
        Route("/runs/{run}/{action}", page.confirm),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Guard(Starlette(routes=routes), secure=page.secure, hosts=hosts)

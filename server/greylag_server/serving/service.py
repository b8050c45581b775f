"""``serve-model``: both ports, the meter, and the watch on what is served, in one event loop."""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from greylag_protocols.errors import GreylagError, VerificationError
from greylag_protocols.releases import CHECKSUMS_FILE, KINDS, ReleaseHistory, about_releases
from greylag_protocols.signing import parse_statement, verify_statement

from greylag_server.consortium import Consortium
from greylag_server.service import open_store
from greylag_server.serving.admission import Admission
from greylag_server.serving.core import Core
from greylag_server.serving.engine import Engine
from greylag_server.serving.grpc_port import GrpcPort
from greylag_server.serving.http_port import HttpPort
from greylag_server.serving.meter import FILE, Meter
from greylag_server.serving.models import ServedModel
from greylag_server.serving.quota import Quota, read_quota

logger = logging.getLogger(__name__)

WATCH_S = 1.0
DRAIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the operator asks for; ports of 0 are whichever are free."""

    release: Path
    bind: str
    grpc_port: int
    http_port: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What is served now, and where."""

    model: ServedModel
    grpc_port: int
    http_port: int
    firms: tuple[str, ...]
    quota: Quota


class Standing:
    """What the consortium's log says of releases; reads on where it stopped."""

    def __init__(self, consortium: Consortium) -> None:
        self._key = consortium.signer.public_key
        self._store = open_store(consortium)
        self._size = 0
        self.history = ReleaseHistory(consortium=consortium.settings.id)

    def read_on(self) -> ReleaseHistory:
        """The history, with what was logged since. The first time the whole log is read."""
        start, size = self._size, self._store.checkpoint().size
        if size > start:
            for place, envelope in about_releases(self._store.entries(start)):
                kind = parse_statement(envelope).kind
                if start + place < size and kind in KINDS:
                    statement = verify_statement(envelope, self._key, kind)
                    self.history.take(statement, start + place)
            self._size = size
        return self.history

    def close(self) -> None:
        """Close the log."""
        self._store.close()


class Serving:
    """Serves one release's directory; what it points at may change while it is served."""

    def __init__(self, consortium: Consortium, wishes: Wishes) -> None:
        self._consortium, self._wishes = consortium, wishes
        self._standing = Standing(consortium)
        self._seen = _mark(wishes.release)
        self._model = self._load()
        self._quota = read_quota(consortium)
        self._look_again = False

    @property
    def model(self) -> ServedModel:
        """What was loaded when this was made."""
        return self._model

    @property
    def quota(self) -> Quota:
        """What was read when this was made."""
        return self._quota

    def _load(self) -> ServedModel:
        """The release that the directory holds now, loaded beside the old one and warmed.

        Raises:
            GreylagError: it may not be used.
        """
        release, threads = self._wishes.release, self._wishes.threads
        model = ServedModel.load(release, self._consortium, threads=threads)
        model.check(self._standing.read_on(), now_s=time.time())
        return model

    async def run(self, tell: Callable[[Ready], None]) -> None:
        """Serve until SIGTERM or Ctrl-C, then answer what is under way; SIGHUP looks at once
        whether the release, the quota or the log changed."""
        stop, wishes = asyncio.Event(), self._wishes
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._wake)
        meter = Meter(self._consortium.root / FILE)
        admission = Admission(self._consortium, time.time)
        engine = Engine(self._model, meter, self._quota, time.time)
        core = Core(engine=engine)
        grpc_port, http_port = GrpcPort(core, admission), HttpPort(core, admission)
        ports: list[Callable[[], Awaitable[None]]] = []
        try:
            address = f"{wishes.bind}:{wishes.grpc_port}"
            opened = await grpc_port.start(address, self._consortium)
            ports.append(lambda: grpc_port.stop(DRAIN_S))
            http_opened = await http_port.start(wishes.bind, wishes.http_port, self._consortium)
            ports.append(http_port.stop)
            tell(
                Ready(
                    model=self._model,
                    grpc_port=opened,
                    http_port=http_opened,
                    firms=tuple(admission.members()),
                    quota=self._quota,
                )
            )
            await self._watch(engine, stop)
        finally:
            for end in ports:
                await end()
            await engine.close()
            meter.close()
            admission.close()
            self._standing.close()

    def _wake(self) -> None:
        self._look_again = True

    async def _watch(self, engine: Engine, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), 0.1 if self._look_again else WATCH_S)
            except TimeoutError:
                await self._look(engine)
        logger.info("ending: no more requests are taken, those under way are answered")

    async def _look(self, engine: Engine) -> None:
        """Another release, another quota, a word in the log, or a day gone by."""
        mark, asked = _mark(self._wishes.release), self._look_again
        self._look_again = False
        if mark != self._seen or asked:
            self._seen = mark
            try:
                model = await asyncio.to_thread(self._load)
            except GreylagError as error:
                logger.error(
                    "still serving %s v%s: %s", engine.model.name, engine.model.version, error
                )
            else:
                if model.facts != engine.model.facts:
                    logger.info("now serving %s v%s", model.name, model.version)
                engine.swap(model)
        try:
            engine.quota = read_quota(self._consortium)
            history = await asyncio.to_thread(self._standing.read_on)
            engine.model.check(history, now_s=time.time())
        except VerificationError as error:
            if not engine.closed:
                logger.error("nothing is predicted any more: %s", error)
            engine.closed = str(error)
        except GreylagError as error:
            logger.error("%s", error)
        else:
            engine.closed = ""


def _mark(release: Path) -> tuple[int, ...] | None:
    """What changes when the directory, or what it points at, becomes another one."""
    try:
        found = (release / CHECKSUMS_FILE).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

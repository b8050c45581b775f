"""The Open Inference Protocol over HTTPS: JSON tensors, the same mutual TLS, the same answers."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any

import uvicorn
from greylag_protocols.errors import ConfigError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from greylag_server.consortium import Consortium
from greylag_server.serving.admission import Admission
from greylag_server.serving.core import NAME, OUTPUTS, Core
from greylag_server.serving.inference import FLAG, INPUT, OUTPUT
from greylag_server.serving.refusals import Code, DeclinedError
from greylag_server.serving.tensors import MAX_JSON_BYTES, invalid, parse_json_ask

MAX_CONNECTIONS = 256
READ_TIMEOUT_S = 15.0
STATUS: dict[Code, HTTPStatus] = {
    "invalid": HTTPStatus.BAD_REQUEST,
    "not-found": HTTPStatus.NOT_FOUND,
    "not-allowed": HTTPStatus.FORBIDDEN,
    "used-up": HTTPStatus.TOO_MANY_REQUESTS,
    "not-now": HTTPStatus.SERVICE_UNAVAILABLE,
    "withdrawn": HTTPStatus.CONFLICT,
}

_Answer = Callable[[str, Request], Awaitable[dict[str, Any]]]


class _PeerProtocol(H11Protocol):
    """Says whose connection it is: uvicorn itself keeps the certificate from the application."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        shown = transport.get_extra_info("ssl_object")
        peer = None if shown is None else shown.getpeercert(binary_form=True)
        self.app_state = {**self.app_state, "certificate": peer}


class _Server(uvicorn.Server):
    """One of several things in the event loop: the program handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpPort:
    """Build it and ``start`` it inside the event loop."""

    def __init__(self, core: Core, admission: Admission) -> None:
        self._core, self._admission = core, admission
        model = "/v2/models/{name}"
        of = (model, f"{model}/versions/{{version}}")
        self._app = Starlette(
            routes=[
                Route("/v2/health/live", self._admitted(self._live)),
                Route("/v2/health/ready", self._admitted(self._ready)),
                Route("/v2", self._admitted(self._metadata)),
                *(Route(path, self._admitted(self._model_metadata)) for path in of),
                *(Route(f"{path}/ready", self._admitted(self._model_ready)) for path in of),
                *(
                    Route(f"{path}/infer", self._admitted(self._infer), methods=["POST"])
                    for path in of
                ),
            ]
        )

    async def start(self, host: str, port: int, consortium: Consortium) -> int:
        """Listen; the port.

        Raises:
            ConfigError: it is in use or not allowed.
        """
        try:
            listener = socket.create_server((host, port), backlog=MAX_CONNECTIONS)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on port {port}: {error.strerror}. End the other program, or name "
                "another with --http-port"
            ) from None
        config = uvicorn.Config(
            self._app,
            http=_PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=10,
            h11_max_incomplete_event_size=16 << 10,
            ssl_certfile=consortium.server_cert_path,
            ssl_keyfile=consortium.server_key_path,
            ssl_ca_certs=str(consortium.root / "keys" / "ca.pem"),
            ssl_cert_reqs=ssl.CERT_REQUIRED,
            ssl_context_factory=_tls_context,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([listener]))
        while not self._server.started:
            if self._task.done():
                raise ConfigError(f"the port {port} did not open; see the log above")
            await asyncio.sleep(0.01)
        return int(listener.getsockname()[1])

    async def stop(self) -> None:
        """Finish what was begun, and end."""
        self._server.should_exit = True
        await self._task

    def _admitted(self, answer: _Answer) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def call(request: Request) -> JSONResponse:
            try:
                firm = self._admission.firm_of(request.state.certificate or b"")
                return JSONResponse(await answer(firm, request))
            except DeclinedError as error:
                return JSONResponse({"error": str(error)}, status_code=STATUS[error.code])

        return call

    async def _live(self, _: str, __: Request) -> dict[str, Any]:
        return {"live": True}

    async def _ready(self, _: str, __: Request) -> dict[str, Any]:
        if self._core.engine.closed:
            raise DeclinedError("withdrawn", self._core.engine.closed)
        return {"ready": True}

    async def _metadata(self, _: str, __: Request) -> dict[str, Any]:
        return {"name": NAME, "version": "2", "extensions": []}

    async def _model_ready(self, _: str, request: Request) -> dict[str, Any]:
        name, version = _asked(request)
        self._core.model(name, version)
        return {"name": name, **await self._ready("", request)}

    async def _model_metadata(self, _: str, request: Request) -> dict[str, Any]:
        model = self._core.model(*_asked(request))
        return {
            "name": model.name,
            "versions": [model.version],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, model.columns]}],
            "outputs": [
                {"name": OUTPUT, "datatype": "FP32", "shape": [-1, model.outputs]},
                {"name": FLAG, "datatype": "BOOL", "shape": [-1]},
            ],
            "properties": {"columns": json.loads(model.columns_json())},
        }

    async def _infer(self, firm: str, request: Request) -> dict[str, Any]:
        name, version = _asked(request)
        ask = parse_json_ask(await _body(request))
        found = await self._core.infer(firm, name, version, ask)
        tensors = {
            OUTPUT: ("FP32", found.prediction),
            FLAG: ("BOOL", found.outside),
        }
        return {
            "model_name": found.model.name,
            "model_version": found.model.version,
            "id": ask.id,
            "outputs": [
                {
                    "name": item,
                    "datatype": tensors[item][0],
                    "shape": list(tensors[item][1].shape),
                    "data": tensors[item][1].ravel().tolist(),
                }
                for item in ask.outputs or OUTPUTS
            ],
        }


def _asked(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.path_params.get("version", "")


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_JSON_BYTES:
                    raise invalid(
                        f"more than {MAX_JSON_BYTES} bytes of JSON; send less at a time, or by gRPC"
                    )
    except (TimeoutError, ClientDisconnect):
        raise invalid("the request did not arrive whole; send it again") from None
    return bytes(body)


def _tls_context(config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context

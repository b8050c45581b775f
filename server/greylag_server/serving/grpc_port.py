"""The Open Inference Protocol over gRPC, with mutual TLS by the consortium's authority."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from greylag_protocols.errors import ConfigError

from greylag_server.consortium import Consortium
from greylag_server.serving.admission import Admission
from greylag_server.serving.core import NAME, OUTPUTS, Core
from greylag_server.serving.inference import (
    CALLS,
    COLUMNS,
    FLAG,
    INPUT,
    MAX_MESSAGE_BYTES,
    OUTPUT,
    SERVICE,
)
from greylag_server.serving.refusals import Code, DeclinedError
from greylag_server.serving.tensors import parse_ask

MAX_CALLS = 1024  # at once; gRPC refuses further ones
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a port in use must be an error, not a second listener
]
STATUS: dict[Code, grpc.StatusCode] = {
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "not-found": grpc.StatusCode.NOT_FOUND,
    "not-allowed": grpc.StatusCode.PERMISSION_DENIED,
    "used-up": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "not-now": grpc.StatusCode.UNAVAILABLE,
    "withdrawn": grpc.StatusCode.FAILED_PRECONDITION,
}

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Method: TypeAlias = Callable[[str, Any], Awaitable[Any]]


class GrpcPort:
    """Build it and ``start`` it inside the event loop."""

    def __init__(self, core: Core, admission: Admission) -> None:
        self._core, self._admission = core, admission
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        methods: dict[str, _Method] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._admitted(method),
                request_deserializer=CALLS[name][0].FromString,
                response_serializer=CALLS[name][1].SerializeToString,
            )
            for name, method in methods.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )

    async def start(self, address: str, consortium: Consortium) -> int:
        """Listen; the port.

        Raises:
            ConfigError: it is in use or not allowed.
        """
        credentials = grpc.ssl_server_credentials(
            [(consortium.server_key_pem, consortium.server_cert_pem)],
            root_certificates=consortium.ca_pem,
            require_client_auth=True,
        )
        try:
            port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise ConfigError(
                f"cannot listen on {address}: the port is in use or not allowed. End the other "
                "program, or name another with --grpc-port"
            ) from None
        await self._server.start()
        return int(port)

    async def stop(self, grace_s: float) -> None:
        """Take no more requests; those under way have so long."""
        await self._server.stop(grace_s)

    def _admitted(self, method: _Method) -> Callable[[Any, _Context], Awaitable[Any]]:
        async def call(request: Any, context: _Context) -> Any:
            try:
                (certificate,) = context.auth_context()["x509_pem_cert"]
                return await method(self._admission.firm_of(certificate), request)
            except DeclinedError as error:
                await context.abort(STATUS[error.code], str(error))

        return call

    async def _live(self, _: str, __: Any) -> Any:
        return CALLS["ServerLive"][1](live=True)

    async def _ready(self, _: str, __: Any) -> Any:
        return CALLS["ServerReady"][1](ready=not self._core.engine.closed)

    async def _metadata(self, _: str, __: Any) -> Any:
        return CALLS["ServerMetadata"][1](name=NAME, version="2")

    async def _model_ready(self, _: str, request: Any) -> Any:
        ready = self._core.ready(request.name, request.version)
        return CALLS["ModelReady"][1](ready=ready)

    async def _model_metadata(self, _: str, request: Any) -> Any:
        model = self._core.model(request.name, request.version)
        answer = CALLS["ModelMetadata"][1](
            name=model.name,
            versions=[model.version],
            platform="onnxruntime_onnx",
            properties={COLUMNS: model.columns_json()},
        )
        answer.inputs.add(name=INPUT, datatype="FP32", shape=[-1, model.columns])
        answer.outputs.add(name=OUTPUT, datatype="FP32", shape=[-1, model.outputs])
        answer.outputs.add(name=FLAG, datatype="BOOL", shape=[-1])
        return answer

    async def _infer(self, firm: str, request: Any) -> Any:
        ask = parse_ask(request)
        found = await self._core.infer(firm, request.model_name, request.model_version, ask)
        answer = CALLS["ModelInfer"][1](
            model_name=found.model.name, model_version=found.model.version, id=ask.id
        )
        for name in ask.outputs or OUTPUTS:
            values = found.prediction if name == OUTPUT else found.outside
            kind = "FP32" if name == OUTPUT else "BOOL"
            answer.outputs.add(name=name, datatype=kind, shape=values.shape)
            answer.raw_output_contents.append(values.tobytes())
        return answer

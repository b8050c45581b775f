"""What ``serving.py`` compares with: the same ONNX Runtime behind a gRPC method of bytes, with
mutual TLS; nobody is looked up, nothing is checked or counted.

    python serving_bare.py PORT MODEL TLS_DIRECTORY COLUMNS
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import onnxruntime


async def main(port: str, model: str, tls: str, columns: str) -> None:
    """Serve until it is killed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    async def predict(body: bytes, _: Any) -> bytes:
        rows = np.frombuffer(body, dtype=np.float32).reshape(-1, int(columns))
        return session.run(None, {"features": rows})[0].tobytes()

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 32 << 20)])
    methods = {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", methods),))
    ca, key, certificate = (
        (Path(tls) / f"{name}.pem").read_bytes() for name in ("ca", "key", "certificate")
    )
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=ca, require_client_auth=True
    )
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

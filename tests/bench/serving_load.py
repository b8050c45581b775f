"""Load for ``serving.py``, in a process of its own: keeps calls under way on one connection.

python serving_load.py FACTS    (JSON on stdin: see ``serving.measure``)
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
from greylag_server.serving.inference import CALLS, INPUT


def make_body(asked: dict[str, object], at: int) -> bytes:
    """One request; of ``infer`` with an id of its own, as a firm that may have to retry does."""
    rows = np.random.default_rng(at).uniform(0, 100, (int(str(asked["rows"])), 83))
    values = rows.astype(np.float32).tobytes()
    if asked["kind"] == "bare":
        return values
    request = CALLS["ModelInfer"][0](
        model_name=asked["model"], id=f"{time.time_ns()}-{at}", raw_input_contents=[values]
    )
    request.inputs.add(name=INPUT, datatype="FP32", shape=rows.shape)
    return bytes(request.SerializeToString())


async def load(asked: dict[str, object]) -> dict[str, float]:
    """Call as asked; seconds of each call after the warm-up."""
    root = Path(str(asked["tls"]))
    credentials = grpc.ssl_channel_credentials(
        *((root / f"{name}.pem").read_bytes() for name in ("ca", "key", "certificate"))
    )
    calls, width = int(str(asked["calls"])), int(str(asked["width"]))
    rate = float(str(asked["rate"]))
    warm = max(width, calls // 20)
    bodies = iter([make_body(asked, at) for at in range(calls + warm)])
    options = [("grpc.max_receive_message_length", 32 << 20)]
    async with grpc.aio.secure_channel(
        f"localhost:{asked['port']}", credentials, options=options
    ) as channel:
        call = channel.unary_unary(str(asked["method"]))

        async def one(body: bytes, due_s: float, taken: list[float]) -> None:
            await call(body)
            taken.append(time.perf_counter() - due_s)

        async def closed(count: int) -> list[float]:
            taken: list[float] = []
            left = iter(range(count))

            async def worker() -> None:
                for _ in left:
                    await one(next(bodies), time.perf_counter(), taken)

            await asyncio.gather(*(worker() for _ in range(width)))
            return taken

        async def opened(count: int) -> list[float]:
            taken: list[float] = []
            started_s, under_way = time.perf_counter(), []
            for at in range(count):
                due_s = started_s + at / rate
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                # From when it was due: a late start counts against the answer.
                under_way.append(asyncio.create_task(one(next(bodies), due_s, taken)))
            await asyncio.gather(*under_way)
            return taken

        await closed(warm)
        started_s = time.perf_counter()
        taken = await (opened(calls) if rate else closed(calls))
        wall_s = time.perf_counter() - started_s
    p50, p99 = np.percentile(taken, [50, 99])
    return {"wall_s": wall_s, "calls": len(taken), "p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(json.load(sys.stdin)))))

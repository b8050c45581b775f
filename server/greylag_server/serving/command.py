"""``greylag-server serve-model``: what the operator types."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from greylag_protocols.errors import ConfigError

from greylag_server.terminal import Dir, Format, errors, say

if TYPE_CHECKING:
    from greylag_server.consortium import Consortium
    from greylag_server.serving.service import Ready

LOOPBACK = ("127.0.0.1", "localhost")


def serve_model(
    release: Annotated[
        Path, typer.Argument(help="a release's directory, or a link to the current one")
    ],
    directory: Dir,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="gRPC; 0: any free port")] = 7804,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="REST; 0: any free port")] = 7805,
    bind: Annotated[
        str | None, typer.Option(help="address to listen on; default: as the agents' port does")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="for large tables")] = 1,
    check: Annotated[bool, typer.Option("--check", help="check the release and end")] = False,
    output: Format = "text",
) -> None:
    """Predict for firms that do not hold the model: Open Inference Protocol over gRPC and REST,
    mutual TLS. You see the rows that firms send; no other firm does. Every row is counted; quotas
    stand in serving.toml. Point RELEASE at another version and it takes over without a lost
    request. Ctrl-C answers what is under way and ends. 向企业提供预测服务。"""
    import asyncio

    from greylag_server.consortium import Consortium
    from greylag_server.serving.service import Serving, Wishes

    if output not in ("text", "json"):
        raise ConfigError(f"--format is 'text' or 'json', not {output!r}")
    consortium = Consortium.open(directory)
    host = bind or ("127.0.0.1" if consortium.settings.host in LOOPBACK else "0.0.0.0")  # noqa: S104 - firms dial in
    errors.print(f"reading {release} and the log", highlight=False)
    serving = Serving(
        consortium,
        Wishes(
            release=release, bind=host, grpc_port=grpc_port, http_port=http_port, threads=threads
        ),
    )
    if check:
        facts = {"checked": True, **serving.model.to_json()}
        model = serving.model
        say(facts, f"{model.name} v{model.version} may be served; nothing was started", output)
        return

    def tell(ready: "Ready") -> None:
        say(_facts(ready), _describe(ready, consortium), output)
        sys.stdout.flush()  # a program that waits for the ports reads it from a pipe

    asyncio.run(serving.run(tell))


def _facts(ready: "Ready") -> dict[str, Any]:
    return {
        **ready.model.to_json(),
        "grpc_port": ready.grpc_port,
        "http_port": ready.http_port,
        "firms": list(ready.firms),
        "rows_per_month": ready.quota.rows_per_month,
    }


def _describe(ready: "Ready", consortium: "Consortium") -> str:
    model, host = ready.model, consortium.settings.host
    quota = ready.quota.rows_per_month
    limit = "as many rows as they like" if quota is None else f"{quota:,} rows a month each"
    special = f" ({len(ready.quota.firms)} with a limit of their own)" if ready.quota.firms else ""
    return (
        f"{model.name} v{model.version} of run {model.run} is served\n"
        f"  gRPC  {host}:{ready.grpc_port}\n"
        f"  REST  https://{host}:{ready.http_port}/v2/models/{model.name}/infer\n"
        f"  to    {len(ready.firms)} firms by their certificates; {limit}{special}\n"
        "Ctrl-C ends, after what is under way."
    )

"""What all commands share: options, what people and scripts are shown, how errors end a program."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from greylag_protocols.errors import ConfigError, GreylagError
from rich.console import Console
from rich.markup import escape

from greylag_server.logging_setup import set_up_logging

Dir = Annotated[
    Path,
    typer.Option("--dir", "-d", help="the consortium's directory", envvar="GREYLAG_SERVER_DIR"),
]
Format = Annotated[str, typer.Option("--format", help="text or json")]

errors = Console(stderr=True)


def say(facts: dict[str, Any], text: str, output: str) -> None:
    """One JSON document, or text for people, on stdout."""
    if output not in ("text", "json"):
        raise ConfigError(f"--format is 'text' or 'json', not {output!r}")
    print(json.dumps(facts, ensure_ascii=False) if output == "json" else text)


def read_text(path: Path) -> str:
    """A text file that somebody named.

    Raises:
        ConfigError: it does not exist, or is none.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None


def run_app(program: typer.Typer) -> None:
    """Run a program: errors of the tree become one line and an exit code."""
    set_up_logging("text", errors)
    try:
        program()
    except GreylagError as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}", highlight=False)
        sys.exit(error.exit_code)

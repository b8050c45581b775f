"""What all commands share: what people and scripts are shown, and how errors end a program."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from greylag_protocols.errors import ConfigError, GreylagError
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

Directory = Annotated[Path, typer.Argument(help="the firm's directory")]
Format = Annotated[str, typer.Option("--format", help="text or json")]

errors = Console(stderr=True)


def check_format(output: str) -> None:
    """Before work is done whose result could not be shown.

    Raises:
        ConfigError: neither text nor json.
    """
    if output not in ("text", "json"):
        raise ConfigError(f"--format is 'text' or 'json', not {output!r}")


def say(facts: dict[str, Any], text: str, output: str) -> None:
    """One JSON document, or text for people, on stdout."""
    check_format(output)
    print(json.dumps(facts, ensure_ascii=False) if output == "json" else text)


def read_text(path: Path) -> str:
    """A text file that somebody named.

    Raises:
        ConfigError: it does not exist, or is none.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None


def run_app(program: typer.Typer) -> None:
    """Run a program: errors of the tree become one line and an exit code."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=errors, show_path=False, markup=False)],
    )
    for noisy in ("absl", "flwr"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        program()
    except GreylagError as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}", highlight=False)
        sys.exit(error.exit_code)

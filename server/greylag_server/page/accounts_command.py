"""``greylag-server user``: who may use the operator's page."""

import getpass
import sys
from typing import Annotated

import typer
from greylag_protocols.errors import ConfigError

from greylag_server.consortium import Consortium
from greylag_server.page.accounts import MOST_PASSWORD, TERMINAL, Accounts
from greylag_server.terminal import Dir, Format, say

user_app = typer.Typer(
    help="Accounts of the operator's page. 操作页面的账户。", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="the account's name")]


@user_app.command()
def add(
    name: Name,
    directory: Dir,
    role: Annotated[
        str, typer.Option(help="operator (may act) or viewer (may only look)")
    ] = "viewer",
    output: Format = "text",
) -> None:
    """Make an account, or give it another role and password. The password is asked for here, or
    read from standard input; it is never an argument. 新建账户，或更改其角色和密码。"""
    accounts = Accounts(Consortium.open(directory).root)
    accounts.add(name, role, _read_password())
    accounts.note(TERMINAL, "user_add", f"{name} ({role})")
    _say({"name": name, "role": role}, f"{name} may sign in to the page as {role}", output)


@user_app.command("list")
def show(directory: Dir, output: Format = "text") -> None:
    """The accounts and their roles. 列出账户。"""
    found = Accounts(Consortium.open(directory).root).all()
    lines = [f"{item.name:<40} {item.role}" for item in found]
    text = "\n".join(lines) or "no accounts yet; make one: greylag-server user add NAME"
    _say({"accounts": [{"name": item.name, "role": item.role} for item in found]}, text, output)


@user_app.command()
def remove(name: Name, directory: Dir, output: Format = "text") -> None:
    """Take an account away; whoever is signed in with it is out at once. 删除账户。"""
    accounts = Accounts(Consortium.open(directory).root)
    accounts.remove(name)
    accounts.note(TERMINAL, "user_remove", name)
    _say({"name": name}, f"{name} can no longer sign in", output)


def _read_password() -> str:
    """Twice from a terminal, where it is not shown; one line of anything else."""
    if not sys.stdin.isatty():
        return sys.stdin.readline(MOST_PASSWORD + 2).rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ConfigError("the two differ; nothing was changed")
    return password


def _say(facts: dict[str, object], text: str, output: str) -> None:

    say(facts, text, output)

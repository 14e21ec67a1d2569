"""The operator at the terminal: acting for them through the gate, and speaking to them.

Whoever can read the keys is an operator: commands act as an administrator named after the user of
the operating system. In a terminal they speak in tables and progress bars, else in plain lines
separated by tabs.
"""

import getpass
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from exchange import users
from exchange.access import Access
from exchange.policy import Requester, Role
from exchange_server import composition, settings
from exchange_server.words import say

PasswordStdin = Annotated[
    bool,
    typer.Option(
        "--password-stdin",
        help=say("从标准输入读取密码", "Read the password from standard input"),
    ),
]


AsJson = Annotated[bool, typer.Option("--json", help="JSON")]
"""For lists that a program reads too."""


def operator() -> Requester:
    """Who types, as the trail names them."""
    return Requester(
        name=f"cli:{getpass.getuser()}",
        role=Role.ADMINISTRATOR,
        organization=None,
        purpose=None,
        door="cli",
    )


@contextmanager
def acting() -> Iterator[Access]:
    """The gate, for the operator, on the exchange that the settings describe."""
    exchange = composition.open_exchange(settings.load())
    try:
        with exchange.on_behalf_of(operator()) as access:
            yield access
    finally:
        exchange.close()


def new_password(*, from_stdin: bool) -> str:
    """The password on standard input, or a generated one."""
    return sys.stdin.readline().rstrip("\r\n") if from_stdin else users.generated_password()


def show_password(name: str, password: str, *, generated: bool) -> None:
    """Show a generated password: this once, for only its hash is kept."""
    if not generated:
        return
    console = Console()
    if console.is_terminal:
        title = say(f"{name} 的密码，仅显示一次", f"Password of {name}, shown once")
        console.print(Panel(password, title=title, expand=False))
    else:
        typer.echo(f"{name}\t{password}")


def done(in_chinese: str, in_english: str) -> None:
    """Say on stderr that it is done: stdout is for what was asked for."""
    typer.echo(say(in_chinese, in_english), err=True)


def table(columns: list[str], rows: list[list[str]]) -> None:
    """A table in a terminal; elsewhere its rows without their heading."""
    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)


def machine_readable(found: Sequence[object] | Mapping[str, object]) -> None:
    """What a list has, as JSON: records by the names of their fields, moments by ISO 8601."""
    typer.echo(json.dumps(found, default=_plain, ensure_ascii=False))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    raise TypeError(type(value))


def counting(what: str) -> Progress:
    """A progress bar that counts."""
    return progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def progress(*columns: ProgressColumn) -> Progress:
    """A progress bar in a terminal; elsewhere nothing but what is printed to its console."""
    console = Console(highlight=False)
    return Progress(*columns, console=console, disable=not console.is_terminal)


def line(progress: Progress, *cells: str) -> None:
    """A line of what was found, above the progress bar where there is one."""
    if progress.console.is_terminal:
        progress.console.print("  ".join(cells), soft_wrap=True, markup=False)
    else:
        typer.echo("\t".join(cells))

"""How the demo is told on a terminal: its claims, tables, bars and addresses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from exchange_server.settings import Settings, host_port
from exchange_server.words import say


@dataclass(slots=True)
class Story:
    """What is told, and which of its claims did not come true."""

    console: Console
    failed: list[str] = field(default_factory=list)

    def chapter(self, in_chinese: str, in_english: str) -> None:
        """A heading."""
        self.console.print()
        self.console.rule(say(in_chinese, in_english), align="left")

    def claim(self, true: bool, in_chinese: str, in_english: str) -> None:
        """Something that must be so."""
        words = say(in_chinese, in_english)
        self.console.print(f"  {'✓' if true else '✗'} {words}", markup=False, soft_wrap=True)
        if not true:
            self.failed.append(words)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table in a terminal, else lines separated by tabs."""
        if not self.console.is_terminal:
            for row in (columns, *rows):
                self.console.print("    " + "\t".join(row), markup=False, soft_wrap=True)
            return
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        self.console.print(table, markup=False)


def addresses(
    console: Console,
    given: Settings,
    titles: Sequence[str],
    accounts: Sequence[tuple[str, str, str]],
) -> None:
    """Where to look, and as whom: the hospitals' AE titles; what somebody is, name, password."""
    dicom = host_port(given.dimse_addresses[0], given.dimse_port)
    lines = [
        f"{say('浏览器', 'Pages')}      {given.http_url}/portal/",
        *([f"{say('阅片器', 'Viewer')}     {given.http_url}/viewer/"] * bool(given.viewer)),
        f"FHIR       {given.http_url}/fhir/metadata",
        f"DICOMweb   {given.http_url}/dicom-web/studies",
        f"DICOM      {given.ae_title}@{dicom} ← {', '.join(titles)}",
        f"{say('令牌', 'Token')}      POST {given.http_url}/oauth/token",
        f"{say('指标', 'Metrics')}    {given.http_url}/metrics",
        f"{say('命令', 'Commands')}   EXCHANGE_DATA={given.data} {sys.argv[0]} --help",
        *(f"{what}\t{name}\t{password}" for what, name, password in accounts),
    ]
    console.print()
    if console.is_terminal:
        console.print(
            Panel("\n".join(lines), title=say("地址与账号", "Where to look"), expand=False)
        )
    else:
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)


@contextmanager
def bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for one thing; what it gives is told how many are done, and of how many."""
    with progress_of(console) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def progress_of(console: Console) -> Progress:
    """Bars that tell how many are done; nothing where nobody watches."""
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)

"""The commands for FHIR resources: their search index."""

import time
from typing import Annotated

import typer

from exchange import reindex
from exchange_server import terminal
from exchange_server.words import say

resource_commands = typer.Typer()

FOLLOWING = 0.5
"""Seconds between two looks how far something is."""


@resource_commands.command(
    "reindex",
    help=say(
        "按当前定义重建 FHIR 检索索引（后台任务，可续作）",
        "Index all FHIR resources anew, as the definitions are now (a worker does it)",
    ),
)
def index_anew(
    wait: Annotated[
        bool,
        typer.Option(help=say("等待完成并显示进度", "Wait for the end, and show how far it is")),
    ] = True,
) -> None:
    with terminal.acting() as access:
        walk = reindex.ask(access)
    if not wait:
        terminal.done("后台任务已登记", "A worker does it")
        return
    with (
        terminal.acting() as access,
        terminal.counting(say("已重建索引", "Resources indexed")) as progress,
    ):
        task = progress.add_task("", total=None)
        while not (come := reindex.progress(access, walk)).finished:
            progress.update(task, completed=come.read, total=come.total)
            time.sleep(FOLLOWING)
        progress.update(task, completed=come.read, total=come.total)
    terminal.done(
        f"共 {come.read} 个资源，{come.changed} 个已更新",
        f"{come.read} resources, of which {come.changed} are found under something else now",
    )

"""The commands for FHIR resources: their search index, and having many of them written out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from exchange import bulk, organizations, reindex
from exchange.access import Access, Exchange
from exchange.bulk import Direction, Listed, State
from exchange.errors import Invalid, NotFound
from exchange.policy import Purpose, Requester, Role
from exchange_server import settings, terminal
from exchange_server.words import say, told

resource_commands = typer.Typer()
export_commands = typer.Typer(
    no_args_is_help=True, help=say("批量导出 FHIR 资源", "Have many FHIR resources written out")
)

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


# -- Exports --------------------------------------------------------------------------------------


@contextmanager
def _on_behalf_of(code: str, *, public_health: bool) -> Iterator[tuple[Exchange, Requester]]:
    """A hospital's system, as which the operator asks: what it may have decides the policy."""
    operator = terminal.operator()
    with terminal.acting() as access:
        hospital = organizations.administered(access, code)
        requester = Requester(
            name=operator.name,
            role=Role.SYSTEM,
            organization=hospital.id,
            purpose=Purpose.PUBLIC_HEALTH if public_health else Purpose.OPERATIONS,
            door="cli",
        )
        yield access.exchange, requester


@export_commands.command(
    "start", help=say("导出一家医院的记录（NDJSON）", "Write out a hospital's records as NDJSON")
)
def start_export(
    organization: Annotated[str, typer.Option(help=say("医院代码", "Code of the hospital"))],
    kinds: Annotated[
        list[str] | None,
        typer.Option("--type", help=say("资源类型，可重复", "A resource type; may be repeated")),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help=say("此时之后有变化的", "Changed since then"))
    ] = None,
    public_health: Annotated[
        bool,
        typer.Option(
            "--public-health",
            help=say("按公共卫生协议含他院记录", "Others' records too, by the agreement on that"),
        ),
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(file_okay=False, help=say("完成后写入此目录", "Then write the files here")),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(help=say("等待完成并显示进度", "Wait for the end, and show how far it is")),
    ] = True,
) -> None:
    from exchange_fhir import bulk_export

    configured = settings.load()
    possible = bulk_export.kinds(of_patients=False)
    if unknown := [kind for kind in kinds or () if kind not in possible]:
        raise Invalid(f"such resources are not exported: {unknown[0][:64]}")
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=ZoneInfo(configured.timezone))
    base = f"{configured.http_url}/fhir"
    wanted = bulk_export.Wanted(base=base, kinds=tuple(kinds or possible), since=since)
    with _on_behalf_of(organization, public_health=public_health) as (exchange, requester):
        with exchange.on_behalf_of(requester) as access:
            job = bulk.ask(access, Direction.EXPORT, request=f"{base}/$export", asked=wanted.told())
        if not wait:
            terminal.done(f"后台任务 {job.id} 已登记", f"Export {job.id}: a worker does it")
            return
        with terminal.counting(say("已导出资源", "Resources exported")) as progress:
            task = progress.add_task("", total=None)
            while (come := _one(job.id)).state == State.WORKING:
                progress.update(task, completed=come.done)
                time.sleep(FOLLOWING)
            progress.update(task, completed=come.done, total=come.done)
        if come.state != State.COMPLETE:
            raise Invalid(f"the export did not end well: {come.told or come.state}")
        if to is not None:
            with exchange.on_behalf_of(requester) as access:
                _write(access, job.token, to)
    terminal.done(
        f"导出 {job.id}：{come.done} 个资源，{come.files} 个文件",
        f"Export {job.id}: {come.done} resources in {come.files} files",
    )


@export_commands.command("list", help=say("列出导出与导入", "List exports and imports"))
def list_exports(
    limit: Annotated[int, typer.Option(min=1, max=10000, help=say("条数", "How many"))] = 50,
) -> None:
    with terminal.acting() as access:
        _table(list(bulk.listed(access, limit=limit)))


@export_commands.command("show", help=say("查看一项导出或导入", "How far one has come"))
def show_export(number: Annotated[int, typer.Argument(help=say("编号", "Its number"))]) -> None:
    _table([_one(number)])


@export_commands.command(
    "cancel", help=say("取消并删除文件", "Call one off, and have its files removed")
)
def cancel_export(number: Annotated[int, typer.Argument(help=say("编号", "Its number"))]) -> None:
    with terminal.acting() as access:
        bulk.call_off(access, number)
    terminal.done(f"已取消 {number}", f"{number} is cancelled")


def _one(number: int) -> Listed:
    with terminal.acting() as access:
        for one in bulk.listed(access, number=number):
            return one
    raise NotFound("no export or import has this number; `exchange export list`")


def _table(rows: list[Listed]) -> None:
    zone = ZoneInfo(settings.load().timezone)
    terminal.table(
        [
            say("编号", "Number"),
            say("方向", "Direction"),
            say("用户", "User"),
            say("医院", "Hospital"),
            say("状态", "State"),
            say("资源数", "Resources"),
            say("文件数", "Files"),
            say("请求时间", "Asked"),
            say("到期", "Expires"),
        ],
        [
            [
                str(one.number),
                told(one.direction),
                one.requester,
                one.organization,
                told(one.state),
                str(one.done),
                str(one.files),
                one.made.astimezone(zone).isoformat(timespec="seconds"),
                one.expires.astimezone(zone).isoformat(timespec="seconds"),
            ]
            for one in rows
        ],
    )


def _write(access: Access, token: str, directory: Path) -> None:
    """Write the files of an export into a directory, none of which may be there before."""
    job = bulk.of(access, token)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in bulk.files(access, job):
        found = bulk.file(access, token, one.number)
        path = directory / f"{one.kind}-{one.number}.ndjson"
        with path.open("xb") as written:
            path.chmod(0o600)
            for piece in access.objects.stream(found.key):
                written.write(piece)

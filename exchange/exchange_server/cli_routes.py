"""The commands for routes: what is sent on, how far it has come, and what was given up."""

from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from exchange import deliveries, routing
from exchange_server import settings, terminal
from exchange_server.words import say, told

route_commands = typer.Typer(no_args_is_help=True, help=say("转发规则", "Routes to other nodes"))

_Organization = Annotated[
    str, typer.Option("--organization", help=say("医院代码", "Code of the hospital"))
]


@route_commands.command("add", help=say("添加转发规则", "Add a route"))
def add_route(
    name: Annotated[str, typer.Argument(help=say("规则名", "A name for it"))],
    organization: _Organization,
    to: Annotated[
        str,
        typer.Option(
            metavar="[CODE:]TITLE",
            help=say("目的节点", "The node, of another hospital by its code"),
        ),
    ] = "",
    url: Annotated[
        str, typer.Option(help=say("或 DICOMweb 服务地址", "Or a DICOMweb service"))
    ] = "",
    modality: Annotated[
        str, typer.Option(help=say("设备类型，可用逗号分隔", "Only of these modalities, CT,MR"))
    ] = "",
    body_part: Annotated[
        str, typer.Option(help=say("部位，可用逗号分隔", "Only of these parts, CHEST,HEAD"))
    ] = "",
    source: Annotated[
        str, typer.Option(help=say("来源 AE，可用逗号分隔", "Only from these AE titles"))
    ] = "",
    hours: Annotated[
        str,
        typer.Option(
            metavar="HH:MM-HH:MM",
            help=say("时段，本地时间，可跨午夜", "Only at these hours, local; may span midnight"),
        ),
    ] = "",
) -> None:
    rule = routing.Rule(
        name=name,
        modality=modality,
        body_part=body_part,
        source=source,
        hours=hours,
        destination=to,
        url=url,
    )
    with terminal.acting() as access:
        routing.add(access, organization, rule)
    terminal.done(f"已添加规则 {name}", f"Studies are routed by {name} from now on")


@route_commands.command("list", help=say("列出转发规则", "List the routes"))
def list_routes() -> None:
    with terminal.acting() as access:
        found = routing.everything(access)
    terminal.table(
        [
            say("医院", "Hospital"),
            say("规则", "Route"),
            say("目的", "To"),
            say("条件", "Of"),
            say("等待", "Waiting"),
            say("放弃", "Given up"),
            say("已送达", "Delivered"),
            say("不予提供", "Withheld"),
            say("已删除", "Gone"),
        ],
        [
            [
                one.organization,
                one.route.name,
                one.destination,
                " ".join(
                    filter(
                        None,
                        (
                            one.route.modality,
                            one.route.body_part,
                            one.route.source,
                            one.route.hours,
                        ),
                    )
                ),
                str(one.waiting),
                str(one.given_up),
                str(one.delivered),
                str(one.withheld),
                str(one.gone),
            ]
            for one in found
        ],
    )
    if any(one.given_up for one in found):
        typer.echo(
            say(
                "有转发已放弃：`exchange route waiting --given-up` 查看，"
                "`exchange route retry` 重试",
                "Some were given up: see `exchange route waiting --given-up`, then "
                "`exchange route retry`",
            ),
            err=True,
        )


@route_commands.command(
    "waiting",
    help=say(
        "列出未送达的检查及原因（含既往检查）", "What is on its way, priors too, and why it waits"
    ),
)
def list_waiting(
    given_up: Annotated[
        bool, typer.Option("--given-up", help=say("只列已放弃的", "Only what was given up"))
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10000, help=say("条数", "How many"))] = 1000,
    as_json: terminal.AsJson = False,
) -> None:
    zone = ZoneInfo(settings.load().timezone)
    with terminal.acting() as access:
        found = deliveries.waiting(access, given_up=given_up, limit=limit)
    if as_json:
        terminal.machine_readable(found)
        return
    terminal.table(
        [
            say("编号", "Number"),
            say("医院", "Hospital"),
            say("规则", "Route"),
            say("检查 UID", "Study Instance UID"),
            say("目的", "To"),
            say("已试", "Attempts"),
            say("下次", "Next"),
            say("原因", "Why"),
        ],
        [
            [
                str(one.number),
                one.organization,
                one.route or say("既往检查", "priors"),
                one.study_instance_uid,
                one.destination,
                str(one.attempts),
                say("已放弃", "given up")
                if one.due is None
                else one.due.astimezone(zone).isoformat(timespec="seconds"),
                told(one.last_error),
            ]
            for one in found
        ],
    )


@route_commands.command("remove", help=say("删除转发规则", "Remove a route"))
def remove_route(
    name: Annotated[str, typer.Argument(help=say("规则名", "Its name"))],
    organization: _Organization,
) -> None:
    with terminal.acting() as access:
        routing.remove(access, organization, name)
    terminal.done(f"已删除规则 {name}", f"{name} is removed")


@route_commands.command(
    "retry", help=say("立即重试失败或放弃的转发", "Try again now what failed or was given up")
)
def retry_routes(
    number: Annotated[
        int | None, typer.Argument(help=say("编号；省略则全部", "Its number; all without one"))
    ] = None,
) -> None:
    with terminal.acting() as access:
        count = deliveries.retry(access, number)
    terminal.done(f"将重试 {count} 个转发", f"{count} deliveries will be tried again")

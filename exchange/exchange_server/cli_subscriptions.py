"""The commands for FHIR subscriptions: what they are told, what failed, and where they may lead."""

from typing import Annotated

import typer

from exchange import subscriptions
from exchange_server import terminal
from exchange_server.words import say, told

subscription_commands = typer.Typer(
    no_args_is_help=True, help=say("FHIR 订阅", "FHIR subscriptions")
)

_Code = Annotated[str, typer.Argument(help=say("医院代码", "Code of the hospital"))]
_Host = Annotated[
    str,
    typer.Argument(
        metavar="HOST[:PORT]",
        help=say("主机名或地址，可带端口", "A name or address, or a port too"),
    ),
]

_STATES = {
    "requested": say("待握手", "requested"),
    "active": say("有效", "active"),
    "error": say("出错", "error"),
    "off": say("已停用", "off"),
}


@subscription_commands.command("list", help=say("列出订阅及其状态", "List subscriptions"))
def list_subscriptions() -> None:
    with terminal.acting() as access:
        found = subscriptions.listed(access)
    terminal.table(
        [
            say("编号", "Number"),
            say("医院", "Hospital"),
            say("用户", "User"),
            say("主题", "Topic"),
            say("通知到", "To"),
            say("状态", "State"),
            say("事件", "Events"),
            say("等待", "Waiting"),
            say("已试", "Attempts"),
            say("原因", "Why"),
        ],
        [
            [
                str(one.number),
                one.organization,
                one.requester,
                one.topic,
                one.to,
                _STATES.get(one.state, one.state),
                str(one.events),
                str(one.waiting),
                str(one.failures),
                told(one.reason),
            ]
            for one in found
        ],
    )


@subscription_commands.command(
    "retry", help=say("立即重试出错或失败的订阅", "Try again now what is in error or has failed")
)
def retry_subscriptions(
    number: Annotated[
        int | None, typer.Argument(help=say("编号；省略则全部", "Its number; all without one"))
    ] = None,
) -> None:
    with terminal.acting() as access:
        count = subscriptions.retry(access, number)
    terminal.done(f"将重试 {count} 个订阅", f"{count} subscriptions will be tried again")


@subscription_commands.command(
    "hosts", help=say("列出各医院可接收通知的主机", "Where each hospital may be notified")
)
def list_hosts() -> None:
    with terminal.acting() as access:
        found = subscriptions.hosts(access)
    terminal.table([say("医院", "Hospital"), say("主机", "Host")], [list(one) for one in found])


@subscription_commands.command(
    "allow", help=say("允许医院在此主机接收通知", "Let a hospital be notified at a host")
)
def allow_host(code: _Code, host: _Host) -> None:
    with terminal.acting() as access:
        subscriptions.allow(access, code, host)
    terminal.done(f"{code} 可在 {host} 接收通知", f"{code} may be notified at {host}")


@subscription_commands.command(
    "disallow", help=say("不再允许在此主机接收通知", "Notify a hospital at a host no more")
)
def disallow_host(code: _Code, host: _Host) -> None:
    with terminal.acting() as access:
        subscriptions.disallow(access, code, host)
    terminal.done(f"不再向 {host} 通知 {code}", f"{code} is not notified at {host} any more")

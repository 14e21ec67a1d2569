"""The command line: what an operator does with an exchange.

Here stand the processes, the trail, the store and the jobs; the registry's commands have a module
of their own. Whoever types acts as an administrator, through the gate like everybody else.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.panel import Panel

from exchange import audit, check, jobs, trail, users
from exchange.errors import ExchangeError, Invalid, NotFound
from exchange.policy import Action, Purpose, Role
from exchange_server import composition, observability, settings, terminal, usage
from exchange_server.cli_lifecycle import (
    commitment_commands,
    conflict_commands,
    discrepancy_commands,
    hold_commands,
    lifecycle_commands,
    retention_commands,
)
from exchange_server.cli_network import network_commands
from exchange_server.cli_orders import ledger_commands, order_commands
from exchange_server.cli_registry import consent_commands, organization_commands, user_commands
from exchange_server.cli_resources import export_commands, resource_commands
from exchange_server.cli_routes import route_commands
from exchange_server.cli_subscriptions import subscription_commands
from exchange_server.cli_viewer import viewer_commands
from exchange_server.settings import Settings
from exchange_server.words import say, told
from exchange_storage.records import Organization

app = typer.Typer(
    name="exchange",
    cls=usage.Spoken,
    help=say("区域医学影像交换平台", "The regional imaging exchange"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they would show values
    add_completion=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imaging-exchange {version('imaging-exchange')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_tell_version,
            is_eager=True,
            help=say("显示名称和版本", "Tell name and version"),
        ),
    ] = False,
) -> None:
    """What holds for the command line as a whole."""


app.add_typer(organization_commands, name="organization")
app.add_typer(user_commands, name="user")
app.add_typer(consent_commands, name="consent")
app.add_typer(order_commands, name="order")
app.add_typer(route_commands, name="route")
app.add_typer(subscription_commands, name="subscription")
app.add_typer(viewer_commands, name="viewer")
app.add_typer(network_commands)
app.add_typer(resource_commands)
app.add_typer(export_commands, name="export")
app.add_typer(conflict_commands, name="conflict")
app.add_typer(discrepancy_commands, name="discrepancy")
app.add_typer(commitment_commands, name="commitment")
app.add_typer(lifecycle_commands)
app.add_typer(retention_commands, name="retention")
app.add_typer(hold_commands, name="hold")
app.add_typer(ledger_commands, name="ledger")


def _group(name: str, in_chinese: str, in_english: str) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=say(in_chinese, in_english))
    app.add_typer(group, name=name)
    return group


_audit = _group("audit", "审计日志", "The audit trail")
_job = _group("job", "后台任务", "Jobs of the outbox")
_keys = _group("keys", "令牌签名密钥", "Keys that sign access tokens")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; what the exchange refuses is one line on stderr, and exit status 1."""
    os.umask(0o077)  # what is made here is nobody else's to read
    _say_what_is_no_setting()
    usage.speak()
    try:
        app(arguments)
    except ExchangeError as error:
        typer.echo(f"{say('错误：', 'Error: ')}{told(str(error))}", err=True)
        raise SystemExit(1) from None


def _say_what_is_no_setting() -> None:
    """A misspelt variable leaves its setting at the default, which nobody meant."""
    if settings.SUPERVISOR in os.environ:  # which has said so already
        return
    for name, nearest in settings.unknown_variables().items():
        terminal.done(
            f"警告：没有名为 {name} 的设置" + (f"；是否为 {nearest}？" if nearest else ""),
            f"Warning: {name} is no setting" + (f"; is {nearest} meant?" if nearest else ""),
        )


@app.command(
    help=say(
        "创建数据目录、密钥、数据库和首位管理员", "Make data directory, keys, index, administrator"
    )
)
def init(
    name: Annotated[
        str, typer.Option(help=say("管理员用户名", "Name of the administrator"))
    ] = "admin",
    password_stdin: terminal.PasswordStdin = False,
) -> None:
    given = settings.load()
    password = terminal.new_password(from_stdin=password_stdin)
    exchange = composition.initialise(given)
    try:
        with exchange.on_behalf_of(terminal.operator()) as access:
            if users.by_name(access.session, name) is not None:
                raise Invalid(f"{given.data} is set up already; `exchange user add` makes users")
            users.add(
                access,
                name=name,
                display_name=name,
                role=Role.ADMINISTRATOR,
                organization=None,
                password=password,
            )
    finally:
        exchange.close()
    terminal.show_password(name, password, generated=not password_stdin)
    terminal.done(f"已建立：{given.data}", f"Set up in {given.data}")


@app.command(
    help=say("运行全部进程（DICOM、HTTP、后台）", "Run all processes: DICOM node, HTTP, worker")
)
def serve(
    ready_file: Annotated[
        Path | None,
        typer.Option(help=say("就绪后写入地址的文件", "File to write the addresses to when ready")),
    ] = None,
) -> None:
    from exchange.watching import Status
    from exchange_server import roles
    from exchange_server.forking import forks
    from exchange_server.supervisor import Supervisor

    given = settings.load()
    observability.log_to_stderr(level=given.log_level, form=given.log_format, role="serve")
    exchange = composition.open_exchange(given)
    run = given.run
    run.mkdir(mode=0o700, exist_ok=True)
    with _alone(run / "serve.lock"):
        try:
            roles.check_free(given)
            if ready_file is not None:  # what one that was killed has left
                ready_file.unlink(missing_ok=True)
            shared = run / "metrics"
            shutil.rmtree(shared, ignore_errors=True)
            shared.mkdir()
            os.environ[observability.SHARED] = str(shared)
            roles.reserve_room(given)
            composition.migrate(exchange)
            composition.tell_watchers(exchange, Status.RESTARTED)
            roles.prepare(exchange, given)
        finally:
            exchange.close()
        supervisor = Supervisor(
            roles={
                roles.Role.WEB: given.web_processes,
                roles.Role.DESK: given.desk_processes if given.node_processes else 0,
                roles.Role.NODE: given.node_processes,
                roles.Role.WORKER: given.worker_processes,
            },
            start=forks(lambda role: main([role])),
            stop_seconds=given.stop_seconds,
            on_ready=lambda: _announce(given, ready_file),
            on_stop=lambda: composition.say_goodbye(given),
        )
        status = supervisor.run()
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
    raise typer.Exit(status)


@app.command(help=say("只运行 DICOM 节点", "Run the DICOM node only"))
def node() -> None:
    from exchange_server import roles

    roles.run(roles.Role.NODE, settings.load())


@app.command(
    help=say(
        "只运行应答进程：在 DICOM 节点接收影像时应答查询与取回（与节点在同一数据目录）",
        "Run the desk only: it answers what is asked of the DICOM node, in the same data directory",
    )
)
def desk() -> None:
    from exchange_server import roles

    given = settings.load()
    given.run.mkdir(mode=0o700, exist_ok=True)
    roles.run(roles.Role.DESK, given)


@app.command(help=say("只运行 HTTP 服务", "Run HTTP only"))
def web() -> None:
    from exchange_server import roles

    roles.run(roles.Role.WEB, settings.load())


@app.command(help=say("只运行后台任务进程", "Run the worker only"))
def worker() -> None:
    from exchange_server import roles

    roles.run(roles.Role.WORKER, settings.load())


@app.command(
    help=say(
        "把数据库升级到本版本（serve 启动时自动进行；各进程分开运行时先运行一次）",
        "Bring the index to this release: `serve` does it at its start; where the processes run "
        "apart, it is run once before them",
    )
)
def migrate() -> None:
    exchange = composition.open_exchange(settings.load())
    try:
        composition.migrate(exchange)
    finally:
        exchange.close()
    terminal.done("数据库已是本版本", "The index is that of this release")


class Announced(StrEnum):
    """What watchers of worklists are told of the service as a whole."""

    GOING_DOWN = "going-down"
    RESTARTED = "restarted"


@app.command(
    help=say(
        "通知工作列表的订阅者：服务即将停止或已恢复（serve 自动通知；各进程分开运行时使用）",
        "Tell who watches worklists that the service goes down, or is there again: `serve` does it "
        "by itself; for where the processes run apart",
    )
)
def announce(
    status: Annotated[Announced, typer.Argument(help=say("状态", "How it is"))],
) -> None:
    from exchange.watching import Status

    exchange = composition.open_exchange(settings.load())
    try:
        composition.tell_watchers(exchange, Status[status.name])
    finally:
        exchange.close()
    terminal.done("已通知订阅者", "Those who watch are told")


@app.command(help=say("签发访问令牌（供脚本使用）", "Issue an access token, for scripts"))
def token(
    name: Annotated[str, typer.Argument(help=say("用户名", "User name"))],
    purpose: Annotated[
        Purpose, typer.Option(help=say("使用目的", "Purpose of use"))
    ] = Purpose.TREATMENT,
    lifetime: Annotated[
        int | None, typer.Option(min=1, help=say("有效秒数", "Seconds that it is accepted"))
    ] = None,
) -> None:
    given = settings.load()
    with terminal.acting() as access:
        access.require(Action.ADMINISTER)
        user = users.by_name(access.session, name)
        if user is None or not users.may_sign_in(access.session, user):
            raise NotFound("no active user has this name")
        belongs = (
            access.session.get(Organization, user.organization_id)
            if user.organization_id is not None
            else None
        )
        issued = composition.tokens(given).issue(user, belongs, purpose, lifetime)
        access.note(
            Action.ADMINISTER,
            reason="access token issued",
            detail={"user": name, "token": issued.number, "seconds": issued.lifetime},
        )
    typer.echo(issued.token)


@_keys.command("rotate", help=say("启用新的令牌签名密钥", "Sign tokens with a new key from now on"))
def rotate_keys() -> None:
    given = settings.load()
    with terminal.acting() as access:
        access.require(Action.ADMINISTER)
        kid = composition.token_keys(given).rotate()
        access.note(Action.ADMINISTER, reason="token key rotated", detail={"kid": kid})
    terminal.done(f"新密钥：{kid}", f"The new key is {kid}")


@_audit.command("list", help=say("谁看过什么：列出审计记录", "Who looked at what: list records"))
def list_audit(
    limit: Annotated[int, typer.Option(min=1, max=10000, help=say("条数", "How many"))] = 50,
    user: Annotated[str, typer.Option(help=say("用户或 AE", "User name or AE title"))] = "",
    study: Annotated[str, typer.Option(help=say("检查 UID", "Study Instance UID"))] = "",
    organization: Annotated[
        str, typer.Option(help=say("医院代码（配合 --patient）", "Hospital, with --patient"))
    ] = "",
    patient: Annotated[
        str, typer.Option(help=say("患者号（含其在各院的病案）", "Its patient, at every hospital"))
    ] = "",
) -> None:
    if bool(organization) != bool(patient):
        raise Invalid("--organization and --patient go together")
    of = (organization, patient) if patient else None
    zone = ZoneInfo(settings.load().timezone)
    with terminal.acting() as access:
        found = trail.records(access, limit=limit, requester=user, study=study, patient=of)
    columns = {
        "sequence": say("编号", "No."),
        "recorded": say("时间", "Time"),
        "requester": say("谁", "Who"),
        "door": say("入口", "Door"),
        "action": say("做了什么", "What"),
        "outcome": say("结果", "Outcome"),
        "reason": say("原因", "Why"),
        "study": say("检查 UID", "Study Instance UID"),
        "address": say("网络地址", "Network address"),
    }
    for record in found:
        at = datetime.fromisoformat(record["recorded"]).astimezone(zone)
        record["recorded"] = at.isoformat(timespec="seconds")
        if person := record.get("person"):
            how = "" if person["verified"] else say("，未经验证", ", not verified")
            record["requester"] += f" ({person['name']}{how})"
        about = sorted(trail.studies(record), key=lambda one: one != study)
        first, *others = about or [""]
        record["study"] = f"{first} + {len(others)}" if others else first
    terminal.table(
        list(columns.values()), [[str(one[column]) for column in columns] for one in found]
    )


@_audit.command(help=say("验证审计日志未被篡改", "Prove that nobody has altered the trail"))
def verify() -> None:
    wrong = 0
    with (
        terminal.acting() as access,
        terminal.counting(say("已验证记录", "Records verified")) as progress,
    ):
        access.require(Action.AUDIT)
        access.catch_up()
        access.note(Action.AUDIT, reason="trail verified")
        task = progress.add_task("", total=None)
        for one in audit.verify(
            access.session, access.exchange.signing_key, access.exchange.objects
        ):
            if isinstance(one, audit.Finding):
                wrong += 1
                terminal.line(progress, str(one.sequence), one.what)
            else:
                progress.update(task, completed=one)
    if wrong:
        typer.echo(say(f"发现 {wrong} 处异常", f"{wrong} records are not as written"), err=True)
        raise typer.Exit(1)
    terminal.done("审计日志完整", "The audit trail is whole")


class Sample(StrEnum):
    """How many resources a check looks at."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


@app.command("check", help=say("核对索引与对象存储", "Compare the index with the object store"))
def check_store(
    read: Annotated[
        bool,
        typer.Option(
            help=say("读取全部内容并核对摘要", "Read every object and compare its digest")
        ),
    ] = True,
    resources: Annotated[
        Sample,
        typer.Option(
            help=say(
                "核对多少 FHIR 资源的检索索引", "Of how many FHIR resources the index is compared"
            )
        ),
    ] = Sample.SOME,
) -> None:
    lost = harmless = 0
    reader = composition.resource_reader(settings.load()) if resources is not Sample.NONE else None
    every = resources is Sample.ALL
    with (
        terminal.acting() as access,
        terminal.counting(say("已核对实例", "Instances checked")) as progress,
    ):
        task = progress.add_task("", total=None)
        for one in check.check(access, read=read, resources=reader, every=every):
            if isinstance(one, check.Finding):
                lost, harmless = lost + (not one.harmless), harmless + one.harmless
                terminal.line(progress, one.key, one.what)
            else:
                progress.update(task, completed=one.done, total=one.total)
    if lost:
        typer.echo(say(f"发现 {lost} 处损坏", f"{lost} objects are damaged"), err=True)
        raise typer.Exit(1)
    terminal.done(
        f"没有丢失（{harmless} 处无碍）", f"Nothing is lost ({harmless} findings are harmless)"
    )


@_job.command("list", help=say("列出任务数与放弃的任务", "Count the jobs, list those given up"))
def list_jobs(as_json: terminal.AsJson = False) -> None:
    with terminal.acting() as access:
        access.require(Action.ADMINISTER)
        backlog = jobs.backlog(access.session)
        dead = jobs.dead_letters(access.session)
    if as_json:
        counted = [
            {"kind": kind, "given_up": gone, "count": count}
            for (kind, gone), count in backlog.items()
        ]
        names = ("id", "kind", "subject", "attempts", "last_error")
        given_up = [{name: getattr(one, name) for name in names} for one in dead]
        terminal.machine_readable({"backlog": counted, "given_up": given_up})
        return
    waiting = say("等待", "waiting")
    rows = [
        ["", kind, "", waiting, str(count)] for (kind, gone), count in backlog.items() if not gone
    ]
    rows += [
        [str(one.id), one.kind, one.subject, say("放弃", "given up"), one.last_error]
        for one in dead
    ]
    terminal.table(
        [
            say("编号", "Number"),
            say("任务", "Kind"),
            say("对象", "Subject"),
            say("状态", "State"),
            say("数量或错误", "Count, or error"),
        ],
        rows,
    )


@_job.command(help=say("重试放弃的任务", "Try again what was given up"))
def retry(
    number: Annotated[
        int | None, typer.Argument(help=say("编号；省略则全部", "Its number; all without one"))
    ] = None,
) -> None:
    with terminal.acting() as access:
        access.require(Action.ADMINISTER)
        access.note(Action.ADMINISTER, reason="jobs retried")
        count = access.write(lambda session: jobs.retry(session, number))
    if number is not None and not count:
        raise NotFound("no job that was given up has this number; `exchange job list` shows them")
    terminal.done(f"将重试 {count} 个任务", f"{count} jobs will be tried again")


@app.command(
    help=say(
        "演示：三家医院发送，一位医生查看", "The demo: three hospitals send, a clinician opens"
    )
)
def demo(
    once: Annotated[
        bool, typer.Option("--once", help=say("演示后即结束", "End after the story"))
    ] = False,
    size: Annotated[
        str, typer.Option(help=say("规模", "Size of the city: small, default or large"))
    ] = "default",
    data: Annotated[
        Path | None,
        typer.Option(help=say("保留数据的空目录", "An empty folder to make it in, and to keep")),
    ] = None,
) -> None:
    from exchange_server import demo as story

    raise typer.Exit(story.run(size=size, once=once, data=data))


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Invalid("another `exchange serve` runs on this data directory") from None
        yield


def _announce(given: Settings, ready_file: Path | None) -> None:
    """Say where the exchange is found: to who reads, to a waiting script, to systemd."""
    from exchange_server.roles import notify

    http, dicom = given.doors
    if ready_file is not None:
        aside = ready_file.with_name(f".{ready_file.name}.new")
        aside.write_text(json.dumps({"pid": os.getpid(), "http": http, "dicom": dicom}))
        aside.replace(ready_file)
    console = Console()
    if console.is_terminal:
        title = say("影像交换平台已就绪", "The imaging exchange is ready")
        console.print(Panel("\n".join([*http, *dicom]), title=title, expand=False))
    else:
        typer.echo("\t".join(["READY", *http, *dicom]))
    notify("READY=1")

"""The commands for orders and the completeness ledger."""

from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from exchange import identity, ledger, orders
from exchange.errors import Invalid
from exchange_server import settings, terminal
from exchange_server.words import say, told

order_commands = typer.Typer(no_args_is_help=True, help=say("检查申请与工作列表", "Imaging orders"))
ledger_commands = typer.Typer(
    invoke_without_command=True,
    help=say("完整性台账：应收、已收、已承诺", "What should have come, and came"),
)

_Organization = Annotated[
    str, typer.Option("--organization", help=say("医院代码", "Code of the hospital"))
]
_Step = Annotated[str, typer.Argument(help=say("计划步骤号", "Scheduled Procedure Step ID"))]


@order_commands.command("add", help=say("登记检查申请", "Place an order"))
def add_order(
    organization: _Organization,
    accession: Annotated[str, typer.Option(help=say("检查号", "Accession number"))],
    patient: Annotated[str, typer.Option(help=say("患者号", "The hospital's patient number"))],
    modality: Annotated[str, typer.Option(help=say("设备类型", "Modality"))],
    day: Annotated[
        str, typer.Option("--date", metavar="YYYYMMDD", help=say("检查日期", "Scheduled date"))
    ],
    at: Annotated[
        str, typer.Option("--time", metavar="HHMMSS", help=say("时间", "Scheduled time"))
    ] = "",
    name: Annotated[str, typer.Option(help=say("患者姓名（PN）", "Patient's name, as PN"))] = "",
    birth_date: Annotated[
        str, typer.Option(metavar="YYYYMMDD", help=say("出生日期", "Birth date"))
    ] = "",
    sex: Annotated[str, typer.Option(metavar="M|F|O", help=say("性别", "Sex"))] = "",
    id_card: Annotated[
        str,
        typer.Option(
            help=say(
                "身份证号：据此取得他院既往检查",
                "Resident ID card, by which other hospitals' priors come",
            )
        ),
    ] = "",
    body_part: Annotated[str, typer.Option(help=say("部位", "Body part examined"))] = "",
    description: Annotated[str, typer.Option(help=say("检查项目", "What is to be done"))] = "",
    station: Annotated[
        str, typer.Option(help=say("设备 AE Title", "AE title of the station"))
    ] = "",
    priority: Annotated[str, typer.Option(help=say("优先级", "STAT, HIGH, ROUTINE …"))] = "ROUTINE",
) -> None:
    if id_card and identity.resident_id(id_card) is None:
        raise Invalid("not a resident ID card number: 18 digits with a birth date and check digit")
    with terminal.acting() as access:
        placed = orders.place(
            access,
            orders.Placed(
                patient_id=patient,
                patient_name=name,
                patient_birth_date=birth_date,
                patient_sex=sex,
                identifiers=((identity.RESIDENT_ID, id_card),) if id_card else (),
                accession_number=accession,
                modality=modality,
                body_part_examined=body_part,
                procedure_description=description,
                station_ae_title=station,
                scheduled_date=day,
                scheduled_time=at,
                priority=priority,
            ),
            organization=organization,
        )
    terminal.done(
        f"已登记，检查 UID {placed.study_instance_uid}",
        f"Placed; Study Instance UID {placed.study_instance_uid}",
    )


@order_commands.command("list", help=say("列出检查申请", "List a hospital's orders"))
def list_orders(
    organization: _Organization,
    limit: Annotated[int, typer.Option(min=1, max=10000, help=say("条数", "How many"))] = 100,
) -> None:
    with terminal.acting() as access:
        found = orders.listed(access, organization=organization, limit=limit)
    terminal.table(
        [
            say("步骤号", "Step"),
            say("检查号", "Accession"),
            say("患者号", "Patient"),
            say("设备类型", "Modality"),
            say("日期", "Date"),
            say("状态", "Status"),
            say("检查 UID", "Study Instance UID"),
        ],
        [
            [
                one.order.scheduled_procedure_step_id,
                one.order.accession_number,
                one.number.value,
                one.order.modality,
                one.order.scheduled_date,
                one.order.status,
                one.order.study_instance_uid,
            ]
            for one in found
        ],
    )


@order_commands.command("cancel", help=say("取消检查申请", "Cancel an order"))
def cancel_order(organization: _Organization, step: _Step) -> None:
    with terminal.acting() as access:
        orders.cancel(access, step, organization=organization)
    terminal.done(f"已取消 {step}", f"{step} is canceled")


@ledger_commands.callback()
def show_ledger(
    context: typer.Context,
    organization: Annotated[
        str | None, typer.Option(help=say("医院代码", "Code of one hospital"))
    ] = None,
    day: Annotated[
        str | None, typer.Option("--date", metavar="YYYYMMDD", help=say("日期", "The last day"))
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help=say("天数", "How many days"))] = 1,
    gaps: Annotated[
        bool, typer.Option("--gaps", help=say("列出缺口", "List what is missing"))
    ] = False,
    as_json: terminal.AsJson = False,
) -> None:
    """`exchange ledger` by itself."""
    if context.invoked_subcommand is not None:
        return
    zone = ZoneInfo(settings.load().timezone)
    last = _day(day) if day else datetime.now(zone).date()
    first = last - timedelta(days=days - 1)
    with terminal.acting() as access:
        found = ledger.lines(access, first, last, timezone=zone, organization=organization)
        missing = (
            [
                (f"{first + timedelta(days=number):%Y%m%d}", code, gap)
                for number in range(days)
                for code, gap in ledger.gaps(
                    access,
                    first + timedelta(days=number),
                    timezone=zone,
                    organization=organization,
                )
            ]
            if gaps
            else []
        )
    if as_json:
        lines = [asdict(one) | {"complete": one.complete} for one in found]
        listed = [{"day": on, "organization": code} | asdict(gap) for on, code, gap in missing]
        terminal.machine_readable({"lines": lines, "gaps": listed})
        return
    terminal.table(
        [
            say("医院", "Hospital"),
            say("日期", "Day"),
            say("预约", "Scheduled"),
            say("未开始", "Not begun"),
            say("应收", "Expected"),
            say("已收", "Received"),
            say("已承诺", "Committed"),
            say("到达", "Arrived"),
            say("院方计数", "Counted"),
            say("到达检查", "Studies"),
            say("院方检查数", "Counted"),
            say("完整", "Complete"),
        ],
        [
            [
                one.organization,
                one.day,
                *(
                    "" if count is None else str(count)
                    for count in (
                        one.scheduled,
                        one.not_begun,
                        one.expected,
                        one.received,
                        one.committed,
                        one.arrived,
                        one.counted,
                        one.arrived_studies,
                        one.counted_studies,
                    )
                ),
                say("是", "yes") if one.complete else say("否", "no"),
            ]
            for one in found
        ],
    )
    if gaps:
        terminal.table(
            [
                say("日期", "Day"),
                say("医院", "Hospital"),
                say("缺口", "Missing"),
                say("检查号", "Accession"),
                say("设备", "Station"),
                say("检查 UID", "Study Instance UID"),
                "SOP Instance UID",
                say("数量", "Counts"),
            ],
            [
                [
                    on,
                    code,
                    _MISSING[gap.missing],
                    gap.accession_number,
                    gap.station_ae_title,
                    gap.study_instance_uid,
                    gap.sop_instance_uid,
                    told(gap.counts),
                ]
                for on, code, gap in missing
            ],
        )
    elif not all(one.complete for one in found):
        terminal.done("缺口明细：exchange ledger --gaps", "What is missing: exchange ledger --gaps")


_MISSING = {
    ledger.Missing.BEGINNING: say("未开始", "not begun"),
    ledger.Missing.INSTANCE: say("未收到", "not received"),
    ledger.Missing.VERIFICATION: say("未核对", "not committed"),
    ledger.Missing.COUNT: say("少于院方计数", "fewer than counted"),
}


@ledger_commands.command(
    help=say("登记院方自己的发送计数", "A hospital's own count of what it has sent on a day")
)
def tell(
    organization: _Organization,
    day: Annotated[str, typer.Option("--date", metavar="YYYYMMDD", help=say("日期", "The day"))],
    source: Annotated[
        str, typer.Option(help=say("计数来源，如 PACS", "Who counts: its PACS, its RIS"))
    ] = "PACS",
    studies: Annotated[int | None, typer.Option(help=say("检查数", "Studies"))] = None,
    instances: Annotated[int | None, typer.Option(help=say("实例数", "Instances"))] = None,
) -> None:
    with terminal.acting() as access:
        ledger.tell(
            access,
            _day(day),
            source,
            studies=studies,
            instances=instances,
            organization=organization,
        )
    terminal.done(
        "已登记；exchange ledger 显示对比", "Noted; exchange ledger shows it beside what came"
    )


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a day, not a moment
    except ValueError:
        raise Invalid("a day is written YYYYMMDD") from None

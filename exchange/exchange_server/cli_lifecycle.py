"""The commands for what happens to instances after they came: review, rejection, scrub."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from exchange import (
    commitment,
    conflicts,
    discrepancies,
    rejected,
    rejection,
    restoration,
    retention,
    scrub,
)
from exchange_server import settings, terminal
from exchange_server.words import say, told

conflict_commands = typer.Typer(
    no_args_is_help=True, help=say("待审核的冲突实例", "Instances kept for review")
)
discrepancy_commands = typer.Typer(
    no_args_is_help=True,
    help=say("可能另有其人的影像", "Images that may be of another person"),
)
commitment_commands = typer.Typer(no_args_is_help=True, help=say("存储承诺", "Storage commitments"))
lifecycle_commands = typer.Typer()
retention_commands = typer.Typer(
    no_args_is_help=True, help=say("保存期限", "How long studies are kept")
)
hold_commands = typer.Typer(no_args_is_help=True, help=say("法律保全", "Legal holds"))

_Limit = Annotated[int, typer.Option(min=1, max=10000, help=say("条数", "How many"))]
_Number = Annotated[int, typer.Argument(help=say("冲突编号", "Number of the conflict"))]
_Organization = Annotated[
    str, typer.Option("--organization", help=say("医院代码", "Code of the hospital"))
]


@conflict_commands.command(
    "list", help=say("列出待审核的冲突实例", "List instances kept for review")
)
def list_conflicts(limit: _Limit = 100) -> None:
    zone = ZoneInfo(settings.load().timezone)
    with terminal.acting() as access:
        waiting = conflicts.waiting(access, limit)
    terminal.table(
        [
            say("编号", "Number"),
            say("时间", "Since"),
            say("来自", "From"),
            say("原因", "Reason"),
            "SOP Instance UID",
            say("检查 UID", "Study Instance UID"),
            say("对象", "Object"),
        ],
        [
            [
                str(one.number),
                one.raised.astimezone(zone).isoformat(timespec="seconds"),
                one.sender,
                told(one.reason),
                one.sop_instance_uid,
                one.study_instance_uid,
                one.key,
            ]
            for one in waiting
        ],
    )


@conflict_commands.command("show", help=say("比较冲突的双方", "What differs between the two"))
def show_conflict(number: _Number) -> None:
    from exchange_dicom import differences

    with terminal.acting() as access:
        found = conflicts.pair(access, number)
        if found.primary is not None:
            keys = found.primary.key, found.conflicting.key
            rows = [
                [one.attribute, one.first, one.second]
                for one in differences.differences(access.objects.get, *keys)
            ]
            apart = differences.pixels(access.objects.get, *keys)
        else:
            rows = [
                [keyword, value, found.claimed[keyword]]
                for keyword, value in found.known.items()
                if value != found.claimed[keyword]
            ]
            apart = ""
    typer.echo(told(found.reason))
    terminal.table(
        [say("属性", "Attribute"), say("现用", "In use"), say("冲突", "Conflicting")], rows
    )
    if found.primary is not None:
        same = say("相同", "the same")
        typer.echo(f"{say('像素', 'Pixels')}: {apart or same}")
    terminal.done(
        f"下一步：exchange conflict promote|keep|discard {number}",
        f"Next: exchange conflict promote|keep|discard {number}",
    )


@conflict_commands.command(help=say("改用冲突的实例", "The conflicting one is the right one"))
def promote(number: _Number) -> None:
    with terminal.acting() as access:
        conflicts.promote(access, number)
    terminal.done("已改用", "It is served from now on")


@conflict_commands.command(help=say("保持现状", "Leave it as it is"))
def keep(number: _Number) -> None:
    with terminal.acting() as access:
        conflicts.keep(access, number)
    terminal.done("已保留", "It is kept beside the other")


@conflict_commands.command(help=say("丢弃冲突的实例", "The conflicting one is of no use"))
def discard(number: _Number) -> None:
    with terminal.acting() as access:
        conflicts.discard(access, number)
    terminal.done("已丢弃", "It is discarded")


@discrepancy_commands.command(
    "list", help=say("列出待审核的不符之处", "List what contradicts the patient's record")
)
def list_discrepancies(limit: _Limit = 100) -> None:
    zone = ZoneInfo(settings.load().timezone)
    with terminal.acting() as access:
        waiting = discrepancies.waiting(access, limit=limit)
    terminal.table(
        [
            say("编号", "Number"),
            say("时间", "Since"),
            say("医院", "Hospital"),
            say("患者号", "Patient ID"),
            say("病案", "Record"),
            say("影像", "Images"),
            say("检查 UID", "Study Instance UID"),
        ],
        [
            [
                str(one.number),
                one.raised.astimezone(zone).isoformat(timespec="seconds"),
                one.organization,
                one.patient_id,
                *(
                    f"{said.name} {said.birth_date} {said.sex} {number}".rstrip()
                    for said, number in ((one.known, ""), (one.told, one.told_number))
                ),
                one.study_instance_uid,
            ]
            for one in waiting
        ],
    )


_Discrepancy = Annotated[int, typer.Argument(help=say("编号", "Number in the list"))]


@discrepancy_commands.command("same", help=say("是同一人", "They are of the patient"))
def same_person(number: _Discrepancy) -> None:
    with terminal.acting() as access:
        discrepancies.settle(access, number, discrepancies.SAME)
    terminal.done("已确认为同一人", "They are taken for the same person's from now on")


@discrepancy_commands.command(
    "another",
    help=say("另有其人（须先停用这些影像）", "They are of another person: reject them first"),
)
def another_person(number: _Discrepancy) -> None:
    with terminal.acting() as access:
        discrepancies.settle(access, number, discrepancies.ANOTHER)
    terminal.done("已确认为另一人", "They are taken for another person's")


@commitment_commands.command("list", help=say("列出存储承诺", "List the last commitments"))
def list_commitments(limit: _Limit = 50, as_json: terminal.AsJson = False) -> None:
    zone = ZoneInfo(settings.load().timezone)

    def written(at: datetime | None) -> str:
        return at.astimezone(zone).isoformat(timespec="seconds") if at is not None else ""

    with terminal.acting() as access:
        found = commitment.latest(access, limit)
    if as_json:
        terminal.machine_readable(found)
        return
    terminal.table(
        [
            say("医院", "Hospital"),
            "AE",
            "Transaction UID",
            say("实例", "Instances"),
            say("失败", "Failed"),
            say("请求", "Requested"),
            say("核对", "Checked"),
            say("报告", "Reported"),
        ],
        [
            [
                one.organization,
                one.requester,
                one.transaction_uid,
                str(one.instances),
                str(one.failed),
                written(one.requested),
                written(one.checked),
                written(one.reported),
            ]
            for one in found
        ],
    )


_Instances = Annotated[list[str] | None, typer.Argument(metavar="SOP_INSTANCE_UID…")]


@lifecycle_commands.command(help=say("停用实例（IOCM）", "Take instances out of use (IOCM)"))
def reject(
    organization: _Organization,
    instances: _Instances = None,
    study: Annotated[str, typer.Option(help=say("整个检查", "All of this study"))] = "",
    series: Annotated[str, typer.Option(help=say("整个序列", "All of this series"))] = "",
    code: Annotated[
        str,
        typer.Option(
            help=say(
                "原因：113001 质量，113037 患者安全，113038 工作列表错误，113039 到期并删除",
                "113001 quality, 113037 patient safety, 113038 wrong worklist entry, "
                "113039 retention expired: deleted",
            )
        ),
    ] = "113001",
) -> None:
    with terminal.acting() as access:
        count = rejection.reject(
            access, organization, code, instances or (), study=study, series=series
        )
    terminal.done(f"已停用 {count} 个实例", f"{count} instances are served no longer")


@lifecycle_commands.command(help=say("恢复停用的实例", "Serve rejected instances again"))
def restore(
    organization: _Organization,
    instances: _Instances = None,
    study: Annotated[str, typer.Option(help=say("整个检查", "All of this study"))] = "",
    reason: Annotated[
        str,
        typer.Option(help=say("理由（患者安全类必填）", "Why; a must after patient safety")),
    ] = "",
) -> None:
    with terminal.acting() as access:
        done = restoration.restore(
            access, organization, instances or (), study=study, reason=reason
        )
    if done.served:
        terminal.done(f"已恢复 {done.served} 个实例", f"{done.served} instances are served again")
    if done.waiting:
        count, first = len(done.waiting), done.waiting[0]
        terminal.done(
            f"停用期间收到的 {count} 个实例尚待审核：exchange conflict show {first}，"
            f"确认后 exchange conflict promote {first}",
            f"{count} that came meanwhile wait for review: "
            f"exchange conflict show {first}, then exchange conflict promote {first}",
        )
    elif not done.served:
        terminal.done(
            "停用已撤销；医院重新发送后即可使用",
            "The rejection is withdrawn; nothing is kept of it: the hospital has to send it",
        )


@lifecycle_commands.command("rejected", help=say("列出停用的实例", "List what was rejected"))
def list_rejected(
    organization: Annotated[
        str | None, typer.Option(help=say("医院代码", "Code of one hospital"))
    ] = None,
    limit: _Limit = 1000,
) -> None:
    zone = ZoneInfo(settings.load().timezone)
    with terminal.acting() as access:
        found = rejected.listed(access, organization=organization, limit=limit)
    terminal.table(
        [
            say("医院", "Hospital"),
            say("原因", "Why"),
            say("检查 UID", "Study Instance UID"),
            "SOP Instance UID",
            say("时间", "Since"),
            say("由", "By"),
            say("保存", "Kept"),
        ],
        [
            [
                one.organization,
                one.code,
                one.study_instance_uid,
                one.sop_instance_uid,
                one.rejected.astimezone(zone).isoformat(timespec="seconds"),
                one.note,
                say("是", "yes") if one.kept else say("否", "no"),
            ]
            for one in found
        ],
    )


@lifecycle_commands.command(
    "scrub", help=say("重读对象并核对摘要", "Read objects again and compare their digests")
)
def scrub_store(
    days: Annotated[
        int, typer.Option(min=0, help=say("多少天内未核对", "Not verified for so many days"))
    ] = 90,
    limit: Annotated[int, typer.Option(min=1, help=say("最多对象数", "Objects at most"))] = 100_000,
    listed: Annotated[
        bool,
        typer.Option("--list", help=say("只列出已知的损坏与巡检记录", "Only list what is known")),
    ] = False,
    discard: Annotated[
        str,
        typer.Option(
            metavar="OBJECT",
            help=say(
                "放弃一个未在使用且无法再取得的损坏对象", "Give up a damaged one that is not in use"
            ),
        ),
    ] = "",
) -> None:
    if discard:
        with terminal.acting() as access:
            scrub.discard(access, discard)
        terminal.done("已丢弃", "Discarded")
        return
    if listed:
        _list_scrubs()
        return
    damaged = 0
    before = datetime.now(UTC) - timedelta(days=days)
    with (
        terminal.acting() as access,
        terminal.counting(say("已核对对象", "Objects verified")) as progress,
    ):
        task = progress.add_task("", total=None)
        for one in scrub.scrub(access, before=before, limit=limit):
            if isinstance(one, scrub.Damage):
                damaged += 1
                terminal.line(progress, one.key, told(one.what))
            else:
                progress.update(task, completed=one)
    if damaged:
        typer.echo(say(f"发现 {damaged} 处损坏", f"{damaged} objects are damaged"), err=True)
        raise typer.Exit(1)
    terminal.done("对象完好", "All that was read is whole")


def _list_scrubs() -> None:
    zone = ZoneInfo(settings.load().timezone)

    def written(at: datetime | None) -> str:
        return at.astimezone(zone).isoformat(timespec="seconds") if at is not None else ""

    with terminal.acting() as access:
        known, last = scrub.damages(access), scrub.walks(access)
    terminal.table(
        [say("对象", "Object"), say("损坏", "Damage"), say("发现", "Found")],
        [[one.key, told(one.what), written(one.found)] for one in known],
    )
    for walk in last:
        begun, finished = written(walk.begun), written(walk.finished)
        terminal.done(
            f"巡检：{begun} 至 {finished or '今（进行中）'}，已读 {walk.read}，损坏 {walk.damaged}",
            f"Walk: begun {begun}, {finished or 'going on'}, {walk.read} read, "
            f"{walk.damaged} damaged",
        )
    if known:
        raise typer.Exit(1)


_Modality = Annotated[
    str, typer.Option(help=say("设备类型；省略则为其余全部", "Modality; without one all others"))
]
_Study = Annotated[str, typer.Argument(metavar="STUDY_INSTANCE_UID")]


@retention_commands.command("set", help=say("设置保存天数", "Keep a hospital's studies so long"))
def set_retention(
    organization: _Organization,
    days: Annotated[int, typer.Option(help=say("天数", "Days since they came"))],
    modality: _Modality = "",
) -> None:
    with terminal.acting() as access:
        retention.set_rule(access, organization, modality, days)
    terminal.done("已设置", "The rule is set")


@retention_commands.command("remove", help=say("删除规则：永久保存", "Keep them for ever again"))
def remove_retention(organization: _Organization, modality: _Modality = "") -> None:
    with terminal.acting() as access:
        retention.remove_rule(access, organization, modality)
    terminal.done("已删除", "The rule is removed")


@retention_commands.command("list", help=say("列出规则", "List the rules"))
def list_retention() -> None:
    with terminal.acting() as access:
        found = retention.rules(access)
    terminal.table(
        [say("医院", "Hospital"), say("设备类型", "Modality"), say("天数", "Days")],
        [[one.organization, one.modality, str(one.days)] for one in found],
    )


@retention_commands.command(
    "run", help=say("列出或删除过期检查", "List what has expired, or delete it")
)
def run_retention(
    delete: Annotated[bool, typer.Option("--delete", help=say("删除", "Delete it"))] = False,
) -> None:
    with terminal.acting() as access:
        found = retention.expired(access)
    terminal.table(
        [
            say("医院", "Hospital"),
            say("检查 UID", "Study Instance UID"),
            say("收到", "Received"),
            say("实例", "Instances"),
            say("保全", "Held"),
        ],
        [
            [
                one.organization,
                one.study_instance_uid,
                f"{one.received:%Y-%m-%d}",
                str(one.instances),
                say("是", "yes") if one.held else "",
            ]
            for one in found
        ],
    )
    free = [study for study in found if not study.held]
    if not delete:
        if free:
            terminal.done(
                f"{len(free)} 个检查可删除：exchange retention run --delete",
                f"{len(free)} studies can go: exchange retention run --delete",
            )
        return
    count = 0
    for study in free:
        with terminal.acting() as access:
            count += retention.destroy(access, study)
    terminal.done(f"已删除 {count} 个实例", f"{count} instances are deleted")


@hold_commands.command("place", help=say("保全检查", "Nothing of the study is deleted"))
def place_hold(
    study: _Study, reason: Annotated[str, typer.Option(help=say("理由", "Why"))]
) -> None:
    with terminal.acting() as access:
        come = retention.hold(access, study, reason)
    if come:
        terminal.done("已保全", "The study is held")
    else:
        terminal.done(
            f"此检查尚无任何内容：今后收到的将被保全；UID 有误则 exchange hold lift {study}",
            "Nothing is kept of this study yet: what comes under this UID will be held; "
            f"if the UID is wrong: exchange hold lift {study}",
        )


@hold_commands.command("lift", help=say("解除保全", "The rules hold for it again"))
def lift_hold(study: _Study) -> None:
    with terminal.acting() as access:
        retention.lift(access, study)
    terminal.done("已解除", "The hold is lifted")


@hold_commands.command("list", help=say("列出保全", "List the holds in force"))
def list_holds() -> None:
    zone = ZoneInfo(settings.load().timezone)
    with terminal.acting() as access:
        found = retention.holds(access)
    terminal.table(
        [
            say("检查 UID", "Study Instance UID"),
            say("理由", "Reason"),
            say("由", "By"),
            say("时间", "Since"),
        ],
        [
            [
                one.study_instance_uid,
                one.reason,
                one.placed_by,
                one.placed.astimezone(zone).isoformat(timespec="seconds"),
            ]
            for one in found
        ],
    )

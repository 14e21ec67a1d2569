"""Commands of the registry: hospitals, their users, and what patients have said of sharing."""

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any, Literal

import typer

from exchange import admission, consent, issuers, membership, organizations, users
from exchange.admission import UserIdentity
from exchange.policy import REPORTING, SHARING, Action, Role
from exchange_server import settings, terminal
from exchange_server.settings import host_port
from exchange_server.words import say
from exchange_storage.records import ApplicationEntity

organization_commands = typer.Typer(no_args_is_help=True, help=say("医院", "Hospitals"))
user_commands = typer.Typer(no_args_is_help=True, help=say("用户", "Users"))
consent_commands = typer.Typer(
    no_args_is_help=True, help=say("患者的共享意愿", "Patients' consent to sharing")
)

_ENTITY_FORM = "TITLE@ADDRESS[:PORT][#SHA256]"
_Code = Annotated[str, typer.Argument(help=say("医院代码", "Code of the hospital"))]
_Entity = Annotated[
    str, typer.Argument(metavar=_ENTITY_FORM, help=say("应用实体", "The application entity"))
]
_SEES_REJECTED = say(
    "通过 DICOMweb 只查询和调阅本院已停用的实例，供质控使用",
    "They find and get by DICOMweb what their hospital has rejected, and nothing else: for those "
    "who look after quality",
)


class _SignsIn(StrEnum):
    """The roles of users: nobody signs in as the exchange itself, or as a guest."""

    CLINICIAN = Role.CLINICIAN
    SYSTEM = Role.SYSTEM
    ADMINISTRATOR = Role.ADMINISTRATOR


_UserName = Annotated[str, typer.Argument(help=say("用户名", "User name"))]
_PublicHealth = Annotated[
    bool,
    typer.Option(
        "--public-health",
        help=say("公共卫生协议，而非诊疗共享", "The agreement on public health, not on treatment"),
    ),
]
_OrganizationCode = Annotated[
    str, typer.Option("--organization", help=say("医院代码", "Code of the hospital"))
]


@organization_commands.command("add", help=say("登记医院", "Register a hospital"))
def add_organization(
    code: Annotated[str, typer.Argument(help=say("短代码", "A short code"))],
    name: Annotated[str, typer.Option(help=say("名称", "Its name"))],
    credit_code: Annotated[
        str, typer.Option(help=say("统一社会信用代码", "Unified social credit code (GB 32100)"))
    ],
    issuer: Annotated[
        str, typer.Option(help=say("患者号发行者 OID", "OID under which it numbers patients"))
    ],
    ae: Annotated[
        list[str] | None,
        typer.Option(
            metavar=_ENTITY_FORM,
            help=say("应用实体，可重复", "An application entity; may be repeated"),
        ),
    ] = None,
    sharing: Annotated[
        bool, typer.Option(help=say("加入共享协议", "Join the sharing agreement"))
    ] = True,
) -> None:
    entities = [organizations.Entity.parse(one) for one in ae or ()]
    with terminal.acting() as access:
        organizations.register(
            access,
            code=code,
            name=name,
            credit_code=credit_code,
            issuer=issuer,
            entities=entities,
            sharing=sharing,
        )
    terminal.done(f"已登记医院 {code}", f"Registered {code}")


@organization_commands.command("list", help=say("列出医院", "List the hospitals"))
def list_organizations() -> None:
    with terminal.acting() as access:
        access.require(Action.ADMINISTER)
        everyone = organizations.everyone(access.session)
        sharing = organizations.agreements(access.session, access.now)
        callers: dict[int, list[str]] = {}
        for entity in organizations.entities(access.session):
            callers.setdefault(entity.organization_id, []).append(_shown(entity))
    terminal.table(
        [
            say("代码", "Code"),
            say("名称", "Name"),
            say("信用代码", "Credit code"),
            say("发行者", "Issuer"),
            say("共享", "Shares"),
            say("启用", "Active"),
            "AE",
            *_LIMITS,
            say("声明的用户", "Users named"),
        ],
        [
            [
                one.code,
                one.name,
                one.credit_code,
                one.issuer,
                say("是", "yes") if one.id in sharing else say("否", "no"),
                say("是", "yes") if one.active else say("否", "no"),
                " ".join(callers.get(one.id, ())),
                *_limits(admission.stated(one).limits),
                one.user_identity,
            ]
            for one in everyone
        ],
    )


def _shown(entity: ApplicationEntity) -> str:
    """As it is written, with the first digits of its certificate, and what it is sent."""
    address = host_port(entity.address, entity.port) if entity.port else entity.address
    certificate = entity.certificate_fingerprint
    sent = [
        name
        for name, wanted in (
            ("priors", entity.receives_priors),
            ("availability", entity.told_of_availability),
            ("rejected", entity.sees_rejected),
        )
        if wanted
    ]
    return (
        f"{entity.title}@{address}"
        + (f"#{certificate[:8]}…" if certificate else "")
        + (f"({','.join(sent)})" if sent else "")
    )


@organization_commands.command(
    "add-ae", help=say("登记医院的应用实体", "Register an application entity of a hospital")
)
def add_entity(
    code: _Code,
    ae: _Entity,
    priors: Annotated[
        bool, typer.Option("--priors", help=say("接收既往检查", "Priors are sent here"))
    ] = False,
    availability: Annotated[
        bool,
        typer.Option(
            "--availability",
            help=say(
                "通知可调阅的实例（IAN）",
                "It is told what can be fetched (Instance Availability Notification)",
            ),
        ),
    ] = False,
    rejected: Annotated[
        bool,
        typer.Option(
            "--rejected",
            help=say(
                "只查询和调阅本院已停用的实例，供质控使用",
                "It finds and gets what its hospital has rejected, and nothing else: for those who "
                "look after quality",
            ),
        ),
    ] = False,
    instead: Annotated[
        bool,
        typer.Option(
            "--replace",
            help=say(
                "替换同名同地址者的端口、证书及上述各项",
                "Replaces all that is registered of the one of this title and address: port, "
                "certificate and the above",
            ),
        ),
    ] = False,
) -> None:
    entity = replace(
        organizations.Entity.parse(ae),
        receives_priors=priors,
        told_of_availability=availability,
        sees_rejected=rejected,
    )
    with terminal.acting() as access:
        if instead:
            organizations.replace_entity(access, code, entity)
        else:
            organizations.add_entity(access, code, entity)
    terminal.done(f"已登记 {ae}", f"Registered {ae}")
    _say_how_it_is_known(entity, settings.load())


def _say_how_it_is_known(entity: organizations.Entity, given: settings.Settings) -> None:
    """What the fingerprint of a certificate, or the want of one, means on this node."""
    asks = given.dimse_tls_certificate is not None and given.dimse_tls_client_ca is not None
    if entity.certificate_fingerprint and not asks:
        terminal.done(
            "以证书指纹登记的实体只能经 TLS 出示该证书才被接受，而本节点不索取证书：须设置 "
            "dimse_tls_certificate 和 dimse_tls_client_ca",
            "Known by a certificate, it can call only over TLS with that certificate, and this "
            "node asks nobody for one: dimse_tls_certificate and dimse_tls_client_ca are not set",
        )
    elif not entity.certificate_fingerprint and given.dimse_tls_certificate is not None:
        terminal.done(
            "未登记证书指纹：该地址上使用此 AE 标题者皆视为该实体，TLS 亦然；向其发送时不用 TLS。"
            "以 TITLE@ADDRESS#SHA256 加 --replace 登记"
            "（openssl x509 -noout -fingerprint -sha256 -in 证书文件）",
            "No certificate fingerprint: whoever calls from that address under this title is taken "
            "for it, over TLS too, and it is called in plain. Register it as TITLE@ADDRESS#SHA256 "
            "with --replace (openssl x509 -noout -fingerprint -sha256 -in ITS_CERTIFICATE)",
        )


@organization_commands.command(
    "remove-ae",
    help=say(
        "注销应用实体：不再接受其新的连接",
        "Remove an application entity: its next association is rejected",
    ),
)
def remove_entity(code: _Code, ae: _Entity) -> None:
    entity = organizations.Entity.parse(ae)
    with terminal.acting() as access:
        organizations.remove_entity(access, code, entity)
    terminal.done(f"已注销 {ae}", f"Removed {ae}")


def _number_or_none(text: str) -> int | Literal["none"]:
    if text == "none":
        return "none"
    if not text.isascii() or not text.isdigit():
        raise typer.BadParameter(say("须为数字或 none", "it is a number, or none"))
    return int(text)


_LIMIT = {"parser": _number_or_none, "metavar": say("数|none", "NUMBER|none")}


@organization_commands.command(
    "limit",
    help=say(
        "限制医院的连接数和速率；不带选项时显示现有限制",
        "Limit a hospital's associations and rate; without options, show its limits",
    ),
)
def limit_organization(
    code: _Code,
    associations: Annotated[
        Any,
        typer.Option(
            help=say(
                "每个进程的同时连接数；none 取消限制",
                "Associations at a time, in one process; none: no limit any more",
            ),
            **_LIMIT,
        ),
    ] = None,
    rate: Annotated[
        Any,
        typer.Option(
            help=say(
                "每个进程每秒的实例数；none 取消限制",
                "Instances a second, in one process; none: no limit any more",
            ),
            **_LIMIT,
        ),
    ] = None,
) -> None:
    wanted = {"associations": associations, "rate": rate}
    changes = {
        name: None if one == "none" else one for name, one in wanted.items() if one is not None
    }
    with terminal.acting() as access:
        limits = admission.held_to(access, code).limits
        if changes:
            limits = replace(limits, **changes)
            admission.limit(access, code, limits)
    if changes:
        terminal.done(f"已设置 {code} 的限制", f"The limits of {code} are set")
    else:
        terminal.table([say("代码", "Code"), *_LIMITS], [[code, *_limits(limits)]])


_LIMITS = (say("连接数", "Associations"), say("每秒实例", "Instances a second"))


def _limits(limits: admission.Limits) -> tuple[str, str]:
    associations, rate = limits.associations, limits.rate
    return str(associations or "none"), str(rate or "none")


@organization_commands.command(
    "user-identity",
    help=say(
        "DICOM 连接中声明的用户：off 不理会，log 记入日志与审计，require 须为本院用户并经验证"
        "（口令或访问令牌），否则拒绝",
        "Users whom DICOM associations name: off passes them over, log records what is said, "
        "require wants a user of the hospital who proves it by passcode or access token",
    ),
)
def user_identity(
    code: _Code,
    rule: Annotated[UserIdentity, typer.Argument(help=say("off、log 或 require", "Which"))],
) -> None:
    with terminal.acting() as access:
        admission.name_users(access, code, rule)
    terminal.done(f"已设置 {code}：{rule}", f"{code}: {rule}")


@organization_commands.command(
    "issuer-names",
    help=say(
        "本院系统在查询中用作患者号发行者的本地名称（OID 与代码之外）；不给名称则列出",
        "What a hospital's own systems call it as the issuer of patient numbers when they ask, "
        "beside its OID and its code; without a name shows them",
    ),
)
def issuer_names(
    code: _Code,
    name: Annotated[
        list[str] | None,
        typer.Argument(help=say("名称，如影像中的 (0010,0021)", "As (0010,0021) of its images")),
    ] = None,
    none: Annotated[
        bool, typer.Option("--none", help=say("全部取消", "Take them all back"))
    ] = False,
) -> None:
    if (none and name) or "none" in (name or ()):
        raise typer.BadParameter(
            say("全部取消只用 --none，不带名称", "--none alone takes them all back")
        )
    with terminal.acting() as access:
        if none or name:
            issuers.names(access, code, name or ())
        known = issuers.called(access, code)
    if none:
        terminal.done(f"{code} 不再有发行者名称", f"{code} has no issuer names any more")
    elif name:
        said = ", ".join(known)
        terminal.done(f"{code} 的发行者名称：{said}", f"Issuer names of {code}: {said}")
    else:
        heads = [say("代码", "Code"), say("发行者名称", "Issuer name")]
        terminal.table(heads, [[code, one] for one in known])


@organization_commands.command(help=say("医院加入共享协议", "A hospital joins the agreement"))
def share(code: _Code, public_health: _PublicHealth = False) -> None:
    with terminal.acting() as access:
        organizations.join_agreement(access, code, REPORTING if public_health else SHARING)
    terminal.done(f"{code} 开始共享", f"{code} shares from now on")


@organization_commands.command(help=say("医院退出共享协议", "A hospital leaves the agreement"))
def unshare(code: _Code, public_health: _PublicHealth = False) -> None:
    with terminal.acting() as access:
        organizations.end_agreement(access, code, REPORTING if public_health else SHARING)
    terminal.done(f"{code} 停止共享", f"{code} shares no longer")


@organization_commands.command(
    "deactivate",
    help=say(
        "停用医院：拒绝其系统与用户，不再向其发送；已存的影像与资料仍按协议可见",
        "Stop a hospital: its systems and users are refused and nothing is sent to it; what it has "
        "sent stays, and others see it by the agreement as before",
    ),
)
def deactivate_organization(code: _Code) -> None:
    with terminal.acting() as access:
        membership.deactivate(access, code)
    terminal.done(f"已停用 {code}", f"{code} is stopped")


@organization_commands.command(
    "activate", help=say("重新启用医院", "Let a hospital that was stopped take part again")
)
def activate_organization(code: _Code) -> None:
    with terminal.acting() as access:
        membership.activate(access, code)
    terminal.done(f"已启用 {code}", f"{code} takes part again")


@user_commands.command("add", help=say("登记用户", "Register a user"))
def add_user(
    name: Annotated[str, typer.Argument(help=say("用户名", "User name"))],
    role: Annotated[_SignsIn, typer.Option(help=say("角色", "Role"))] = _SignsIn.CLINICIAN,
    organization: Annotated[
        str | None, typer.Option(help=say("医院代码", "Code of the hospital"))
    ] = None,
    display_name: Annotated[str, typer.Option(help=say("显示名", "Name that is shown"))] = "",
    rejected: Annotated[bool, typer.Option("--rejected", help=_SEES_REJECTED)] = False,
    password_stdin: terminal.PasswordStdin = False,
) -> None:
    password = terminal.new_password(from_stdin=password_stdin)
    with terminal.acting() as access:
        users.add(
            access,
            name=name,
            display_name=display_name,
            role=Role(role),
            organization=organization,
            password=password,
            sees_rejected=rejected,
        )
    terminal.show_password(name, password, generated=not password_stdin)
    terminal.done(f"已登记用户 {name}", f"Registered {name}")


@user_commands.command("list", help=say("列出用户", "List the users"))
def list_users() -> None:
    with terminal.acting() as access:
        everyone = users.everyone(access)
        stopped = {one.code for one in organizations.everyone(access.session) if not one.active}
    terminal.table(
        [
            say("用户名", "User name"),
            say("显示名", "Name that is shown"),
            say("角色", "Role"),
            say("医院代码", "Hospital"),
            say("可登录", "May sign in"),
            say("可见被拒", "Sees rejected"),
        ],
        [
            [
                one.name,
                one.display_name,
                one.role,
                code,
                say("是", "yes") if one.active and code not in stopped else say("否", "no"),
                say("是", "yes") if one.sees_rejected else say("否", "no"),
            ]
            for one, code in everyone
        ],
    )


@user_commands.command(help=say("更改用户所见", "Change what a user sees"))
def change(
    name: _UserName,
    rejected: Annotated[bool, typer.Option("--rejected/--no-rejected", help=_SEES_REJECTED)],
) -> None:
    with terminal.acting() as access:
        users.look_at_rejected(access, name, rejected)
    terminal.done(f"已更改 {name}", f"{name} is changed")


@user_commands.command(
    help=say("停用用户，其令牌立即失效", "Stop a user; their tokens are accepted no longer")
)
def deactivate(name: _UserName) -> None:
    with terminal.acting() as access:
        users.deactivate(access, name)
    terminal.done(f"已停用 {name}", f"{name} is stopped")


@user_commands.command(help=say("重新启用用户", "Let a user who was stopped sign in again"))
def activate(name: _UserName) -> None:
    with terminal.acting() as access:
        users.activate(access, name)
    terminal.done(f"已启用 {name}", f"{name} may sign in")


@user_commands.command(help=say("更换用户密码", "Replace a user's password"))
def password(name: _UserName, password_stdin: terminal.PasswordStdin = False) -> None:
    chosen = terminal.new_password(from_stdin=password_stdin)
    with terminal.acting() as access:
        users.set_password(access, name, chosen)
    terminal.show_password(name, chosen, generated=not password_stdin)
    terminal.done(f"已更换 {name} 的密码", f"{name} has a new password")


@consent_commands.command(
    "deny", help=say("患者不同意共享", "The patient does not consent to sharing")
)
def deny(
    organization: _OrganizationCode,
    patient: Annotated[str, typer.Option(help=say("患者号", "The hospital's patient number"))],
) -> None:
    with terminal.acting() as access:
        consent.opt_out(access, organization, patient)
    terminal.done("已记录：不共享", "Recorded: not shared")


@consent_commands.command("permit", help=say("患者重新同意共享", "The patient consents again"))
def permit(
    organization: _OrganizationCode,
    patient: Annotated[str, typer.Option(help=say("患者号", "The hospital's patient number"))],
) -> None:
    with terminal.acting() as access:
        consent.opt_in(access, organization, patient)
    terminal.done("已记录：共享", "Recorded: shared")

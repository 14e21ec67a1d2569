"""The page of the audit trail, for administrators: who looked at whom. That is recorded, too."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from exchange import organizations, trail
from exchange.access import Exchange
from exchange.errors import Invalid, NotFound
from exchange.policy import Action, Purpose, Role
from exchange_server.portal.pages import Pages, form

RECORDS = 100
"""Records that are shown, at most: the last that match."""

ACTIONS: Mapping[str, tuple[str, str]] = {
    Action.AUTHENTICATE: ("登录", "Signed in"),
    Action.STORE: ("存储", "Stored"),
    Action.SEARCH: ("查询", "Searched"),
    Action.RETRIEVE: ("调阅", "Retrieved"),
    Action.AUDIT: ("查看审计", "Read the trail"),
    Action.ADMINISTER: ("管理", "Administered"),
    Action.LINK: ("关联患者", "Linked patients"),
    Action.COMMIT: ("存储承诺", "Storage commitment"),
    Action.ORDER: ("申请", "Ordered"),
    Action.PERFORM: ("执行", "Performed"),
    Action.FORWARD: ("转发", "Forwarded"),
    Action.REJECT: ("停用", "Rejected"),
    Action.DESTROY: ("删除", "Destroyed"),
    Action.VERIFY: ("校验", "Verified"),
    Action.REVIEW: ("审核", "Reviewed"),
    Action.RECORD: ("书写记录", "Wrote a record"),
    Action.LOOK_UP: ("查名录", "Looked up"),
    Action.PUBLISH: ("发布名录", "Published"),
    Action.SCHEDULE: ("排程", "Scheduled"),
    Action.WORK: ("工作项", "Worked on"),
    Action.SHARE: ("分享", "Shared"),
    Action.HAND_OUT: ("给患者链接", "Patient's link"),
    Action.EXPORT: ("导出", "Exported"),
    Action.EXPORT_GROUP: ("导出患者组", "Exported a group"),
    Action.SUBSCRIBE: ("订阅", "Subscribed"),
}
ROLES: Mapping[str, tuple[str, str]] = {
    Role.CLINICIAN: ("医生", "clinician"),
    Role.SYSTEM: ("系统", "system"),
    Role.ADMINISTRATOR: ("管理员", "administrator"),
    Role.EXCHANGE: ("平台", "the exchange"),
    Role.GUEST: ("患者（凭链接）", "patient, by a link"),
}
PURPOSES: Mapping[str, tuple[str, str]] = {
    Purpose.TREATMENT: ("诊疗", "treatment"),
    Purpose.OPERATIONS: ("运营", "operations"),
    Purpose.PUBLIC_HEALTH: ("公共卫生", "public health"),
    Purpose.PATIENT_REQUEST: ("患者本人", "the patient's request"),
}
"""What the trail has, in Chinese and English."""


def audit(exchange: Exchange, pages: Pages) -> APIRouter:
    """Routes of the trail. What is asked for goes in a form: no number in an address."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)

    @router.get("/audit")
    def last(request: Request) -> Response:
        return _shown(exchange, pages, request, {})

    @router.post("/audit")
    def sought(request: Request, given: Annotated[dict[str, str], Depends(form)]) -> Response:
        return _shown(exchange, pages, request, given)

    return router


def _shown(
    exchange: Exchange, pages: Pages, request: Request, given: Mapping[str, str]
) -> Response:
    visitor = pages.visitor(request)
    asked = {name: given.get(name, "").strip()[:64] for name in ("who", "hospital", "number")}
    found, wrong = [], ""
    own = visitor.requester.organization
    hospitals = []
    try:
        with exchange.on_behalf_of(visitor.requester) as access:
            access.require(Action.AUDIT)
            hospitals = list(organizations.everyone(access.session))
            chosen = next((one.code for one in hospitals if one.id == own), asked["hospital"])
            found = list(
                trail.records(
                    access,
                    limit=RECORDS,
                    requester=asked["who"],
                    patient=(chosen, asked["number"]) if asked["number"] else None,
                )
            )
    except (NotFound, Invalid) as error:
        wrong = str(error)
    names = {one.id: one.name for one in hospitals}
    return pages.page(
        request,
        "audit.html",
        status=404 if wrong else 200,
        asked=asked,
        hospitals=hospitals if own is None else [],
        records=[
            {
                **one,
                "at": datetime.fromisoformat(one["recorded"]),
                "hospital": names.get(one["organization"], ""),
                "studies": trail.studies(one),
            }
            for one in found
        ],
        full=len(found) == RECORDS,
        most=RECORDS,
        actions=ACTIONS,
        roles=ROLES,
        purposes=PURPOSES,
        wrong=wrong,
    )

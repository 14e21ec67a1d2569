"""The pages of administrators: of one hospital, and of those who run the exchange."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from exchange import (
    conflicts,
    deliveries,
    discrepancies,
    ledger,
    operation,
    organizations,
    routing,
    traffic,
)
from exchange.access import Access, Exchange
from exchange.errors import Invalid
from exchange.policy import Action
from exchange.traffic import Hour
from exchange_server.portal.charts import Bars, bars
from exchange_server.portal.language import Words, spoken
from exchange_server.portal.pages import PREFIX, Number, Pages, form
from exchange_server.readiness import Readiness
from exchange_storage.records import Organization

GAPS = 50
CONFLICTS = 20
DELIVERIES = 50
"""Of each as many are shown; how many there are beyond that, the page says."""

DAYS = 14
"""Days of growth that are drawn."""

SETTLEMENTS: dict[str, Callable[[Access, int], None]] = {
    "promote": conflicts.promote,
    "keep": conflicts.keep,
    "discard": conflicts.discard,
}
"""What an administrator decides of a conflict."""


def administration(exchange: Exchange, pages: Pages) -> APIRouter:
    """Routes for administrators: whoever is none is refused by the verbs."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)
    readiness = Readiness(exchange)

    @router.get("/hospital")
    def hospital(request: Request) -> Response:
        visitor = pages.visitor(request)
        words = spoken(request)
        day = _day(request.query_params.get("day", ""), pages)
        with exchange.on_behalf_of(visitor.requester) as access:
            access.require(Action.ADMINISTER)
            choice = _administered(access)
            chosen = request.query_params.get("hospital") or (choice[0].code if choice else "")
            shown = organizations.administered(access, chosen) if chosen else None
            if shown is None:
                return pages.page(request, "hospital.html", shown=None, choice=choice)
            hours = traffic.of_day(access, day, shown.code, timezone=pages.timezone)
            (line,) = ledger.lines(
                access, day, day, timezone=pages.timezone, organization=shown.code
            )
            gaps = ledger.gaps(
                access,
                day,
                timezone=pages.timezone,
                organization=shown.code,
                limit=GAPS + 1,
                missing=True,
            )
            waiting = [
                one for one in conflicts.waiting(access, limit=1000) if one.sender == shown.code
            ]
            pairs = {one.number: conflicts.pair(access, one.number) for one in waiting[:CONFLICTS]}
            unlike = discrepancies.waiting(access, organization=shown.code, limit=1000)
            routes = [one for one in routing.everything(access) if one.organization == shown.code]
            undelivered = [
                one for one in deliveries.waiting(access) if one.organization == shown.code
            ]
        return pages.page(
            request,
            "hospital.html",
            shown=shown,
            choice=choice,
            day=day,
            hours=hours,
            chart=_traffic(hours, words),
            line=line,
            gaps=[gap for _, gap in gaps[:GAPS]],
            more_gaps=len(gaps) > GAPS,
            waiting=waiting,
            pairs=pairs,
            unlike=unlike[:CONFLICTS],
            unlike_in_all=len(unlike),
            routes=routes,
            undelivered=undelivered[:DELIVERIES],
            undelivered_in_all=len(undelivered),
        )

    @router.post("/hospital/conflicts/{number}")
    def settle(
        request: Request, number: Number, given: Annotated[dict[str, str], Depends(form)]
    ) -> Response:
        visitor = pages.visitor(request)
        verb = SETTLEMENTS.get(given.get("how", ""))
        if verb is None:
            raise Invalid("a conflict is promoted, kept or discarded")
        with exchange.on_behalf_of(visitor.requester) as access:
            verb(access, number)
        return RedirectResponse(_back(given), 303)

    @router.post("/hospital/discrepancies/{number}")
    def identify(
        request: Request, number: Number, given: Annotated[dict[str, str], Depends(form)]
    ) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            discrepancies.settle(access, number, given.get("how", ""))
        return RedirectResponse(_back(given), 303)

    @router.post("/hospital/deliveries/{number}")
    def deliver(
        request: Request, number: Number, given: Annotated[dict[str, str], Depends(form)]
    ) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            deliveries.retry(access, number)
        return RedirectResponse(_back(given), 303)

    @router.get("/operation")
    def operate(request: Request) -> Response:
        visitor = pages.visitor(request)
        words = spoken(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            state = operation.state(access, days=DAYS, timezone=pages.timezone)
        wrong = readiness.parts()
        labels = [f"{one.day:%m-%d}" for one in state.growth]
        return pages.page(
            request,
            "operation.html",
            state=state,
            wrong=wrong,
            instances=bars(
                Bars(
                    words.say("每日新增实例", "Instances a day"),
                    labels,
                    [("", [one.instances for one in state.growth])],
                    every=2,
                )
            ),
            growth=bars(
                Bars(
                    words.say("每日新增字节", "Bytes a day"),
                    labels,
                    [("", [one.size for one in state.growth])],
                    every=2,
                )
            ),
            queues=bars(
                Bars(
                    words.say("任务队列", "Queues"),
                    [one.kind for one in state.queues],
                    [
                        (words.say("等待", "waiting"), [one.waiting for one in state.queues]),
                        (words.say("放弃", "given up"), [one.given_up for one in state.queues]),
                    ],
                )
            ),
        )

    @router.post("/operation/jobs/{number}")
    def again(
        request: Request, number: Number, _: Annotated[dict[str, str], Depends(form)]
    ) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            operation.retry(access, number)
        return RedirectResponse(f"{PREFIX}/operation", 303)

    return router


def _administered(access: Access) -> Sequence[Organization]:
    """The hospitals whose administrator the asker is."""
    own = access.requester.organization
    return [one for one in organizations.everyone(access.session) if own is None or one.id == own]


def _traffic(hours: Sequence[Hour], words: Words) -> str:
    return bars(
        Bars(
            words.say("每小时实例与调阅", "Instances and retrievals by the hour"),
            [f"{one.hour}" for one in hours],
            [
                (words.say("收到实例", "instances received"), [one.received for one in hours]),
                (words.say("本院调阅", "fetched by us"), [one.fetched for one in hours]),
                (
                    words.say("他院调阅", "fetched by others"),
                    [one.fetched_by_others for one in hours],
                ),
            ],
            every=3,
        )
    )


def _day(stated: str, pages: Pages) -> date:
    """Raises Invalid."""
    if not stated:
        return datetime.now(pages.timezone).date()
    try:
        return date.fromisoformat(stated)
    except ValueError:
        raise Invalid("a date is written YYYYMMDD") from None


def _back(given: dict[str, str]) -> str:
    code = given.get("hospital", "")
    known = code.isascii() and code.replace("-", "").isalnum()
    return f"{PREFIX}/hospital" + (f"?hospital={code}" if known else "")

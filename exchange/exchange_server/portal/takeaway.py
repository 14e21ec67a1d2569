"""Taking a study along: asking for its files, fetching them, and seeing how far that has come."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

import logging
import time
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from exchange import exports, query, retrieval
from exchange.access import Exchange
from exchange.errors import ExchangeError
from exchange.exports import State
from exchange.keys import segment
from exchange.policy import Requester
from exchange_dicom import taking_along
from exchange_dicom.resources import uid
from exchange_dicom.taking_along import Progress
from exchange_dicom.web_answers import streamed
from exchange_server.portal.pages import HEADERS, PREFIX, Number, Pages, form

EVERY = 0.5
"""Seconds between two notes of how far an export has come, at least."""


def takeaway(exchange: Exchange, pages: Pages) -> APIRouter:
    """Routes of exports."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)

    @router.post("/studies/{study}/exports")
    def ask(
        request: Request, study: str, given: Annotated[dict[str, str], Depends(form)]
    ) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            made = exports.ask(
                access, uid(study), without_names=given.get("without_names") == "yes"
            )
        return RedirectResponse(f"{PREFIX}/exports/{made.id}", 303)

    @router.get("/exports/{number}")
    def follow(request: Request, number: Number) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            export = exports.of(access, number)
        part = "progress.html" if request.headers.get("hx-request") else "export.html"
        return pages.page(request, part, export=export, over=export.state in _OVER)

    @router.get("/exports/{number}/file")
    def fetch(request: Request, number: Number) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            export = exports.of(access, number)
            found = query.study(access, export.study_instance_uid)
            (listed,) = query.contents(access, [found]).values()
            selected, receiver = retrieval.as_known(
                access,
                retrieval.instances(access, export.study_instance_uid, purpose="files"),
            )
        noting = Noting(exchange, visitor.requester, number, len(selected.instances))
        pieces = taking_along.archived(
            selected,
            receiver,
            listed,
            without_names=export.without_names,
            advanced=noting.advanced,
        )
        named = segment(export.study_instance_uid)
        headers = {
            **HEADERS,
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'self'",
            "Content-Type": "application/zip",
            "Content-Disposition": f'attachment; filename="{named}.zip"',
        }
        return streamed(noting.whole(pieces), headers)

    return router


_OVER = frozenset({State.COMPLETE, State.BROKEN})


class Noting:
    """Writes down how far an export has come, for whoever looks, in whatever process."""

    def __init__(
        self, exchange: Exchange, requester: Requester, number: int, instances: int
    ) -> None:
        self._exchange = exchange
        self._requester = requester
        self._number = number
        self._progress = Progress(instances)
        self._noted = 0.0

    def advanced(self, progress: Progress) -> None:
        """One more instance has gone out."""
        self._progress = progress
        if time.monotonic() - self._noted >= EVERY:
            self._note(State.SENDING)

    def whole(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces; at their end, or when nobody takes them any more, it is written down."""
        state = State.BROKEN
        self._note(State.SENDING)
        try:
            yield from pieces
            state = State.COMPLETE
        finally:
            self._note(state)

    def _note(self, state: State) -> None:
        self._noted = time.monotonic()
        done = self._progress
        try:
            with self._exchange.on_behalf_of(self._requester) as access:
                exports.came_to(
                    access, self._number, state, sent=done.sent, instances=done.instances
                )
        except ExchangeError as error:  # the files go out all the same
            log = logging.getLogger(__name__)
            log.warning("the progress of an export was not noted: %s", type(error).__name__)

"""A web process rehearses before it takes connections: nobody asks it the usual questions.

What the first request of a kind has made (what a route depends on, the words of its statements, the
definitions of FHIR) costs ten times and more what the request itself does. Each door names its
usual questions, about a patient, study or resource that is nowhere. They are asked of the
application itself for `policy.REHEARSAL`, who reaches no record and is recorded nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus

from fastapi import Request
from starlette.types import ASGIApp, Message, Scope

from exchange.policy import REHEARSAL, Requester
from exchange_server.authentication import Identify

_MARK = "exchange.rehearsal"
"""In the scope of a request that is rehearsed. A server makes scopes itself: nothing that a client
sends becomes a key of one."""

log = logging.getLogger(__name__)


def is_one(scope: Scope) -> bool:
    """Whether nobody has sent this request."""
    return _MARK in scope


def identify(who: Identify, door: str) -> Identify:
    """`who`, for requests that somebody has sent."""
    nobody = replace(REHEARSAL, door=door)

    def known(request: Request) -> Requester:
        return nobody if is_one(request.scope) else who(request)

    return known


async def rehearse(
    app: ASGIApp, questions: Iterable[str], told_to_stop: Callable[[], bool]
) -> dict[str, int]:
    """Ask them one after another; what status each was answered with.

    None follows where the index does not answer, or the process is told to stop. What fails is
    logged: it will be told to whoever asks it.
    """
    answered: dict[str, int] = {}
    for question in questions:
        if told_to_stop():
            break
        try:
            answered[question] = await _status(app, question)
        except Exception:
            log.exception("a rehearsed question failed")
            continue
        if answered[question] == HTTPStatus.SERVICE_UNAVAILABLE:
            break
    return answered


async def _status(app: ASGIApp, question: str) -> int:
    path, _, query = question.partition("?")
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
        _MARK: True,
    }
    await app(scope, receive, send)
    return status

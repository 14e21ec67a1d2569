"""Which route a request takes: only those are tried that its path can lead to.

A router tries its routes one after another, and all doors together have hundreds: that took longer
than many an answer. How many segments a path has, and the first of them, tell most of the routes of
a door apart.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

_SEVERAL = ":path}"
"""How a parameter is written that may hold several segments."""

_Place = tuple[int, str]
"""The number of segments, and the first."""

_ELSEWHERE = (0, "")


class Shelves(BaseRoute):
    """The routes of a router under a prefix, by where their paths can lead."""

    def __init__(self, router: APIRouter, prefix: str) -> None:
        self._prefix = prefix
        around = APIRouter()
        around.include_router(router, prefix=prefix)
        self.routes = around.routes
        """All of them, under the prefix."""
        places = {_place(path) for route in router.routes if (path := _path(route))}
        self._shelves = {
            place: _included([one for one in router.routes if _leads(one, place)], prefix)
            for place in {*places, *((depth, "") for depth, _ in places), _ELSEWHERE}
        }

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether one of the routes serves the path, and what it adds to the scope."""
        if not scope["path"].startswith(self._prefix):
            return Match.NONE, {}
        return self._shelf(scope).matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        await self._shelf(scope).handle(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """The path of a route. Raises NoMatchFound."""
        return self.routes[0].url_path_for(name, **path_params)

    def _shelf(self, scope: Scope) -> BaseRoute:
        depth, first = _place(scope["path"][len(self._prefix) :])
        for place in ((depth, first), (depth, "")):
            if (shelf := self._shelves.get(place)) is not None:
                return shelf
        return self._shelves[_ELSEWHERE]


def _path(route: BaseRoute) -> str:
    """The path as it is written; "" where it says nothing of how many segments there will be."""
    path: str = getattr(route, "path", "")
    return "" if _SEVERAL in path else path


def _place(path: str) -> _Place:
    first = path[1:].partition("/")[0]
    return path.count("/"), "" if first.startswith("{") else first


def _leads(route: BaseRoute, place: _Place) -> bool:
    """Whether a path at this place can be the route's."""
    if not (path := _path(route)):
        return True
    depth, first = _place(path)
    return depth == place[0] and first in ("", place[1])


def _included(routes: list[BaseRoute], prefix: str) -> BaseRoute:
    around = APIRouter()
    around.include_router(APIRouter(routes=routes), prefix=prefix)
    return around.routes[0]

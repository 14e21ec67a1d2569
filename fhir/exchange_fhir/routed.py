"""Which route serves a request (FHIR R4 3.1.0): one table, by the door and in Bundles alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.routing import BaseRoute, Route

from exchange_fhir.definitions import search_parameters
from exchange_fhir.outcome import Problem

WRITING = ("/{kind}", "/{kind}/{logical_id}")
"""The addresses by which one resource is created, updated, patched or deleted."""


@dataclass(frozen=True, slots=True)
class Found:
    """A route, and what it takes out of the path."""

    route: Route
    given: Mapping[str, str]

    @property
    def writes(self) -> bool:
        """Whether it is one of the interactions that change one resource."""
        return self.route.path in WRITING and "GET" not in (self.route.methods or ())

    @property
    def operation(self) -> str:
        """The name of the operation whose route it is, or ""."""
        named = (one for one in self.route.path.split("/") if one.startswith("$"))
        return next(named, "")


class Table:
    """The routes of a door, in the order in which they are asked."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = [one for one in routes if isinstance(one, Route)]
        self._operations = [one for one in self._routes if operation(one.path)]

    def find(self, method: str, path: str) -> Found:
        """What serves a request; `path` begins with a slash. Raises Problem where nothing does."""
        # What is called $… is none of the routes of resources.
        for one in self._operations if operation(path) else self._routes:
            if method in (one.methods or ()) and (found := one.path_regex.match(path)):
                return Found(one, found.groupdict())
        raise self.refusal(method, path)

    def refusal(self, method: str, path: str) -> Problem:
        """What is wrong with a request that no route serves."""
        if name := operation(path)[:64]:
            methods = {
                method: None
                for one in self._operations
                for method in sorted(one.methods or ())
                if one.path_regex.match(path)
            }
            if methods:
                allow = ", ".join(methods)
                return Problem(405, "not-supported", f"{name} is asked for by {allow}", allow=allow)
            told = f"the operation {name} is not supported here; see metadata"
            return Problem(404, "not-supported", told)
        return _refusal(method, path.removeprefix("/"))


def operation(path: str) -> str:
    """The operation that a path names, or ""."""
    last = path.rpartition("/")[2]
    return last if last.startswith("$") else ""


def _refusal(method: str, path: str) -> Problem:
    kind, *rest = path.split("/")
    match rest:
        case _ if path == "metadata":
            allow = "GET"
        case _ if path and kind not in search_parameters.kinds():
            return Problem(404, "not-supported", "nothing is served here; see metadata")
        case []:
            allow = "GET, POST, PUT, PATCH, DELETE" if path else "GET, POST"
        case ["_search"]:
            allow = "POST"
        case [_]:
            allow = "GET, PUT, PATCH, DELETE"
        case [_, "_history"] | [_, "_history", _]:
            allow = "GET"
        case _:
            told = "this interaction is not supported; see metadata"
            return Problem(404, "not-supported", told)
    told = f"{method} is not supported here; see metadata"
    return Problem(405, "not-supported", told, allow=allow)

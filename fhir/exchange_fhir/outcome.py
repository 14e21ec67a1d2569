"""OperationOutcome (FHIR R4 10.5): what every error is called, tabulated, and its answer."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from fastapi import Response
from starlette.exceptions import HTTPException

from exchange import errors
from exchange_fhir.datatypes import Json, present

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/fhir+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP status and IssueType code (value set issue-type)."""

    http: int
    code: str


HTTP: Mapping[type[errors.ExchangeError], Answer] = {
    errors.NotAuthenticated: Answer(401, "login"),
    errors.Refused: Answer(403, "forbidden"),
    errors.NotFound: Answer(404, "not-found"),
    errors.Gone: Answer(410, "deleted"),
    errors.Invalid: Answer(400, "invalid"),
    errors.UnknownPatient: Answer(422, "not-found"),
    errors.Conflicting: Answer(409, "conflict"),
    errors.Stale: Answer(412, "conflict"),
    errors.TooBroad: Answer(400, "too-costly"),
    errors.TooLarge: Answer(413, "too-long"),
    errors.NoRoom: Answer(507, "no-store"),
    errors.Unavailable: Answer(503, "transient"),
}

HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": 'Bearer realm="fhir"'},
    503: {"Retry-After": "5"},
}


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong with a resource, and where."""

    code: str
    """IssueType (value set issue-type)."""
    told: str
    expression: str = ""
    """The element, as FHIRPath: ``Patient.name[0].family``."""
    severity: str = "error"


class Problem(Exception):
    """What is wrong with a request as HTTP or as FHIR, before the exchange is asked anything."""

    def __init__(
        self, http: int, code: str, told: str, *, allow: str = "", issues: Sequence[Issue] = ()
    ) -> None:
        super().__init__(told)
        self.answer = Answer(http, code)
        self.allow = allow
        """The methods that would do, for 405."""
        self.issues = tuple(issues) or (Issue(code, told),)


def of_issues(issues: Sequence[Issue]) -> Json:
    """The OperationOutcome of `issues`."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [
            present(
                severity=one.severity,
                code=one.code,
                diagnostics=one.told,
                expression=[one.expression] if one.expression else None,
            )
            for one in issues
        ],
    }


def outcome(severity: str, code: str, told: Sequence[str]) -> Json:
    """An OperationOutcome of one issue for each text in `told`."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": severity, "code": code, "diagnostics": one} for one in told],
    }


def response(error: Exception) -> Response:
    """The answer to a request that ended in `error`; what is unexpected is logged and not told."""
    headers: dict[str, str] = {}
    told = str(error)
    match error:
        case errors.ExchangeError():
            answer = next(HTTP[kind] for kind in type(error).__mro__ if kind in HTTP)
        case Problem():
            answer = error.answer
            # Whoever serves this asks HEAD of GET (RFC 9110 9.3.2).
            allow = re.sub(r"\bGET\b", "GET, HEAD", error.allow)
            headers = {"Allow": allow} if allow else {}
        case HTTPException():
            answer, told = Answer(error.status_code, "invalid"), error.detail
        case _:
            # The message and its arguments may hold patient data: log the places only.
            frames = reversed(traceback.extract_tb(error.__traceback__)[-6:])
            where = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in frames)
            log.error("unexpected %s at %s", type(error).__name__, where)
            answer = Answer(500, "exception")
            told = "something unexpected happened; the operators' log has the place"
    headers |= HEADERS.get(answer.http, {})
    issues = error.issues if isinstance(error, Problem) else (Issue(answer.code, told),)
    content = orjson.dumps(of_issues(issues))
    return Response(content, answer.http, headers | {"Cache-Control": "no-store"}, MEDIA_TYPE)

"""Invoke Image Display (IHE RAD TF-2 4.106, RAD-106): another system opens a patient or studies.

What is asked is looked for like any question, decided and audited; what is found opens in the
viewer, or is offered where a patient has several studies. Whoever is not signed in comes back here
from the page for that. `patientName` is not used, since systems write it in different ways; any
`viewerType` is the one viewer there is, which shows what is diagnostic in full quality.
"""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from exchange import query
from exchange.access import Exchange
from exchange.errors import Invalid, NotFound
from exchange.policy import Requester
from exchange.query import Found
from exchange_dicom.query import question
from exchange_server.portal.pages import HEADERS, Pages
from exchange_server.viewer.viewer import DOOR, opening
from exchange_storage.search import Level

LAUNCHES = ("/iid", "/IHEInvokeImageDisplay")
"""Where it is launched: the second is the profile's own name."""

STUDIES = 100
"""Studies of a patient that are offered, at most: the newest."""

OPENED = 10
"""Studies that are opened at once, at most."""

_PARAMETERS = frozenset(
    {
        "requestType",
        "patientID",
        "patientName",
        "patientBirthDate",
        "lowerDateTime",
        "upperDateTime",
        "mostRecentResults",
        "modalitiesInStudy",
        "studyUID",
        "accessionNumber",
        "viewerType",
        "diagnosticQuality",
        "keyImagesOnly",
    }
)
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Asked:
    """A launch, as matching keys."""

    keys: tuple[tuple[str, str], ...]
    recent: int
    """How many of the newest are to be opened; 0: one chooses."""
    study: str = ""
    """The one study that is asked for by its UID, so that a refusal can say why."""


def launch(exchange: Exchange, pages: Pages) -> APIRouter:
    """The route of a launch, to be mounted under each of `LAUNCHES`."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)

    @router.get("")
    def invoke(request: Request) -> Response:
        requester = replace(pages.visitor(request).requester, door=DOOR)
        asked = read(_once(request.query_params.multi_items()), pages.timezone)
        found = _find(exchange, requester, asked, request.url.query)
        if asked.recent or len(found) == 1 or asked.keys[0][0] != "PatientID":
            number = asked.recent or OPENED
            uids = [one.study.study_instance_uid for one in found[:number] if one.study]
            return RedirectResponse(opening(uids), 303, HEADERS)
        return pages.page(request, "launch.html", found=found, opening=opening)

    return router


def read(given: Mapping[str, str], timezone: ZoneInfo) -> Asked:
    """The parameters of a launch; times without a zone are the hospitals'. Raises Invalid."""
    if given.get("keyImagesOnly", "false").lower() != "false":
        raise Invalid("key images cannot be shown alone: leave out keyImagesOnly")
    match given.get("requestType", ""):
        case "STUDY":
            return _studies(given)
        case "PATIENT":
            return Asked(tuple(_patient(given, timezone)), _recent(given))
        case _:
            raise Invalid("requestType is STUDY or PATIENT")


def _studies(given: Mapping[str, str]) -> Asked:
    uids, accessions = given.get("studyUID", ""), given.get("accessionNumber", "")
    if bool(uids) is bool(accessions):
        raise Invalid("a STUDY is named by studyUID or by accessionNumber")
    named = [one.strip() for one in (uids or accessions).split(",") if one.strip()]
    if not named or len(named) > OPENED:
        raise Invalid(f"from 1 to {OPENED} studies can be opened at once")
    if uids:
        if not all(_UID.fullmatch(one) for one in named):
            raise Invalid("studyUID is a UID, or several with commas between them")
        alone = named[0] if len(named) == 1 else ""
        return Asked((("StudyInstanceUID", "\\".join(named)),), 0, alone)
    return Asked(tuple(("AccessionNumber", _literal(one)) for one in named), 0)


def _patient(given: Mapping[str, str], timezone: ZoneInfo) -> Iterator[tuple[str, str]]:
    number, issuer = _identifier(given.get("patientID", ""))
    yield "PatientID", number
    if issuer:
        yield "IssuerOfPatientID", issuer
    if born := given.get("patientBirthDate", ""):
        yield "PatientBirthDate", f"{_moment(born, timezone, late=False):%Y%m%d}"
    if modalities := given.get("modalitiesInStudy", ""):
        yield "ModalitiesInStudy", _literal(modalities)
    lower, upper = given.get("lowerDateTime", ""), given.get("upperDateTime", "")
    if lower or upper:
        low = _moment(lower, timezone, late=False) if lower else None
        high = _moment(upper, timezone, late=True) if upper else None
        yield "StudyDate", "-".join(f"{one:%Y%m%d}" if one else "" for one in (low, high))
        yield "StudyTime", "-".join(f"{one:%H%M%S}" if one else "" for one in (low, high))


def _identifier(text: str) -> tuple[str, str]:
    """Number and issuer of an HL7 CX, ``ID^^^namespace&OID&ISO``. Raises Invalid."""
    number, *rest = text.split("^")
    authority = (rest[2] if len(rest) > 2 else "").split("&")
    issuer = authority[1] if len(authority) > 1 and authority[1] else authority[0]
    if not number.strip():
        raise Invalid("a PATIENT is named by patientID, a number or ID^^^&OID&ISO")
    return _literal(number.strip()), issuer.strip()


def _literal(text: str) -> str:
    """What means itself alone. Raises Invalid."""
    if set(text) & set("*?\\"):
        raise Invalid("a launch names what it means: without wildcards")
    return text


def _moment(text: str, timezone: ZoneInfo, *, late: bool) -> datetime:
    """A date or date-time (RFC 3339), as the hospitals' clocks show it; a date's end if `late`."""
    try:
        if len(text) <= 10:
            day = date.fromisoformat(text)
            start = datetime(day.year, day.month, day.day, tzinfo=timezone)
            return start + timedelta(days=1, seconds=-1) if late else start
        found = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that was not encoded
        return found.astimezone(timezone) if found.tzinfo else found
    except (ValueError, OverflowError):
        raise Invalid("a date is 2026-11-01, a moment 2026-11-01T08:00:00") from None


def _recent(given: Mapping[str, str]) -> int:
    text = given.get("mostRecentResults") or "0"
    if not re.fullmatch("[0-9]{1,2}", text) or int(text) > OPENED:
        raise Invalid(f"mostRecentResults is a number from 0 to {OPENED}")
    return int(text)


def _once(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Raises Invalid for a parameter that is unknown, or given twice."""
    known = dict(given)
    if len(known) != len(given) or not known.keys() <= _PARAMETERS:
        raise Invalid("a launch has the parameters of RAD-106, each once")
    return known


def _find(
    exchange: Exchange, requester: Requester, asked: Asked, as_it_came: str
) -> tuple[Found, ...]:
    """The studies, newest first. Raises NotFound, Refused, Invalid."""
    with exchange.on_behalf_of(requester) as access:
        found: list[Found] = []
        for keys in _questions(asked):
            criteria = question(access, Level.STUDY, keys, combined=True).criteria
            answer = query.find(access, Level.STUDY, criteria, limit=STUDIES, asked=as_it_came)
            found += answer.found
        if not found and asked.study:
            query.study(access, asked.study)  # which says why it cannot be seen
        if not found:
            raise NotFound("no study that you may see matches this launch")
    return tuple(found)


def _questions(asked: Asked) -> Iterator[tuple[tuple[str, str], ...]]:
    """Several accession numbers are a question each, all else is one."""
    if asked.keys[0][0] == "AccessionNumber":
        yield from ((one,) for one in asked.keys)
    else:
        yield asked.keys

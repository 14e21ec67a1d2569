"""The page of a study: its series, its reports, its documents, and what to compare it with."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from exchange import priors, query, retrieval, sop_classes, timeline
from exchange.access import Exchange
from exchange.errors import Invalid, NotFound
from exchange.policy import Role
from exchange.query import Contents
from exchange.reports import logical_id
from exchange.retrieval import Held
from exchange.sop_classes import ENCAPSULATED_CDA, ENCAPSULATED_PDF
from exchange.timeline import RecordEntry, StudyEntry, Wanted
from exchange_dicom import media_types, series_metadata, structured_report, web_rendered
from exchange_dicom.rendering import Presentation
from exchange_dicom.resources import Root, uid
from exchange_dicom.structured_report import Report
from exchange_dicom.web_rendered import PDF, Subject
from exchange_fhir import summary
from exchange_server.portal.pages import FRAMED, Pages
from exchange_server.portal.patients import DICOMWEB
from exchange_server.viewer.viewer import opening

REPORTS = 6
"""Reports that are shown on the page of their study; others have pages of their own."""

PRIORS = 100
"""Studies of the same person that are offered for comparison."""

COMPARED = 4
"""Studies beside each other in the viewer, at most."""


@dataclass(frozen=True, slots=True)
class Document:
    """A report or an encapsulated document of a study."""

    series_instance_uid: str
    sop_instance_uid: str
    description: str
    report: Report | None
    """None for a document that is shown as it is, or that has a page of its own."""
    pdf: bool
    record: str = ""
    """Logical id of the record that was made of it, for a CDA document; else ""."""


def studies(exchange: Exchange, pages: Pages) -> APIRouter:
    """Routes about one study."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)
    reading = summary.said(pages.timezone)

    @router.get("/studies/{study}")
    def show(request: Request, study: str) -> Response:
        visitor = pages.visitor(request)
        guest = visitor.requester.role is Role.GUEST
        held: dict[str, Held] = {}
        with exchange.on_behalf_of(visitor.requester) as access:
            found = query.study(access, uid(study))
            (contents,) = query.contents(access, [found]).values()
            documents = _documents(study, contents)
            if guest:  # whose link leads to no record
                documents = [one for one in documents if not one.record]
            reports = [one for one in documents if not (one.pdf or one.record)][:REPORTS]
            for one in reports:
                read = retrieval.instances(
                    access, study, one.series_instance_uid, one.sop_instance_uid, purpose="report"
                )
                held[one.sop_instance_uid] = read.instances[0]
            of_person = None
            if not guest:
                of_person = timeline.of(
                    access, found.patient.id, Wanted(), limit=PRIORS, reading=reading
                )
        entries = of_person.entries if of_person else ()
        return pages.page(
            request,
            "study.html",
            found=found,
            guest=guest,
            study=found.study,
            series=_with_images(contents),
            documents=[_with_report(one, held.get(one.sop_instance_uid)) for one in documents],
            others=_alike(contents, entries, study),
            said=[
                one for one in entries if isinstance(one, RecordEntry) and study in one.said.studies
            ],
            names=[one[0].name for one in of_person.records] if of_person else [found.patient.name],
            withheld=of_person.withheld if of_person else (),
            pictures=DICOMWEB,
        )

    @router.get("/studies/{study}/reports/{series}/{instance}")
    def report(request: Request, study: str, series: str, instance: str) -> Response:
        visitor = pages.visitor(request)
        with exchange.on_behalf_of(visitor.requester) as access:
            found = query.study(access, uid(study))
            read = retrieval.instances(access, study, uid(series), uid(instance), purpose="report")
        (one,) = read.instances
        if not sop_classes.is_structured_report(one.sop_class_uid):
            raise NotFound("this is not a report")
        return pages.page(
            request, "report.html", found=found, study=found.study, report=_report(one)
        )

    @router.get("/studies/{study}/documents/{series}/{instance}")
    def document(request: Request, study: str, series: str, instance: str) -> Response:
        visitor = pages.visitor(request)
        answer = web_rendered.rendered(
            exchange,
            visitor.requester,
            Root(DICOMWEB),
            Subject(uid(study), uid(series), uid(instance)),
            Presentation(),
            accept=media_types.parse(PDF),
            if_none_match="",
        )
        answer.headers["Content-Disposition"] = "inline"
        answer.headers.update(FRAMED)
        return answer

    @router.get("/compare")
    def compare(request: Request) -> Response:
        pages.visitor(request)
        named = [uid(one) for one in request.query_params.getlist("study")]
        if not 1 <= len(named) <= COMPARED:
            raise Invalid(f"up to {COMPARED} studies can be seen side by side")
        return RedirectResponse(opening(named), 303)

    return router


def _with_images(contents: Sequence[Contents]) -> Sequence[Contents]:
    """Of series those that hold images, with the images alone."""
    only = (
        replace(
            one,
            instances=tuple(
                each for each in one.instances if sop_classes.is_image(each.sop_class_uid)
            ),
        )
        for one in contents
    )
    return [one for one in only if one.instances]


def _alike(
    contents: Sequence[Contents], entries: Sequence[object], study: str
) -> Sequence[StudyEntry]:
    """The person's other studies, most alike first (`priors.relevance`), of those the newest."""
    shown = {(one.series.modality, one.series.body_part) for one in contents}

    def unlike(other: StudyEntry) -> int:
        modalities, parts = other.found.summary.modalities, set(other.body_parts)
        return -max((priors.relevance(*one, modalities, parts) for one in shown), default=0)

    others = (one for one in entries if isinstance(one, StudyEntry))
    return sorted((one for one in others if one.study.study_instance_uid != study), key=unlike)


def _documents(study: str, contents: Sequence[Contents]) -> Sequence[Document]:
    return [
        Document(
            one.series.series_instance_uid,
            instance.sop_instance_uid,
            one.series.series_description,
            None,
            instance.sop_class_uid == ENCAPSULATED_PDF,
            logical_id(study, instance.sop_instance_uid)
            if instance.sop_class_uid == ENCAPSULATED_CDA
            else "",
        )
        for one in contents
        for instance in one.instances
        if sop_classes.is_report(instance.sop_class_uid)
    ]


def _with_report(document: Document, held: Held | None) -> Document:
    if held is None or held.damaged:  # its own page says so
        return document
    return replace(document, report=_report(held))


def _report(held: Held) -> Report:
    """Raises Unavailable."""
    return structured_report.read(series_metadata.describe(held, Root(DICOMWEB)))

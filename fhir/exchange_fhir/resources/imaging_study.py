"""ImagingStudy (FHIR R4 12.5): a study as its owner sent it, down to its instances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

from exchange import anatomic_regions, query, related
from exchange.errors import Invalid
from exchange.orders import Fulfilled
from exchange.query import Contents, Found
from exchange_fhir.datatypes import (
    DCM,
    DICOM_UID,
    SNOMED,
    URI,
    Json,
    code,
    coding,
    concept,
    display_name,
    instant,
    moment,
    number,
    present,
    reference,
    text,
)
from exchange_fhir.resources import endpoint, patient
from exchange_fhir.search import (
    EVERYTHING,
    NOTHING,
    LastChanged,
    Parameter,
    Recorded,
    Scope,
    Table,
    Token,
    date,
    token,
)
from exchange_fhir.search import reference as referring
from exchange_storage.records import Study
from exchange_storage.search import (
    AllOf,
    AnyOf,
    BodyPart,
    Contains,
    Criterion,
    Holds,
    Level,
    Match,
    ModalitiesInStudy,
    Not,
    Ordered,
    Owned,
    Pattern,
    SamePerson,
    Values,
)

OTHER_MODALITY = "OT"
"""Series.modality is required; where the sender gave none it is Other (PS3.3 C.7.3.1.1.1)."""

LATERALITY = {
    "R": coding(SNOMED, "24028007", "Right"),
    "L": coding(SNOMED, "7771000", "Left"),
}


def to_fhir(
    found: Found,
    contents: Iterable[Contents],
    timezone: ZoneInfo,
    orders: Iterable[Fulfilled] = (),
) -> Json:
    """The ImagingStudy of a study; it is the same for every asker, so it can be kept.

    `orders` are those that have led to it. `timezone` is the hospitals' (PS3.3 leaves it out of
    dates and times, a dateTime needs it).
    """
    study = held(found)
    told = [_series(one, found.owner.code, timezone) for one in contents]
    modalities = sorted({str(one["modality"]["code"]) for one in told})
    return present(
        resourceType="ImagingStudy",
        id=study.study_instance_uid,
        meta={"versionId": str(study.revision), "lastUpdated": instant(study.changed)},
        identifier=_identifiers(found, study),
        status="available",
        modality=[coding(DCM, modality) for modality in modalities],
        subject=reference("Patient", found.patient.id),
        started=moment(study.study_date, study.study_time, timezone),
        basedOn=[
            reference("ServiceRequest", one.request)
            | {"identifier": _accession(found, one.accession_number)}
            for one in orders
        ],
        referrer=present(display=display_name(study.referring_physician_name)),
        endpoint=[reference("Endpoint", endpoint.identity(found.owner))],
        numberOfSeries=len(told),
        numberOfInstances=sum(one["numberOfInstances"] for one in told),
        description=text(study.study_description),
        series=told,
    )


def held(found: Found) -> Study:
    """The study of a match at study level."""
    if found.study is None:
        raise ValueError("not a match at study level")
    return found.study


def _identifiers(found: Found, study: Study) -> list[Json]:
    uid = {"use": "official", "system": DICOM_UID, "value": f"urn:oid:{study.study_instance_uid}"}
    accession = text(study.accession_number)
    if not accession:
        return [uid]
    return [uid, _accession(found, accession)]


def _accession(found: Found, accession: str) -> Json:
    # The owner's numbers stand in one system; the type says which of them this is.
    return {
        "type": concept("v2-0203", "ACSN"),
        "system": f"urn:oid:{found.owner.issuer}",
        "value": text(accession),
        "assigner": reference("Organization", found.owner.code),
    }


def _series(contents: Contents, owner: str, timezone: ZoneInfo) -> Json:
    series = contents.series
    return present(
        uid=series.series_instance_uid,
        number=number(series.series_number),
        modality=coding(DCM, code(series.modality) or OTHER_MODALITY),
        description=text(series.series_description),
        numberOfInstances=len(contents.instances),
        endpoint=[reference("Endpoint", endpoint.PREFIX + owner)],
        bodySite=_body_site(text(series.body_part)),
        laterality=LATERALITY.get(series.laterality.strip()),
        started=moment(series.series_date, series.series_time, timezone),
        instance=[
            present(
                uid=instance.sop_instance_uid,
                sopClass=coding(URI, f"urn:oid:{instance.sop_class_uid}"),
                number=number(instance.instance_number),
            )
            for instance in contents.instances
        ],
    )


def _body_site(part: str) -> Json:
    code = anatomic_regions.CODED.get(part)
    return coding(SNOMED, code, part) if code else present(display=part)


def named(ids: Sequence[str]) -> Criterion:
    """The studies with these logical ids."""
    return Match("StudyInstanceUID", Values(tuple(ids)))


def _identifier(scope: Scope, asked: Token) -> Criterion:
    owner = scope.issuer(asked.system) if asked.system else None
    if not asked.code:
        if not asked.system:
            raise Invalid("an identifier needs a system or a value")
        numbered = Match("AccessionNumber", Pattern("?*"))
        of_owner = AllOf((Owned((owner.id,)), numbered)) if owner else NOTHING
        return EVERYTHING if asked.system == DICOM_UID else of_owner
    study = Match("StudyInstanceUID", Values((_uid(asked.code),)))
    accession = Match("AccessionNumber", Values((asked.code,)))
    if asked.system == DICOM_UID:
        return study
    if asked.system is None:
        return AnyOf((study, accession))
    return AllOf((Owned((owner.id,)), accession)) if owner else NOTHING


def typed(code: str, system: str | None) -> list[Criterion]:
    """Studies that are told to have an identifier of a type, ``ACSN|number``: see `_accession`."""
    kind, _, accession = code.partition("|")
    known = system in {None, patient.IDENTIFIER_TYPES} and kind == "ACSN"
    return [Match("AccessionNumber", Values((accession,)))] if known else []


def _patient(scope: Scope, identity: str) -> Criterion:
    # Whose record somebody may not see, of that record they must not learn whose it is either.
    rows = query.seen(scope.access, patient.rows(identity))
    return AnyOf(tuple(SamePerson(row) for row in sorted(rows)))


def _status(_: Scope, asked: Token) -> Criterion:
    return EVERYTHING if asked.code == "available" else NOTHING


def _modality(_: Scope, asked: Token) -> Criterion:
    found = ModalitiesInStudy(Values((asked.code,)))
    if asked.code != OTHER_MODALITY:
        return found
    return AnyOf((found, Holds((Match("Modality", Values(("",))),))))  # told of as such


def _of_body_part(_: Scope, asked: Token) -> Criterion:
    """By SNOMED CT, whose codes before 2023 lead to the same term; or by that term itself."""
    part = anatomic_regions.TERMS.get(asked.code)
    if part is None and asked.system is None:
        part = asked.code
    return Holds((BodyPart(Values((part,))),)) if part else NOTHING


def _holds(keyword: str, documentation: str) -> Parameter[Criterion]:
    def read(_: Scope, asked: Token) -> Criterion:
        return Holds((Match(keyword, Values((_uid(asked.code),))),))

    return token(read, documentation, systems=(URI, DICOM_UID))


def _endpoint(scope: Scope, identity: str) -> Criterion:
    owner = scope.organization(identity.removeprefix(endpoint.PREFIX))
    known = owner is not None and identity.startswith(endpoint.PREFIX)
    return Owned((owner.id,)) if owner and known else NOTHING


def _based_on(scope: Scope, identity: str) -> Criterion:
    return based_on(scope, [identity])


def based_on(scope: Scope, requests: Sequence[str]) -> Criterion:
    """The studies that have come of these ServiceRequests."""
    found = related.results(scope.access, requests)
    return named(sorted(found)) if found else NOTHING


def _uid(value: str) -> str:
    return value.removeprefix("urn:oid:")


_PERSON = (
    "A patient: the studies of the same person at every hospital, as far as the asker may see "
    "them; a Patient that the asker may not see has none. Also chained: patient.identifier"
)

SEARCH: Table[Criterion] = Table(
    documentation=(
        "One ImagingStudy for each study, its logical id the Study Instance UID; the owner is the "
        "managingOrganization of its subject."
    ),
    parameters={
        "_id": token(
            lambda _, asked: Match("StudyInstanceUID", Values((asked.code,))), "Study Instance UID"
        ),
        "_lastUpdated": date(LastChanged(Level.STUDY), "When the study last changed"),
        "identifier": token(
            _identifier,
            f"Study Instance UID (system {DICOM_UID}, with or without urn:oid:) or accession "
            "number (system urn:oid: and the hospital's issuer)",
        ),
        "patient": referring("Patient", _patient, _PERSON),
        "subject": referring("Patient", _patient, _PERSON),
        "status": token(
            _status, "Always available", systems=("", "http://hl7.org/fhir/imagingstudy-status")
        ),
        "started": date(
            Recorded("StudyDate", "StudyTime"),
            "When it started, in the hospitals' time zone",
            there=Not(Match("StudyDate", Values(("",)))),
        ),
        "modality": token(
            _modality, f"A modality of one of its series (system {DCM})", systems=(DCM,)
        ),
        "bodysite": token(
            _of_body_part,
            f"The body part of one of its series: a code of {SNOMED}, or without a system the term "
            "of Body Part Examined (PS3.16 annex L); :text what the series says of it",
            Holds((BodyPart(Pattern("?*")),)),
            told=lambda said: Holds((BodyPart(Contains(said)),)),
            systems=(SNOMED,),
        ),
        "series": _holds("SeriesInstanceUID", "Series Instance UID of one of its series"),
        "instance": _holds("SOPInstanceUID", "SOP Instance UID of one of its instances"),
        "dicom-class": _holds("SOPClassUID", "SOP Class UID of one of its instances"),
        "endpoint": referring("Endpoint", _endpoint, "The owner's endpoint"),
        "basedon": referring(
            "ServiceRequest",
            _based_on,
            "The order that led to it: a ServiceRequest",
            there=Ordered(),
        ),
    },
    told={
        "bodysite": Holds((Not(BodyPart(Values(("",)))),)),
        "referrer": Match("ReferringPhysicianName", Pattern("?*")),
    },
    sorts={
        "_id": "uid",
        "_lastUpdated": "changed",
        "dicom-class": "class",
        "identifier": "identifiers",
        "instance": "instance",
        "modality": "modality",
        "patient": "patient",
        "series": "series",
        "started": "started",
        "subject": "patient",
    },
)

"""Reports: what structured reports and encapsulated documents of a study say, as resources kept.

The dicom floor reads an instance into a `Report` or `Document` (PS3.3 C.17 and C.24), the fhir
floor makes drafts of resources of it, and this keeps them: anew when they have changed, and no
longer when the instance has gone. Only the exchange itself does so; nobody else changes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import bindparam, exists, or_, select
from sqlalchemy.orm import Session

from exchange.access import Access
from exchange.errors import Refused
from exchange.policy import Role
from exchange.recording import ACTS, Act, Derive, Draft, Forget, several
from exchange.sop_classes import ENCAPSULATED_CDA, ENCAPSULATED_PDF, STRUCTURED
from exchange_storage.prepared import Prepared
from exchange_storage.records import Instance, Resource, Series, Study
from exchange_storage.rows import as_list, one_of

KINDS = ("Binary", "DiagnosticReport", "DocumentReference", "Observation")
"""Of which resources are made of a study's reports."""


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded concept (PS3.3 section 8): code value, scheme designator, meaning."""

    code: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A content item with what is below it (PS3.3 C.17.3)."""

    relationship: str
    value_type: str
    concept: Concept | None = None
    said: str = ""
    """Of TEXT, UIDREF, PNAME, DATE and DATETIME items."""
    code: Concept | None = None
    number: str = ""
    """Of a NUM item, as it was written."""
    unit: Concept | None = None
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A structured report."""

    sop_instance_uid: str
    title: Concept | None
    is_complete: bool
    is_preliminary: bool
    is_verified: bool
    date: str
    """Content Date, YYYYMMDD."""
    time: str
    accession_number: str
    verifiers: tuple[str, ...]
    """Names of those who verified it, as PN."""
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An encapsulated document."""

    sop_instance_uid: str
    title: str
    concept: Concept | None
    media_type: str
    date: str
    time: str
    accession_number: str
    content: bytes | None = field(repr=False)
    """None where it is too large to be kept a second time."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Of whom, and to which study, reports are: row number, and Study Instance UID."""

    patient: int
    study_instance_uid: str


def subjects(access: Access, studies: Sequence[int]) -> dict[int, Subject]:
    """Those of the studies, by row numbers, that have reports, or of whose reports something is
    still kept; each with of whom it is. Raises Refused for anybody but the exchange.
    """
    if access.requester.role is not Role.EXCHANGE:
        raise Refused("only the exchange itself derives resources from reports")
    rows = _STUDIES.all(access.session.connection(), {"wanted": as_list(studies)})
    return {
        row.id: Subject(row.patient_id, row.study_instance_uid)
        for row in rows
        if row.reports or _held(access.session, row.study_instance_uid)
    }


_SAYING = or_(
    Instance.sop_class_uid.startswith(STRUCTURED, autoescape=True),
    Instance.sop_class_uid == ENCAPSULATED_PDF,
    Instance.sop_class_uid == ENCAPSULATED_CDA,
)
_STUDIES = Prepared(
    lambda dialect: select(
        Study.id,
        Study.patient_id,
        Study.study_instance_uid,
        exists(
            select(Instance.id)
            .join(Series, Series.id == Instance.series_id)
            .where(Series.study_id == Study.id, Instance.is_primary, _SAYING)
        ).label("reports"),
    ).where(one_of(Study.id, "wanted", dialect))
)


def logical_id(study_instance_uid: str, sop_instance_uid: str, number: int = 0) -> str:
    """The logical id of what is made of an instance; those of a study begin alike."""
    of_instance = hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:24]
    return f"{_prefix(study_instance_uid)}{of_instance}" + (f"-{number}" if number else "")


def keep(access: Access, study_instance_uid: str, drafts: Sequence[Draft]) -> int:
    """Have `drafts` be all that is kept of a study's reports; returns how many have changed.

    Raises Refused for anybody but the exchange.
    """
    if access.requester.role is not Role.EXCHANGE:
        raise Refused("only the exchange itself derives resources from reports")
    wanted = {(one.kind, one.logical_id) for one in drafts}
    acts: list[Act] = [Derive(one) for one in drafts]
    acts += [
        Forget(kind, named)
        for kind, named in _held(access.session, study_instance_uid)
        if (kind, named) not in wanted
    ]
    kept = [
        one for at in range(0, len(acts), ACTS) for one in several(access, acts[at : at + ACTS])
    ]
    return sum(one.made for one in kept)


def _held(session: Session, study_instance_uid: str) -> list[tuple[str, str]]:
    prefix = _prefix(study_instance_uid)
    behind = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    rows = _HELD.all(session.connection(), {"prefix": prefix, "behind": behind})
    return [(row.kind, row.logical_id) for row in rows]


_HELD = Prepared(
    select(Resource.kind, Resource.logical_id)
    .where(
        or_(*(Resource.kind == kind for kind in KINDS)),
        Resource.logical_id >= bindparam("prefix"),
        Resource.logical_id < bindparam("behind"),
        Resource.organization_id.is_(None),
        ~Resource.deleted,
    )
    .order_by(Resource.id)
)


def _prefix(study_instance_uid: str) -> str:
    return f"{hashlib.sha256(study_instance_uid.encode()).hexdigest()[:24]}-"

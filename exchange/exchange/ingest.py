"""Receiving instances: from a sender's bytes to a durable object and its row, answered only then.

    with exchange.on_behalf_of(sender) as access, ingest.begin(access) as incoming:
        for piece in pieces:
            incoming.write(piece)
        receipt = ingest.receive(access, incoming, instance)

The object comes before the row, or in the same commit where it is small: a crash between the two
leaves an object that `exchange check` names, never a row without its object. Every reception is
one of four cases, see `Outcome`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import Table, bindparam, case, insert, select, update
from sqlalchemy.orm import Session

from exchange import demographics, destruction, jobs, keys, rejection, targets
from exchange.access import Access
from exchange.demographics import clipped
from exchange.errors import Invalid, TooLarge, Unavailable
from exchange.policy import Action
from exchange.rejection import Note
from exchange_storage.objects import Bytes, Staged, Stored
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Change,
    Conflict,
    Instance,
    Patient,
    Record,
    RequestAttributes,
    Series,
    Study,
)
from exchange_storage.search import ATTRIBUTES, Kind, Level

QUIET = timedelta(seconds=1)
"""How long after an instance the study's derived documents are refreshed."""

MAX_REQUESTS = 32
"""Requests of a series that are indexed, at most."""

ASIDE = 64 << 10
"""Bytes from which a row is written while its object becomes durable."""

REJECTED_BEFORE = "the hospital has rejected this instance"

_UID = re.compile(r"[0-9.]{1,64}")
_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


# Built once: putting a statement together costs SQLAlchemy more than SQLite takes to run it.
_HELD = Prepared(
    select(Instance.digest, Instance.is_primary, Instance.organization_id, Conflict.reason)
    .outerjoin(Conflict, Conflict.instance_id == Instance.id)
    .where(Instance.sop_instance_uid == bindparam("uid"))
)
_BARRED = Prepared(select(destruction.GOING.label("going"), rejection.REJECTED.label("rejected")))
_KNOWN = (
    Study.id.label("study_row"),
    Study.study_instance_uid,
    Study.patient_id.label("patient_row"),
    Patient.organization_id,
    *(a.column for a in ATTRIBUTES.values() if a.level is Level.PATIENT),
)
_SERIES = Prepared(
    select(Series.id.label("series_row"), *_KNOWN)
    .join(Study, Study.id == Series.study_id)
    .join(Patient, Patient.id == Study.patient_id)
    .where(Series.series_instance_uid == bindparam("uid"))
)
_STUDY = Prepared(
    select(*_KNOWN)
    .join(Patient, Patient.id == Study.patient_id)
    .where(Study.study_instance_uid == bindparam("uid"))
)
_PATIENT = Prepared(
    select(
        Patient.id.label("patient_row"),
        Patient.withdrawn,
        *(a.column for a in ATTRIBUTES.values() if a.level is Level.PATIENT),
    ).where(
        Patient.organization_id == bindparam("organization"),
        Patient.patient_id == bindparam("number"),
        # As the partial index says it, so that it is used.
        Patient.patient_id != "",
    )
)


def _insert(record: type[Record], *keys: str) -> Prepared:
    """An INSERT of whole records, but for their `id`; gives back `keys`."""
    table = cast(Table, record.__table__)
    columns = [column.key for column in table.columns if column.key not in {"id", "sequence"}]
    given = insert(table)
    return Prepared(given.returning(*(table.c[key] for key in keys)) if keys else given, columns)


_ADD_INSTANCE = _insert(Instance, "id")
_ADD_SERIES = _insert(Series, "id")
_ADD_STUDY = _insert(Study, "id")
_ADD_REQUEST = _insert(RequestAttributes)
_ADD_PATIENT = _insert(Patient, "id")
_ADD_CHANGE = _insert(Change)
_AT = bindparam("at", type_=Study.changed.type)
_TOUCH_STUDY = Prepared(
    update(Study)
    .where(Study.id == bindparam("study"))
    .values(
        # Clocks of two nodes differ; what somebody polls for must not go back.
        changed=case((Study.changed > _AT, Study.changed), else_=_AT),
        revision=Study.revision + 1,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a door read of an instance: no protocol left in it, DICOM's vocabulary kept."""

    attributes: Mapping[str, str]
    """Decoded text by DICOM keyword, of those in `search.ATTRIBUTES`; absent ones left out."""
    identifiers: tuple[tuple[str, str], ...] = ()
    """Other numbers of the patient, as (issuer or "", value)."""
    requests: tuple[tuple[str, str], ...] = ()
    """Requested Procedure ID and Scheduled Procedure Step ID of each request for the series."""
    region: str = ""
    """The anatomic region that it codes, in the words of Body Part Examined."""
    transfer_syntax_uid: str
    character_set: str = ""
    character_set_repair: Mapping[str, str] | None = None


class Outcome(StrEnum):
    """What became of an instance that was received; each may be answered with success."""

    KEPT = "kept"
    HELD = "held already"
    """The same bytes again, from the hospital that sent them before: nothing was added."""
    CONFLICT = "kept for review"
    """Kept beside the primary instance, not served until someone has looked."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The instance is durable: what became of it, and why it is in conflict if it is."""

    outcome: Outcome
    reason: str = ""


@dataclass(slots=True)
class Incoming:
    """An instance on its way in; discarded unless it was received."""

    staged: Staged
    limit: int
    written: int = field(default=0, init=False)

    def write(self, piece: Bytes) -> None:
        """Append bytes of the object. Raises TooLarge; NoRoom and Unavailable through access."""
        self.written += len(piece)
        if self.written > self.limit:
            raise TooLarge(f"an instance may have at most {self.limit} bytes")
        self.staged.write(piece)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self.staged.discard()


class _BeingRemoved(Unavailable):
    """The same bytes were deleted, and their object is on its way out."""


def begin(access: Access, *, limit: int = 8 << 30) -> Incoming:
    """Begin to receive an instance of at most `limit` bytes. Raises Refused, NoRoom."""
    access.require(Action.STORE)
    return Incoming(access.objects.stage(), limit)


def receive(
    access: Access, incoming: Incoming, received: Received, *, note: Note | None = None
) -> Receipt:
    """Keep an instance: object, then row, audit record, change and jobs in one commit, into which
    a small object goes too.

    A rejection `note` that the instance is, is followed in the same commit.

    Raises Invalid (nothing kept) when an attribute without which it cannot be found again is
    missing or is not a UID; NoRoom, Unavailable.
    """
    uids = {}
    for keyword in _KEYS:
        uids[keyword] = received.attributes.get(keyword, "")
        if not uids[keyword]:
            raise Invalid(f"{keyword} is missing")
        if not _UID.fullmatch(uids[keyword]):
            raise Invalid(f"{keyword} is not a UID of at most 64 digits and dots")
    digest = incoming.staged.digest
    study, series, instance = (uids[keyword] for keyword in _KEYS[:3])
    key = keys.of_instance(study, series, instance, digest)
    carried = _carried(access, incoming)
    row = {
        "organization_id": access.organization,
        "key": key,
        "digest": digest,
        "size": incoming.written,
        "source": access.requester.name,
        "verified": None,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "character_set": received.character_set[:255],
        "character_set_repair": received.character_set_repair,
        **_columns(Level.IMAGE, received.attributes),
    }

    def unit(session: Session) -> Receipt:
        receipt = _index(access, session, received, dict(row), carried)
        if note is not None and receipt.outcome is Outcome.KEPT:
            rejection.apply(access, session, note, row["sop_instance_uid"])
        return receipt

    keeps = carried is None
    try:
        receipt = _kept_and_written(access, incoming, key, unit) if keeps else access.write(unit)
    except _BeingRemoved as going:
        if keeps:  # it may be kept again by now, after it was removed
            access.write(lambda session: destruction.remove_again(session, instance, key))
        raise Unavailable(str(going)) from going  # every door has an answer for that
    if not keeps and receipt.outcome is Outcome.HELD:
        _keep_again(access, incoming, instance, key)
    return receipt


def _keep_again(access: Access, incoming: Incoming, sop_instance_uid: str, key: str) -> None:
    """Keep what is held already, and may have been lost since; for no longer than its row.

    Raises StoreFull, StoreUnavailable, Unavailable.
    """
    incoming.staged.keep(key)
    with access.exchange.database.reading() as session:
        needed = destruction.needed(session, {key: sop_instance_uid})
    if not needed:  # its row was deleted meanwhile, and its object perhaps before this
        access.write(lambda session: destruction.remove_again(session, sop_instance_uid, key))


def _kept_and_written(
    access: Access, incoming: Incoming, key: str, unit: Callable[[Session], Receipt]
) -> Receipt:
    """Keep the object and write its row, which is committed only once the object is durable.

    Another thread writes the row while this one waits for the disk, since statements hardly let go
    of the interpreter. Not of a small object, which takes longer than is won, nor while others
    commit: what is kept meanwhile no commit has to wait for. Raises StoreFull, StoreUnavailable.
    """
    if incoming.written < ASIDE or access.exchange.committing:
        incoming.staged.keep(key)
        return access.write(unit)
    kept: Future[Stored] = Future()
    written = access.exchange.writing.submit(access.write, unit, after=kept.result)
    try:
        kept.set_result(incoming.staged.keep(key))
    except BaseException as error:
        kept.set_exception(error)  # and it is what the unit of work ends with
    return written.result()


def _carried(access: Access, incoming: Incoming) -> bytes | None:
    """The bytes of what is so small that the index carries it, durable with its row."""
    if not access.objects.carries(incoming.written):
        return None
    with incoming.staged.reader() as reader:
        return reader.read()


def _index(
    access: Access,
    session: Session,
    received: Received,
    row: dict[str, Any],
    carried: bytes | None,
) -> Receipt:
    """The unit of work. Its moment is now, not when the first byte came: changes are in order."""
    now = datetime.now(UTC)
    row["received"] = now
    uid, study_uid = row["sop_instance_uid"], received.attributes["StudyInstanceUID"]
    connection = session.connection()
    held = _HELD.all(connection, {"uid": uid})
    detail = {"instance": uid, "digest": row["digest"]}
    for known in held:
        if (known.digest, known.organization_id) == (row["digest"], access.organization):
            again = (
                Receipt(Outcome.HELD)
                if known.is_primary or rejection.is_note(session, access.organization, uid)
                else _for_review(known.reason or REJECTED_BEFORE)
            )
            access.note(Action.STORE, reason=Outcome.HELD, study=study_uid, detail=detail)
            return again
    barred = _BARRED.first(
        connection,
        {
            "uid": uid,
            "key": row["key"],
            "since": access.now,
            "organization": access.organization,
        },
    )
    if barred.going:
        raise _BeingRemoved("the same object is being removed just now; send it again")
    place = (
        "another instance has this SOP Instance UID"
        if any(known.is_primary and known.digest != row["digest"] for known in held)
        else REJECTED_BEFORE
        if barred.rejected
        else place_of(access, session, access.organization, received, now)
    )
    if carried is not None:
        access.objects.carry(connection, row["key"], carried)
    if isinstance(place, str):
        return _conflict(access, session, received, row, place)
    instance_id = _ADD_INSTANCE.number(
        connection, row | {"series_id": place.series, "is_primary": True}
    )
    _TOUCH_STUDY.run(connection, {"study": place.study, "at": now})
    _announce(session, "create", instance_id, received, now)
    jobs.ask(session, jobs.REFRESH, str(place.study), now + QUIET)
    access.note(
        Action.STORE, reason=Outcome.KEPT, patient=place.patient, study=study_uid, detail=detail
    )
    return Receipt(Outcome.KEPT)


def _for_review(reason: str) -> Receipt:
    return Receipt(Outcome.CONFLICT, reason)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance belongs: row numbers."""

    patient: int
    study: int
    series: int


def place_of(
    access: Access, session: Session, organization: int, received: Received, now: datetime
) -> Place | str:
    """Study, series and patient rows for the hospital's instance, made where missing; or why it has
    none. In the transaction of `session`.

    Nothing is made where there is a reason: an instance may not bring itself into a study of
    another patient or hospital.
    """
    attributes = received.attributes
    number = clipped(attributes.get("PatientID", ""))
    connection = session.connection()
    study_uid, series_uid = attributes["StudyInstanceUID"], attributes["SeriesInstanceUID"]
    series = _SERIES.first(connection, {"uid": series_uid})
    if series is not None and series.study_instance_uid != study_uid:
        return "the series belongs to another study"
    study = series or _STUDY.first(connection, {"uid": study_uid})
    if study is not None and study.organization_id != organization:
        return "the study belongs to another organization"
    if study is not None and study.patient_id != number:
        return "the study belongs to another patient"
    if study is None:
        patient_row = _patient(access, session, organization, received, number, now)
        study_row = _ADD_STUDY.number(
            connection,
            {
                "patient_id": patient_row,
                "received": now,
                "changed": now,
                "revision": 1,
                **_columns(Level.STUDY, attributes),
            },
        )
        demographics.know_persons(session, _persons(Level.STUDY, attributes))
        targets.follow(session, targets.STUDY, study_uid)
    else:
        study_row, patient_row = study.study_row, study.patient_row
        if _tells_more(session, study, received):
            _complete(access, session, session.get_one(Patient, patient_row), received, now)
    if series is None:
        series_row = _ADD_SERIES.number(
            connection,
            {
                "study_id": study_row,
                "received": now,
                "anatomic_region": clipped(received.region),
                **_columns(Level.SERIES, attributes),
            },
        )
        demographics.know_persons(session, _persons(Level.SERIES, attributes))
        if received.requests:
            _ADD_REQUEST.run_many(connection, _requests(series_row, received))
    else:
        series_row = series.series_row
    return Place(patient_row, study_row, series_row)


def _requests(series: int, received: Received) -> list[dict[str, Any]]:
    return [
        {
            "series_id": series,
            "position": position,
            "requested_procedure_id": clipped(procedure),
            "scheduled_procedure_step_id": clipped(step),
        }
        for position, (procedure, step) in enumerate(received.requests[:MAX_REQUESTS], 1)
    ]


def register_patient(
    access: Access, session: Session, organization: int, received: Received
) -> int:
    """The row of the hospital's patient of whom `received` tells: found and completed, or made.

    In the transaction of `session`, for whoever tells of a patient without an image.
    """
    number = clipped(received.attributes.get("PatientID", ""))
    return _patient(access, session, organization, received, number, datetime.now(UTC))


def _patient(
    access: Access,
    session: Session,
    organization: int,
    received: Received,
    number: str,
    now: datetime,
) -> int:
    """The patient record with the hospital's `number`: found and completed, or made."""
    connection = session.connection()
    given = {"organization": organization, "number": number}
    known = _PATIENT.first(connection, given) if number else None
    if known is not None:
        if known.withdrawn:  # it has come back
            session.get_one(Patient, known.patient_row).withdrawn = False
            session.flush()
        if _tells_more(session, known, received):
            record = session.get_one(Patient, known.patient_row)
            _complete(access, session, record, received, now)
        return int(known.patient_row)
    told = _columns(Level.PATIENT, received.attributes)
    row = _ADD_PATIENT.number(
        connection,
        {
            "organization_id": organization,
            "created": now,
            "changed": now,
            "person_id": None,
            "replaced_by_id": None,
            "withdrawn": False,
            **told,
        },
    )
    demographics.add_names(session, row, demographics.name_keys(told["name"]))
    demographics.know_persons(session, _persons(Level.PATIENT, received.attributes))
    if identifiers := demographics.identifiers(received.identifiers):
        demographics.add_identifiers(session, row, identifiers)
        demographics.identify(access, session, session.get_one(Patient, row), now)
    return row


def _tells_more(session: Session, known: Any, received: Received) -> bool:
    """Whether the instance says anything of the patient that the row `known` lacks."""
    told = received.attributes
    return any(
        told.get(keyword)
        for column, keyword, *_ in _COLUMNS[Level.PATIENT]
        if not getattr(known, column)
    ) or bool(demographics.new_identifiers(session, known.patient_row, received.identifiers))


def _complete(
    access: Access, session: Session, patient: Patient, received: Received, now: datetime
) -> None:
    """Add what the record lacks. What is known of a patient is completed, never replaced."""
    told = _columns(Level.PATIENT, received.attributes)
    missing = {k: v for k, v in told.items() if v and not getattr(patient, k)}
    for column, value in missing.items():
        setattr(patient, column, value)
    if "name" in missing:
        present = demographics.names_of(session, patient.id)
        demographics.add_names(session, patient.id, demographics.name_keys(patient.name) - present)
    demographics.know_persons(session, _persons(Level.PATIENT, received.attributes))
    identifiers = demographics.new_identifiers(session, patient.id, received.identifiers)
    demographics.add_identifiers(session, patient.id, identifiers)
    if missing or identifiers:
        patient.changed = now
        session.flush()
        demographics.identify(access, session, patient, now)


def _conflict(
    access: Access,
    session: Session,
    received: Received,
    row: dict[str, Any],
    reason: str,
) -> Receipt:
    instance_id = _ADD_INSTANCE.number(
        session.connection(), row | {"series_id": None, "is_primary": False}
    )
    session.execute(
        insert(Conflict).values(
            instance_id=instance_id,
            reason=reason,
            claimed=dict(received.attributes),
            raised=row["received"],
            settlement="",
        )
    )
    _announce(session, "conflict", instance_id, received, row["received"])
    access.note(
        Action.STORE,
        reason=f"{Outcome.CONFLICT}: {reason}",
        study=received.attributes["StudyInstanceUID"],
        detail={"instance": row["sop_instance_uid"], "digest": row["digest"]},
    )
    return _for_review(reason)


def _announce(
    session: Session, action: str, instance_id: int, received: Received, at: datetime
) -> None:
    attributes = received.attributes
    _ADD_CHANGE.run(
        session.connection(),
        {
            "recorded": at,
            "action": action,
            "instance_id": instance_id,
            "study_instance_uid": attributes["StudyInstanceUID"],
            "series_instance_uid": attributes["SeriesInstanceUID"],
            "sop_instance_uid": attributes["SOPInstanceUID"],
        },
    )


def _columns(level: Level, attributes: Mapping[str, str]) -> dict[str, Any]:
    """The columns of the level's record, from the attributes that the instance came with."""
    told = attributes.get
    return {
        column: _number(told(keyword, "")) if number else clipped(told(keyword, ""), length)
        for column, keyword, number, length in _COLUMNS[level]
    }


_COLUMNS: Mapping[Level, tuple[tuple[str, str, bool, int], ...]] = {
    level: tuple(
        (
            attribute.column.key,
            keyword,
            attribute.kind is Kind.NUMBER,
            4096 if keyword == "PatientAddress" else 255,
        )
        for keyword, attribute in ATTRIBUTES.items()
        if attribute.level is level
    )
    for level in Level
}
"""Of the record of each level: column, keyword, whether it is a number, characters kept."""


def _persons(level: Level, attributes: Mapping[str, str]) -> list[str]:
    """The names of others than the patient, as they are kept at this level."""
    return [clipped(attributes.get(keyword, "")) for keyword in _PERSONS[level]]


_PERSONS: Mapping[Level, tuple[str, ...]] = {
    level: tuple(
        keyword
        for keyword, attribute in ATTRIBUTES.items()
        if attribute.level is level and attribute.kind is Kind.PERSON
    )
    for level in Level
}


def _number(text: str) -> int | None:
    """An integer as the index keeps it, or None for what is not one."""
    try:
        number = int(text.split("\\", 1)[0])
    except ValueError:
        return None
    return number if 0 <= number < 2**31 else None

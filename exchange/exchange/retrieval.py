"""Retrieval: the objects of a study, series or instance, decided once and read through the gate."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session

from exchange import guessing, jobs, own_numbers, query, spans, subject, visibility
from exchange.access import Access, translated
from exchange.audit import Outcome, for_the_trail
from exchange.decided import DAMAGED as IS_DAMAGED
from exchange.decided import shown
from exchange.errors import Damaged, Gone, NotFound, Refused, TooBroad, Unavailable
from exchange.facts import of as facts_of
from exchange.own_numbers import Number
from exchange.policy import Action, Role
from exchange.query import facts
from exchange.spans import Span
from exchange_storage.objects import ObjectStore
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Destroyed,
    Instance,
    Organization,
    Patient,
    Rejection,
    Series,
    Study,
)
from exchange_storage.rows import Columns
from exchange_storage.search import Criterion, Level

log = logging.getLogger(__name__)

SENT = "images, sent"
"""What the trail calls it that instances have arrived somewhere, or have not."""

DAMAGED = "the instance is damaged in the archive; its hospital has to send it again"

INSTANCE_GONE = "the instance was taken out of use, or deleted by rule"

INSTANCES = 200_000
"""Instances that one question may select."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An instance that the asker may have. Its bytes can be read after the gate has closed."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    key: str
    size: int
    """Bytes of the object: Part 10 header and data set."""
    digest: str
    character_set: str
    """Specific Character Set as the data set declares it."""
    character_set_repair: Mapping[str, str] | None
    """What the index read instead, and why, where the declaration was missing or wrong."""
    rows: int | None
    """Of its image, where it says so."""
    damaged: bool = False
    """Whether a scrub has found other bytes than were received, or none: nobody reads them."""
    objects: ObjectStore

    def stream(self, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Bytes of the object from `start`, in pieces.

        Raises Unavailable, also at a piece, and instead of an end that comes too early; Damaged.
        """
        self._require_whole()
        with translated():
            pieces = self.objects.stream(self.key, start, length)
        return spans.in_our_words(pieces, self.size if not start and length is None else None)

    def lying(self, start: int = 0) -> Iterator[bytes | Span]:
        """The bytes of the object from `start`, as they lie in a file where they do.

        Raises what `stream` does, but all that can be told before the file is read at the call.
        """
        self._require_whole()
        span = spans.lying(self.objects, self.key, self.size, start)
        return self.stream(start) if span is None else iter((span,))

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """The same bytes in one piece."""
        self._require_whole()
        with translated():
            return self.objects.get(self.key, start, length)

    def _require_whole(self) -> None:
        if self.damaged:
            raise Damaged(DAMAGED)


def whole(held: Sequence[Held]) -> tuple[Held, ...]:
    """Those that can be given, of several. Raises Damaged where none can."""
    found = tuple(one for one in held if not one.damaged)
    if held and not found:
        raise Damaged(DAMAGED)
    return found


def there(held: Sequence[Held]) -> tuple[Held, ...]:
    """Those of several whose objects are there: of an answer that has begun none can be left out.

    What came lately may be on its way from another machine, or lost before a scrub looked. Raises
    Unavailable where none is.
    """
    if len(held) < 2:
        return tuple(held)  # which tells it when it is read, before its first byte
    with translated():
        missing = held[0].objects.missing([one.key for one in held])
    if not missing:
        return tuple(held)
    log.warning("%d objects are not in the store, one is %s", len(missing), min(missing))
    if found := tuple(one for one in held if one.key not in missing):
        return found
    raise Unavailable("the objects are missing from the store; the operators must look")


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was asked for: the instances in order of series and instance number."""

    owner: Organization
    patient: Patient
    study: Study
    instances: tuple[Held, ...]


def instances(
    access: Access,
    study_instance_uid: str,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    *,
    purpose: str = "images",
    part: Mapping[str, str] | None = None,
) -> Retrieved:
    """The primary instances of a study, of one of its series, or one of them; or those that the
    asker's hospital has rejected, to who looks at these.

    `purpose` says in the audit trail what is read of them: ``images``, ``metadata``, and `part`
    which part. Raises NotFound when the study is unknown or nothing of it matches, Gone where all
    that did was rejected or deleted, Refused with the policy's reason where the asker may know of
    it (see `guessing`).
    """
    access.require(Action.RETRIEVE, narrowed=True, study=study_instance_uid)
    row = _ABOUT.first(access.session.connection(), {"study": study_instance_uid})
    if row is None:
        raise NotFound(guessing.NO_STUDY)
    patient, owner, study = _SUBJECT.records(row)
    subject = {"patient": patient.id, "study": study_instance_uid}
    about = facts(access, patient, study_instance_uid, series_instance_uid)
    with guessing.to_those_who_know(access, patient, study_instance_uid):
        access.require(Action.RETRIEVE, about, **subject)
    narrowed = access.requester.narrowed(series_instance_uid)
    found = _primary(access, study, narrowed, sop_instance_uid)
    if not found:
        asked = study_instance_uid, narrowed, sop_instance_uid
        if not access.requester.rejected and was_served(access.session, *asked):
            if sop_instance_uid:
                raise Gone(INSTANCE_GONE)
            raise Gone("all of it was taken out of use, or deleted by rule")
        if sop_instance_uid and access.requester.organization == owner.id:
            given = {"study": study_instance_uid, "instance": sop_instance_uid, "owner": owner.id}
            if _CAME_REJECTED.first(access.session.connection(), given) is not None:
                raise Gone(INSTANCE_GONE)
        raise NotFound("no such instance in the study" if sop_instance_uid else "no such series")
    access.note(
        Action.RETRIEVE,
        detail={
            "what": purpose,
            "series": series_instance_uid,
            "instance": sop_instance_uid,
            "instances": len(found),
            "bytes": sum(held.size for held in found),
            **(part or {}),
            **({"damaged": damaged} if (damaged := sum(one.damaged for one in found)) else {}),
            **({"rejected": True} if access.requester.rejected else {}),
        },
        **subject,
    )
    return Retrieved(owner, patient, study, found)


def series_of(access: Access, retrieved: Retrieved) -> tuple[Held, ...]:
    """The instances of the series of the one that was retrieved, which has been decided on."""
    return _primary(access, retrieved.study, retrieved.instances[0].series_instance_uid, None)


def as_known(access: Access, retrieved: Retrieved) -> tuple[Selected, str]:
    """What was retrieved, under the asker's own number for the patient; its hospital's issuer OID.

    The number is the owner's where the asker has none, and never one that was merged; the OID is ""
    for who acts for no hospital.
    """
    owner, patient = retrieved.owner, retrieved.patient
    number = own_numbers.owners(access, patient, owner)
    issuer = ""
    if (asker := access.requester.organization) == owner.id:
        issuer = owner.issuer
    elif asker is not None:
        own = own_numbers.own(access, patient)
        if own is None:
            issuer = access.session.execute(_ISSUER, {"asker": asker}).scalar_one()
        else:
            number, issuer = own, own.issuer
    found = Selected(
        owner=owner,
        patient=patient,
        study=retrieved.study,
        number=number,
        instances=retrieved.instances,
    )
    return found, issuer


SETTLED = timedelta(seconds=5)
"""Without a new instance for so long, a study is taken for whole: what is made of all of its
instances would be made anew, from the first one on, for each that comes."""


def of_study(access: Access, study: int, *, settled: bool = False) -> tuple[Held, ...]:
    """The primary instances of the study with this row number, in the order of `instances`.

    For the exchange itself, which derives from them what others ask for: nobody has read them.
    Raises Refused for anybody else; with `settled`, jobs.Later while more of the study comes.
    """
    if access.requester.role is not Role.EXCHANGE:
        raise Refused("only the exchange itself derives documents")
    row = access.session.get(Study, study)
    if row is None:
        return ()
    if settled and (left := row.changed + SETTLED - access.now) > timedelta(0):
        raise jobs.Later(left.total_seconds())
    return _primary(access, row, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """Instances of one study that a question selects, and the two numbers of their patient."""

    owner: Organization
    patient: Patient
    study: Study
    number: Number
    """The asker's own number for the person where it has one, else the owner's."""
    instances: tuple[Held, ...]


def select_instances(
    access: Access,
    level: Level,
    criteria: Sequence[Criterion],
    *,
    limit: int,
    purpose: str,
    asked: str | bytes = "",
) -> tuple[Selected, ...]:
    """All primary instances of what matches at `level`, of all hospitals, as far as permitted.

    Studies are in the order of `query.find`. What is withheld is left out, and its refusal
    recorded. `purpose` and `asked` are for the audit trail, as `instances` and `query.find` have
    them. Raises Refused, Invalid, and TooBroad when more than `limit` patients, studies, series or
    instances match.
    """
    found = query.find(
        access,
        level,
        criteria,
        limit=limit,
        summarize=False,
        too_broad=f"more than {limit} matches: add a selective key",
        asked=asked,
        action=Action.RETRIEVE,
    )
    rows = {
        Level.PATIENT: Patient.id,
        Level.STUDY: Study.id,
        Level.SERIES: Series.id,
        Level.IMAGE: Instance.id,
    }[level]
    matched: dict[int, query.Found] = {}
    for one in found.found:
        record = (one.patient, one.study, one.series, one.instance)[level - Level.PATIENT]
        if record is not None:
            matched[record.id] = one
    studies: dict[int, tuple[Study, query.Found, list[Held]]] = {}
    count = 0
    for some in _batches(sorted(matched)):
        wanted = (
            select(Instance, Series.series_instance_uid, Study, rows, IS_DAMAGED)
            .join(Series, Series.id == Instance.series_id)
            .join(Study, Study.id == Series.study_id)
            .join(Patient, Patient.id == Study.patient_id)
            .where(rows.in_(some), shown(rejected=access.requester.rejected))
            .order_by(*_IN_ORDER)
        )
        if only := access.requester.narrowed(None):
            wanted = wanted.where(Series.series_instance_uid == only)
        asker = {"asker": access.requester.organization} if access.requester.rejected else {}
        for instance, series, study, row, damaged in access.session.execute(wanted, asker):
            _, _, held = studies.setdefault(study.id, (study, matched[row], []))
            uid = study.study_instance_uid
            held.append(_held(access, instance, uid, series, damaged=damaged))
            count += 1
            if count > INSTANCES:
                raise TooBroad(f"more than {INSTANCES} instances: ask for fewer studies at once")
    selected = []
    for study, one, instances in studies.values():
        access.note(
            Action.RETRIEVE,
            patient=one.patient.id,
            study=study.study_instance_uid,
            detail={
                "what": purpose,
                "instances": len(instances),
                "bytes": sum(held.size for held in instances),
                **({"rejected": True} if access.requester.rejected else {}),
            },
        )
        selected.append(
            Selected(
                owner=one.owner,
                patient=one.patient,
                study=study,
                number=one.number,
                instances=tuple(instances),
            )
        )
    return tuple(selected)


def astray(access: Access, study_instance_uid: str, *, to: str, asked: bytes) -> None:
    """Record that images, of this study where one was named, were to be sent `to` somewhere that
    is not the asking hospital's."""
    access.note(
        Action.RETRIEVE,
        outcome=Outcome.FAILED,
        reason="the destination is not a node of the asking hospital",
        **subject.of_study(access.session, study_instance_uid),
        detail={"what": "images", "to": to, "asked": for_the_trail(asked)},
    )


def decide_again(access: Access, patients: Mapping[str, int]) -> None:
    """Look whether the asker may still have what `select_instances` has chosen and is on its way:
    studies by their UIDs, and the row numbers of their patients. Raises Refused, and records it.
    """
    given = visibility.parameters(access.requester, access.now)
    found = facts_of(access.session, given, patients.values())
    for study, patient in patients.items():
        if patient in found:
            access.require(Action.RETRIEVE, found[patient], patient=patient, study=study)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the instances of one study that a retrieval was to send."""

    study_instance_uid: str
    patient: int
    """Row number."""
    completed: int = 0
    warned: int = 0
    """The receiver has them, with a remark."""
    failed: int = 0
    unsent: int = 0
    """Left when the asker called the retrieval off, or went away."""


def sent(access: Access, tallies: Sequence[Tally], *, to: str, reason: str = "") -> None:
    """Record how a retrieval ended that `select_instances` decided, for each study.

    `to` is the node where it was sent; "" for the asker itself. `reason` says why it did not all
    go. It has failed where not every instance of the study arrived.
    """
    for one in tallies:
        whole = not (one.failed or one.unsent)
        access.note(
            Action.RETRIEVE,
            outcome=Outcome.SUCCESS if whole else Outcome.FAILED,
            reason="" if whole else reason,
            patient=one.patient,
            study=one.study_instance_uid,
            detail={
                "what": SENT,
                "to": to,
                "completed": one.completed,
                "warned": one.warned,
                "failed": one.failed,
                "unsent": one.unsent,
            },
        )


def is_served(access: Access, study: int, series: str = "") -> bool:
    """Whether there is something to retrieve of a study, by its row, or of one series of it.

    For who has been decided on for the study.
    """
    found = (
        select(Series.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(Series.study_id == study, Instance.is_primary)
        .limit(1)
    )
    if series:
        found = found.where(Series.series_instance_uid == series)
    return access.session.scalars(found).first() is not None


def was_served(
    session: Session,
    study: str,
    series: str | None = None,
    instance: str | None = None,
    *,
    owner: int | None = None,
) -> bool:
    """Whether something of a study, of one series of it, or one instance, was rejected or deleted,
    having been served before; of what is the hospital `owner`'s, where that is given.

    For who has been decided on for the study.
    """
    rejected = (
        select(Rejection.id)
        .join(Instance, Instance.id == Rejection.instance_id)
        .join(Series, Series.id == Instance.series_id)
        .where(Rejection.withdrawn.is_(None))
    )
    deleted = select(Destroyed.id)

    def there_is(found: Select[int], of: type[Rejection | Destroyed], in_series: Any) -> bool:
        named = ((in_series, series), (of.sop_instance_uid, instance), (of.organization_id, owner))
        given = [column == value for column, value in named if value is not None]
        found = found.where(of.study_instance_uid == study, *given)
        return session.scalars(found.limit(1)).first() is not None

    return there_is(rejected, Rejection, Series.series_instance_uid) or there_is(
        deleted, Destroyed, Destroyed.series_instance_uid
    )


def rejection_notes(access: Access, study_instance_uid: str) -> tuple[Selected, ...]:
    """The rejection notes in force for images of a study, for who has got such images before.

    Nothing else serves them. Raises Refused, NotFound.
    """
    wanted = select(Study).where(Study.study_instance_uid == study_instance_uid)
    study = access.session.scalars(wanted).one_or_none()
    if study is None:
        raise NotFound("no such study")
    about = query.patient(access, study.patient_id)
    rows = access.session.execute(
        select(Instance, Series.series_instance_uid, Study.study_instance_uid, IS_DAMAGED)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(
            Instance.organization_id == about.owner.id,
            Study.patient_id == about.patient.id,
            Instance.sop_instance_uid.in_(
                select(Rejection.note_sop_instance_uid).where(
                    Rejection.organization_id == about.owner.id,
                    Rejection.study_instance_uid == study_instance_uid,
                    Rejection.withdrawn.is_(None),
                )
            ),
        )
        .order_by(Instance.id)
    ).all()
    if not rows:
        return ()
    access.note(
        Action.RETRIEVE,
        patient=about.patient.id,
        study=study_instance_uid,
        detail={"what": "rejection notes", "instances": len(rows)},
    )
    held = tuple(
        _held(access, instance, uid, series, damaged=damaged)
        for instance, series, uid, damaged in rows
    )
    return (
        Selected(
            owner=about.owner,
            patient=about.patient,
            study=study,
            number=about.number,
            instances=held,
        ),
    )


def _batches(rows: list[int], size: int = 500) -> Iterator[list[int]]:
    """`rows` in pieces that every database takes as parameters of one statement."""
    remaining = iter(rows)
    while some := list(islice(remaining, size)):
        yield some


def _held(access: Access, instance: Instance, study: str, series: str, *, damaged: bool) -> Held:
    return Held(
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=instance.sop_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        key=instance.key,
        size=instance.size,
        digest=instance.digest,
        character_set=instance.character_set,
        character_set_repair=instance.character_set_repair,
        rows=instance.rows,
        damaged=damaged,
        objects=access.objects,
    )


def _primary(
    access: Access, study: Study, series: str | None, instance: str | None
) -> tuple[Held, ...]:
    """What is shown to the asker of a study, of one series of it, or one instance alone."""
    given: dict[str, Any] = {"study": study.id, "series": series, "instance": instance}
    rejected = access.requester.rejected
    if rejected:
        given["asker"] = access.organization
    wanted = _instances(series is not None, instance is not None, rejected=rejected)
    return tuple(
        Held(study_instance_uid=study.study_instance_uid, objects=access.objects, **row._asdict())
        for row in wanted.all(access.session.connection(), given)
    )


_SUBJECT = Columns(Patient, Organization, Study)
_ABOUT = Prepared(
    select(*_SUBJECT.selected)
    .join(Organization, Organization.id == Patient.organization_id)
    .join(Study, Study.patient_id == Patient.id)
    .where(Study.study_instance_uid == bindparam("study"))
)


_CAME_REJECTED = Prepared(
    select(Rejection.id)
    .join(Instance, Instance.sop_instance_uid == Rejection.sop_instance_uid)
    .where(
        Instance.organization_id == Rejection.organization_id,
        Rejection.organization_id == bindparam("owner"),
        Rejection.study_instance_uid == bindparam("study"),
        Rejection.sop_instance_uid == bindparam("instance"),
        Rejection.withdrawn.is_(None),
        Instance.series_id.is_(None),
    )
)
"""Of an instance that was never served, since its hospital had rejected it before it came: that
hospital is told so, to others there was none."""
_ISSUER = select(Organization.issuer).where(Organization.id == bindparam("asker"))


@cache
def _instances(of_series: bool, one: bool, *, rejected: bool) -> Prepared:
    """What selects of instances what `Held` tells; built once for each form."""
    wanted = (
        select(
            Series.series_instance_uid,
            Instance.sop_instance_uid,
            Instance.sop_class_uid,
            Instance.transfer_syntax_uid,
            Instance.key,
            Instance.size,
            Instance.digest,
            Instance.character_set,
            Instance.character_set_repair,
            Instance.rows,
            IS_DAMAGED.label("damaged"),
        )
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == bindparam("study"), shown(rejected=rejected))
    )
    if of_series:
        wanted = wanted.where(Series.series_instance_uid == bindparam("series"))
    if one:
        wanted = wanted.where(Instance.sop_instance_uid == bindparam("instance"))
    return Prepared(wanted.order_by(*_IN_ORDER))


# Numbers are text (IS): the shorter of two without leading zeros is the smaller.
_IN_ORDER = (
    func.length(Series.series_number),
    Series.series_number,
    Series.id,
    func.length(Instance.instance_number),
    Instance.instance_number,
    Instance.id,
)

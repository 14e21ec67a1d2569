"""What `policy` decides, as an SQL condition: what somebody may see is chosen in the SELECT.

Both forms are held to each other by property tests: what `decide` permits for a patient record is
what `visible` selects, and what `decide_clinical` permits for a clinical resource is what
`visible_clinical` selects.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    SQLColumnExpression,
    and_,
    bindparam,
    false,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.orm import aliased

from exchange.policy import (
    DIRECTORY,
    REPORTED,
    REPORTING,
    SHARED,
    SHARING,
    Action,
    Deny,
    Purpose,
    Requester,
    Role,
    may,
    reports,
)
from exchange_storage.records import (
    Agreement,
    Compartment,
    Consent,
    Patient,
    Resource,
    Series,
    Study,
    Workitem,
)
from exchange_storage.rows import shared, there_is


def shares(
    organization: SQLColumnExpression[int] | BindParameter[int], kind: str = SHARING
) -> ColumnElement[bool]:
    """Whether an organization is in an agreement at the moment `now`, in SQL."""
    now = bindparam("now", type_=Agreement.since.type)
    return organization.in_(
        select(Agreement.organization_id).where(
            Agreement.kind == kind,
            Agreement.since <= now,
            or_(Agreement.until.is_(None), Agreement.until > now),
        )
    )


def in_force(consent: type[Consent] = Consent) -> ColumnElement[bool]:
    """Whether a decision of a patient's is in force at the moment `now`, in SQL."""
    now = bindparam("now", type_=Consent.recorded.type)
    return and_(
        consent.ended.is_(None),
        or_(consent.since.is_(None), consent.since <= now),
        or_(consent.until.is_(None), consent.until > now),
    )


def denials() -> Select[int]:
    """The `Consent`s that deny sharing at the moment `now`: those behind which no permit in force
    was recorded for the same patient record.

    By a join, since SQLite's parser takes only so many statements within one another.
    """
    later = aliased(Consent)
    permit = and_(
        later.patient_id == Consent.patient_id,
        later.id > Consent.id,
        later.decision == "permit",
        in_force(later),
    )
    denying = select(Consent.id).outerjoin(later, permit)
    return denying.where(Consent.decision == "deny", in_force(), later.id.is_(None))


def denials_since(moment: datetime) -> Select[int]:
    """Those of the `denials` that may not have been ones at another moment: they were recorded or
    began since, or a permit ended.
    """
    later = aliased(Consent)
    now = bindparam("now", type_=Consent.recorded.type)
    ended = (
        select(literal(1))
        .select_from(later)
        .where(
            later.patient_id == Consent.patient_id,
            later.id > Consent.id,
            later.decision == "permit",
            or_(later.ended >= moment, and_(later.until >= moment, later.until <= now)),
        )
        .correlate(Consent)
    )
    begun = or_(Consent.recorded >= moment, Consent.since >= moment, there_is(ended))
    return denials().where(begun)


@cache
def opted_out(patient: type[Patient] = Patient) -> ColumnElement[bool]:
    """Whether the patient, or the same person at another hospital, denies sharing, in SQL."""
    stated = aliased(Patient)
    persons = denials().join(stated, stated.id == Consent.patient_id)
    return or_(
        there_is(denials().where(Consent.patient_id == patient.id).correlate(patient)),
        and_(
            patient.person_id.is_not(None),
            there_is(persons.where(stated.person_id == patient.person_id).correlate(patient)),
        ),
    )


def asker_shares(kind: str = SHARING) -> ColumnElement[bool]:
    """Whether the asking organization is in an agreement, in SQL."""
    return shares(bindparam("asker", type_=Patient.organization_id.type), kind)


class Reach(StrEnum):
    """Which records a requester may reach: what `visible` depends on beside the values."""

    NOTHING = "nothing"
    DIRECTORY = "the directory"
    OWN = "own"
    SHARED = "own or shared"
    REPORTED = "own or shared for public health"
    SUBSCRIPTIONS = "one's own subscriptions"
    HOSPITALS_SUBSCRIPTIONS = "the hospital's subscriptions"
    LINKED = "what a link leads to"
    EVERYTHING = "everything"


def reach(requester: Requester, action: Action) -> Reach:
    """What `decide` permits before it is known about whom."""
    if isinstance(may(requester, action), Deny):
        return Reach.NOTHING
    if requester.role is Role.EXCHANGE:
        return Reach.EVERYTHING
    if requester.role is Role.GUEST:
        return Reach.LINKED
    if action in DIRECTORY:
        return Reach.DIRECTORY
    if requester.rejected and action in REPORTED:
        return Reach.OWN
    if action in REPORTED and reports(requester):
        return Reach.REPORTED
    if action is Action.SUBSCRIBE:
        administers = requester.role is Role.ADMINISTRATOR
        return Reach.HOSPITALS_SUBSCRIPTIONS if administers else Reach.SUBSCRIPTIONS
    treats = requester.role is not Role.ADMINISTRATOR and requester.purpose is Purpose.TREATMENT
    shared = action in SHARED and treats
    return Reach.SHARED if shared else Reach.OWN


def visible(requester: Requester, action: Action) -> ColumnElement[bool]:
    """`decide` as a condition on `Patient`: the records for which it permits `action`.

    A statement with this condition is run with the parameters that `parameters` gives.
    """
    return within(reach(requester, action))


def within(reach: Reach, patient: type[Patient] = Patient) -> ColumnElement[bool]:
    """`visible`, by what the requester may reach; `patient` may be an alias.

    A link leads to a study, and not to all that hangs on a patient record: see `linked`.
    """
    match reach:
        case (
            Reach.NOTHING
            | Reach.DIRECTORY
            | Reach.SUBSCRIPTIONS
            | Reach.HOSPITALS_SUBSCRIPTIONS
            | Reach.LINKED
        ):
            return false()
        case Reach.OWN:
            return _own(patient)
        case Reach.SHARED:
            return _own_or_shared(patient, SHARING)
        case Reach.REPORTED:
            return _own_or_shared(patient, REPORTING)
        case Reach.EVERYTHING:
            return true()


@cache
def linked(*, series: bool) -> ColumnElement[bool]:
    """What a guest's link leads to, of `Study` and, with `series`, of `Series`, in SQL."""
    named = Study.study_instance_uid == bindparam(
        "named_study", type_=Study.study_instance_uid.type
    )
    found = and_(_own_or_shared(Patient, SHARING), named)
    if not series:
        return found
    one = bindparam("named_series", type_=Series.series_instance_uid.type)
    return and_(found, or_(one == "", Series.series_instance_uid == one))


def visible_clinical(
    requester: Requester, action: Action, resource: type[Resource] = Resource
) -> ColumnElement[bool]:
    """`decide_clinical` for reading (`SHARED` or `LOOK_UP`), as a condition on `resource`.

    `resource` may be an alias. Run with the parameters that `parameters` gives.
    """
    return clinical_within(reach(requester, action), resource)


@lru_cache(100)  # an alias is of one statement: not all are kept for ever
def clinical_within(reach: Reach, resource: type[Resource] = Resource) -> ColumnElement[bool]:
    """`visible_clinical`, by what the requester may reach."""
    asker = bindparam("asker", type_=Patient.organization_id.type)
    name = bindparam("asker_name", type_=Resource.whose.type)
    own = resource.organization_id == asker
    theirs = and_(own, resource.whose == name)
    match reach:
        case Reach.NOTHING | Reach.LINKED:
            return false()
        case Reach.DIRECTORY:
            return and_(resource.is_directory, or_(resource.whose == "", theirs))
        case Reach.OWN | Reach.SHARED | Reach.REPORTED:
            return and_(
                or_(resource.is_directory, own, _all(reach, resource)),
                or_(resource.whose == "", theirs),
            )
        case Reach.SUBSCRIPTIONS:
            return and_(theirs, resource.whose != "")
        case Reach.HOSPITALS_SUBSCRIPTIONS:
            return and_(own, resource.whose != "")
        case Reach.EVERYTHING:
            return true()


def workable(requester: Requester) -> ColumnElement[bool]:
    """`decide` as a condition on `Workitem` and the `Patient` beside it, who may be absent.

    A hospital works on its own, and on what another has assigned to it of what that one shares.
    """
    match reach(requester, Action.WORK):
        case (
            Reach.NOTHING
            | Reach.DIRECTORY
            | Reach.SUBSCRIPTIONS
            | Reach.HOSPITALS_SUBSCRIPTIONS
            | Reach.LINKED
        ):
            return false()
        case Reach.OWN | Reach.REPORTED:
            return _own_work()
        case Reach.SHARED:
            return or_(
                _own_work(),
                and_(
                    Workitem.assigned_id == bindparam("asker", type_=Workitem.assigned_id.type),
                    asker_shares(),
                    shares(Workitem.organization_id),
                    ~opted_out(Patient),
                ),
            )
        case Reach.EVERYTHING:
            return true()


def parameters(requester: Requester, now: datetime) -> dict[str, Any]:
    """The parameters of `visible`, `shares` and `asker_shares`: who asks, and when."""
    given = {"asker": requester.organization, "asker_name": requester.name, "now": now}
    if requester.named is not None:
        given |= {"named_study": requester.named.study, "named_series": requester.named.series}
    return given


# Built once: putting these together takes longer than to run them.
@cache
def _own(patient: type[Patient]) -> ColumnElement[bool]:
    return patient.organization_id == bindparam("asker", type_=Patient.organization_id.type)


@cache
def _own_or_shared(patient: type[Patient], kind: str) -> ColumnElement[bool]:
    shared = and_(asker_shares(kind), shares(patient.organization_id, kind), ~opted_out(patient))
    return or_(_own(patient), shared)


_FIRST, _FURTHER = shared(Patient), shared(Patient)
"""The same in every statement, so that what depends on them is built once; they never nest."""


def _all(reach: Reach, resource: type[Resource]) -> ColumnElement[bool]:
    """Whether every patient whom the resource is about is within reach, and there is one."""
    return and_(
        there_is(
            select(literal(1))
            .select_from(_FIRST)
            .where(_FIRST.id == resource.patient_id, within(reach, _FIRST))
            .correlate(resource)
        ),
        or_(
            ~resource.has_others,
            ~there_is(
                select(literal(1))
                .select_from(Compartment)
                .join(_FURTHER, _FURTHER.id == Compartment.patient_id)
                .where(Compartment.resource_id == resource.id, ~within(reach, _FURTHER))
                .correlate(resource)
            ),
        ),
    )


@cache
def _own_work() -> ColumnElement[bool]:
    return Workitem.organization_id == bindparam("asker", type_=Workitem.organization_id.type)

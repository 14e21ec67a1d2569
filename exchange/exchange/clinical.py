"""Clinical resources: read as the bytes that were kept, decided and audited (FHIR R4 3.1.0).

    told = clinical.read(access, "Observation", logical_id).content

What is about patients is read by whoever may see all of them, the directory of the region by
whoever may search at all, the rest by the hospital that wrote it. See `recording` for writing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, exists, func, literal, or_, select, true
from sqlalchemy.orm import Session, aliased

from exchange import attachments, facts, policy, visibility
from exchange.access import Access
from exchange.errors import Gone, NotFound
from exchange.policy import Action, Clinical, Deny, Requester
from exchange.visibility import Reach
from exchange_storage.prepared import Prepared
from exchange_storage.records import Compartment, Resource, Revision
from exchange_storage.rows import one_of_texts

DIRECTORY = frozenset(
    {
        "Device",
        "Endpoint",
        "HealthcareService",
        "Location",
        "Organization",
        "OrganizationAffiliation",
        "Practitioner",
        "PractitionerRole",
        "Questionnaire",
    }
)
"""Kinds that are in the directory of the region where they are about no patient."""

SUBSCRIPTION = "Subscription"
"""The kind that is its writer's alone: who is to be told of what."""


NOBODY = 0
"""The row number of no patient."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A version of a resource, as it is held."""

    kind: str
    logical_id: str
    version: int
    changed: datetime
    content: bytes = field(repr=False)
    """The JSON as it is served; empty where it was deleted."""
    interaction: str
    """What made this version: ``create``, ``update`` or ``delete``."""
    key: int
    """Of the revision: keys are in the order of the commits."""
    made: bool = False
    """Whether this request made this version, rather than found it."""
    lying: attachments.Lying | None = None
    """What of it was not read, where it was asked for apart."""

    @property
    def deleted(self) -> bool:
        """Whether the resource was deleted by this version."""
        return self.interaction == "delete"


@dataclass(frozen=True, slots=True)
class Page:
    """Versions, newest first, and whether there are more."""

    kept: tuple[Kept, ...]
    more: bool
    total: int | None = None
    """How many there are, where none was asked for."""


def read(access: Access, kind: str, logical_id: str, *, apart: bool = False) -> Kept:
    """The current version; with `apart` what is attached to it is left where it lies.

    Raises NotFound, Gone where it was deleted, Refused.
    """
    return _one(access, kind, logical_id, None, apart=apart)


def vread(access: Access, kind: str, logical_id: str, version: int, *, apart: bool = False) -> Kept:
    """One version, in the same ways. Raises NotFound, Gone for the one that deleted it, Refused."""
    return _one(access, kind, logical_id, version, apart=apart)


def history(
    access: Access,
    kind: str = "",
    logical_id: str = "",
    *,
    limit: int,
    since: datetime | None = None,
    before: int | None = None,
    at: tuple[datetime, datetime] | None = None,
) -> Page:
    """Versions that the asker may see, newest first: of one resource, of a kind, or of all.

    Those recorded at `since` or later, and current at some moment of the span `at`; from the one
    before the revision key `before` on, so that pages do not shift. With a `limit` of 0 they are
    counted only. Raises NotFound for a
    resource that never was, Refused.
    """
    asked = {"what": _name(kind, logical_id), "interaction": "history"}
    action = reading(access.requester, Action.RETRIEVE if logical_id else Action.SEARCH, kind)
    access.require(action, detail=asked)
    given = visibility.parameters(access.requester, access.now)
    about: int | None = None
    connection = access.session.connection()
    if logical_id:
        held = _permitted(access, action, kind, logical_id, None)
        about = held.patient_id
        given |= {"resource": held.id}
    elif kind:
        given |= {"kind": kind}
    if since is not None:
        given |= {"since": since}
    if before is not None:
        given |= {"before": before}
    if at is not None:
        given |= {"begins": at[0], "ends": at[1]}
    form = _History(
        bool(kind), bool(logical_id), since is not None, before is not None,
        at is not None,
        visibility.reach(access.requester, action),
    )  # fmt: skip
    if not limit:
        total = _how_many(form).number(connection, given)
        access.note(action, patient=about, detail=asked | {"counted": total})
        return Page((), False, total)
    rows = _history(form).all(connection, given | {"limit": limit + 1})
    patients = sorted({row.patient_id for row in rows[:limit]} - {None})
    told = {"answered": min(len(rows), limit), "patients": patients}
    access.note(action, patient=about, detail=asked | told)
    return Page(tuple(_kept(access, row) for row in rows[:limit]), len(rows) > limit)


def known(access: Access, kind: str, ids: Iterable[str]) -> frozenset[str]:
    """Those of the logical ids under which there is a resource that the asker may see."""
    action = reading(access.requester, Action.SEARCH, kind)
    given = visibility.parameters(access.requester, access.now)
    given |= {"kind": kind, "ids": json.dumps(sorted(set(ids)))}
    found = _known(visibility.reach(access.requester, action))
    rows = found.all(access.session.connection(), given)
    return frozenset(row.logical_id for row in rows)


def version_of(changed: datetime) -> int:
    """The version of what is derived from a record that changed last at this moment.

    Once it is written it has versions that are counted, from 1: no moment is as small.
    """
    return (changed.astimezone(UTC) - _EPOCH) // _MICROSECOND


def current(access: Access, kind: str, logical_ids: Sequence[str]) -> list[Kept]:
    """The current versions that the asker may see of resources that are read along with others.

    What was deleted is left out. It is for the caller to have audited what it tells of.
    """
    reach = visibility.reach(access.requester, reading(access.requester, Action.RETRIEVE, kind))
    given = visibility.parameters(access.requester, access.now)
    given |= {"kind": kind, "ids": json.dumps(list(logical_ids))}
    rows = _visible(reach).all(access.session.connection(), given)
    return [_kept(access, row) for row in rows]


def changeable(access: Access, kind: str, logical_id: str) -> Kept | None:
    """The current version of a resource, where there is one that the asker may change.

    Not audited: whoever goes on with it is.
    """
    requester = access.requester
    given = visibility.parameters(requester, access.now) | {"kind": kind, "logical_id": logical_id}
    reach = visibility.reach(requester, reading(requester, Action.RETRIEVE, kind))
    row = _current(reach).first(access.session.connection(), given)
    if row is None or not row.permitted or row.organization_id != requester.organization:
        return None
    action = Action.PUBLISH if row.is_directory else Action.RECORD
    if isinstance(policy.may(requester, action), Deny) or row.interaction == "delete":
        return None
    return _kept(access, row)


def reading(requester: Requester, action: Action, kind: str) -> Action:
    """What reading resources of this kind is: `action`, or to look up the directory.

    Of a kind in the directory, whoever may not see anything of patients sees the rest all the same.
    """
    if kind == SUBSCRIPTION:
        return Action.SUBSCRIBE
    if kind in DIRECTORY and isinstance(policy.may(requester, action), Deny):
        return Action.LOOK_UP
    return action


def changing(kind: str, *, is_directory: bool) -> Action:
    """What writing a resource of this kind is."""
    if kind == SUBSCRIPTION:
        return Action.SUBSCRIBE
    return Action.PUBLISH if is_directory else Action.RECORD


def about(session: Session, resource: int, patient: int | None, *, others: bool) -> list[int]:
    """The patient records that a resource (its row number) is about."""
    if patient is None:
        return []
    further = _OTHERS.all(session.connection(), {"resource": resource}) if others else []
    return [patient, *(row.patient_id for row in further)]


def _one(access: Access, kind: str, logical_id: str, version: int | None, *, apart: bool) -> Kept:
    action = reading(access.requester, Action.RETRIEVE, kind)
    detail: dict[str, Any] = {"what": _name(kind, logical_id)}
    if version is not None:
        detail["version"] = version
    access.require(action, detail=detail)
    row = _permitted(access, action, kind, logical_id, version)
    if row.interaction == "delete":
        raise Gone("the resource was deleted")
    lying = attachments.lying(access, row.content) if apart else None
    patients = about(access.session, row.id, row.patient_id, others=True) if row.has_others else ()
    several = {"patients": sorted(patients)} if patients else {}
    access.note(action, patient=row.patient_id, detail=detail | several)
    return _kept(access, row, lying)


def _permitted(
    access: Access, action: Action, kind: str, logical_id: str, version: int | None
) -> Any:
    """The row of a version, if the asker may see it. Raises NotFound, also where they may not."""
    given = visibility.parameters(access.requester, access.now)
    given |= {"kind": kind, "logical_id": logical_id}
    reach = visibility.reach(access.requester, action)
    if version is None:
        rows = access.glance(_current(reach), given)
    else:
        # No column holds more; what is asked for then was never written.
        given |= {"version": min(version, 2**31 - 1)}
        rows = access.glance(_version(reach), given)
    row = rows[0] if rows else None
    told = "no such resource" if version is None else "no such version"
    if row is None:
        facts.of(access.session, given, [NOBODY])  # who measures learns nothing either
        raise NotFound(told)
    if not row.permitted:
        patients = about(access.session, row.id, row.patient_id, others=row.has_others)
        known = facts.of(access.session, given, patients)
        clinical = Clinical(
            owner=row.organization_id,
            is_directory=row.is_directory,
            patients=tuple(known[patient] for patient in patients),
            whose=row.whose,
        )
        detail: dict[str, Any] = {"what": _name(kind, logical_id)}
        if len(patients) > 1:
            detail["patients"] = sorted(patients)
        with access.unseen(told):
            access.require(action, clinical, patient=row.patient_id, detail=detail)
        raise NotFound("no such version")  # it was about somebody else: see `Revision.elsewhere`
    return row


def _name(kind: str, logical_id: str) -> str:
    return f"{kind}/{logical_id}" if logical_id else kind


def _kept(access: Access, row: Any, lying: attachments.Lying | None = None) -> Kept:
    apart = lying is not None
    return Kept(
        kind=row.kind,
        logical_id=row.logical_id,
        version=row.version,
        changed=row.recorded,
        content=attachments.without(row.content)
        if apart
        else attachments.whole(access.objects, row.content),
        interaction=row.interaction,
        key=row.key,
        lying=lying,
    )


_VERSION = (
    Resource.kind,
    Resource.logical_id,
    Revision.version,
    Revision.recorded,
    Revision.content,
    Revision.interaction,
    Revision.id.label("key"),
)
"""The columns of a `Kept`."""


def _of_resource(reach: Reach, *, elsewhere: bool) -> Select[*tuple[Any, ...]]:
    visible = visibility.clinical_within(reach)
    return (
        select(
            *_VERSION,
            Resource.id,
            Resource.patient_id,
            Resource.organization_id,
            Resource.is_directory,
            Resource.has_others,
            Resource.whose,
            (and_(visible, _here(reach)) if elsewhere else visible).label("permitted"),
        )
        .join(Revision, Revision.resource_id == Resource.id)
        .where(Resource.kind == bindparam("kind"), Resource.logical_id == bindparam("logical_id"))
    )


@lru_cache(len(Reach))
def _current(reach: Reach) -> Prepared:
    """The current version, whether it is permitted or not, and whether it is."""
    return Prepared(
        _of_resource(reach, elsewhere=False).where(Revision.version == Resource.version)
    )


@lru_cache(len(Reach))
def _version(reach: Reach) -> Prepared:
    """One version, likewise."""
    of_resource = _of_resource(reach, elsewhere=True)
    return Prepared(of_resource.where(Revision.version == bindparam("version")))


@lru_cache(len(Reach))
def _known(reach: Reach) -> Prepared:
    return Prepared(
        lambda dialect: select(Resource.logical_id).where(
            Resource.kind == bindparam("kind"),
            one_of_texts(Resource.logical_id, "ids", dialect),
            ~Resource.deleted,
            visibility.clinical_within(reach),
        )
    )


@lru_cache(len(Reach))
def _visible(reach: Reach) -> Prepared:
    """The current versions that are permitted."""
    return Prepared(
        lambda dialect: (
            select(*_VERSION)
            .select_from(Resource)
            .join(
                Revision,
                and_(Revision.resource_id == Resource.id, Revision.version == Resource.version),
            )
            .where(
                Resource.kind == bindparam("kind"),
                one_of_texts(Resource.logical_id, "ids", dialect),
                ~Resource.deleted,
                visibility.clinical_within(reach),
            )
        )
    )


@dataclass(frozen=True, slots=True)
class _History:
    """A question about history without its values."""

    kind: bool
    instance: bool
    since: bool
    before: bool
    at: bool
    reach: Reach


@lru_cache(128)
def _history(form: _History) -> Prepared:
    ordered = _looked_back(form).order_by(Revision.id.desc())
    return Prepared(ordered.limit(bindparam("limit")))


@lru_cache(128)
def _how_many(form: _History) -> Prepared:
    return Prepared(select(func.count()).select_from(_looked_back(form).subquery()))


def _looked_back(form: _History) -> Select[*tuple[Any, ...]]:
    statement = select(*_VERSION, Resource.patient_id).join(
        Resource, Resource.id == Revision.resource_id
    )
    if form.instance:
        statement = statement.where(Revision.resource_id == bindparam("resource"))
    else:
        statement = statement.where(visibility.clinical_within(form.reach))
        if form.kind:
            statement = statement.where(Revision.kind == bindparam("kind"))
    if form.since:
        statement = statement.where(Revision.recorded >= bindparam("since"))
    if form.before:
        statement = statement.where(Revision.id < bindparam("before"))
    if form.at:
        following = aliased(Revision)
        superseded = exists(
            select(literal(1))
            .select_from(following)
            .where(
                following.resource_id == Revision.resource_id,
                following.version == Revision.version + 1,
                following.recorded <= bindparam("begins"),
            )
            .correlate(Revision)
        )
        statement = statement.where(Revision.recorded < bindparam("ends"), ~superseded)
    return statement.where(_here(form.reach))


def _here(reach: Reach) -> Any:
    """Whether a version is about whom the resource is about now, or is the asker's own."""
    if reach is Reach.EVERYTHING:
        return true()
    asker = bindparam("asker", type_=Resource.organization_id.type)
    return or_(~Revision.elsewhere, Resource.organization_id == asker)


_OTHERS = Prepared(
    select(Compartment.patient_id)
    .where(Compartment.resource_id == bindparam("resource"))
    .order_by(Compartment.patient_id)
)

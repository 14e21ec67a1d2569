"""The change feed: what came, was replaced, hidden or deleted, in the order of its commits.

Every writer takes the audit trail's lock first, so that no lower sequence number is committed after
a higher one was seen: who goes on from a number misses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import and_, case, exists, func, literal, or_, select
from sqlalchemy.orm import aliased

from exchange import visibility, withheld
from exchange.access import Access
from exchange.errors import Invalid
from exchange.policy import Action
from exchange_storage.records import Change, Instance, Patient, Study

LIMIT = 1000
"""Entries of one page, at most."""

LOOKED_AT = 20_000
"""Entries that are looked at for one page, whether the asker may see them or not."""


class State(StrEnum):
    """What has become of an entry's instance, at the moment of reading."""

    CURRENT = "current"
    """It is served."""
    REPLACED = "replaced"
    """Another instance is served under its SOP Instance UID."""
    DELETED = "deleted"
    """Nothing is served under its SOP Instance UID: it was rejected, or deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change of one instance."""

    sequence: int
    recorded: datetime
    action: str
    """``create``, ``conflict``, ``replace``, ``reject``, ``restore``, ``delete``."""
    state: State
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Page:
    """Entries that the asker may see, and from where to go on."""

    entries: Sequence[Entry]
    through: int
    """All up to this sequence number was looked at; what follows is asked for with it."""
    more: bool
    """Whether there is something behind it already."""


def after(
    access: Access,
    sequence: int,
    *,
    limit: int,
    since: datetime | None = None,
    before: datetime | None = None,
) -> Page:
    """The changes after a sequence number, within a half-open span of time, decided one by one.

    A change shows to whom the study shows; that an instance waits for review shows to the hospital
    that sent it. Raises Refused, Invalid.
    """
    asked = {"what": "changes", "after": sequence}
    access.require(Action.SEARCH, detail=asked)
    if not 1 <= limit <= LIMIT:
        raise Invalid(f"a page has 1 to {LIMIT} changes")
    begin, end = _bounds(access, sequence, since, before)
    last = min(begin + LOOKED_AT, end)
    primary = aliased(Instance)
    own = exists(
        select(literal(1)).where(
            Instance.id == Change.instance_id,
            Instance.sop_instance_uid == Change.sop_instance_uid,
            Instance.organization_id == access.requester.organization,
        )
    )
    state = case(
        (primary.id.is_(None), State.DELETED.value),
        # SQLite gives the number of a deleted row away again: to something that came later.
        (
            and_(primary.id == Change.instance_id, primary.received <= Change.recorded),
            State.CURRENT.value,
        ),
        else_=State.REPLACED.value,
    )
    wanted = (
        select(Change, state.label("state"), Patient.id.label("patient"))
        .outerjoin(Study, Study.study_instance_uid == Change.study_instance_uid)
        .outerjoin(Patient, Patient.id == Study.patient_id)
        .outerjoin(
            primary,
            and_(primary.sop_instance_uid == Change.sop_instance_uid, primary.is_primary),
        )
        .where(
            Change.sequence > begin,
            Change.sequence <= last,
            or_(
                and_(Change.action == "conflict", own),
                and_(
                    Change.action != "conflict",
                    Patient.id.is_not(None),
                    visibility.visible(access.requester, Action.SEARCH),
                ),
            ),
        )
        .order_by(Change.sequence)
        .limit(limit + 1)
    )
    if since is not None:
        wanted = wanted.where(Change.recorded >= since)
    if before is not None:
        wanted = wanted.where(Change.recorded < before)
    given = visibility.parameters(access.requester, access.now)
    rows = access.session.execute(wanted, given).all()
    full = len(rows) > limit
    through = rows[limit - 1].Change.sequence if full else max(last, sequence)
    entries = [
        Entry(
            sequence=change.sequence,
            recorded=change.recorded,
            action=change.action,
            state=State(state),
            study_instance_uid=change.study_instance_uid,
            series_instance_uid=change.series_instance_uid,
            sop_instance_uid=change.sop_instance_uid,
        )
        for change, state, _ in rows[:limit]
    ]
    patients = sorted({row.patient for row in rows[:limit] if row.patient is not None})
    span = (begin, through, since, before)
    unseen = _looked_at(access, *span) - len(entries)
    if unseen:
        withheld.note(access, Action.SEARCH, _withheld(access, *span), asked)
    access.note(
        Action.SEARCH,
        patient=patients[0] if len(patients) == 1 else None,
        detail=asked
        | {
            "through": through,
            "answered": len(entries),
            "withheld": unseen,
            "patients": patients,
        },
    )
    return Page(entries, through, full or last < end)


def latest(access: Access) -> int:
    """The sequence number of the last change of all, 0 before the first. Raises Refused."""
    access.require(Action.SEARCH, detail={"what": "changes"})
    access.note(Action.SEARCH, detail={"what": "changes", "answered": 0})
    return access.session.scalar(select(func.max(Change.sequence))) or 0


def _withheld(
    access: Access, begin: int, through: int, since: datetime | None, before: datetime | None
) -> list[withheld.Match]:
    """Of which studies entries of the span are withheld, and of which patients these are."""
    unseen = (
        select(Study.patient_id, Study.study_instance_uid)
        .join(Patient, Patient.id == Study.patient_id)
        .join(Change, Change.study_instance_uid == Study.study_instance_uid)
        .where(
            Change.sequence > begin,
            Change.sequence <= through,
            Change.action != "conflict",
            ~visibility.visible(access.requester, Action.SEARCH),
        )
        .distinct()
        .limit(withheld.COUNTED)
    )
    if since is not None:
        unseen = unseen.where(Change.recorded >= since)
    if before is not None:
        unseen = unseen.where(Change.recorded < before)
    given = visibility.parameters(access.requester, access.now)
    return [(patient, study) for patient, study in access.session.execute(unseen, given)]


def _looked_at(
    access: Access, begin: int, through: int, since: datetime | None, before: datetime | None
) -> int:
    """How many entries of the span there are, whoever may see them."""
    all_of_them = select(func.count()).where(Change.sequence > begin, Change.sequence <= through)
    if since is not None:
        all_of_them = all_of_them.where(Change.recorded >= since)
    if before is not None:
        all_of_them = all_of_them.where(Change.recorded < before)
    return access.session.scalar(all_of_them) or 0


def _bounds(
    access: Access, sequence: int, since: datetime | None, before: datetime | None
) -> tuple[int, int]:
    """The number before the first that can be wanted, and the last."""
    latest = select(func.max(Change.sequence))
    if before is not None:
        latest = latest.where(Change.recorded < before)
    end = access.session.scalar(latest) or 0
    if since is None or sequence:  # who goes on is within the span already
        return sequence, end
    first = access.session.scalar(select(func.min(Change.sequence)).where(Change.recorded >= since))
    return (end if first is None else max(sequence, first - 1)), end

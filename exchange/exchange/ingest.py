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

import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, case, delete, insert, literal_column, select, update
from sqlalchemy.orm import Session

from exchange import destruction, jobs, keys, otherwise, places, rejection
from exchange.access import Access
from exchange.errors import Invalid, TooLarge, Unavailable
from exchange.policy import Action
from exchange.rejection import REJECTED_BEFORE, Note
from exchange_storage.database import Lock
from exchange_storage.objects import Bytes, ObjectDiffers, Staged, Stored
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Change,
    Conflict,
    Damage,
    Instance,
    Patient,
    Series,
    Study,
)
from exchange_storage.search import Level

log = logging.getLogger(__name__)

QUIET = timedelta(seconds=1)
"""How long after an instance the study's derived documents are refreshed."""

ASIDE = 64 << 10
"""Bytes from which a row is written while its object becomes durable."""

_UID = re.compile(r"[0-9.]{1,64}")
_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


# Built once: putting a statement together costs SQLAlchemy more than SQLite takes to run it.
_ONE = select(literal_column("1")).subquery()
_SO_FAR = Prepared(
    # All that is asked before an instance is kept, since each statement hands the interpreter to
    # the other threads and back: one row, or one for each instance of its UID.
    select(
        destruction.GOING.label("going"),
        rejection.REJECTED.label("rejected"),
        Instance.digest,
        Instance.is_primary,
        Instance.organization_id.label("held_by"),
        Conflict.reason,
        Series.id.label("series_row"),
        *places.KNOWN,
    )
    .select_from(_ONE)
    .outerjoin(Instance, Instance.sop_instance_uid == bindparam("uid"))
    .outerjoin(Conflict, Conflict.instance_id == Instance.id)
    .outerjoin(Series, Series.series_instance_uid == bindparam("series"))
    .outerjoin(Study, Study.id == Series.study_id)
    .outerjoin(Patient, Patient.id == Study.patient_id)
)
_ADD_INSTANCE = places.inserted(Instance, "id")
_ADD_CHANGE = places.inserted(Change)
_DAMAGED = Prepared(
    select(Damage.instance_id)
    .join(Instance, Instance.id == Damage.instance_id)
    .where(Instance.sop_instance_uid == bindparam("uid"), Instance.key == bindparam("key"))
)
_WHOLE_AGAIN = Prepared(delete(Damage).where(Damage.instance_id == bindparam("row")))
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


ANOTHER = "another instance has this SOP Instance UID"
"""Why other bytes than those in use are kept for review."""


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
    again: bool = field(default=False, compare=False)
    """Whether the same bytes were held before, in use or not."""


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
        **places.columns(Level.IMAGE, received.attributes),
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
    if not keeps and receipt.again:
        _keep_again(access, incoming, instance, key)
    return receipt


def _keep(access: Access, incoming: Incoming, key: str) -> Stored:
    """Keep the object, in place of one that was damaged since: its digest is part of its key.

    Raises StoreFull, StoreUnavailable.
    """
    try:
        return incoming.staged.keep(key)
    except ObjectDiffers:
        log.warning("an object was damaged, and is replaced by what was sent again")
    with access.exchange.database.alone(Lock.REPLACING):  # what another replaced is not removed
        with suppress(ObjectDiffers):
            return incoming.staged.keep(key)
        access.objects.delete(key)
        return incoming.staged.keep(key)


def _keep_again(access: Access, incoming: Incoming, sop_instance_uid: str, key: str) -> None:
    """Keep what is held already, and may have been lost since; for no longer than its row.

    Raises StoreFull, StoreUnavailable, Unavailable.
    """
    _keep(access, incoming, key)
    with access.exchange.database.reading() as session:
        needed = destruction.needed(session, {key: sop_instance_uid})
        given = {"uid": sop_instance_uid, "key": key}
        damaged = _DAMAGED.first(session.connection(), given) is not None
    if damaged:
        access.write(lambda session: _whole_again(session, sop_instance_uid, key))
    if not needed:  # its row was deleted meanwhile, and its object perhaps before this
        access.write(lambda session: destruction.remove_again(session, sop_instance_uid, key))


def _kept_and_written(
    access: Access, incoming: Incoming, key: str, unit: Callable[[Session], Receipt]
) -> Receipt:
    """Keep the object and write its row, which is committed only once the object is durable.

    Where the index is a server, another thread asks it to write the row while this one waits for
    the disk. Not of a small object, which takes longer than is won, nor while others commit: what
    is kept meanwhile no commit has to wait for. SQLite works in this process: two threads of it
    take the interpreter from one another, which costs more than is won. Raises StoreFull,
    StoreUnavailable.
    """
    exchange = access.exchange
    served = exchange.database.dialect != "sqlite"
    if not served or incoming.written < ASIDE or exchange.committing:
        _keep(access, incoming, key)
        return access.write(unit)
    kept: Future[Stored] = Future()
    written = exchange.writing.submit(access.write, unit, after=kept.result)
    try:
        kept.set_result(_keep(access, incoming, key))
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
    so_far = _SO_FAR.all(
        connection,
        {
            "uid": uid,
            "series": received.attributes["SeriesInstanceUID"],
            "key": row["key"],
            "since": access.now,
            "organization": access.organization,
        },
    )
    detail = {"instance": uid, "digest": row["digest"]}
    for known in so_far:
        if (known.digest, known.held_by) == (row["digest"], access.organization):
            in_use = any(one.is_primary for one in so_far)
            again = (
                Receipt(Outcome.HELD)
                if known.is_primary or rejection.is_note(session, access.organization, uid)
                else _for_review(known.reason or (ANOTHER if in_use else REJECTED_BEFORE))
            )
            if carried is None:  # else it is kept behind this commit
                _whole_again(session, uid, row["key"])
            access.note(
                Action.STORE,
                reason=Outcome.HELD,
                patient=known.patient_row if known.is_primary else None,
                study=study_uid,
                detail=detail,
            )
            return replace(again, again=True)
    first = so_far[0]
    if first.going:
        raise _BeingRemoved("the same object is being removed just now; send it again")
    place = (
        ANOTHER
        if any(known.is_primary and known.digest != row["digest"] for known in so_far)
        else REJECTED_BEFORE
        if first.rejected
        else places.placed(access, session, access.organization, received, now, first)
    )
    if carried is not None:
        access.objects.carry(connection, row["key"], carried)
    if isinstance(place, str):
        return _conflict(access, session, received, row, place)
    instance_id = _ADD_INSTANCE.number(
        connection, row | {"series_id": place.series, "is_primary": True}
    )
    otherwise.add(session, instance_id, place.otherwise)
    _TOUCH_STUDY.run(connection, {"study": place.study, "at": now})
    _announce(session, "create", instance_id, received, now)
    jobs.ask(session, jobs.REFRESH, str(place.study), now + QUIET)
    access.note(
        Action.STORE, reason=Outcome.KEPT, patient=place.patient, study=study_uid, detail=detail
    )
    return Receipt(Outcome.KEPT)


def _whole_again(session: Session, sop_instance_uid: str, key: str) -> None:
    """Its object, which was on the list of what is damaged, was kept anew."""
    connection = session.connection()
    for one in _DAMAGED.all(connection, {"uid": sop_instance_uid, "key": key}):
        _WHOLE_AGAIN.run(connection, {"row": one.instance_id})


def _for_review(reason: str) -> Receipt:
    return Receipt(Outcome.CONFLICT, reason)


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

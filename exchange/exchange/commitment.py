"""Storage commitment: the exchange answers for instances that it keeps (PS3.4 annex J).

A hospital asks, and is told later: an instance is committed when it lies in the object store where
it will stay, and was read back from there and had its digest. Whoever was told so may delete it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from sqlalchemy import ColumnElement, exists, select, true, update
from sqlalchemy.orm import Session

from exchange import jobs, organizations, registry, scrub, settling
from exchange.access import Access
from exchange.errors import Invalid, NotFound, TooLarge
from exchange.policy import Action
from exchange_storage.objects import ObjectNotFound, StoreFull, StoreUnavailable
from exchange_storage.records import (
    ApplicationEntity,
    Commitment,
    CommitmentReference,
    Instance,
    Organization,
)

REFERENCES = 20_000
"""Instances of one transaction, at most."""

REPETITIONS = 100
"""Times that one Transaction UID may be used wrongly."""

SPOOL_SECONDS = 5.0
LONGEST_SECONDS = 600.0
"""How long to wait before looking again for what is still on its way to the object store: the
longer it has been so, the longer."""

PROCESSING_FAILURE = 0x0110
NO_SUCH_OBJECT_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
SOP_CLASS_NOT_SUPPORTED = 0x0122
DUPLICATE_TRANSACTION_UID = 0x0131
"""Failure Reason (0008,1197), PS3.3 C.14.1.1."""

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The verdict on a transaction: every reference is in one of the two lists."""

    transaction_uid: str
    organization: int
    requester: str
    address: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]
    """With their failure reasons."""


class InUse(Invalid):
    """The Transaction UID is another transaction's."""


def ask(
    access: Access,
    transaction_uid: str,
    references: Sequence[Reference],
    *,
    address: str = "",
    unsupported: Collection[str] = (),
    fresh: bool = False,
) -> int:
    """Ask for a commitment of the asking hospital's own instances; durable when this returns.

    The report goes to the asker at `address`, or waits to be fetched where that is "". Instances of
    the SOP classes `unsupported` fail. Asked again before it was answered for, a transaction is the
    same one; else the UID was used already, and all fails for that reason (PS3.3 C.14.1.1), or,
    where it has to be `fresh`, nothing is kept and InUse raised. Returns the transaction's row
    number. Raises Refused, Invalid, and TooLarge for more than `REFERENCES`.
    """
    access.require(Action.COMMIT, detail={"transaction": transaction_uid})
    if not transaction_uid or len(transaction_uid) > 64:
        raise Invalid("a Transaction UID has 1 to 64 characters")
    if not references:
        raise Invalid("a commitment is of instances")
    if len(references) > REFERENCES:
        raise TooLarge(f"a commitment has at most {REFERENCES} instances")
    if any(not uid or len(uid) > 64 for pair in references for uid in pair):
        raise Invalid("a referenced UID has 1 to 64 characters")

    def unit(session: Session) -> int:
        before = session.scalars(
            select(Commitment)
            .where(
                Commitment.organization_id == access.organization,
                Commitment.transaction_uid == transaction_uid,
            )
            .order_by(Commitment.repetition.desc())
        ).all()
        for one in before:
            if one.reported is None and not one.repetition and _same(session, one, references):
                return one.id
        if before and fresh:
            raise InUse("this Transaction UID is in use already")
        if len(before) > REPETITIONS:
            raise TooLarge("this Transaction UID was used too often")
        asked = Commitment(
            organization_id=access.organization,
            transaction_uid=transaction_uid,
            requester=access.requester.name,
            address=address,
            requested=access.now,
            checked=access.now if before else None,
            repetition=before[0].repetition + 1 if before else 0,
        )
        session.add(asked)
        session.flush()

        def fails(sop_class: str) -> int | None:
            if before:
                return DUPLICATE_TRANSACTION_UID
            return SOP_CLASS_NOT_SUPPORTED if sop_class in unsupported else None

        session.execute(
            CommitmentReference.__table__.insert(),  # type: ignore[attr-defined]
            [
                {
                    "commitment_id": asked.id,
                    "position": position,
                    "sop_class_uid": sop_class,
                    "sop_instance_uid": instance,
                    "failure_reason": fails(sop_class),
                }
                for position, (sop_class, instance) in enumerate(references, 1)
            ],
        )
        jobs.ask(session, jobs.COMMIT, str(asked.id), access.now)
        access.note(
            Action.COMMIT,
            reason="asked again" if before else "asked",
            detail={"transaction": transaction_uid, "instances": len(references)},
        )
        return asked.id

    return access.write(unit)


def check(access: Access, number: int, *, seconds: float = 60.0) -> bool:
    """Judge the references of a transaction, for `seconds` at most; True when all have a verdict.

    What was read back since the transaction was asked for is not read again, so that a long one can
    be checked in many calls. Raises NotFound, Refused, Unavailable; jobs.Later when an object is
    still on its way to where it will stay: from here, or from another machine's spool.
    """
    access.require(Action.COMMIT)
    # In a transaction of its own: PostgreSQL ends one in which nothing is asked for 30 s, and to
    # read one object may take longer.
    with access.exchange.database.reading() as session:
        commitment = session.get(Commitment, number)
        if commitment is None:
            raise NotFound("no such commitment")
        if commitment.checked is not None:
            return True
        references = _references(session, commitment)
    with suppress(StoreUnavailable, StoreFull):  # then it is carried on, and not settled
        access.objects.put_down()
    until = monotonic() + seconds
    verdicts: dict[int, int | None] = {}
    verified: list[int] = []
    waiting = False
    for position, sop_class, reason, kept in references:
        if monotonic() > until:
            break
        if reason is not None:
            verdicts[position] = reason
        elif not kept:
            verdicts[position] = NO_SUCH_OBJECT_INSTANCE
        elif all(one.sop_class_uid != sop_class for one in kept):
            verdicts[position] = CLASS_INSTANCE_CONFLICT
        else:
            verdict = _judge(access, commitment.requested, kept, verified)
            if verdict is None:
                waiting = True
            else:
                verdicts[position] = verdict or None
    complete = not waiting and len(verdicts) == len(references)

    def unit(session: Session) -> None:
        if verified:
            scrub.note_whole(session, verified, access.now)
        if complete:
            for position, reason in verdicts.items():
                if reason is not None:
                    session.execute(
                        update(CommitmentReference)
                        .where(
                            CommitmentReference.commitment_id == number,
                            CommitmentReference.position == position,
                        )
                        .values(failure_reason=reason)
                    )
            session.execute(
                update(Commitment).where(Commitment.id == number).values(checked=access.now)
            )
            access.note(
                Action.COMMIT,
                reason="checked",
                detail={
                    "transaction": commitment.transaction_uid,
                    "for": commitment.requester,
                    "failed": sum(reason is not None for reason in verdicts.values()),
                },
            )

    access.write(unit)
    if waiting:
        waited = (access.now - commitment.requested).total_seconds()
        raise jobs.Later(min(max(SPOOL_SECONDS, waited / 20), LONGEST_SECONDS))
    return complete


def report(access: Access, number: int) -> Report:
    """The verdict on a transaction that was checked. Raises NotFound, Refused."""
    access.require(Action.COMMIT)
    commitment = access.session.get(Commitment, number)
    if commitment is None or commitment.checked is None:
        raise NotFound("no such commitment, or it is not checked yet")
    if access.requester.organization not in {None, commitment.organization_id}:
        raise NotFound("no such commitment")
    rows = access.session.scalars(
        select(CommitmentReference)
        .where(CommitmentReference.commitment_id == number)
        .order_by(CommitmentReference.position)
    ).all()
    return Report(
        transaction_uid=commitment.transaction_uid,
        organization=commitment.organization_id,
        requester=commitment.requester,
        address=commitment.address,
        committed=tuple(
            (row.sop_class_uid, row.sop_instance_uid) for row in rows if row.failure_reason is None
        ),
        failed=tuple(
            ((row.sop_class_uid, row.sop_instance_uid), row.failure_reason)
            for row in rows
            if row.failure_reason is not None
        ),
    )


def number_of(access: Access, transaction_uid: str) -> int:
    """The row number of the asking hospital's transaction, as it was first asked for.

    Raises Refused, NotFound.
    """
    access.require(Action.COMMIT, detail={"transaction": transaction_uid})
    found = access.session.scalars(
        select(Commitment.id).where(
            Commitment.organization_id == access.organization,
            Commitment.transaction_uid == transaction_uid,
            Commitment.repetition == 0,
        )
    ).one_or_none()
    if found is None:
        raise NotFound("no such commitment")
    return found


def receivers(access: Access, told: Report) -> Sequence[ApplicationEntity]:
    """Where the asker can be called, the address from which it asked first."""
    listening = access.session.scalars(
        select(ApplicationEntity).where(
            ApplicationEntity.organization_id == told.organization,
            ApplicationEntity.title == told.requester,
            ApplicationEntity.port.is_not(None),
            registry.takes_part(ApplicationEntity.organization_id),
        )
    ).all()
    called = [one for one in listening if organizations.can_be_called(one)]
    return sorted(called, key=lambda one: (one.address != told.address, one.id))


def resume(session: Session, organization: int, at: datetime) -> None:
    """Have the reports brought that a hospital was owed when it was deactivated."""
    owed = select(Commitment.id).where(
        Commitment.organization_id == organization, Commitment.reported.is_(None)
    )
    for number in session.scalars(owed).all():
        jobs.ask(session, jobs.COMMIT, str(number), at)


def reported(access: Access, number: int, called: Report | None = None) -> None:
    """The asker has confirmed the report; where it was `called` for that, it answers again, and
    what else it is to be told is due."""
    access.require(Action.COMMIT)

    def unit(session: Session) -> None:
        session.execute(
            update(Commitment)
            .where(Commitment.id == number, Commitment.reported.is_(None))
            .values(reported=access.now)
        )
        if called is not None:
            jobs.bring_on(session, jobs.COMMIT, _to_the_same(called), access.now)
        access.note(Action.COMMIT, reason="reported", detail={"commitment": number})

    access.write(unit)


def unanswered(access: Access, number: int, told: Report) -> None:
    """The asker did not answer: it is told of nothing else before this is tried again.

    Raises Refused.
    """
    access.require(Action.COMMIT)
    access.write(
        lambda session: jobs.put_off(
            session, jobs.COMMIT, str(number), _to_the_same(told), access.now
        )
    )


def answered(access: Access, told: Report) -> None:
    """The asker has answered, if not as it should: what else it is to be told is due.

    Raises Refused.
    """
    access.require(Action.COMMIT)
    access.write(
        lambda session: jobs.bring_on(session, jobs.COMMIT, _to_the_same(told), access.now)
    )


def _to_the_same(told: Report) -> ColumnElement[bool]:
    return exists(
        select(Commitment.id).where(
            Commitment.id == jobs.about(jobs.COMMIT),
            Commitment.organization_id == told.organization,
            Commitment.requester == told.requester,
        )
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """A transaction as a list of them shows it."""

    organization: str
    requester: str
    transaction_uid: str
    instances: int
    failed: int
    requested: datetime
    checked: datetime | None
    reported: datetime | None


def latest(access: Access, limit: int = 50) -> Sequence[Listed]:
    """The last transactions of all hospitals, or of an administrator's own, the newest first.

    Raises Refused.
    """
    access.require(Action.ADMINISTER)
    own = access.requester.organization
    access.note(Action.ADMINISTER, reason="commitments listed")
    found = access.session.execute(
        select(Commitment, Organization.code)
        .join(Organization, Organization.id == Commitment.organization_id)
        .where(true() if own is None else Commitment.organization_id == own)
        .order_by(Commitment.id.desc())
        .limit(limit)
    ).all()
    listed = []
    for commitment, code in found:
        reasons = access.session.scalars(
            select(CommitmentReference.failure_reason).where(
                CommitmentReference.commitment_id == commitment.id
            )
        ).all()
        listed.append(
            Listed(
                code,
                commitment.requester,
                commitment.transaction_uid,
                len(reasons),
                sum(reason is not None for reason in reasons),
                commitment.requested,
                commitment.checked,
                commitment.reported,
            )
        )
    return listed


def _references(
    session: Session, commitment: Commitment
) -> Sequence[tuple[int, str, int | None, list[Instance]]]:
    """Position, SOP class, why it failed at once if it did, and what the asking hospital has sent
    under the instance's UID.

    Kept for review counts as kept: the bytes are there, and that is what is asked.
    """
    rows = session.execute(
        select(CommitmentReference, Instance)
        .outerjoin(
            Instance,
            (Instance.sop_instance_uid == CommitmentReference.sop_instance_uid)
            & (Instance.organization_id == commitment.organization_id),
        )
        .where(CommitmentReference.commitment_id == commitment.id)
        .order_by(CommitmentReference.position, Instance.id.desc())
    )
    found: dict[int, tuple[int, str, int | None, list[Instance]]] = {}
    for one, instance in rows:
        fresh: list[Instance] = []
        place = found.setdefault(
            one.position, (one.position, one.sop_class_uid, one.failure_reason, fresh)
        )
        if instance is not None:
            place[3].append(instance)
    return list(found.values())


def _same(session: Session, commitment: Commitment, references: Sequence[Reference]) -> bool:
    """Whether a transaction is of these instances."""
    rows = session.execute(
        select(CommitmentReference.sop_class_uid, CommitmentReference.sop_instance_uid)
        .where(CommitmentReference.commitment_id == commitment.id)
        .order_by(CommitmentReference.position)
    )
    return [tuple(row) for row in rows] == list(references)


def _judge(
    access: Access, since: datetime, kept: Sequence[Instance], verified: list[int]
) -> int | None:
    """0 when all that the hospital sent under the UID is safe, a failure reason, None: wait."""
    for instance in kept:
        if instance.verified is not None and instance.verified >= since:
            continue
        try:
            if not access.objects.settled(instance.key):
                return None
            if access.objects.digest(instance.key) != instance.digest:
                return PROCESSING_FAILURE
        except ObjectNotFound:
            waits = settling.may_come(access.objects, instance.received)
            return None if waits else PROCESSING_FAILURE
        verified.append(instance.id)
    return 0


FAILURES: Mapping[int, str] = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_OBJECT_INSTANCE: "no such object instance",
    0x0213: "resource limitation",
    SOP_CLASS_NOT_SUPPORTED: "referenced SOP class not supported",
    CLASS_INSTANCE_CONFLICT: "class and instance conflict",
    DUPLICATE_TRANSACTION_UID: "duplicate transaction UID",
}
"""Failure reasons in words."""

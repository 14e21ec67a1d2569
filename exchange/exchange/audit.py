"""The audit trail: append, and verify that nobody has altered, removed or reordered a record.

Each record's digest covers the one before it; the head of the chain is signed (Ed25519) with a
key that the database does not hold, and from time to time a checkpoint of it is kept in the object
store. So a change shows at the record itself, a removal at the gap, a removal at the end or a
rewritten chain at the head, and a head rolled back together with its records at the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import (
    CTE,
    Connection,
    Insert,
    Integer,
    Row,
    String,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from exchange.errors import Unavailable
from exchange.policy import Action, Requester
from exchange_storage.objects import ObjectStore
from exchange_storage.prepared import Prepared
from exchange_storage.records import AuditHead, AuditPatient, AuditRecord, AuditWaiting, Record
from exchange_storage.rows import as_rows, given_rows

log = logging.getLogger(__name__)

GENESIS = "0" * 64
"""What stands in for the digest before the first record."""

ASKED_LENGTH = 4096
"""Bytes of the longest question that the audit trail keeps as it came."""

TOGETHER = 1000
"""Transactions whose records take their place in the chain together, at most: what bounds how long
that holds it, after it could not be written for a while."""

CHECKPOINTS = "audit/"
"""Where checkpoints lie in the object store: ``audit/<sequence, 20 digits>.json``."""


class Outcome(StrEnum):
    """How it ended."""

    SUCCESS = "success"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be recorded of one act. Record numbers and UIDs; never names of patients."""

    requester: Requester
    action: Action
    outcome: Outcome
    reason: str
    at: datetime
    patient: int | None = None
    study: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """More of it. Its "patients" are all whose records it is about: it is found by each. Those on a
    worklist, for which devices ask every minute, are "scheduled", and it is not found by them. By
    several studies it is found where they were withheld: see `withheld`."""

    def told(self) -> dict[str, Any]:
        """What the record says, but for its number."""
        asker = self.requester
        told = {
            "recorded": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "action": self.action.value,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "requester": asker.name,
            "role": asker.role,
            "organization": asker.organization,
            "purpose": asker.purpose,
            "address": asker.address,
            "door": asker.door,
            "patient": self.patient,
            "study": self.study,
            "detail": self.detail,
        }
        if asker.person is not None:
            told["person"] = {"name": asker.person.name, "verified": asker.person.verified}
        return told

    def numbered(self, sequence: int) -> tuple[Mapping[str, Any], str]:
        """What the record says with its number, and the same as canonical JSON: sorted keys, no
        spaces, non-ASCII as it is."""
        told = {"sequence": sequence, **self.told()}
        return told, _written(told).decode()

    def line(self) -> bytes:
        """The same without its number: as it waits for its place in the chain."""
        return _written(self.told())


@dataclass(frozen=True, slots=True)
class Waited:
    """What is to be recorded, as it waited: see `waited`."""

    written: bytes
    told: Mapping[str, Any]

    def numbered(self, sequence: int) -> tuple[Mapping[str, Any], str]:
        """As of an `Entry`: in the line the number is put where its key belongs."""
        at = self.written.rindex(_BEHIND_SEQUENCE)  # within a text no quote is behind a comma
        content = b'%b,"sequence":%d%b' % (self.written[:at], sequence, self.written[at:])
        return {"sequence": sequence, **self.told}, content.decode()

    def line(self) -> bytes:
        """As it waited."""
        return self.written


Head = tuple[int, str]
"""The end of the chain: the last sequence number and digest."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with the trail, and at which record."""

    sequence: int
    what: str


_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


_BEHIND_SEQUENCE = b',"study":'
"""The last key of a record, which that of its number comes before."""


def waited(line: bytes) -> Waited | None:
    """What a line tells that `Entry.line` wrote; None for what is no such, and has no place."""
    try:
        told = json.loads(line)
        columns = _columns({"sequence": 0, **told})
        patients = told["detail"].get("patients", ())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    rows = [*patients, columns["patient_id"], columns["organization_id"]]
    fit = all(one is None or (type(one) is int and abs(one) < 1 << 63) for one in rows)
    return Waited(line, told) if fit and next(reversed(told)) == "study" else None


def _written(told: Mapping[str, Any]) -> bytes:
    # Half of a surrogate pair has no UTF-8; the escape that JSON has for it does.
    return _CANONICAL.encode(told).encode(errors="backslashreplace")


def link(previous: str, content: str) -> str:
    """The digest of a record: SHA-256 over the digest before it and its content."""
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


def for_the_trail(asked: str | bytes) -> str:
    """A question as the audit trail keeps it (BALP: base64), or only its digest if it is long."""
    asked = asked.encode(errors="replace") if isinstance(asked, str) else asked
    if len(asked) > ASKED_LENGTH:
        return f"sha256:{hashlib.sha256(asked).hexdigest()}"
    return b64encode(asked).decode()


_HEAD = Prepared(
    select(AuditHead.sequence, AuditHead.digest).where(AuditHead.id == 1).with_for_update()
)
_MOVE_HEAD = Prepared(
    update(AuditHead)
    .where(AuditHead.id == 1)
    .values({name: bindparam(f"new_{name}") for name in ("sequence", "digest", "signature")})
)
_WAIT = Prepared(insert(AuditWaiting), ["lines", "unreadable"])
_TAKE = Prepared(
    delete(AuditWaiting)
    .where(
        AuditWaiting.id.in_(
            # In order: PostgreSQL's index passes over what was taken and is not cleared yet.
            select(AuditWaiting.id)
            .where(~AuditWaiting.unreadable)
            .order_by(AuditWaiting.id)
            .limit(bindparam("most", type_=Integer))
        )
    )
    .returning(AuditWaiting.id, AuditWaiting.lines)
)
_WAITING = Prepared(select(func.count()).where(~AuditWaiting.unreadable))
_COLUMNS = tuple(AuditRecord.__table__.columns)
_ADD = Prepared(insert(AuditRecord), [column.key for column in _COLUMNS])
_ADD_PATIENT = Prepared(insert(AuditPatient), ["patient_id", "sequence"])


def _follow() -> Prepared:
    moved = (
        update(AuditHead)
        .where(
            AuditHead.id == 1,
            AuditHead.sequence == bindparam("held_sequence"),
            AuditHead.digest == bindparam("held_digest"),
        )
        .values({name: bindparam(f"new_{name}") for name in ("sequence", "digest", "signature")})
        .returning(AuditHead.id)
        .cte("moved")
    )
    about = _added(AuditPatient, moved).cte("about")
    told = _added(AuditRecord, moved).add_cte(about)
    return Prepared(told.returning(AuditRecord.sequence))


def _added(record: type[Record], moved: CTE) -> Insert:
    """An INSERT of rows that are given under the name of the table, if the head was `moved`."""
    names = [one.key for one in record.__table__.columns]
    rows = given_rows(record, names, record.__tablename__)
    told = select(*[rows.c[name] for name in names]).select_from(rows).join(moved, true())
    return insert(record).from_select(names, told)


_FOLLOW = _follow()
_WHOLE = select(
    # As text: whoever edits a row may put anything there, and that must be named, not raised.
    *(
        cast(column, String).label(column.key) if column.key == "recorded" else column
        for column in _COLUMNS
    )
).order_by(AuditRecord.sequence)


def begin(session: Session, key: Ed25519PrivateKey) -> None:
    """Start an empty chain, unless there is one."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    head = dialect.insert(AuditHead).values(id=1, **_signed(key, 0, GENESIS))
    session.execute(head.on_conflict_do_nothing())  # another process may begin it at once


def is_ours(session: Session, key: Ed25519PrivateKey) -> bool:
    """Whether the head of the chain carries the signature of `key`."""
    head = session.get(AuditHead, 1)
    return head is not None and _genuine(key, head.sequence, head.digest, head.signature)


def lock(session: Session) -> Head:
    """Take the end of the chain for this transaction: one writer at a time, in all processes.

    Returns the last sequence number and digest. Raises Unavailable when somebody has removed it.
    """
    head = _HEAD.first(session.connection(), {})
    if head is None:
        raise Unavailable("the head of the audit trail is missing: nothing can be recorded")
    return head.sequence, head.digest


def wait(connection: Connection, entries: Sequence[Entry | Waited]) -> None:
    """Have `entries` wait for their place in the chain; durable with the transaction.

    Each in its place costs the indexes of the trail several pages and the head a signature; many
    that take theirs together cost hardly more.
    """
    if entries:
        lines = b"\n".join(entry.line() for entry in entries)
        _WAIT.run(connection, {"lines": lines, "unreadable": False})


def taken(session: Session) -> tuple[list[Waited], bool]:
    """What waits, in its order, of `TOGETHER` transactions at most, and whether more may wait.

    In the transaction of `session` it does not wait any more.
    """
    rows = _TAKE.all(session.connection(), {"most": TOGETHER})
    found: list[Waited] = []
    unreadable = []
    for row in sorted(rows, key=itemgetter(0)):
        for line in row.lines.split(b"\n"):
            if (told := waited(line)) is not None:
                found.append(told)
            else:
                unreadable.append(line)
    if unreadable:
        log.error("records that waited were damaged: they are kept in audit_waiting")
        given = {"lines": b"\n".join(unreadable), "unreadable": True}
        _WAIT.run(session.connection(), given)
    return found, len(rows) == TOGETHER


def in_order(waited: Iterable[Waited]) -> list[Waited]:
    """By their moments; of one moment, as they are."""
    return sorted(waited, key=lambda one: str(one.told["recorded"]))


def waiting(connection: Connection) -> int:
    """Of how many transactions the records wait, as `connection` sees it."""
    return _WAITING.number(connection, {})


def append(
    session: Session, key: Ed25519PrivateKey, head: Head, entries: Sequence[Entry | Waited]
) -> Head:
    """Add `entries` behind `head`, which this transaction has locked, and sign the new head.

    Returns that. Raises Unavailable when somebody has moved the head all the same.
    """
    if not entries:
        return head
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        moved = follow(connection, key, head, entries)
        if moved is None:
            raise Unavailable("the head of the audit trail has moved: nothing can be recorded")
        return moved
    rows, about, moved = _behind(head, entries)
    _ADD.run_many(connection, rows)
    if about:
        _ADD_PATIENT.run_many(connection, about)
    signed = _signed(key, *moved)
    _MOVE_HEAD.run(connection, {f"new_{name}": value for name, value in signed.items()})
    return moved


def follow(
    connection: Connection, key: Ed25519PrivateKey, head: Head, entries: Sequence[Entry | Waited]
) -> Head | None:
    """Add `entries` by one statement if `head` is the end of the chain: for PostgreSQL only.

    Returns the new end, or None, and adds nothing, where the chain ends elsewhere. The row of the
    head is locked until the transaction ends, which may be this statement.
    """
    if not entries:
        return head
    rows, about, moved = _behind(head, entries)
    given: dict[str, Any] = {
        AuditRecord.__tablename__: as_rows(rows),
        AuditPatient.__tablename__: as_rows(about),
    }
    given |= {"held_sequence": head[0], "held_digest": head[1]}
    given |= {f"new_{name}": value for name, value in _signed(key, *moved).items()}
    return moved if _FOLLOW.all(connection, given) else None


def _behind(
    head: Head, entries: Sequence[Entry | Waited]
) -> tuple[list[dict[str, Any]], list[dict[str, int]], Head]:
    """The rows of `entries` behind `head`, those of patients beside, and the chain's new end.

    Beside are the patients whom records are about and who do not stand in their columns.
    """
    sequence, digest = head
    rows, about = [], []
    for entry in entries:
        sequence += 1
        told, content = entry.numbered(sequence)
        digest = link(digest, content)
        rows.append({**_columns(told), "content": content, "digest": digest})
        about += [
            {"patient_id": patient, "sequence": sequence}
            for patient in sorted(set(told["detail"].get("patients", ())) - {told["patient"]})
        ]
    return rows, about, (sequence, digest)


def verify(
    session: Session, key: Ed25519PrivateKey, objects: ObjectStore
) -> Iterator[Finding | int]:
    """Walk the whole chain: yields each `Finding`, and now and then how far it has come.

    Raises StoreUnavailable when the checkpoints cannot be read.
    """
    checkpoints: dict[int, str] = {}
    for sequence, kept in _checkpoints(key, objects):
        if kept:
            checkpoints[sequence] = kept
        else:
            yield Finding(sequence, "its checkpoint does not carry our signature")
    previous, sequence = GENESIS, 0
    checkpoints.pop(0, None)  # of the empty chain
    found_under = _found_under(session)
    under = next(found_under, None)
    for record in session.execute(_WHOLE.execution_options(yield_per=1000)):
        expected, others = sequence + 1, set[int]()
        while under is not None and under[0] <= record.sequence:
            others = under[1] if under[0] == record.sequence else set()
            under = next(found_under, None)
        if record.sequence != expected:
            yield Finding(expected, f"missing: the next record is {record.sequence}")
        elif link(previous, record.content) != record.digest:
            yield Finding(record.sequence, "altered, or not the one that followed")
        elif difference := _differs(record):
            yield Finding(record.sequence, f"altered: {difference} is not what was recorded")
        elif others != _others(record):
            yield Finding(record.sequence, "altered: it is not found under its patients")
        sequence, previous = record.sequence, record.digest
        if checkpoints.pop(sequence, previous) != previous:
            yield Finding(sequence, "not the record of its checkpoint")
        if sequence % 1000 == 0:
            yield sequence
    yield from (Finding(missing, "missing: a checkpoint names it") for missing in checkpoints)
    if under is not None:
        yield Finding(under[0], "missing: it is found under a patient")
    if astray := session.scalar(select(func.count()).where(AuditWaiting.unreadable)):
        yield Finding(sequence, f"{astray} times records that waited were damaged: audit_waiting")
    head = session.get(AuditHead, 1)
    if head is None:
        yield Finding(sequence, "the head of the chain is missing")
    elif not _genuine(key, head.sequence, head.digest, head.signature):
        yield Finding(head.sequence, "the head of the chain does not carry our signature")
    elif (head.sequence, head.digest) != (sequence, previous):
        yield Finding(head.sequence, f"the head of the chain; the last record found is {sequence}")


def latest(session: Session, limit: int = 50) -> Sequence[AuditRecord]:
    """The last records of the trail, the newest first."""
    newest = select(AuditRecord).order_by(AuditRecord.sequence.desc()).limit(limit)
    return session.scalars(newest).all()


def checkpoint(session: Session, objects: ObjectStore) -> int:
    """Keep the signed head in the object store, and return its sequence number."""
    head = session.execute(select(AuditHead)).scalar_one()
    note = {"sequence": head.sequence, "digest": head.digest, "signature": head.signature}
    objects.put(_place(head.sequence), json.dumps(note).encode())
    return head.sequence


def _place(sequence: int) -> str:
    return f"{CHECKPOINTS}{sequence:020}.json"


def _checkpoints(key: Ed25519PrivateKey, objects: ObjectStore) -> Iterator[tuple[int, str]]:
    """Sequence and digest of every checkpoint; the digest "" where it is not one of ours."""
    for stored in objects.list(CHECKPOINTS):
        sequence, genuine, digest = 0, False, ""
        try:
            note = json.loads(objects.get(stored.key, 0, 4096))
            sequence, digest = int(note["sequence"]), str(note["digest"])
            placed = stored.key == _place(sequence)  # an older one in its place is no proof
            genuine = placed and _genuine(key, sequence, digest, str(note["signature"]))
        except (ValueError, KeyError, TypeError):
            pass  # whoever put it there did not know what a checkpoint is
        yield sequence, digest if genuine else ""


def _columns(told: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a record that stand in columns of their own."""
    return {
        "sequence": told["sequence"],
        "recorded": datetime.fromisoformat(told["recorded"]),
        "action": told["action"],
        "outcome": told["outcome"],
        "requester": _word(told["requester"], 255),
        "organization_id": told["organization"],
        "patient_id": told["patient"],
        "study_instance_uid": _word(told["study"], 64),
    }


def _word(text: str, length: int) -> str:
    """As much of `text` as a column keeps: no act goes unrecorded for the name of who did it."""
    return text.replace("\0", "").encode(errors="backslashreplace").decode()[:length]


def _differs(record: Row[*tuple[Any, ...]]) -> str:
    """The first column that does not say what the content says, or ""."""
    try:
        told = _columns(json.loads(record.content))
    except (ValueError, KeyError, TypeError):
        return "content"
    try:
        recorded = datetime.fromisoformat(str(record.recorded))
    except ValueError:
        return "recorded"
    if recorded.replace(tzinfo=recorded.tzinfo or UTC) != told.pop("recorded"):
        return "recorded"
    return next((name for name, value in told.items() if getattr(record, name) != value), "")


def _found_under(session: Session) -> Iterator[tuple[int, set[int]]]:
    """The records that are found under patients beside the one in their column, in order."""
    rows = select(AuditPatient.sequence, AuditPatient.patient_id).order_by(AuditPatient.sequence)
    told = session.execute(rows.execution_options(yield_per=1000))
    for sequence, ones in groupby(told, key=itemgetter(0)):
        yield sequence, {patient for _, patient in ones}


def _others(record: Row[*tuple[Any, ...]]) -> set[int]:
    """The patients whom an unaltered record is about, beside the one in its column."""
    if '"patients":[' not in record.content:
        return set()
    named = json.loads(record.content)["detail"].get("patients")
    found = {one for one in named if type(one) is int} if isinstance(named, list) else set()
    return found - {record.patient_id}


def _note(sequence: int, digest: str) -> bytes:
    return f"imaging-exchange audit head\n{sequence}\n{digest}\n".encode()


def _signed(key: Ed25519PrivateKey, sequence: int, digest: str) -> dict[str, Any]:
    signature = b64encode(key.sign(_note(sequence, digest))).decode()
    return {"sequence": sequence, "digest": digest, "signature": signature}


def _genuine(key: Ed25519PrivateKey, sequence: int, digest: str, signature: str) -> bool:
    try:
        key.public_key().verify(b64decode(signature), _note(sequence, digest))
    except (InvalidSignature, ValueError):
        return False
    return True

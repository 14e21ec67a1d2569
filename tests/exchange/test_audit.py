"""The audit trail: whatever is done to it behind the exchange's back shows when it is verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from region import ADMINISTRATOR, Region
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.orm import Session

from exchange import audit
from exchange.audit import Entry, Finding, Outcome
from exchange.policy import Action, Purpose, Requester, Role
from exchange_storage.database import Database
from exchange_storage.objects import MemoryStore, ObjectStore
from exchange_storage.records import AuditHead, AuditPatient, AuditRecord

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOW = datetime(2026, 11, 1, 10, 15, tzinfo=UTC)
COLUMNS = [column.key for column in AuditRecord.__table__.columns]


def entry(number: int = 0, name: str = "dr.wang", patients: Sequence[int] = ()) -> Entry:
    """Somebody has looked at something."""
    return Entry(
        requester=Requester(
            name=name, role=Role.CLINICIAN, organization=2, purpose=Purpose.TREATMENT, door="fhir"
        ),
        action=Action.RETRIEVE,
        outcome=Outcome.SUCCESS,
        reason="",
        at=NOW + timedelta(seconds=number),
        patient=number + 7,
        study=f"1.2.{number}",
        detail={"姓名": "never"} | ({"patients": [*patients]} if patients else {}),
    )


def write(session: Session, entries: list[Entry]) -> None:
    audit.append(session, KEY, audit.lock(session), entries)


def findings(session: Session, objects: ObjectStore | None = None) -> list[Finding]:
    session.expire_all()
    verified = audit.verify(session, KEY, objects or MemoryStore())
    return [one for one in verified if isinstance(one, Finding)]


@pytest.fixture(scope="module")
def database(lasting_database_url: str) -> Iterator[Database]:
    """One database of each kind for the whole module."""
    made = Database(lasting_database_url, connections=4)
    yield made
    made.close()


@pytest.fixture
def trail(database: Database) -> Iterator[Session]:
    """A trail of five records in a transaction that is taken back afterwards."""
    with database.writing() as session:
        audit.begin(session, KEY)
        write(session, [entry(number) for number in range(2)])
        write(session, [entry(number) for number in range(2, 5)])
        assert findings(session) == []
        yield session
        session.rollback()


OTHER = {
    "sequence": 77,
    "recorded": NOW - timedelta(days=1),
    "action": "search",
    "outcome": "refused",
    "requester": "nobody",
    "organization_id": 1,
    "patient_id": None,
    "study_instance_uid": "",
    "content": entry(1).numbered(3)[1],
    "digest": "0" * 64,
}


@pytest.mark.parametrize("column", COLUMNS)
def test_an_edit_of_any_column_shows_at_the_record(trail: Session, column: str) -> None:
    trail.execute(
        update(AuditRecord).where(AuditRecord.sequence == 3).values({column: OTHER[column]})
    )

    assert findings(trail)[0].sequence == 3


def test_a_record_is_found_under_each_of_its_patients_and_who_takes_one_away_shows(
    trail: Session,
) -> None:
    write(trail, [entry(5, patients=[12, 30, 31]), entry(6, patients=[13])])
    under = select(AuditPatient.patient_id, AuditPatient.sequence).order_by(AuditPatient.patient_id)
    assert trail.execute(under).all() == [(30, 6), (31, 6)]
    assert findings(trail) == []

    with trail.begin_nested() as taken:
        trail.execute(delete(AuditPatient).where(AuditPatient.patient_id == 30))
        assert [one.sequence for one in findings(trail)] == [6]
        taken.rollback()
    with trail.begin_nested() as exchanged:
        trail.execute(update(AuditPatient).where(AuditPatient.patient_id == 30).values(sequence=7))
        assert [one.sequence for one in findings(trail)] == [6, 7]
        exchanged.rollback()
    trail.execute(insert(AuditPatient).values(patient_id=30, sequence=3))
    trail.execute(insert(AuditPatient).values(patient_id=30, sequence=9))
    assert [one.sequence for one in findings(trail)] == [3, 9]


def test_a_record_rewritten_with_a_fitting_digest_shows_at_the_one_after_it(
    trail: Session,
) -> None:
    before = trail.get_one(AuditRecord, 2)
    content = trail.get_one(AuditRecord, 3).content.replace("dr.wang", "dr.none")
    trail.execute(
        update(AuditRecord)
        .where(AuditRecord.sequence == 3)
        .values(content=content, digest=audit.link(before.digest, content), requester="dr.none")
    )

    assert [one.sequence for one in findings(trail)] == [4]


@pytest.mark.parametrize("removed", [1, 3])
def test_a_removed_record_shows_at_its_gap(trail: Session, removed: int) -> None:
    trail.execute(delete(AuditRecord).where(AuditRecord.sequence == removed))

    (finding,) = findings(trail)
    assert finding.sequence == removed
    assert "missing" in finding.what


def test_records_that_changed_places_show(trail: Session) -> None:
    for old, new in ((2, 99), (3, 2), (99, 3)):
        trail.execute(update(AuditRecord).where(AuditRecord.sequence == old).values(sequence=new))

    assert {2, 3} <= {one.sequence for one in findings(trail)}


@pytest.mark.parametrize("sequence", [-1, 0, 6])
def test_an_inserted_record_shows(trail: Session, sequence: int) -> None:
    last = trail.get_one(AuditRecord, 5)
    content = entry().numbered(sequence)[1]
    trail.execute(
        insert(AuditRecord).values(
            audit._columns(json.loads(content))
            | {"content": content, "digest": audit.link(last.digest, content)}
        )
    )

    assert findings(trail)


def test_a_removal_at_the_end_shows_at_the_head(trail: Session) -> None:
    trail.execute(delete(AuditRecord).where(AuditRecord.sequence > 3))

    (finding,) = findings(trail)
    assert finding == Finding(5, "the head of the chain; the last record found is 3")


def test_a_whole_new_chain_shows_at_the_head(trail: Session) -> None:
    trail.execute(delete(AuditRecord))
    digest = audit.GENESIS
    for sequence in range(1, 6):
        content = entry(sequence, name="nobody").numbered(sequence)[1]
        digest = audit.link(digest, content)
        trail.execute(
            insert(AuditRecord).values(
                audit._columns(json.loads(content)) | {"content": content, "digest": digest}
            )
        )
    assert [one.sequence for one in findings(trail)] == [5]

    trail.execute(update(AuditHead).values(digest=digest))
    assert findings(trail) == [Finding(5, "the head of the chain does not carry our signature")]

    forged = audit._signed(Ed25519PrivateKey.generate(), 5, digest)
    trail.execute(update(AuditHead).values(**forged))
    assert findings(trail) == [Finding(5, "the head of the chain does not carry our signature")]

    trail.execute(update(AuditHead).values(signature="not base64 …"))
    assert findings(trail) == [Finding(5, "the head of the chain does not carry our signature")]


def test_a_missing_head_shows(trail: Session) -> None:
    trail.execute(delete(AuditHead))

    assert findings(trail) == [Finding(5, "the head of the chain is missing")]


def test_a_trail_rolled_back_together_with_its_head_shows_at_the_checkpoint(
    trail: Session,
) -> None:
    objects = MemoryStore()
    earlier = audit._signed(KEY, 3, trail.get_one(AuditRecord, 3).digest)
    assert audit.checkpoint(trail, objects) == 5
    assert findings(trail, objects) == []

    trail.execute(delete(AuditRecord).where(AuditRecord.sequence > 3))
    trail.execute(update(AuditHead).values(**earlier))

    assert findings(trail) == []  # nothing in the database can tell
    assert findings(trail, objects) == [Finding(5, "missing: a checkpoint names it")]

    write(trail, [entry(8), entry(9), entry(10)])  # nor can it be covered up by going on
    assert findings(trail, objects) == [Finding(5, "not the record of its checkpoint")]


def test_a_forged_or_unreadable_checkpoint_shows(trail: Session) -> None:
    objects = MemoryStore()
    audit.checkpoint(trail, objects)
    note = json.loads(objects.get("audit/00000000000000000005.json"))
    for sequence, content in (
        (2, json.dumps(note)),
        (3, json.dumps(note | {"digest": "0" * 64})),
        (4, "{"),
        (6, "[]"),
        (7, "{}"),
    ):
        objects.put(f"audit/{sequence:020}.json", content.encode())

    told = [one.sequence for one in findings(trail, objects)]
    assert len(told) == 5


def test_the_checkpoint_of_an_empty_trail_is_no_finding(trail: Session) -> None:
    objects = MemoryStore()
    trail.execute(delete(AuditRecord))
    trail.execute(update(AuditHead).values(**audit._signed(KEY, 0, audit.GENESIS)))
    audit.checkpoint(trail, objects)
    assert findings(trail, objects) == []

    write(trail, [entry()])
    assert findings(trail, objects) == []


def test_no_name_is_too_strange_or_too_long_to_be_recorded(trail: Session) -> None:
    strange = ["", "a\0b", "\ud800", "王" * 300, "'; --", "\n", "\u2028", "\udfff\0" * 200]
    write(trail, [entry(name=name) for name in strange])

    assert findings(trail) == []
    kept = trail.scalars(select(AuditRecord.content).where(AuditRecord.sequence > 5)).all()
    assert {json.loads(content)["requester"] for content in kept} == set(strange)


def test_beginning_twice_keeps_the_trail(trail: Session) -> None:
    audit.begin(trail, KEY)

    assert findings(trail) == []
    assert trail.get_one(AuditHead, 1).sequence == 5


Tampering = Callable[[Session, int, int], None]


def alter(session: Session, at: int, other: int) -> None:
    content = session.get_one(AuditRecord, at).content
    place = other % len(content)
    changed = content[:place] + chr(ord(content[place]) ^ 1) + content[place + 1 :]
    session.execute(update(AuditRecord).where(AuditRecord.sequence == at).values(content=changed))


def remove(session: Session, at: int, _: int) -> None:
    session.execute(delete(AuditRecord).where(AuditRecord.sequence == at))


def swap_contents(session: Session, at: int, other: int) -> None:
    rows = session.execute(select(AuditRecord.sequence, AuditRecord.content)).all()
    contents = dict(rows)
    there = sorted(contents)[other % len(contents)]
    if there == at:
        remove(session, at, 0)
        return
    for sequence, content in ((at, contents[there]), (there, contents[at])):
        session.execute(
            update(AuditRecord).where(AuditRecord.sequence == sequence).values(content=content)
        )


def renumber(session: Session, at: int, other: int) -> None:
    session.execute(
        update(AuditRecord).where(AuditRecord.sequence == at).values(sequence=-1 - other)
    )


def insert_another(session: Session, at: int, _: int) -> None:
    session.execute(text("UPDATE audit_record SET sequence = -sequence"))
    session.execute(text("UPDATE audit_record SET sequence = 1 - sequence WHERE -sequence >= :at"),
                    {"at": at})  # fmt: skip
    session.execute(text("UPDATE audit_record SET sequence = -sequence WHERE sequence < 0"))
    content = entry(at).numbered(at)[1]
    session.execute(
        insert(AuditRecord).values(
            audit._columns(json.loads(content))
            | {"content": content, "digest": audit.link("", content)}
        )
    )


@settings(max_examples=100, deadline=None)
@given(
    trails=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    tampering=st.sampled_from([alter, remove, swap_contents, renumber, insert_another]),
    data=st.data(),
)
def test_whatever_is_done_to_any_trail_shows(
    database: Database, trails: list[int], tampering: Tampering, data: st.DataObject
) -> None:
    with database.writing() as session:
        audit.begin(session, KEY)
        for number, size in enumerate(trails):
            write(session, [entry(number * 10 + one) for one in range(size)])
        assert findings(session) == []

        at = data.draw(st.integers(1, sum(trails)), label="record")
        tampering(session, at, data.draw(st.integers(0, 400), label="other"))

        assert findings(session)
        session.rollback()


def test_what_hospitals_do_is_verified_while_they_go_on(city: Region) -> None:
    city.send("beicheng")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        walk = audit.verify(access.session, city.exchange.signing_key, city.exchange.objects)
        before = access.session.get_one(AuditHead, 1).sequence
        city.send("nanhu", study="1.2.2", instance="1.4.2")  # beside the verification

        assert list(walk) == []
        assert [one.sequence for one in audit.latest(access.session, 2)] == [before, before - 1]

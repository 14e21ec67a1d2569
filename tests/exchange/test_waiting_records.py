"""Records of what changed nothing wait in a journal for the trail; none is lost or comes twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from roles import eventually
from sqlalchemy import select
from sqlalchemy.orm import Session

from exchange import audit, trail
from exchange.access import Exchange
from exchange.audit import Entry, Outcome, Waited
from exchange.errors import NotFound, Refused
from exchange.policy import Action, Requester, Role
from exchange_storage.database import Database
from exchange_storage.journal import Journal
from exchange_storage.objects import MemoryStore
from exchange_storage.records import AuditPatient, AuditRecord, AuditWaiting, JournalFile

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
SYSTEM = Requester(name="node", role=Role.EXCHANGE, organization=None, purpose=None)
ADMINISTRATOR = Requester(name="chief", role=Role.ADMINISTRATOR, organization=None, purpose=None)


def opened(database_url: str, place: Path) -> Exchange:
    return Exchange(Database(database_url), MemoryStore(), KEY, Journal(place))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the journals are."""
    return tmp_path / "journal"


@pytest.fixture
def exchange(database_url: str, place: Path) -> Iterator[Exchange]:
    """An exchange whose records wait in a journal."""
    made = opened(database_url, place)
    made.prepare()
    yield made
    made.close()


def ask(exchange: Exchange, what: str) -> None:
    with exchange.on_behalf_of(SYSTEM) as access:
        access.note(Action.SEARCH, detail={"what": what})


def recorded(exchange: Exchange) -> list[str]:
    """What is in the index, as it is."""
    with exchange.database.reading() as session:
        told = session.scalars(select(AuditRecord.content).order_by(AuditRecord.sequence)).all()
    return [json.loads(one)["detail"].get("what", "") for one in told]


def wrong(exchange: Exchange) -> list[audit.Finding]:
    with exchange.database.reading() as session:
        walk = audit.verify(session, exchange.signing_key, exchange.objects)
        return [one for one in walk if isinstance(one, audit.Finding)]


def test_a_question_does_not_wait_for_an_image_that_is_being_committed(exchange: Exchange) -> None:
    answered = threading.Event()

    def asking() -> None:
        ask(exchange, "asked")
        answered.set()

    with exchange.database.writing() as session:
        audit.lock(session)
        asker = threading.Thread(target=asking)
        asker.start()
        assert answered.wait(30)
    asker.join()
    exchange.catch_up()
    assert recorded(exchange) == ["asked"]
    assert wrong(exchange) == []


def test_who_reads_the_trail_is_told_of_whatever_was_answered_before(
    exchange: Exchange, database_url: str, place: Path
) -> None:
    ask(exchange, "here")
    other = opened(database_url, place)
    ask(other, "in another process")
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        access.session.execute(select(1))  # of a moment before
        ask(other, "meanwhile")
        told = trail.records(access)
    assert {one["detail"]["what"] for one in told} == {"here", "in another process", "meanwhile"}
    other.close()


def test_on_a_server_no_question_waits_for_an_image_that_is_being_committed(
    database_url: str,
) -> None:
    exchange = Exchange(Database(database_url), MemoryStore(), KEY, gathers=True)
    exchange.prepare()
    if exchange.database.dialect == "postgresql":
        with exchange.database.writing() as session:
            audit.lock(session)
            ask(exchange, "asked")
    ask(exchange, "last")
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert trail.records(access)[0]["detail"]["what"] == "last"
    assert wrong(exchange) == []
    exchange.close()


def keep(exchange: Exchange, what: str) -> None:
    with exchange.on_behalf_of(SYSTEM) as access:
        access.write(lambda _: access.note(Action.STORE, detail={"what": what}))


@pytest.mark.parametrize("brought", [False, True])
def test_who_reads_the_trail_is_told_of_whatever_was_kept_before(
    exchange: Exchange, database_url: str, place: Path, *, brought: bool
) -> None:
    keep(exchange, "here")
    ask(exchange, "asked")
    other = opened(database_url, place)
    keep(other, "in another process")
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        access.session.execute(select(1))  # of a moment before
        keep(other, "meanwhile")
        if brought:  # to the trail by somebody else, since that moment
            other.catch_up()
        told = trail.records(access)
    newest_first = [one["detail"]["what"] for one in told]
    assert newest_first == ["meanwhile", "in another process", "asked", "here"]
    other.close()


@pytest.mark.parametrize("way", ["by whoever reads it", "by itself"])
def test_what_waited_for_long_comes_to_the_trail_in_portions(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(audit, "TOGETHER", 2)
    with exchange.database.writing() as session:
        for number in range(7):
            lines = line_of(f"{number}")
            session.add(AuditWaiting(lines=lines, unreadable=False))
            session.flush()
    with exchange.database.writing() as session:
        found, more = audit.taken(session)
        assert (len(found), more) == (2, True)
        session.rollback()
    if way == "by whoever reads it":
        exchange.catch_up()
    else:
        keep(exchange, "7")
        eventually(lambda: len(recorded(exchange)), 8)
    assert recorded(exchange)[:7] == list("0123456")
    assert wrong(exchange) == []


def test_an_image_is_kept_with_its_record_or_not_at_all(exchange: Exchange) -> None:
    def unit(session: Session) -> None:
        session.add(JournalFile(name="kept", reached=1))
        audit.wait(session.connection(), [Waited(line_of("kept"), {})])

    def lost() -> None:
        raise RuntimeError("the disk")

    with pytest.raises(RuntimeError), exchange.on_behalf_of(SYSTEM) as access:
        access.write(unit, after=lost)
    with exchange.database.reading() as session:
        assert session.scalars(select(JournalFile.name)).all() == []
        assert audit.waiting(session.connection()) == 0


def test_what_waits_in_the_index_and_is_no_record_keeps_none_waiting_and_is_kept(
    exchange: Exchange,
) -> None:
    with exchange.database.writing() as session:
        lines = b"\n".join([b"{}", line_of("first"), b'{"study":"",' + line_of("x")[1:]])
        session.add(AuditWaiting(lines=lines, unreadable=False))
    keep(exchange, "second")
    exchange.catch_up()
    exchange.catch_up()
    assert recorded(exchange) == ["first", "second"]
    with exchange.database.reading() as session:
        (kept,) = session.scalars(select(AuditWaiting))
        assert kept.unreadable
        assert kept.lines.startswith(b"{}\n")
    (finding,) = wrong(exchange)
    assert "damaged" in finding.what


def test_records_that_wait_come_to_the_trail_when_nobody_does_anything_else(
    exchange: Exchange,
) -> None:
    ask(exchange, "asked")
    eventually(lambda: recorded(exchange), ["asked"])


def test_what_a_request_did_stands_behind_what_was_asked_before(exchange: Exchange) -> None:
    ask(exchange, "first")
    with exchange.on_behalf_of(SYSTEM) as access:
        access.note(Action.SEARCH, detail={"what": "second"})
        access.write(lambda _: access.note(Action.STORE, detail={"what": "third"}))
    ask(exchange, "fourth")
    exchange.catch_up()
    assert recorded(exchange) == ["first", "second", "third", "fourth"]


def test_refusals_and_failures_wait_like_all_others(exchange: Exchange) -> None:
    hospital = Requester(
        name="chief", role=Role.ADMINISTRATOR, organization=1, purpose=None, door="cli"
    )
    with pytest.raises(Refused), exchange.on_behalf_of(hospital) as access:
        access.require_region()
    with pytest.raises(NotFound), exchange.on_behalf_of(ADMINISTRATOR) as access:
        trail.one(access, 1_000)
    exchange.catch_up()
    with exchange.database.reading() as session:
        outcomes = session.scalars(select(AuditRecord.outcome).order_by(AuditRecord.sequence))
        assert list(outcomes) == ["refused", "failed"]


def test_where_the_journal_cannot_be_written_the_trail_is(exchange: Exchange, place: Path) -> None:
    place.write_text("a file where the directory belongs")
    ask(exchange, "asked")
    assert recorded(exchange) == ["asked"]
    place.unlink()


def test_all_patients_of_a_record_that_waited_find_it(exchange: Exchange) -> None:
    with exchange.on_behalf_of(SYSTEM) as access:
        access.note(Action.SEARCH, patient=3, detail={"what": "list", "patients": [5, 3, 4]})
    exchange.catch_up()
    with exchange.database.reading() as session:
        found = session.execute(select(AuditPatient.patient_id, AuditPatient.sequence)).all()
    assert sorted(patient for patient, _ in found) == [4, 5]
    assert wrong(exchange) == []


TEXT = st.text(st.characters(codec=None), max_size=20)
DETAIL = st.dictionaries(
    TEXT.filter(lambda name: name != "patients"),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(TEXT, TEXT, DETAIL, st.datetimes(timezones=st.timezones()))
def test_a_record_that_waited_is_the_one_that_did_not(
    name: str, reason: str, detail: dict[str, object], at: object
) -> None:
    entry = Entry(
        requester=Requester(name=name, role=Role.CLINICIAN, organization=1, purpose=None),
        action=Action.SEARCH,
        outcome=Outcome.SUCCESS,
        reason=reason,
        at=at,  # type: ignore[arg-type]
        study="2.25.1",
        detail=detail,
    )
    head = (7, audit.GENESIS)
    at_once, about, end = audit._behind(head, [entry])
    waited = audit.waited(entry.line())
    assert waited is not None
    assert audit._behind(head, [waited]) == (at_once, about, end)
    assert at_once[0]["content"] == entry.numbered(8)[1]
    assert b"\n" not in entry.line()


ASKING = """
import os, sys, threading
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from exchange import commits
from exchange.access import Exchange
from exchange.policy import Action, Requester, Role
from exchange_storage import journal
from exchange_storage.database import Database
from exchange_storage.journal import Journal
from exchange_storage.objects import MemoryStore

url, place, name, journals = sys.argv[1:]
commits.GATHERING, journal.LENGTH = 0.003, 4000
key = Ed25519PrivateKey.from_private_bytes(bytes(32))
kept = Journal(Path(place)) if journals else None
exchange = Exchange(Database(url), MemoryStore(), key, kept, gathers=True)
asker = Requester(name=name, role=Role.EXCHANGE, organization=None, purpose=None)

def work(thread):
    for number in range(1_000_000):
        what = f"{name}-{thread}-{number}"
        with exchange.on_behalf_of(asker) as access:
            access.note(Action.SEARCH, detail={"what": what})
            if number % 7 == 0:
                access.write(lambda _: access.note(Action.STORE, detail={"what": what + "w"}))
        os.write(1, f"{what}\\n".encode())

for thread in range(3):
    threading.Thread(target=work, args=(thread,)).start()
"""


@pytest.mark.parametrize("journals", [True, False], ids=["in journals", "in the index"])
def test_nothing_that_was_answered_is_missing_or_there_twice_when_processes_are_killed(
    database_url: str, place: Path, journals: bool
) -> None:
    journal = Journal(place) if journals else None
    exchange = Exchange(Database(database_url), MemoryStore(), KEY, journal, gathers=True)
    exchange.prepare()
    chance, answered, running = random.Random(9), list[str](), list[subprocess.Popen[bytes]]()
    try:
        for turn in range(6):
            running = [
                subprocess.Popen(
                    [
                        *(sys.executable, "-c", ASKING, database_url, str(place)),
                        *(f"{name}{turn}", "journals" if journals else ""),
                    ],
                    stdout=subprocess.PIPE,
                )
                for name in ("node", "web")
            ]
            for one in running:  # each has begun
                assert one.stdout is not None
                answered.append(one.stdout.readline().decode().strip())
            time.sleep(chance.uniform(0, 0.4))
            for one in running:
                one.kill()
            for one in running:
                answered += one.communicate()[0].decode().split("\n")[:-1]
            if turn % 2:
                exchange.catch_up()
    finally:
        for one in running:
            one.kill()
            one.wait()
    exchange.catch_up()

    times = Counter(recorded(exchange))
    assert len(answered) > 50
    assert [what for what in answered if times[what] != 1] == []
    assert [what for what, count in times.items() if count != 1] == []
    assert wrong(exchange) == []
    exchange.close()
    assert not journals or list(place.iterdir()) == []


def line_of(what: str, patient: int | None = None) -> bytes:
    """A record as it waits in a journal."""
    entry = Entry(
        requester=SYSTEM,
        action=Action.SEARCH,
        outcome=Outcome.SUCCESS,
        reason="",
        at=datetime(2026, 11, 27, tzinfo=UTC),
        patient=patient,
        detail={"what": what},
    )
    return entry.line()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'{"detail":{"patients":7}}',
        line_of("too great", patient=1 << 63),
    ],
)
def test_a_line_that_is_no_record_keeps_none_waiting_and_is_kept_for_the_operators(
    exchange: Exchange, place: Path, line: bytes
) -> None:
    ask(exchange, "first")
    other = Journal(place)
    other.append([line])
    other.close()
    ask(exchange, "second")
    exchange.catch_up()
    ask(exchange, "third")
    exchange.catch_up()
    assert sorted(recorded(exchange)) == ["first", "second", "third"]
    (kept,) = place.glob("*.damaged")
    assert line in kept.read_bytes()
    assert wrong(exchange) == []


def test_what_was_committed_is_not_done_again_where_a_file_cannot_be_removed(
    exchange: Exchange, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    other = Journal(place)
    other.append([line_of("left")])
    other.close()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        exchange.catch_up()
        with exchange.on_behalf_of(SYSTEM) as access:
            access.write(lambda _: access.note(Action.STORE, detail={"what": "stored"}))
        exchange.catch_up()
    exchange.catch_up()
    assert recorded(exchange) == ["left", "stored"]

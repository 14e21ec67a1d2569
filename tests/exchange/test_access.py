"""The gate: nothing is answered that is not recorded, and nothing is recorded by halves."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from real_parts import PostgreSQL, postgresql
from region import ADMINISTRATOR, HOSPITALS, WORKER, Region, region
from sqlalchemy import Connection, Integer, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from exchange import audit, commits, query, users
from exchange.access import Access, Exchange, translated
from exchange.errors import Invalid, NoRoom, NotFound, Refused, Unavailable
from exchange.policy import Action
from exchange_storage import database
from exchange_storage.database import Database
from exchange_storage.objects import MemoryStore, ObjectNotFound, StoreFull, StoreUnavailable
from exchange_storage.prepared import Prepared
from exchange_storage.records import AuditRecord, Job, Organization, Person
from exchange_storage.search import Level


def trail(city: Region) -> list[tuple[str, str, str]]:
    """Action, outcome and requester of every record after the registration of the hospitals."""
    with city.exchange.database.reading() as session:
        rows = session.execute(
            select(AuditRecord.action, AuditRecord.outcome, AuditRecord.requester)
            .where(AuditRecord.sequence > len(HOSPITALS))
            .order_by(AuditRecord.sequence)
        ).all()
    return [(action, outcome, requester) for action, outcome, requester in rows]


def persons(city: Region) -> int:
    with city.exchange.database.reading() as session:
        return session.execute(select(func.count()).select_from(Person)).scalar_one()


def wrong(exchange: Exchange) -> list[audit.Finding]:
    with exchange.database.reading() as session:
        walk = audit.verify(session, exchange.signing_key, exchange.objects)
        return [one for one in walk if isinstance(one, audit.Finding)]


def a_person(access: Access, number: str = "1") -> Callable[[Session], Person]:
    """A unit of work that makes a person, and notes it."""

    def unit(session: Session) -> Person:
        person = Person(resident_id=number, created=access.now)
        session.add(person)
        access.note(Action.LINK, reason="person made")
        return person

    return unit


def test_a_unit_of_work_and_its_records_are_durable_when_it_returns(city: Region) -> None:
    with city.exchange.on_behalf_of(WORKER) as access:
        access.note(Action.SEARCH)
        made = access.write(a_person(access))

        assert made.resident_id == "1"
        assert persons(city) == 1
        assert trail(city) == [("search", "success", "worker"), ("link", "success", "worker")]
    assert len(trail(city)) == 2  # and not once more


def test_reading_is_durable_in_the_trail_when_the_block_has_ended(city: Region) -> None:
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        query.find(access, Level.STUDY, [], limit=10)

    assert trail(city) == [("search", "success", "dr.nanhu")]


def test_a_refusal_undoes_everything_but_its_audit_records(city: Region) -> None:
    def overreach(access: Access) -> None:
        def unit(session: Session) -> None:
            a_person(access)(session)
            session.flush()
            access.require(Action.STORE)

        access.note(Action.SEARCH)
        access.write(unit)

    with (
        pytest.raises(Refused, match="clinician may not store"),
        city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
    ):
        overreach(access)

    assert persons(city) == 0
    assert trail(city) == [("search", "success", "dr.nanhu"), ("store", "refused", "dr.nanhu")]


def test_a_refusal_is_recorded_and_its_permit_beside_it(city: Region) -> None:
    with city.exchange.on_behalf_of(city.system("nanhu")) as access:
        access.require(Action.STORE)
        access.note(Action.STORE)
    with (
        pytest.raises(Refused),
        city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
    ):
        access.require(Action.STORE)

    assert trail(city) == [("store", "success", "NANHU"), ("store", "refused", "dr.nanhu")]


def test_a_failing_unit_takes_its_own_notes_with_it_and_no_others(city: Region) -> None:
    def fails(access: Access) -> None:
        def unit(session: Session) -> None:
            a_person(access)(session)
            raise NotFound("no such thing")

        access.note(Action.SEARCH)
        access.write(unit)

    with pytest.raises(NotFound), city.exchange.on_behalf_of(WORKER) as access:
        fails(access)

    assert persons(city) == 0
    assert trail(city) == [("search", "success", "worker"), ("search", "failed", "worker")]


def test_who_goes_on_after_a_failed_unit_keeps_what_came_later(city: Region) -> None:
    with city.exchange.on_behalf_of(WORKER) as access:
        with pytest.raises(ZeroDivisionError):
            access.write(lambda _: 1 // 0)
        access.write(a_person(access))

    assert persons(city) == 1
    assert trail(city) == [("link", "success", "worker")]


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (StoreFull(), NoRoom),
        (StoreUnavailable(), Unavailable),
        (ObjectNotFound("studies/1"), Unavailable),  # a row led to it: it is lost
        (OperationalError("", None, Exception()), Unavailable),
    ],
)
def test_what_the_parts_say_is_said_in_the_exchanges_words(
    city: Region, cause: Exception, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught, city.exchange.on_behalf_of(WORKER):
        raise cause

    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("odd", ["a\0b", "\ud800", "\0"])
def test_text_that_cannot_be_compared_is_no_fault_of_ours_and_is_audited(
    city: Region, odd: str
) -> None:
    try:
        with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
            access.note(Action.SEARCH, detail={"asked": odd})
            found = access.session.scalars(select(Job).where(Job.subject == odd)).all()
            assert found == []
    except Invalid:
        pass  # the database cannot even ask

    assert trail(city)[0] == ("search", "success", "dr.nanhu")
    assert wrong(city.exchange) == []


def test_nobody_gets_an_answer_that_could_not_be_recorded(
    city: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OperationalError("INSERT INTO audit_record", None, Exception("disk I/O error"))

    for way in ("append", "follow"):
        monkeypatch.setattr(audit, way, broken)
    with (
        pytest.raises(Unavailable),
        city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
    ):
        query.find(access, Level.STUDY, [], limit=10)


def test_a_refusal_that_could_not_be_recorded_is_not_answered_as_one(
    city: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OperationalError("INSERT INTO audit_record", None, Exception("disk I/O error"))

    for way in ("append", "follow"):
        monkeypatch.setattr(audit, way, broken)
    with (
        pytest.raises(Unavailable),
        city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
    ):
        access.require(Action.STORE)


def test_everything_submitted_together_is_answered_each_with_its_own(city: Region) -> None:
    together = threading.Barrier(24)

    def request(number: int) -> str:
        together.wait()
        with city.exchange.on_behalf_of(WORKER) as access:
            if number % 3:
                return access.write(a_person(access, str(number))).resident_id or ""
            with pytest.raises(Refused):
                access.write(lambda _: access.require(Action.STORE))
            return str(number)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(request, range(24)))

    assert answers == [str(number) for number in range(24)]
    assert persons(city) == 16
    assert sorted(outcome for _, outcome, _ in trail(city)) == ["refused"] * 8 + ["success"] * 16
    assert wrong(city.exchange) == []


def test_more_units_than_one_commit_takes_are_all_committed(
    city: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "GROUP", 3)
    together = threading.Barrier(16)

    def request(number: int) -> None:
        together.wait()
        with city.exchange.on_behalf_of(WORKER) as access:
            access.write(a_person(access, str(number)))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(request, range(16)))

    assert persons(city) == 16
    assert wrong(city.exchange) == []


class Stop(BaseException):
    """What Ctrl-C is to a thread."""


def test_an_interrupt_stops_its_own_request_and_leaves_no_other_waiting(city: Region) -> None:
    inside, go = threading.Event(), threading.Event()

    def interrupted() -> str:
        def unit(_: Session) -> None:
            inside.set()
            go.wait()
            raise Stop

        try:
            with city.exchange.on_behalf_of(WORKER) as access:
                access.write(unit)
        except Stop:
            return "stopped"
        return "went on"

    def other(number: int) -> int:
        with city.exchange.on_behalf_of(WORKER) as access:
            access.write(a_person(access, str(number)))
        return number

    with ThreadPoolExecutor(4) as pool:
        stopped = pool.submit(interrupted)
        inside.wait()
        others = [pool.submit(other, number) for number in range(3)]
        go.set()
        assert stopped.result() == "stopped"
        assert [one.result() for one in others] == [0, 1, 2]
    assert persons(city) == 3


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL that the tests of this module may stop, and start again."""
    with postgresql() as server:
        yield server


def test_while_the_database_is_down_nothing_is_answered_and_afterwards_all_goes_on(
    own_postgresql: PostgreSQL,
) -> None:
    with region(own_postgresql.create_schema()) as city:
        city.send("beicheng")
        own_postgresql.stop()

        with (
            pytest.raises(Unavailable),
            city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
        ):
            query.find(access, Level.STUDY, [], limit=10)
        with pytest.raises(Unavailable):
            city.send("nanhu", study="1.2.2", instance="1.4.2")

        own_postgresql.start()
        city.send("nanhu", study="1.2.2", instance="1.4.2")
        with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
            assert len(query.find(access, Level.STUDY, [], limit=10).found) == 2
        assert wrong(city.exchange) == []


def test_a_refusal_is_recorded_though_the_connection_that_led_to_it_broke(
    own_postgresql: PostgreSQL,
) -> None:
    def broken(access: Access) -> None:
        query.find(access, Level.STUDY, [], limit=10)
        own_postgresql.kill()
        own_postgresql.start()
        access.require(Action.STORE)

    with region(own_postgresql.create_schema(), gathers=True) as city:
        with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
            query.find(access, Level.STUDY, [], limit=10)
        with (
            pytest.raises(Unavailable),
            city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
        ):
            broken(access)

        city.exchange.catch_up()
        assert trail(city)[-1] == ("store", "refused", "dr.nanhu")
        assert wrong(city.exchange) == []


def test_a_connection_that_breaks_during_the_request_gives_no_answer_by_halves(
    own_postgresql: PostgreSQL,
) -> None:
    def cut_off(access: Access) -> Callable[[Session], None]:
        def unit(session: Session) -> None:
            a_person(access)(session)
            session.flush()
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        return unit

    with region(own_postgresql.create_schema()) as city:
        with (
            pytest.raises(Unavailable),
            city.exchange.on_behalf_of(WORKER) as access,
        ):
            access.write(cut_off(access))
        assert persons(city) == 0

        with city.exchange.on_behalf_of(WORKER) as access:
            access.write(a_person(access))
        assert persons(city) == 1
        assert wrong(city.exchange) == []


def test_who_finds_every_connection_taken_is_asked_to_come_again(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'exchange.sqlite'}", connections=1)
    database.engine.pool._timeout = 0.05  # type: ignore[attr-defined]
    exchange = Exchange(database, MemoryStore(), Ed25519PrivateKey.generate())
    exchange.prepare()
    with (
        database.engine.connect(),
        pytest.raises(Unavailable),
        exchange.on_behalf_of(ADMINISTRATOR) as access,
    ):
        access.session.execute(select(1))
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        access.session.execute(select(1))
    exchange.close()


MANY = """
import sys, threading
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from exchange.access import Exchange
from exchange.policy import Action, Requester, Role
from exchange_storage import database
from exchange_storage.database import Database
from exchange_storage.objects import MemoryStore

url, name, threads, each = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
key = Ed25519PrivateKey.from_private_bytes(bytes(32))
exchange = Exchange(Database(url), MemoryStore(), key)
asker = Requester(name=name, role=Role.EXCHANGE, organization=None, purpose=None)

def work():
    for _ in range(each):
        with exchange.on_behalf_of(asker) as access:
            access.note(Action.SEARCH)

sys.stdin.readline()
workers = [threading.Thread(target=work) for _ in range(threads)]
for one in workers: one.start()
for one in workers: one.join()
"""


def test_processes_that_write_at_once_make_one_chain_without_a_gap(database_url: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    exchange = Exchange(Database(database_url), MemoryStore(), key)
    exchange.prepare()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, database_url, name, "4", "20"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in ("node", "web", "worker")
    ]
    try:
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        assert [writer.communicate()[1].decode() for writer in writers] == [""] * 3
    finally:
        for writer in writers:
            writer.kill()

    with exchange.database.reading() as session:
        counted = select(AuditRecord.requester, func.count()).group_by(AuditRecord.requester)
        assert dict(session.execute(counted).all()) == {"node": 80, "web": 80, "worker": 80}
        last = session.execute(select(func.max(AuditRecord.sequence))).scalar_one()
    assert last == 240
    assert wrong(exchange) == []
    exchange.close()


COUNTING = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 1000000000)
SELECT count(*) FROM number
"""


def test_nodes_that_take_turns_make_one_chain(city: Region) -> None:
    first, key = city.exchange, city.exchange.signing_key
    second = Exchange(Database(str(first.database.engine.url)), first.objects, key)
    try:
        for turn in range(9):
            for exchange in (first, second) if turn % 3 else (first, first, second):
                with exchange.on_behalf_of(ADMINISTRATOR) as access:
                    access.note(Action.SEARCH, detail={"turn": turn})
                    access.note(Action.SEARCH, detail={"turn": turn})
    finally:
        second.database.close()

    assert len(trail(city)) == 2 * (3 * 3 + 2 * 6)
    assert wrong(first) == []


def test_who_asks_and_what_they_did_take_one_way_to_the_server_each(
    postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    execute, command = Prepared._execute, psycopg.Connection._exec_command

    def executed(self: Prepared, connection: Connection, given: Any) -> list[Any]:
        told.append("a statement")
        return execute(self, connection, given)

    def commanded(self: Any, words: Any, **given: Any) -> Any:
        told.append(str(words))
        return command(self, words, **given)

    monkeypatch.setattr(commits, "GATHERING", 3600.0)
    with region(postgresql_server.create_schema(), gathers=True) as city:
        monkeypatch.setattr(Prepared, "_execute", executed)
        monkeypatch.setattr(psycopg.Connection, "_exec_command", commanded)
        with city.exchange.on_behalf_of(city.clinician("beicheng")) as access:
            assert users.standing(access, "nobody") is None
            access.note(Action.SEARCH)
        assert told == ["a statement"] * 2

        with city.exchange.on_behalf_of(city.clinician("beicheng")) as access:
            access.note(Action.SEARCH)
            access.write(lambda _: None)
        assert told.count(str(b"COMMIT")) == 1
        city.exchange.catch_up()
        assert wrong(city.exchange) == []


def test_a_question_that_takes_too_long_is_ended_and_the_next_one_answered(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = database._POSTGRESQL | {"options": "-c statement_timeout=200"}
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 0.2)
    monkeypatch.setattr(database, "_POSTGRESQL", short)
    with region(database_url) as city:
        for _ in range(2):
            with (
                pytest.raises(Unavailable, match="takes too long"),
                city.exchange.on_behalf_of(city.clinician("beicheng")) as access,
            ):
                access.session.execute(text(COUNTING))
            with (
                pytest.raises(Unavailable, match="takes too long"),
                city.exchange.on_behalf_of(city.clinician("beicheng")) as access,
            ):
                Prepared(text(COUNTING).columns(count=Integer)).all(access.session.connection(), {})
        with city.exchange.on_behalf_of(city.clinician("beicheng")) as access:
            assert access.session.execute(select(func.count()).select_from(Organization)).scalar()


def test_an_index_whose_disk_is_full_says_so(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'index.sqlite'}")
    with translated(), database.writing() as session:
        session.execute(text("CREATE TABLE filling (room BLOB)"))
        session.execute(text("PRAGMA max_page_count=1"))  # or as many as there are
        filled = text("INSERT INTO filling VALUES (zeroblob(100000))")
        with pytest.raises(Unavailable, match="its disk is full"), translated():
            session.execute(filled)
    database.close()


@pytest.mark.parametrize("same", [True, False])
def test_who_opens_an_index_with_other_keys_is_told_that_the_trail_will_not_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, same: bool
) -> None:
    first = Ed25519PrivateKey.generate()
    for key in (first, first if same else Ed25519PrivateKey.generate()):
        database = Database(f"sqlite:///{tmp_path / 'index.sqlite'}")
        exchange = Exchange(database, MemoryStore(), key)
        exchange.prepare()
        exchange.close()
    assert ("signed with another key" in caplog.text) is not same

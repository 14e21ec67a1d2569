"""The index database keeps what it is told to keep, on both kinds, however many open it."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import ready
from real_parts import PostgreSQL
from rows import a_job, a_patient
from sqlalchemy import (
    Integer,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from exchange_storage import database as module
from exchange_storage import lending
from exchange_storage.database import Database, unavailable
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Job,
)


def test_sqlite_is_durable_strict_and_case_sensitive(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'exchange.sqlite'}")
    with database.reading() as session:
        said = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
        like = session.execute(text("SELECT 'CT' LIKE 'ct', 'CT' LIKE 'C%'")).one()
    database.close()
    full = 2
    assert said == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "busy_timeout": module.BUSY_SECONDS * 1000,
    }
    assert tuple(like) == (0, 1)


def test_a_patient_of_no_hospital_cannot_be_kept(database: Database) -> None:
    orphan = a_patient("P1", organization=404)
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(orphan)


def test_a_moment_without_a_zone_is_refused(database: Database) -> None:
    naive = datetime(2026, 11, 1, 10, 15)  # noqa: DTZ001 - that is the point
    with (
        pytest.raises(StatementError, match="does not name a moment"),
        database.writing() as session,
    ):
        session.add(a_job(due=naive))
    with database.reading() as session:
        assert session.scalars(select(Job)).all() == []


def test_a_moment_comes_back_as_it_was_in_utc(database: Database) -> None:
    beijing = datetime(2026, 11, 1, 18, 15, 0, 123456, tzinfo=timezone(timedelta(hours=8)))
    with database.writing() as session:
        session.add(a_job(due=beijing))

    with database.reading() as session:
        due = session.scalars(select(Job.due)).one()
        assert session.scalars(select(Job.id).where(Job.due == beijing)).all()
        assert not session.scalars(select(Job.id).where(Job.due < beijing)).all()

    assert due == beijing
    assert due.tzinfo is UTC


def test_a_reader_sees_one_moment_while_others_write(database: Database) -> None:
    with database.reading() as session:
        before = session.scalars(select(Job.subject)).all()
        with database.writing() as other:
            other.add(a_job())
        again = session.scalars(select(Job.subject)).all()
    with database.reading() as session:
        after = session.scalars(select(Job.subject)).all()

    assert (before, again, after) == ([], [], ["1"])


def test_what_a_reader_changes_is_not_kept(database: Database) -> None:
    with database.writing() as session:
        session.add(a_job())
    with database.reading() as session:
        session.scalars(select(Job)).one().subject = "2"

    with database.reading() as session:
        assert session.scalars(select(Job.subject)).one() == "1"


def test_what_one_transaction_has_read_the_next_reads_anew(database: Database) -> None:
    elsewhere = database.sibling(1)
    with database.writing() as session:
        session.add(a_job())
    with database.writing() as session:
        written = session.scalars(select(Job)).one()
    with database.reading() as session:
        read = session.scalars(select(Job)).one()

    with elsewhere.writing() as session:
        session.scalars(select(Job)).one().subject = "2"
    elsewhere.close()

    with database.reading() as session:
        assert session.scalars(select(Job)).one().subject == "2"
    with database.writing() as session:
        assert session.scalars(select(Job)).one().subject == "2"
    assert (written.subject, read.subject) == ("1", "1")


def test_what_is_asked_again_and_again_is_planned_once(postgresql_server: PostgreSQL) -> None:
    database = Database(postgresql_server.create_schema(), connections=1)
    asked = Prepared(select(literal_column("40") + bindparam("more", type_=Integer())))
    for more in range(10):
        with database.reading() as session:
            assert asked.number(session.connection(), {"more": more}) == 40 + more

    kept = "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
    with database.reading() as session:
        plans = [tuple(row) for row in session.connection().exec_driver_sql(kept)]
    database.close()

    assert plans == [(10, 0)]  # whatever the values, and from the first time on


@pytest.mark.parametrize("connections", [1, 8])  # of the pool; and one that is at hand
def test_a_connection_that_rested_while_the_server_was_away_is_not_used(
    postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    monkeypatch.setattr(lending, "RESTED_SECONDS", 0.0)
    database = Database(postgresql_server.create_schema(), connections=connections)
    other = Database(postgresql_server.url(), connections=1)
    with database.reading() as session:
        process = session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with other.reading() as session:
        end = select(func.pg_terminate_backend(process, 60_000))
        assert session.scalars(end).one()

    with database.reading() as session:
        assert session.connection().exec_driver_sql("SELECT 42").scalar_one() == 42
    other.close()
    database.close()


one = Prepared(select(literal(1)))


def test_nobody_waits_for_a_connection_that_lies_ready_for_another_kind_of_work(
    database_url: str,
) -> None:
    database = Database(database_url, connections=4)
    database.engine.pool._timeout = 0.05  # type: ignore[attr-defined]
    with database.at_once() as connection:
        one.all(connection, {})
    with database.writing() as session:
        session.execute(select(1))
    with ExitStack() as readers:
        for _ in range(4):
            session = readers.enter_context(database.reading())
            assert session.scalar(select(literal(42))) == 42
        assert database.in_use == 4
        with pytest.raises(PoolTimeout), database.reading():
            pass
    assert database.in_use == 0
    with database.at_once() as connection:
        assert one.all(connection, {}) == [(1,)]
    database.close()


def test_a_failed_writer_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.writing() as session:
            session.add(a_job())
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    with database.reading() as session:
        assert session.scalars(select(Job)).all() == []


def test_a_writer_in_sqlite_who_cannot_wait_any_longer_hears_that_the_index_is_busy(
    tmp_path: Path,
) -> None:
    url = ready.sqlite(tmp_path / "exchange.sqlite")
    database, impatient = Database(url), Database(url)
    with impatient.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=0")
        connection.rollback()
        with database.writing() as session:
            session.connection()
            with pytest.raises(OperationalError, match="locked") as caught:
                connection.exec_driver_sql("INSERT INTO person VALUES (1, '', '')")
    impatient.close()
    database.close()

    assert unavailable(caught.value)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The file of a database of SQLite's."""
    file = tmp_path / "exchange.sqlite"
    Database(ready.sqlite(file)).close()
    return file


def test_who_may_not_take_turns_at_writing_writes_without(kept: Path) -> None:
    turn = kept.with_name(f"{kept.name}-turn")
    turn.unlink()
    turn.mkdir()  # nobody can open it to write, not even root

    database = Database(f"sqlite:///{kept}")
    with database.writing() as session:
        session.add(a_job())
    database.close()


def test_a_file_system_without_locks_keeps_nobody_from_writing(kept: Path) -> None:
    database = Database(f"sqlite:///{kept}")
    assert database._turn is not None
    assert database._turn._file is not None
    without = os.open(kept, os.O_PATH)  # no such file can be locked
    os.dup2(without, database._turn._file)
    os.close(without)
    with database.writing() as session:
        session.add(a_job())
    database.close()


def test_whoever_may_write_the_database_may_take_turns(kept: Path) -> None:
    turn = kept.with_name(f"{kept.name}-turn")
    kept.chmod(0o660)
    turn.unlink()

    Database(f"sqlite:///{kept}").close()

    assert turn.stat().st_mode & 0o777 == 0o660
    assert (turn.stat().st_uid, turn.stat().st_gid) == (kept.stat().st_uid, kept.stat().st_gid)


def test_only_what_cannot_answer_now_is_called_unavailable() -> None:
    wrong, gone = DBAPIError("", None, Exception()), DBAPIError("", None, Exception())
    gone.connection_invalidated = True

    assert unavailable(OperationalError("", None, Exception()))
    assert unavailable(PoolTimeout())
    assert unavailable(gone)
    assert not unavailable(wrong)
    assert not unavailable(IntegrityError("", None, Exception()))


def test_a_commit_survives_a_power_cut_whatever_the_server_defaults_to(
    postgresql_server: PostgreSQL,
) -> None:
    url = postgresql_server.create_schema()
    database = Database(url)

    def default(value: str) -> None:
        with database.engine.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            alone.exec_driver_sql(f"ALTER ROLE CURRENT_USER SET synchronous_commit TO {value}")

    default("off")
    try:
        with closing(Database(url)) as later, later.writing() as session:
            assert session.scalar(text("SHOW synchronous_commit")) == "on"
    finally:
        default("DEFAULT")
        database.close()

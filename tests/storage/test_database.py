"""The index database keeps what it is told to keep, on both kinds, however many open it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from exchange_storage import database as module
from exchange_storage.database import Database, unavailable
from exchange_storage.records import Job, Patient, Record


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, connections=4)
    made.migrate()
    yield made
    made.close()


def a_job(**told: object) -> Job:
    now = datetime.now(UTC)
    return Job(**{"kind": "test", "subject": "1", "due": now} | told)  # type: ignore[arg-type]


def test_an_empty_database_is_brought_to_this_release(database_url: str) -> None:
    database = Database(database_url)
    found, wanted = database.revision()
    assert found is None

    database.migrate()
    database.migrate()  # harmless when it is there already

    assert database.revision() == (wanted, wanted)
    database.close()


def test_the_migrations_make_exactly_the_schema_that_the_records_describe(
    database: Database,
) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Record.metadata) == []


def test_the_migrations_can_be_taken_back(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(module.__file__).parent / "migrations"))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with database.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}

    database.migrate()


def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    start = "\n".join(
        [
            "import sys",
            "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey",
            "from exchange.access import Exchange",
            "from exchange_storage.database import Database",
            "from exchange_storage.objects import MemoryStore",
            "key = Ed25519PrivateKey.from_private_bytes(bytes(32))",
            "sys.stdin.readline()",
            "Exchange(Database(sys.argv[1]), MemoryStore(), key).prepare()",
        ]
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", start, database_url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        ended = [process.communicate()[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert ended == [""] * 3
    database = Database(database_url)
    found, wanted = database.revision()
    database.close()
    assert found == wanted


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
    now = datetime.now(UTC)
    orphan = Patient(
        organization_id=404,
        patient_id="P1",
        name="",
        birth_date="",
        sex="",
        address="",
        telephone="",
        mothers_birth_name="",
        created=now,
        changed=now,
    )
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
    database = Database(f"sqlite:///{tmp_path / 'exchange.sqlite'}")
    database.migrate()
    impatient = Database(f"sqlite:///{tmp_path / 'exchange.sqlite'}")
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


def test_only_what_cannot_answer_now_is_called_unavailable() -> None:
    wrong, gone = DBAPIError("", None, Exception()), DBAPIError("", None, Exception())
    gone.connection_invalidated = True

    assert unavailable(OperationalError("", None, Exception()))
    assert unavailable(PoolTimeout())
    assert unavailable(gone)
    assert not unavailable(wrong)
    assert not unavailable(IntegrityError("", None, Exception()))

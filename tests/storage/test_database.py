"""The index database keeps what it is told to keep, on both kinds, however many open it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from real_parts import PostgreSQL
from sqlalchemy import (
    Engine,
    Integer,
    TextClause,
    bindparam,
    delete,
    event,
    func,
    inspect,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from exchange_storage import database as module
from exchange_storage import lending
from exchange_storage.database import Database, Lock, unavailable
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    AuditPatient,
    Commitment,
    CommitmentReference,
    Job,
    Organization,
    Patient,
    Record,
)
from exchange_storage.search import Match, Pattern, Values, where


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of a new, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'exchange.sqlite'}"
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    return server.create_schema()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, connections=4)
    made.migrate()
    yield made
    made.close()


def a_job(**told: object) -> Job:
    now = datetime.now(UTC)
    return Job(**{"kind": "test", "subject": "1", "due": now} | told)  # type: ignore[arg-type]


def a_patient(number: str, organization: int = 1) -> Patient:
    now = datetime.now(UTC)
    return Patient(
        organization_id=organization,
        patient_id=number,
        name="",
        birth_date="",
        sex="",
        address="",
        telephone="",
        mothers_birth_name="",
        created=now,
        changed=now,
    )


def as_before(patient: Patient) -> TextClause:
    """The record as a release wrote it that knew none of the later columns."""
    columns = [one.key for one in Patient.__table__.columns if one.key not in LATER]
    values = {name: getattr(patient, name) for name in columns}
    words = f"INSERT INTO patient ({', '.join(columns)}) VALUES (:{', :'.join(columns)})"  # noqa: S608
    return text(words).bindparams(**values)


LATER = {"id", "replaced_by_id", "withdrawn"}


def test_an_empty_database_is_brought_to_this_release(database_url: str) -> None:
    database = Database(database_url)
    found, wanted = database.revision()
    assert found is None

    database.migrate()
    database.migrate()  # harmless when it is there already

    assert database.revision() == (wanted, wanted)
    database.close()


def test_an_exchange_starts_while_others_write_to_an_index_of_its_release(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 1)
    another = Database(database_url)
    with database.alone(Lock.MIGRATING), database.writing() as session:
        session.add(a_job())
        session.flush()

        another.migrate()

    another.close()


def test_the_migrations_make_exactly_the_schema_that_the_records_describe(
    database: Database,
) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Record.metadata) == []


def test_the_migrations_can_be_taken_back(database: Database) -> None:
    database.take_back("base")
    with database.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}

    database.migrate()


def test_the_number_of_a_job_that_is_gone_is_not_given_again(database: Database) -> None:
    database.take_back("0015")
    database.migrate()
    numbers = []
    for _ in range(2):
        with database.writing() as session:
            session.add(a_job())
        with database.writing() as session:
            numbers.append(session.scalars(select(Job.id)).one())
            session.execute(delete(Job))
    assert numbers[0] != numbers[1]


def a_commitment() -> tuple[Organization, Commitment, CommitmentReference]:
    now = datetime.now(UTC)
    hospital = Organization(
        code="beicheng", name="", credit_code="1", issuer="2.25.1", registered=now
    )
    asked = Commitment(
        organization_id=1, transaction_uid="1.2", requester="PACS", address="", requested=now
    )
    reference = CommitmentReference(
        commitment_id=1, position=1, sop_class_uid="1.3", sop_instance_uid="1.4"
    )
    return hospital, asked, reference


def test_what_is_kept_outlives_every_migration_there_and_back(database: Database) -> None:
    for record in a_commitment():
        with database.writing() as session:
            session.add(record)

    database.take_back("0010")
    database.migrate()

    with database.reading() as session:
        reference = session.scalars(select(CommitmentReference)).one()
        assert (reference.commitment_id, reference.sop_instance_uid) == (1, "1.4")
        assert session.scalars(select(Commitment.transaction_uid)).all() == ["1.2"]
    with pytest.raises(IntegrityError), database.writing() as session:
        session.execute(delete(Commitment))  # the reference holds it, as before


def test_persons_who_were_named_before_are_found_by_their_names(database: Database) -> None:
    hospital, _, _ = a_commitment()
    with database.writing() as session:
        session.add(hospital)
        session.flush()
        patient = a_patient("P1")
        patient.mothers_birth_name = "孙^丽\\Qian^Wei"
        session.add(patient)
    database.take_back("0035")
    database.migrate()

    for name, found in (("sunli", 1), ("Qian*", 1), ("Zhao*", 0)):
        matching = Pattern(name) if "*" in name else Values((name,))
        wanted = where([Match("PatientMotherBirthName", matching)])
        with database.reading() as session:
            assert len(session.scalars(select(Patient.id).where(wanted)).all()) == found


def test_records_kept_before_are_found_by_each_of_their_patients(database: Database) -> None:
    contents = {
        1: '{"detail":{"patients":[4,5,6]}}',
        2: '{"detail":{"patients":[4]}}',
        3: '{"detail":"patients":[4]',  # altered
    }
    added = text(
        "INSERT INTO audit_record (sequence, recorded, action, outcome, requester, patient_id,"
        " study_instance_uid, content, digest)"
        " VALUES (:sequence, '2026-11-01', 'search', 'success', '', 4, '', :content, '')"
    )
    with database.writing() as session:
        session.execute(added, [{"sequence": at, "content": one} for at, one in contents.items()])
    database.take_back("0047")
    database.migrate()

    with database.reading() as session:
        found = session.execute(select(AuditPatient.sequence, AuditPatient.patient_id)).all()
    assert sorted(map(tuple, found)) == [(1, 5), (1, 6)]


def test_a_migration_that_would_leave_a_row_astray_changes_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'exchange.sqlite'}")
    database.migrate()
    for record in a_commitment():
        with database.writing() as session:
            session.add(record)
    with database.engine.connect() as connection:
        cursor = connection.connection.cursor()
        cursor.execute("PRAGMA foreign_keys=OFF")
        cursor.execute("DELETE FROM commitment")
        cursor.execute("PRAGMA foreign_keys=ON")
    before = database.revision()

    with pytest.raises(IntegrityError, match="commitment_reference"):
        database.take_back("0010")

    assert database.revision() == before
    with database.reading() as session:
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
    database.close()


def test_no_clock_ends_a_migration_of_a_machine_that_stands_still(
    postgresql_server: PostgreSQL,
) -> None:
    database = Database(postgresql_server.create_schema())
    with database._migrating() as config:
        shown = (
            f"SHOW {name}" for name in ("statement_timeout", "idle_in_transaction_session_timeout")
        )
        migrating = config.attributes["connection"]
        assert [migrating.exec_driver_sql(one).scalar_one() for one in shown] == ["0", "0"]
    database.close()


def test_hospitals_send_while_an_index_is_made(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.create_schema()
    database = Database(url)
    database.migrate()
    hospital, _, _ = a_commitment()
    with database.writing() as session:
        session.add(hospital)
    database.take_back("0011")
    ended = threading.Event()

    def migrate() -> None:
        database.migrate()
        ended.set()

    with database.writing() as earlier:  # for its end the index has to wait
        earlier.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        earlier.execute(as_before(a_patient("P1")))
        migrating = threading.Thread(target=migrate)
        migrating.start()
        made = text("SELECT 1 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'")
        with database.engine.connect() as onlooker:
            while not onlooker.execute(made).first():
                onlooker.rollback()
        with database.writing() as other:
            other.execute(text("SET LOCAL lock_timeout = '60s'"))
            other.execute(as_before(a_patient("P2")))
        assert not ended.is_set()
    migrating.join(180)

    assert ended.is_set()
    found, wanted = database.revision()
    assert found == wanted
    database.close()


SINCE_RELEASED = "0012"
"""The first migration that a hospital's full tables meet."""


def test_no_migration_holds_up_a_table_for_as_long_as_an_index_takes(
    postgresql_server: PostgreSQL,
) -> None:
    database = Database(postgresql_server.create_schema())
    told: list[str] = []

    def tell(*executed: object) -> None:
        told.append(" ".join(str(executed[2]).split()))

    event.listen(Engine, "before_cursor_execute", tell)
    try:
        database.migrate()
    finally:
        event.remove(Engine, "before_cursor_execute", tell)
        database.close()

    held_up, own, revision = [], set[str](), ""
    for statement in told:
        if made := re.match(r"CREATE TABLE (\S+)", statement):
            own.add(made[1])
        elif made := re.match(
            r"(?:CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).* ON|ALTER TABLE(?= .*\b(?:UNIQUE|"
            r"PRIMARY KEY|EXCLUDE)\b(?! USING INDEX))) (\S+)",
            statement,
        ):
            if made[1] not in own:
                held_up.append(statement)
        elif "alembic_version" in statement and not statement.startswith("SELECT"):
            revision = max(re.findall(r"'(\d{4})'", statement), default=revision)
            if revision < SINCE_RELEASED:
                held_up.clear()
            own.clear()
    assert revision
    assert held_up == []


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


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The file of a database of SQLite's."""
    file = tmp_path / "exchange.sqlite"
    database = Database(f"sqlite:///{file}")
    database.migrate()
    database.close()
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

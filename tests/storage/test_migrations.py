"""The index database comes to this release from every other, whatever is in it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import ready
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from real_parts import PostgreSQL
from rows import a_job, a_patient
from sqlalchemy import (
    Engine,
    TextClause,
    delete,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError

from exchange_storage import database as module
from exchange_storage import names
from exchange_storage.database import Database, Lock, Newer
from exchange_storage.records import (
    AuditPatient,
    Commitment,
    CommitmentReference,
    Job,
    Organization,
    Patient,
    PatientName,
    PersonNameKey,
    Record,
)
from exchange_storage.search import Match, Pattern, Values, where


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of a new, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'exchange.sqlite'}"
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    return server.create_schema()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of this release, of nobody else's: it is taken back to earlier ones."""
    if request.param == "sqlite":
        url = ready.sqlite(tmp_path / "exchange.sqlite")
    else:
        url = ready.postgresql(request.getfixturevalue("postgresql_server"))
    opened = Database(url)
    yield opened
    opened.close()


def as_before(patient: Patient) -> TextClause:
    """The record as a release wrote it that knew none of the later columns."""
    columns = [one.key for one in Patient.__table__.columns if one.key not in LATER]
    values = {name: getattr(patient, name) for name in columns}
    words = f"INSERT INTO patient ({', '.join(columns)}) VALUES (:{', :'.join(columns)})"  # noqa: S608
    return text(words).bindparams(**values)


LATER = {"id", "replaced_by_id", "withdrawn"}


def test_an_empty_database_is_brought_to_this_release(empty: str) -> None:
    database = Database(empty)
    found, wanted = database.revision()
    assert found is None

    database.migrate()
    database.migrate()  # harmless when it is there already

    assert database.revision() == (wanted, wanted)
    database.close()


def test_an_index_of_a_later_release_is_left_as_it_is(database: Database) -> None:
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(Newer):
        database.migrate()
    assert database.revision()[0] == "9999"


def test_an_exchange_starts_while_others_write_to_an_index_of_its_release(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 1)
    another = Database(database.engine.url.render_as_string(hide_password=False))
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


def test_names_kept_before_in_one_piece_are_found_by_who_tells_their_parts(
    database: Database,
) -> None:
    hospital, _, _ = a_commitment()
    known = ["WANG XIAODONG=王小东", "XiaoDong^Wang", "", "Wang^XiaoDong", "W" * 255]
    mother = "SUN LI\\Qian^Wei"
    with database.writing() as session:
        session.add(hospital)
        session.flush()
        for number, name in enumerate(known):
            patient = a_patient(str(number))
            patient.name, patient.mothers_birth_name = name, mother
            session.add(patient)
            session.flush()
            keys = {key[:255] for key in names.keys(name).full}
            session.add_all(PatientName(patient_id=patient.id, kind="full", key=k) for k in keys)
        keys = {key for one in mother.split("\\") for key in names.keys(one).full}
        session.add_all(PersonNameKey(name=mother, key=key) for key in keys)
    database.take_back("0053")
    in_one_piece = text("SELECT count(*) FROM patient_name WHERE key LIKE '%^'")
    with database.reading() as session:
        assert session.scalar(in_one_piece) == 0
    database.migrate()

    for keyword, name, found in (
        ("PatientName", "Wang^XiaoDong", "03"),
        ("PatientMotherBirthName", "Sun^Li", "01234"),
        ("PatientMotherBirthName", "Li^Sun", ""),
    ):
        wanted = where([Match(keyword, Values((name,)))])
        with database.reading() as session:
            assert (
                "".join(sorted(session.scalars(select(Patient.patient_id).where(wanted)))) == found
            )


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
    database = Database(ready.sqlite(tmp_path / "exchange.sqlite"))
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
    database = Database(ready.postgresql(postgresql_server))
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


def test_processes_that_start_together_migrate_once(empty: str) -> None:
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
            [sys.executable, "-c", start, empty],
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
    database = Database(empty)
    found, wanted = database.revision()
    database.close()
    assert found == wanted

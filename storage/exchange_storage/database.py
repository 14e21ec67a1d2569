"""The index database: SQLite in WAL mode, or PostgreSQL through psycopg 3; sessions, migrations."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from enum import IntEnum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Connection,
    Dialect,
    column,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    table,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InvalidatePoolError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

if TYPE_CHECKING:
    from alembic.config import Config

from exchange_storage import lending
from exchange_storage.lending import AT_HAND, Lending, Reading, Writing
from exchange_storage.objects import free

BUSY_SECONDS = 30
"""How long a writer waits for another process's transaction in SQLite."""

MIGRATING_SECONDS = 0.1
"""Between two looks whether another process has ended its migrations."""

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # a commit survives a power cut, not only a crash
    "PRAGMA foreign_keys=ON",
    "PRAGMA case_sensitive_like=ON",  # DICOM matching is case sensitive; PostgreSQL's LIKE is too
    "PRAGMA cache_size=-16384",  # KiB: what is read is mapped, see the next line
    "PRAGMA mmap_size=2147418112",  # as much as SQLite lets one map
    "PRAGMA temp_store=MEMORY",
)


STATEMENT_SECONDS = 60
"""How long one statement may take, in both databases: who asks too much gets no answer, and others
theirs."""

_STEPS = 100_000
"""Instructions of SQLite's virtual machine, some milliseconds, between two looks at the clock."""

_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

_POSTGRESQL = {
    "connect_timeout": 5,
    # A node that freezes while it holds the head of the audit chain must not stop all others, and
    # a server that vanishes must be noticed: milliseconds.
    "tcp_user_timeout": 15000,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    # Compiling a statement takes longer than what is asked here takes to be answered, and so does
    # planning one anew for its values: statements are made so that one plan serves all of them.
    "options": f"-c lock_timeout=30000 -c statement_timeout={STATEMENT_SECONDS * 1000} "
    "-c plan_cache_mode=force_generic_plan "
    # A commit survives a power cut, whatever the server defaults to.
    "-c idle_in_transaction_session_timeout=30000 -c jit=off -c synchronous_commit=on",
}

_MIGRATIONS = Path(__file__).parent / "migrations"

_REVISION = table("alembic_version", column("version_num"))
"""Where Alembic keeps the revision. It is asked for at every start, and Alembic takes longer to
load than all else that is done there to an index of this release."""

PREPARED = 256
"""Statements that a connection to PostgreSQL has the server keep, with their plans."""


class Lock(IntEnum):
    """What one at a time may do, by number (PostgreSQL's advisory locks)."""

    MIGRATING = 7310951
    CARRIED = 7310952
    REPLACING = 7310953
    CALLING = 7310954


class Newer(Exception):
    """The schema is one of a later release."""


class _Turn:
    """Whose turn it is to write to a SQLite file, among the threads of all processes.

    SQLite waits for another writer by sleeping 1, 2, 5, 10 … ms, where a commit takes half of one.
    This is a courtesy only: what keeps writers apart is SQLite's own lock. So who may not open the
    file, or cannot lock it, goes on without a turn.
    """

    def __init__(self, path: str) -> None:
        self._threads = threading.Lock()
        self._file = _lock_file(path, "turn")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn; after `BUSY_SECONDS` go on without, and let SQLite say what is wrong."""
        deadline = time.monotonic() + BUSY_SECONDS
        mine = self._threads.acquire(timeout=BUSY_SECONDS)
        try:
            pause = 0.0001
            while mine and not self._take() and time.monotonic() < deadline:
                time.sleep(pause)
                pause = min(2 * pause, 0.001)
            yield
        finally:
            if mine:
                if self._file is not None:
                    with suppress(OSError):
                        fcntl.flock(self._file, fcntl.LOCK_UN)
                self._threads.release()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def _take(self) -> bool:
        """Whether the turn is taken, or cannot be."""
        if self._file is None:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # such as a file system without locks
            return True
        return True


def _lock_file(path: str, name: str) -> int | None:
    """A lock file beside the database file, for whom the database is, whoever makes it."""
    try:
        file = os.open(f"{path}-{name}", _LOCK_FILE, 0o600)
    except OSError:
        return None
    with suppress(OSError):  # there is no database yet, or this is another's file
        wanted, present = Path(path).stat(), os.fstat(file)
        if present.st_nlink == 1 and stat.S_ISREG(present.st_mode):
            os.fchmod(file, wanted.st_mode & 0o666)
            os.fchown(file, wanted.st_uid, wanted.st_gid)
    return file


class Database:
    """One index database, for many threads. `url` is SQLAlchemy's (``sqlite:///…``, or PostgreSQL).

    Reading and writing transactions are told apart from the start, since SQLite cannot turn a
    reader into a writer once somebody else has written.
    """

    def __init__(self, url: str, *, connections: int = 32) -> None:
        self._url = url
        parsed = make_url(url)
        self.dialect = parsed.get_backend_name()
        # The connection that was used last, since what it has read is still in its cache.
        options: dict[str, Any] = {
            "pool_size": connections,
            "max_overflow": 0,
            "pool_use_lifo": True,
            # Every transaction is ended by who began it; asking again costs a call each time.
            "pool_reset_on_return": None,
        }
        options["hide_parameters"] = True  # an error is logged: it must not show patient data
        if self.dialect == "sqlite":
            options["connect_args"] = {
                "timeout": BUSY_SECONDS,
                "check_same_thread": False,
                "factory": _Connection,
            }
        else:
            options["connect_args"] = _POSTGRESQL
        self.engine = create_engine(parsed, **options)
        if self.dialect == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._reader, self._writer = self.engine, self.engine
        if self.dialect == "postgresql":
            event.listen(self.engine, "connect", _prepare_postgresql)
            event.listen(self.engine, "checkin", _note_rest)
            event.listen(self.engine, "checkout", partial(_ask_if_rested, self.engine.dialect))
            # Said here, since a server may default to anything: a reader sees one moment, a
            # writer that has waited for a lock sees what the one before it committed.
            self._reader = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._writer = self.engine.execution_options(isolation_level="READ COMMITTED")
        self._writer = self._writer.execution_options(exchange_writes=True)
        self._turn: _Turn | None = None
        if self.dialect == "sqlite" and parsed.database not in {None, "", ":memory:"}:
            self._turn = _Turn(str(parsed.database))
        in_memory = self.dialect == "sqlite" and self._turn is None
        at_hand = 0 if in_memory else min(AT_HAND, connections // 4)
        self._lending = Lending(self.engine, _answers, at_hand)
        self._readers = self._lending.at_hand(self._reader, Reading)
        self._writers = self._lending.at_hand(self._writer, Writing)
        self._at_once = self._readers  # a statement of SQLite is alone where nothing was begun
        if self.dialect == "postgresql":
            alone = self.engine.execution_options(isolation_level="AUTOCOMMIT")
            self._at_once = self._lending.at_hand(alone, Reading)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session over one consistent view; nothing that it might change is kept."""
        with self._readers.lent() as lent, lent.connection.begin() as begun:
            session, kept = lent.session, False
            try:
                yield session
                if self.dialect == "postgresql" and not lent.connection.invalidated:
                    # Which had it read only; behind a rollback psycopg has the server forget every
                    # prepared statement, so that each question would be planned anew.
                    begun.commit()
                    kept = True
            finally:
                if session.in_transaction():
                    session.close()
                if not kept:
                    begun.rollback()

    @contextmanager
    def at_once(self) -> Iterator[Connection]:
        """A connection for one prepared statement, which is a transaction of its own.

        To PostgreSQL that is one way there and back; to begin and to end a transaction take one
        each, and of SQLite the interpreter, which others may have meanwhile. What it changes in
        PostgreSQL is durable when it returns; of SQLite it only reads.
        """
        with self._at_once.lent() as lent:
            yield lent.connection

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session whose transaction is committed at the end, or rolled back by an exception."""
        turn = self._turn.taken() if self._turn else nullcontext()
        with turn, self._writers.lent() as lent, lent.connection.begin():
            session = lent.session
            try:
                yield session
                if session.in_transaction():
                    session.commit()
            finally:
                if session.in_transaction():
                    session.close()

    @contextmanager
    def alone(self, lock: Lock, *, wait: bool = True) -> Iterator[bool]:
        """Keep all others out of `lock`, in all processes on all machines, without a transaction.

        False, and nobody is kept out, where another has it and the caller does not `wait`. Raises
        OSError where a lock file cannot be made beside SQLite's.
        """
        if self.dialect == "postgresql":
            with self._lending.connect(self.engine) as connection:
                alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                ask = "SELECT pg_advisory_lock(%s)" if wait else "SELECT pg_try_advisory_lock(%s)"
                taken = alone.exec_driver_sql(ask, (lock.value,)).scalar_one() is not False
                try:
                    yield taken
                finally:
                    if taken:
                        alone.exec_driver_sql("SELECT pg_advisory_unlock(%s)", (lock.value,))
            return
        file = _lock_file(str(self.engine.url.database), lock.name.lower())
        if file is None:
            raise OSError(f"the file of the lock {lock.name} beside the index cannot be opened")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                taken = True
            except BlockingIOError:
                taken = False
            yield taken
        finally:
            os.close(file)

    def one_at_a_time(self, session: Session, lock: Lock) -> None:
        """Until the writing transaction of `session` ends, keep others out that ask for `lock` so:
        on SQLite, where one writes at a time, all are."""
        if self.dialect == "postgresql":
            session.execute(select(func.pg_advisory_xact_lock(lock.value)))

    @property
    def file(self) -> Path | None:
        """SQLite's file; None where there is none, and of a server."""
        return Path(str(self.engine.url.database)) if self._turn is not None else None

    def free(self) -> int | None:
        """Bytes free on the disk of SQLite's file; None of a server. Raises OSError."""
        return free(self.file.parent) if self.file is not None else None

    def sibling(self, connections: int) -> Database:
        """The same database by connections of its own, for what may not wait for others'."""
        return Database(self._url, connections=connections)

    def migrate(self) -> None:
        """Bring the schema to this release's; safe when several processes do so at once.

        One that is there already is left alone: nothing is locked, and no row is looked at.

        Raises IntegrityError, and changes nothing, where a row would refer to one that is gone;
        Newer where the schema is a later release's.
        """
        found, wanted = self.revision()
        if found == wanted:
            return
        from alembic import command
        from alembic.util import CommandError

        try:
            with self._migrating() as config:
                command.upgrade(config, "head")
        except CommandError as error:
            raise Newer(f"no migration of this release is called {found}") from error

    def take_back(self, revision: str) -> None:
        """Bring the schema back to an earlier `revision`, or "base", as `migrate` does forward.

        What only later ones keep is deleted.
        """
        from alembic import command

        with self._migrating() as config:
            command.downgrade(config, revision)

    @contextmanager
    def _migrating(self) -> Iterator[Config]:
        with self._lending.connect(self._writer) as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            alone = _alone_in_postgresql if self.dialect == "postgresql" else _alone_in_sqlite
            with alone(connection):
                yield config

    def revision(self) -> tuple[str | None, str]:
        """The schema revision found in the database, and the one that this release wants."""
        with self._lending.connect(self.engine) as connection:
            kept = inspect(connection).has_table(_REVISION.name)
            found = connection.scalar(select(_REVISION.c.version_num)) if kept else None
        return found, _wanted()

    @property
    def in_use(self) -> int:
        """Connections that somebody has at this moment."""
        pool = self.engine.pool
        taken = pool.checkedout() if isinstance(pool, QueuePool) else 0
        return taken - len(self._lending)

    def close(self) -> None:
        """Close every connection that nobody has."""
        self._lending.close()
        self.engine.dispose()
        if self._turn is not None:
            self._turn.close()


def translated(connection: Connection, error: Exception) -> BaseException:
    """An error of the driver as SQLAlchemy raises it; a connection that broke is not used again."""
    dialect = connection.dialect
    lost = dialect.is_disconnect(error, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]
    if lost:
        connection.invalidate(error)
    return DBAPIError.instance(
        "",
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )


def unavailable(error: SQLAlchemyError) -> bool:
    """Whether `error` says that the database cannot answer now, rather than that we asked wrong."""
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return lost or isinstance(error, OperationalError | PoolTimeout)


@cache
def _wanted() -> str:
    """The revision that this release wants: its scripts are numbered, and listed only once."""
    return max(one.name for one in (_MIGRATIONS / "versions").glob("[0-9]*.py"))[:4]


def _alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


@contextmanager
def _alone_in_postgresql(connection: Connection) -> Iterator[None]:
    """Hold the lock of migrations, outside of a transaction: each migration has its own."""
    try:
        connection.exec_driver_sql("SET statement_timeout = 0")
        # A machine that stands still for half a minute in the midst of a migration goes on with it.
        connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 0")
        connection.commit()
        # Asked for, not waited for: a statement that waits has a snapshot, and an index that is
        # made beside the writers waits for every older snapshot.
        ask, lock = "SELECT pg_try_advisory_lock(%s)", (Lock.MIGRATING.value,)
        while not connection.exec_driver_sql(ask, lock).scalar_one():
            connection.commit()
            time.sleep(MIGRATING_SECONDS)
        connection.commit()
        yield
    finally:
        connection.invalidate()  # what was set, and the lock, go with the session


@contextmanager
def _alone_in_sqlite(connection: Connection) -> Iterator[None]:
    """One transaction, in which a table to which others refer may be made anew.

    That is dropping it, which enforced foreign keys forbid; and they cannot be switched off within
    a transaction (https://sqlite.org/lang_altertable.html, section 7).
    """
    held = connection.connection.dbapi_connection
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA foreign_keys=OFF")
    if isinstance(held, _Connection):
        held.limited = False
    try:
        with connection.begin():
            yield
            astray = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            if astray:
                tables = ", ".join(sorted({str(row[0]) for row in astray}))
                told = connection.dialect.loaded_dbapi.IntegrityError(
                    f"{len(astray)} rows refer to rows that are gone: {tables}"
                )
                raise IntegrityError("PRAGMA foreign_key_check", None, told)
    finally:
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()
        if isinstance(held, _Connection):
            held.limited = True


def _prepare_postgresql(connection: Any, _: object) -> None:
    connection.prepared_max = PREPARED


def _note_rest(_: object, record: ConnectionPoolEntry) -> None:
    record.info["since"] = time.monotonic()


def _ask_if_rested(
    dialect: Dialect, connection: DBAPIConnection, record: ConnectionPoolEntry, _: object
) -> None:
    """As `pool_pre_ping` asks each time, which is a way to the server for every transaction."""
    since = record.info.get("since")  # a new connection has none
    if since is None or time.monotonic() - since < lending.RESTED_SECONDS:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError("the server does not answer any more") from error


def _answers(connection: Connection) -> bool:
    """Whether the server still does; of a file that is never in doubt."""
    dialect = connection.dialect
    if dialect.name == "sqlite":
        return True
    try:
        dialect.do_ping(connection.connection.dbapi_connection)  # type: ignore[arg-type]
    except dialect.loaded_dbapi.Error:
        return False
    return True


class _Connection(sqlite3.Connection):
    """A connection of SQLite, which has no time limit of its own for statements."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.limited = True
        self.until = 0.0
        self.set_progress_handler(self._is_over, _STEPS)

    def cursor(self, factory: Any = None) -> Any:
        """A cursor whose statements end in time."""
        return super().cursor(factory or _Cursor)

    def _is_over(self) -> bool:
        return self.limited and time.monotonic() > self.until


class _Cursor(sqlite3.Cursor):
    """A cursor; the time for a statement begins anew with each."""

    connection: _Connection

    def execute(self, *given: Any) -> Any:
        """Run a statement. Raises OperationalError when it takes too long, as fetching does."""
        self.connection.until = time.monotonic() + STATEMENT_SECONDS
        return super().execute(*given)

    def executemany(self, *given: Any) -> Any:
        """The same for many rows of values together."""
        self.connection.until = time.monotonic() + STATEMENT_SECONDS
        return super().executemany(*given)


def unlimited(connection: Connection) -> None:
    """Let statements take as long as they take, as long as SQLite's connection lives, or
    PostgreSQL's transaction: for who fills an index with many rows."""
    held = connection.connection.dbapi_connection
    if isinstance(held, _Connection):
        held.limited = False
    else:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def timed_out(error: SQLAlchemyError) -> bool:
    """Whether a statement was ended because it took too long."""
    cause = getattr(error, "orig", None)
    interrupted = isinstance(cause, sqlite3.OperationalError) and str(cause) == "interrupted"
    return interrupted or getattr(cause, "sqlstate", "") == "57014"  # query_canceled


def full(error: SQLAlchemyError) -> bool:
    """Whether there is no room on the disk of the index."""
    cause = getattr(error, "orig", None)
    return (
        getattr(cause, "sqlite_errorname", "") == "SQLITE_FULL"
        or getattr(cause, "sqlstate", "") == "53100"  # disk_full
    )


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    connection.isolation_level = None  # BEGIN is ours to say: see _begin_sqlite
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("exchange_writes", False)
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
    try:
        connection.connection.cursor().execute(begin)
    except connection.dialect.loaded_dbapi.Error as error:
        raise translated(connection, error) from error

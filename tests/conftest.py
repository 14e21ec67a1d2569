"""What tests of every floor ask for: real parts, started when first asked for, and stores."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import forked
import hashing
import looping
import pausing
import pytest
import ready
import wording
from ready import Lender
from real_parts import (
    PostgreSQL,
    S3Address,
    claimed,
    end_with_parent,
    memory,
    postgresql,
    seaweedfs,
)
from region import Region, region

from exchange_storage.database import Database
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import MemoryStore, ObjectStore
from exchange_storage.s3 import S3Store
from exchange_storage.spool import SpooledStore

WAITING = [Path(__file__).parent / folder for folder in ("journeys", "server", "portal")]
"""Where tests wait for other processes most of the time; the longest are in the first."""

LEFT = 0.2
"""The share of the other files that is left when the last of those has begun."""

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """One of several processes of a run (pytest-xdist) ends with the one that has started it."""
    if hasattr(config, "workerinput"):
        end_with_parent()
    gc.disable()  # until all is imported: nothing of it is garbage, and looking takes 5 seconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests wait are begun among those whose tests do not, from first to last: of
    several processes some have work for the processors then, at all times. The longest begin
    first, so that none is left when the others have ended."""
    folders = {item.path: _waiting(item.path) for item in items}
    ordered = sorted(folders, key=lambda path: folders[path])
    waiting = [path for path in ordered if folders[path] < len(WAITING)]
    others = ordered[len(waiting) :]
    places = {path: at * (1 - LEFT) / len(waiting) for at, path in enumerate(waiting)}
    places |= {path: at / len(others) for at, path in enumerate(others)}
    items.sort(key=lambda item: places[item.path])


def _waiting(path: Path) -> int:
    """Which of the folders `WAITING` a file is in; their number for any other."""
    found = (at for at, folder in enumerate(WAITING) if folder in path.parents)
    return next(found, len(WAITING))


def pytest_collection_finish() -> None:
    """What was collected stays: garbage is looked for among what the tests make.

    Of that most stays too, such as statements and models of FHIR. Python looks through all of it
    each 70 000 objects, which was a fifth of what the tests took.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Hash passwords cheaply; processes that the tests start hash them as released."""
    with hashing.cheap():
        yield


@pytest.fixture(scope="session", autouse=True)
def processes_forked() -> Iterator[None]:
    """Processes of the exchange are forked from one that has imported it."""
    with forked.forking():
        yield


@pytest.fixture(scope="session", autouse=True)
def statements_in_words() -> Iterator[None]:
    """No engine puts into words what another has."""
    with wording.once():
        yield


@pytest.fixture(scope="session", autouse=True)
def asking_in_one_loop() -> Iterator[None]:
    """Applications are asked in one event loop."""
    with looping.in_one_loop():
        yield


@pytest.fixture(scope="session", autouse=True)
def pausing_in_one_step() -> Iterator[None]:
    """Whoever sends with pynetdicom gets the answer."""
    with pausing.pausing_in_one_step():
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Address]:
    """One S3 server for all tests; nobody may stop it."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as address:
        yield address


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """One PostgreSQL for all tests; nobody may stop it.

    In memory where there is room: its thousands of files take longer to remove from a disk than
    hundreds of tests take.
    """
    with postgresql(memory()) as server:
        yield server


@pytest.fixture
def s3_store(s3_server: S3Address, tmp_path: Path) -> Iterator[S3Store]:
    """An empty S3 store."""
    # One bucket, emptied: a new one for each test would use up the server's volumes.
    store = S3Store.connect(
        s3_server.endpoint,
        s3_server.access_key,
        s3_server.secret_key,
        "exchange-tests",
        secure=False,
        staging=tmp_path / "s3-staging",
    )
    try:
        for stored in list(store.list()):
            store.delete(stored.key)
        yield store
    finally:
        store.close()


@pytest.fixture(params=["memory", "filesystem", "s3", "spooled"])
def object_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store of each kind; the spooled one stands in front of S3."""
    store: ObjectStore
    match request.param:
        case "memory":
            store = MemoryStore()
        case "filesystem":
            store = FilesystemStore(tmp_path / "store")
        case "s3":
            store = request.getfixturevalue("s3_store")
        case _:
            remote = request.getfixturevalue("s3_store")
            store = SpooledStore(FilesystemStore(tmp_path / "spool"), remote)
    yield store
    store.close()


@pytest.fixture(scope="session")
def lender(postgresql_server: PostgreSQL) -> Lender:
    """Databases of that PostgreSQL, lent to one test after another."""
    return Lender(postgresql_server)


@pytest.fixture(scope="session")
def sqlite_place() -> Iterator[Path]:
    """Where SQLite's files are: in memory too, since each test waits for dozens of commits."""
    with claimed(memory()) as place:
        yield place


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The SQLAlchemy URL of a database of each kind, of this release, without a row in it."""
    with _database(request) as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def lasting_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Such a database for all tests of a module."""
    with _database(request) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Such a database, opened."""
    opened = Database(database_url)
    yield opened
    opened.close()


@contextmanager
def _database(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        place: Path = request.getfixturevalue("sqlite_place")
        file = place / f"exchange-{next(_numbers)}.sqlite"
        yield ready.sqlite(file)
        for left in place.glob(f"{file.name}*"):
            left.unlink()
    else:
        lender: Lender = request.getfixturevalue("lender")
        with lender.lent() as url:
            yield url


@pytest.fixture
def city(database_url: str) -> Iterator[Region]:
    """Three hospitals that share, on each kind of database; objects in memory."""
    with region(database_url) as made:
        yield made

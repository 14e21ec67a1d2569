"""Lines that are durable before the index has them are in it once, whatever ends when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from exchange_storage import journal as journals
from exchange_storage.database import Database
from exchange_storage.journal import Journal
from exchange_storage.records import JournalFile


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the files are."""
    return tmp_path / "journal"


@pytest.fixture
def journal(place: Path) -> Iterator[Journal]:
    """Of this process."""
    opened = Journal(place)
    yield opened
    opened.close()


def left(place: Path, *lines: bytes) -> Path:
    """The file of a process that added the lines, and is no more."""
    died = Journal(place)
    died.append(lines)
    died.close()
    (file,) = place.iterdir()
    return file


def taken(journal: Journal, database: Database, *, everything: bool = False) -> list[bytes]:
    """What a transaction takes over, which is committed."""
    with database.writing() as session:
        found = journal.take(session.connection(), everything=everything)
    journal.settle(found)
    return found.lines


def behind(journal: Journal, database: Database) -> bool:
    with database.reading() as session:
        return journal.behind(session.connection())


def known(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(JournalFile.name)))


def test_what_was_added_is_taken_over_once_and_in_order(
    database: Database, journal: Journal
) -> None:
    assert not behind(journal, database)
    journal.append([b"first", b"second"])
    journal.append([b"third"])

    assert behind(journal, database)
    assert taken(journal, database) == [b"first", b"second", b"third"]
    assert not behind(journal, database)
    assert taken(journal, database) == []
    journal.append(["王小东".encode()])
    assert taken(journal, database) == ["王小东".encode()]


def test_what_a_transaction_took_that_was_not_committed_is_taken_again(
    database: Database, journal: Journal
) -> None:
    journal.append([b"first"])
    with database.writing() as session:
        assert journal.take(session.connection()).lines == [b"first"]
        session.rollback()

    assert behind(journal, database)
    assert taken(journal, database) == [b"first"]


def test_a_process_whose_commit_was_not_answered_learns_that_it_was_one(
    database: Database, journal: Journal
) -> None:
    journal.append([b"first"])
    with database.writing() as session:
        journal.take(session.connection())  # and nobody comes to settle it

    journal.append([b"second"])
    assert taken(journal, database) == [b"second"]


def test_lines_of_another_process_are_taken_for_who_reads_and_not_twice(
    database: Database, place: Path
) -> None:
    node, web = Journal(place), Journal(place)
    node.append([b"asked"])
    web.append([b"looked"])

    assert behind(web, database)
    assert taken(web, database) == [b"looked"]
    assert behind(web, database)
    assert taken(web, database, everything=True) == [b"asked"]
    assert not behind(web, database)
    assert len(list(place.iterdir())) == 2  # it goes on with its file
    node.append([b"asked again"])
    assert taken(node, database) == [b"asked again"]
    node.close()
    web.close()


def test_what_a_process_that_died_left_is_taken_by_the_next_and_its_file_removed(
    database: Database, place: Path
) -> None:
    died = Journal(place)
    died.append([b"first", b"second"])
    assert taken(died, database) == [b"first", b"second"]
    died.append([b"third"])
    (file,) = place.iterdir()
    with file.open("ab") as opened:
        opened.write(b"0000beef half a li")  # it was never acknowledged
    died._own.clear()
    died._current = None

    risen = Journal(place)
    assert taken(risen, database, everything=True) == [b"third"]
    assert list(place.iterdir()) == []
    assert not behind(risen, database)
    assert taken(risen, database, everything=True) == []
    assert known(database) == []


def test_a_backup_whose_journal_is_older_than_its_index_has_nothing_more_to_be_taken_over(
    database: Database, journal: Journal, place: Path
) -> None:
    file = left(place, b"first", b"second")
    with database.writing() as session:
        journal.take(session.connection(), everything=True)  # and the process ends before `settle`
    file.write_bytes(file.read_bytes()[:15])

    assert taken(journal, database, everything=True) == []
    assert not file.exists()
    assert left(place, b"third").exists()
    assert taken(journal, database, everything=True) == [b"third"]


def test_a_line_that_was_damaged_takes_none_with_it_and_its_file_is_kept_for_the_operators(
    database: Database, place: Path
) -> None:
    file = left(place, b"first", b"second", b"third")
    file.write_bytes(file.read_bytes().replace(b"second", b"secund"))

    risen = Journal(place)
    assert taken(risen, database, everything=True) == [b"first", b"third"]
    (kept,) = place.iterdir()
    assert kept.name == file.with_suffix(".damaged").name
    assert b"secund" in kept.read_bytes()
    assert not behind(risen, database)


def test_long_files_are_followed_by_others_and_removed_when_the_index_has_them(
    database: Database, journal: Journal, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "LENGTH", 100)
    lines = [b"%d" % number * 20 for number in range(10, 30)]
    for line in lines:
        journal.append([line])

    assert len(list(place.iterdir())) > 5
    assert taken(journal, database) == lines
    assert len(list(place.iterdir())) <= 1
    journal.append([b"more"])
    assert taken(journal, database) == [b"more"]
    assert len(known(database)) == 1
    journal.close()
    assert list(place.iterdir()) == []


def test_a_line_that_the_disk_did_not_take_is_not_acknowledged_and_hides_none(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append([b"first"])
    with monkeypatch.context() as patch:
        write = os.write
        patch.setattr(os, "write", lambda file, told: write(file, told[:5]))
        with pytest.raises(OSError, match="No space left"):
            journal.append([b"second"])
    journal.append([b"third"])

    assert taken(journal, database) == [b"first", b"third"]
    assert not behind(journal, database)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 40))
def test_whatever_bytes_are_found_in_a_file_the_lines_before_them_are_taken(
    tmp_path_factory: pytest.TempPathFactory, found: bytes, cut: int
) -> None:
    place = tmp_path_factory.mktemp("journal")
    database = Database(f"sqlite:///{place / 'index.sqlite'}")
    with database.engine.begin() as connection:
        JournalFile.__table__.create(connection)  # type: ignore[attr-defined]
    file = left(place / "files", b"first", b"second")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - cut] + found)

    risen = Journal(place / "files")
    lines = taken(risen, database, everything=True)
    assert lines == [b"first", b"second"][: len(lines)]
    assert len(lines) == 2 or cut
    assert taken(risen, database, everything=True) == []
    database.close()


def test_a_command_of_roots_leaves_its_lines_to_who_runs_the_exchange(
    database: Database, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(place)
    journal.append([b"first"])
    (file,) = place.iterdir()
    wanted = place.parent.stat()
    for made in (place, file):
        assert (made.stat().st_uid, made.stat().st_gid) == (wanted.st_uid, wanted.st_gid)
        assert not made.stat().st_mode & 0o077
    journal.close()

    def refused(*_: object) -> int:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        assert taken(Journal(place), database, everything=True) == []
    assert taken(Journal(place), database, everything=True) == [b"first"]

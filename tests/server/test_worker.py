"""The later work: done, tried again, given up; checkpoints and the spool."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from region import WORKER, Region
from sqlalchemy import select, update
from structlog.testing import capture_logs

from exchange import audit, jobs, scrub
from exchange.access import Exchange, translated
from exchange.errors import Unavailable
from exchange_server.composition import worker
from exchange_server.settings import Settings
from exchange_server.worker import Worker
from exchange_storage.carried import LARGEST
from exchange_storage.database import Database
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import MemoryStore, Stored, StoreUnavailable
from exchange_storage.records import Instance, Job, Scrub, Study
from exchange_storage.spool import SpooledStore


@pytest.fixture
def remote() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def exchange(database_url: str, tmp_path: Path, remote: MemoryStore) -> Iterator[Exchange]:
    """An exchange with a spool, as a city has it."""
    store = SpooledStore(FilesystemStore(tmp_path / "spool", durable=False), remote)
    opened = Exchange(Database(database_url), store, Ed25519PrivateKey.generate())
    opened.prepare()
    yield opened
    opened.close()


def ask(exchange: Exchange, kind: str, subject: str) -> None:
    with exchange.database.writing() as session:
        jobs.ask(session, kind, subject, datetime.now(UTC))


def waiting(exchange: Exchange) -> list[Job]:
    with exchange.database.reading() as session:
        return list(session.scalars(select(Job)))


def test_what_was_asked_for_is_done_once(exchange: Exchange) -> None:
    done: list[str] = []
    one = Worker(exchange, {"thumbnail": lambda _, subject: done.append(subject)})
    ask(exchange, "thumbnail", "7")
    ask(exchange, "thumbnail", "7")
    ask(exchange, "thumbnail", "8")
    assert one.run_once() == 2
    assert one.run_once() == 0
    assert sorted(done) == ["7", "8"]
    assert waiting(exchange) == []


def test_what_is_asked_for_again_while_it_is_done_stays(exchange: Exchange) -> None:
    one = Worker(exchange, {"thumbnail": lambda here, subject: ask(here, "thumbnail", subject)})
    ask(exchange, "thumbnail", "7")
    one.run_once()
    assert [job.subject for job in waiting(exchange)] == ["7"]


def test_jobs_that_can_be_done_together_are(exchange: Exchange) -> None:
    done: list[Sequence[str]] = []
    one = Worker(
        exchange,
        {"thumbnail": lambda _, subject: done.append([subject]), "print": lambda _, __: None},
        {"thumbnail": lambda _, subjects: done.append(sorted(subjects))},
    )
    for subject in ("7", "8", "9"):
        ask(exchange, "thumbnail", subject)
    ask(exchange, "print", "7")
    assert one.run_once() == 4
    ask(exchange, "thumbnail", "7")
    assert one.run_once() == 1
    assert done == [["7", "8", "9"], ["7"]]
    assert waiting(exchange) == []


def test_of_jobs_that_were_to_be_done_together_only_the_one_at_fault_fails(
    exchange: Exchange,
) -> None:
    def draw(_: Exchange, subject: str) -> None:
        if subject == "8":
            raise ValueError("no picture")
        done.append(subject)

    def draw_all(here: Exchange, subjects: Sequence[str]) -> None:
        for subject in subjects:
            draw(here, subject)

    done: list[str] = []
    for subject in ("7", "8", "9"):
        ask(exchange, "thumbnail", subject)
    Worker(exchange, {"thumbnail": draw}, {"thumbnail": draw_all}).run_once()
    assert sorted(set(done)) == ["7", "9"]
    assert [(job.subject, job.attempts) for job in waiting(exchange)] == [("8", 1)]


def test_a_job_that_fails_is_tried_again_and_tells_no_patient_data(exchange: Exchange) -> None:
    def fail(_: Exchange, __: str) -> None:
        raise ValueError("王小东 350203199001011234")

    ask(exchange, "thumbnail", "7")
    with capture_logs() as logged:
        assert Worker(exchange, {"thumbnail": fail}).run_once() == 1
    (job,) = waiting(exchange)
    assert (job.attempts, job.dead, job.leased_until) == (1, False, None)
    assert job.due > datetime.now(UTC)
    assert job.last_error.startswith("ValueError at test_worker.py:")
    assert "王小东" not in str(logged)
    assert [one["kind"] for one in logged if one["event"] == "job_failures"] == ["thumbnail"]


def test_a_job_that_cannot_be_noted_does_not_hold_up_those_taken_with_it(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(_: Database, __: jobs.Claim, ___: str) -> None:
        raise Unavailable("the index does not answer; try again later")

    def draw(_: Exchange, subject: str) -> None:
        done.append(subject)
        if subject == "7":
            raise ValueError("no picture")

    monkeypatch.setattr(jobs, "fail", forgetful)
    done: list[str] = []
    for subject in ("7", "8", "9"):
        ask(exchange, "thumbnail", subject)
    with pytest.raises(Unavailable):
        Worker(exchange, {"thumbnail": draw}).run_once()
    assert sorted(done) == ["7", "8", "9"]
    assert [job.subject for job in waiting(exchange)] == ["7"]


def test_a_job_that_always_fails_is_given_up_until_somebody_retries_it(exchange: Exchange) -> None:
    def fail(_: Exchange, __: str) -> None:
        raise Unavailable("the index does not answer; try again later")

    one = Worker(exchange, {"thumbnail": fail})
    ask(exchange, "thumbnail", "7")
    for _ in range(jobs.ATTEMPTS):
        with exchange.database.writing() as session:
            session.execute(update(Job).values(due=datetime.now(UTC)))
        assert one.run_once() == 1
    with exchange.database.reading() as session:
        (given_up,) = jobs.dead_letters(session)
    assert given_up.last_error == "Unavailable: the index does not answer; try again later"
    assert one.run_once() == 0
    with exchange.database.writing() as session:
        assert jobs.retry(session, given_up.id + 1) == 0
        assert jobs.retry(session, given_up.id) == 1
    assert one.run_once() == 1


def test_the_trail_gets_a_checkpoint_that_proves_it(
    exchange: Exchange, remote: MemoryStore, tmp_path: Path
) -> None:
    one = worker(exchange, Settings(data=tmp_path))
    while one.run_once():
        pass
    one.empty_spool_once()
    (kept,) = remote.list(audit.CHECKPOINTS)
    assert kept.key == f"audit/{0:020}.json"
    with exchange.database.reading() as session:
        assert list(audit.verify(session, exchange.signing_key, exchange.objects)) == []


def test_the_spool_is_emptied_into_the_remote_store(
    exchange: Exchange, remote: MemoryStore
) -> None:
    exchange.objects.put("studies/1/2/3.dcm", b"image")
    exchange.objects.put("studies/1/2/4.dcm", b"ours")
    remote.put("studies/1/2/4.dcm", b"another's")
    with capture_logs() as logged:
        Worker(exchange, {}).empty_spool_once()
    assert remote.get("studies/1/2/3.dcm") == b"image"
    assert remote.get("studies/1/2/4.dcm") == b"another's"
    assert exchange.objects.get("studies/1/2/4.dcm") == b"ours"
    (stuck,) = [one for one in logged if one["event"] == "spool_stuck"]
    assert (stuck["reason"], stuck["keys"]) == ("differs", ["studies/1/2/4.dcm"])


def test_why_the_remote_store_takes_nothing_is_in_the_log(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: object) -> Stored:
        raise StoreUnavailable("the S3 store refused the access key: InvalidAccessKeyId")

    def stat(*_: object) -> Stored:
        raise StoreUnavailable("the S3 store answered: InternalError")

    def read(here: Exchange, _: str) -> None:
        with translated():
            here.objects.stat("studies/1/2/4.dcm")

    monkeypatch.setattr(MemoryStore, "put", put)
    monkeypatch.setattr(MemoryStore, "stat", stat)
    exchange.objects.put("studies/1/2/3.dcm", b"image")
    ask(exchange, "thumbnail", "7")
    with capture_logs() as logged:
        Worker(exchange, {}).empty_spool_once()
        Worker(exchange, {"thumbnail": read}).run_once()
    told = {one["event"]: one["error"] for one in logged if "error" in one}
    assert "InvalidAccessKeyId" in told["spool_stuck"]
    assert "InternalError" in told["job_failures"]


def test_a_study_in_another_machines_spool_is_described_later_and_not_when_it_is_lost(
    exchange: Exchange, remote: MemoryStore, tmp_path: Path
) -> None:
    city = Region(exchange)
    city.register("beicheng")
    here = exchange.objects.store
    exchange.objects.store = SpooledStore(FilesystemStore(tmp_path / "other"), remote)
    city.send("beicheng", body=bytes(LARGEST + 1))
    exchange.objects.store.close()
    exchange.objects.store = here
    earlier = datetime.now(UTC) - timedelta(days=2)
    with exchange.database.writing() as session:
        session.execute(update(Study).values(changed=earlier))
        session.execute(update(Instance).values(received=earlier))
    describe = worker(exchange, Settings(data=tmp_path))._handlers[jobs.DESCRIBE]
    with pytest.raises(jobs.Later):
        describe(exchange, "1")
    with exchange.on_behalf_of(WORKER) as access:
        assert scrub.walk(access, days=90, until=datetime.now(UTC) + timedelta(60)).damaged == 1
    describe(exchange, "1")


def test_a_long_spool_is_listed_once_and_a_worker_that_is_told_to_stop_leaves_the_rest(
    exchange: Exchange, remote: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = 0
    walk = FilesystemStore.list

    def counted(store: FilesystemStore, prefix: str = "") -> Iterator[Stored]:
        nonlocal listed
        listed += 1
        return walk(store, prefix)

    monkeypatch.setattr(FilesystemStore, "list", counted)
    for number in range(200):
        exchange.objects.put(f"studies/1/2/{number}.dcm", b"image")
    stop = threading.Event()
    stop.set()
    Worker(exchange, {}).empty_spool_once(stop)
    assert 0 < sum(1 for _ in remote.list()) < 200
    Worker(exchange, {}).empty_spool_once()
    assert sum(1 for _ in remote.list()) == 200
    assert listed == 2


def test_a_worker_goes_on_when_the_index_was_away_and_ends_when_it_is_told(
    tmp_path: Path,
) -> None:
    exchange = Exchange(
        Database(f"sqlite:///{tmp_path / 'index.sqlite'}"),
        MemoryStore(),
        Ed25519PrivateKey.generate(),
    )
    stop, done = threading.Event(), threading.Event()
    one = Worker(exchange, {"thumbnail": lambda *_: done.set()})
    running = threading.Thread(target=one.run, args=(stop,))
    running.start()  # with no table to look into yet
    try:
        exchange.prepare()
        ask(exchange, "thumbnail", "7")
        assert done.wait(180)
    finally:
        stop.set()
        running.join(180)
    assert not running.is_alive()
    exchange.close()


def test_work_that_waits_for_another_hospital_holds_up_nothing_else(exchange: Exchange) -> None:
    done, answered, stop = threading.Event(), threading.Event(), threading.Event()

    def waits(_: Exchange, __: str) -> None:
        assert answered.wait(180)

    one = Worker(exchange, {jobs.FORWARD: waits, jobs.REFRESH: lambda *_: done.set()})
    ask(exchange, jobs.FORWARD, "1")
    ask(exchange, jobs.FORWARD, "2")
    running = threading.Thread(target=one.run, args=(stop,))
    running.start()
    try:
        ask(exchange, jobs.REFRESH, "7")
        assert done.wait(180)
    finally:
        stop.set()
        answered.set()
        running.join(180)
    assert not running.is_alive()


@pytest.mark.parametrize("kind", jobs.CALLED)
def test_as_many_who_hang_as_are_called_at_a_time_leave_threads_to_another(
    exchange: Exchange, kind: str
) -> None:
    done, answered, stop = threading.Event(), threading.Event(), threading.Event()

    def calls(_: Exchange, subject: str) -> None:
        if subject == well:
            done.set()
        else:
            assert answered.wait(180)

    study = ":1" if kind == jobs.NOTIFY else ""
    well = f"99{study}"
    one = Worker(exchange, {kind: calls})
    for silent in range(jobs.CALLED[kind].silent):
        ask(exchange, kind, f"{silent}{study}")
    running = threading.Thread(target=one.run, args=(stop,))
    running.start()
    try:
        ask(exchange, kind, well)
        assert done.wait(180)
    finally:
        stop.set()
        answered.set()
        running.join(180)
    assert not running.is_alive()


def test_work_that_takes_longer_than_a_lease_stays_with_who_does_it(exchange: Exchange) -> None:
    ask(exchange, jobs.FORWARD, "1")
    (job,) = jobs.claim(exchange.database, [jobs.FORWARD])
    with exchange.database.writing() as session:
        session.execute(update(Job).values(leased_until=datetime.now(UTC)))
    jobs.renew(exchange.database, [job.id])
    assert jobs.claim(exchange.database, [jobs.FORWARD]) == []
    jobs.finish(exchange.database, [job])
    jobs.renew(exchange.database, [job.id])
    assert waiting(exchange) == []


def test_what_is_finished_after_a_stop_does_not_become_another_workers(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answered, renewed, stop = (threading.Event() for _ in range(4))
    renew = jobs.renew

    def seen(database: Database, numbers: Sequence[int]) -> None:
        late = stop.is_set()
        renew(database, numbers)
        if late:
            renewed.set()

    def waits(_: Exchange, __: str) -> None:
        begun.set()
        assert answered.wait(180)

    monkeypatch.setattr(jobs, "LEASE", timedelta(seconds=2))
    monkeypatch.setattr(jobs, "renew", seen)
    ask(exchange, jobs.FORWARD, "1")
    running = threading.Thread(target=Worker(exchange, {jobs.FORWARD: waits}).run, args=(stop,))
    running.start()
    try:
        assert begun.wait(180)
        stop.set()
        assert renewed.wait(180)
    finally:
        stop.set()
        answered.set()
        running.join(180)
    assert not running.is_alive()
    assert waiting(exchange) == []


def test_a_worker_reads_again_what_is_kept_and_deletes_by_rule_only_where_that_is_set(
    exchange: Exchange, tmp_path: Path
) -> None:
    def asked_for(**told: Any) -> set[str]:
        one = worker(exchange, Settings(data=tmp_path, **told))
        while one.run_once():
            pass
        return {job.kind for job in waiting(exchange)}

    assert asked_for(scrub_days=0) == set()
    assert asked_for() == {jobs.SCRUB}  # it rests, and goes on by itself
    with exchange.database.reading() as session:
        assert session.scalars(select(Scrub)).one().finished is not None
    deleted = worker(exchange, Settings(data=tmp_path, retention_automatic=True))
    with capture_logs() as logged:
        while deleted.run_once():
            pass
    assert jobs.RETAIN in {one.get("kind") for one in logged}

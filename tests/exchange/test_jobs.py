"""The outbox: later work is done once, by one worker, however often it is asked for or fails."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, select, update

from exchange import jobs
from exchange.jobs import Claim
from exchange_storage.database import Database
from exchange_storage.records import Change, Job

KINDS = [jobs.IDENTIFY, jobs.REFRESH]


def ask(
    database: Database, subject: str = "1", kind: str = jobs.REFRESH, hours: float = -1
) -> None:
    """Ask for work that is due in so many hours."""
    with database.writing() as session:
        jobs.ask(session, kind, subject, datetime.now(UTC) + timedelta(hours=hours))


def all_due(database: Database) -> None:
    """Let time pass, so that everything that waits is due; leases do not run out."""
    with database.writing() as session:
        session.execute(update(Job).values(due=datetime.now(UTC) - timedelta(seconds=1)))


def only(database: Database) -> Job:
    with database.reading() as session:
        return session.scalars(select(Job)).one()


def test_a_job_is_done_once(database: Database) -> None:
    ask(database)

    (claimed,) = jobs.claim(database, KINDS)
    assert (claimed.kind, claimed.subject, claimed.attempts) == (jobs.REFRESH, "1", 0)
    assert jobs.claim(database, KINDS) == []  # while one has it nobody else does
    jobs.finish(database, [claimed])

    assert jobs.claim(database, KINDS) == []
    with database.reading() as session:
        assert session.scalars(select(Job)).all() == []


def test_a_job_waits_until_it_is_due_and_for_a_worker_that_knows_it(database: Database) -> None:
    ask(database, "later", hours=1)
    ask(database, "now", kind="another")

    assert jobs.claim(database, KINDS) == []
    assert [one.subject for one in jobs.claim(database, ["another"])] == ["now"]


def test_the_most_overdue_comes_first_and_not_more_than_asked_for(database: Database) -> None:
    for subject, hours in (("b", -2), ("c", -1), ("a", -3)):
        ask(database, subject, hours=hours)

    assert [one.subject for one in jobs.claim(database, KINDS, limit=2)] == ["a", "b"]
    assert [one.subject for one in jobs.claim(database, KINDS, limit=2)] == ["c"]


def test_asking_again_neither_doubles_a_job_nor_puts_it_off(database: Database) -> None:
    ask(database, hours=-1)
    ask(database, hours=+1)

    assert [one.asked for one in jobs.claim(database, KINDS)] == [2]


def test_what_is_asked_for_while_it_is_being_done_is_done_again(database: Database) -> None:
    ask(database)
    (first,) = jobs.claim(database, KINDS)
    ask(database)
    jobs.finish(database, [first])

    assert jobs.claim(database, KINDS) == []  # a moment later, lest one study keep a worker busy
    all_due(database)
    (again,) = jobs.claim(database, KINDS)
    jobs.finish(database, [again])

    with database.reading() as session:
        assert session.scalars(select(Job)).all() == []


def test_a_job_of_a_worker_that_died_is_taken_over(database: Database) -> None:
    ask(database)
    jobs.claim(database, KINDS)
    with database.writing() as session:
        session.execute(update(Job).values(leased_until=datetime.now(UTC)))

    (taken_over,) = jobs.claim(database, KINDS)
    jobs.finish(database, [taken_over])

    assert jobs.claim(database, KINDS) == []


def test_a_failing_job_is_tried_again_after_growing_pauses_then_given_up(
    database: Database,
) -> None:
    ask(database)
    pauses = []
    for attempt in range(jobs.ATTEMPTS):
        all_due(database)
        (claimed,) = jobs.claim(database, KINDS)
        assert claimed.attempts == attempt
        before = datetime.now(UTC)
        jobs.fail(database, claimed, "OperationalError in refresh" + "!" * 5000)
        assert jobs.claim(database, KINDS) == []
        pauses.append(only(database).due - before)

    assert pauses == sorted(pauses)
    assert pauses[0] >= timedelta(seconds=2)
    assert timedelta(minutes=59) < pauses[-1] < timedelta(minutes=61)
    all_due(database)
    assert jobs.claim(database, KINDS) == []
    with database.reading() as session:
        (dead,) = jobs.dead_letters(session)
        assert dead.last_error.startswith("OperationalError in refresh")
        assert jobs.backlog(session) == {(jobs.REFRESH, True): 1}


def give_up(database: Database, subject: str) -> None:
    ask(database, subject)
    with database.writing() as session:
        job = session.scalars(select(Job).where(Job.subject == subject)).one()
        job.dead, job.attempts = True, jobs.ATTEMPTS


def test_a_job_that_was_given_up_can_be_retried_one_or_all(database: Database) -> None:
    for subject in ("1", "2", "3"):
        give_up(database, subject)

    with database.writing() as session:
        first = jobs.dead_letters(session)[0]
        assert jobs.retry(session, first.id) == 1
        assert jobs.retry(session, first.id) == 0
    all_due(database)
    assert [(one.subject, one.attempts) for one in jobs.claim(database, KINDS)] == [("1", 0)]

    with database.writing() as session:
        assert jobs.retry(session) == 2
        assert jobs.dead_letters(session) == []
        assert jobs.backlog(session) == {(jobs.REFRESH, False): 3}


def test_a_job_that_was_given_up_is_tried_again_when_it_is_asked_for_again(
    database: Database,
) -> None:
    give_up(database, "1")
    ask(database)

    assert [one.subject for one in jobs.claim(database, KINDS)] == ["1"]


def test_what_the_transaction_did_not_keep_was_not_asked_for(database: Database) -> None:
    with database.writing() as session:
        jobs.ask(session, jobs.REFRESH, "1", datetime.now(UTC))
        session.rollback()

    assert jobs.claim(database, KINDS) == []


def test_finishing_and_failing_what_another_has_finished_harms_nothing(
    database: Database,
) -> None:
    ask(database)
    (claimed,) = jobs.claim(database, KINDS)
    for _ in range(2):
        jobs.finish(database, [claimed])
    jobs.fail(database, claimed, "too late")

    with database.reading() as session:
        assert session.scalars(select(Job)).all() == []


def test_no_two_workers_ever_have_the_same_job(database: Database) -> None:
    for number in range(60):
        ask(database, str(number))
    together = threading.Barrier(6)

    def work(_: int) -> list[Claim]:
        mine: list[Claim] = []
        together.wait()
        while claimed := jobs.claim(database, KINDS, limit=3):
            mine += claimed
        return mine

    with ThreadPoolExecutor(6) as pool:
        done = [claimed for mine in pool.map(work, range(6)) for claimed in mine]

    assert len(done) == len({one.id for one in done})
    left = jobs.claim(database, KINDS, limit=60)  # a worker may leave while others hold the rest
    assert sorted(int(one.subject) for one in [*done, *left]) == list(range(60))


def test_work_asked_for_and_done_at_once_is_never_lost(database: Database) -> None:
    """The last asking is always followed by a run that began after it."""
    stop = threading.Event()
    seen: list[int] = []

    def work() -> None:
        while not stop.is_set():
            for claimed in jobs.claim(database, KINDS):
                seen.append(claimed.asked)
                jobs.finish(database, [claimed])
            all_due(database)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(25):
            ask(database)
    finally:
        stop.set()
        worker.join()

    for claimed in jobs.claim(database, KINDS):
        jobs.finish(database, [claimed])
        seen.append(claimed.asked)
    with database.reading() as session:
        assert session.scalars(select(Job)).all() == []
    assert seen


def test_what_was_put_off_is_due_at_once_when_it_is_hastened(database: Database) -> None:
    ask(database, hours=5)
    with database.writing() as session:
        jobs.hasten(session, jobs.REFRESH, "1", datetime.now(UTC))
        jobs.hasten(session, jobs.IDENTIFY, "2", datetime.now(UTC))

    assert {one.subject for one in jobs.claim(database, KINDS)} == {"1", "2"}


def test_who_asks_while_the_work_puts_itself_off_does_not_wait_so_long(database: Database) -> None:
    ask(database)
    (first,) = jobs.claim(database, KINDS)
    jobs.postpone(database, first, 3600)
    assert only(database).due > datetime.now(UTC) + timedelta(minutes=50)

    all_due(database)
    (again,) = jobs.claim(database, KINDS)
    ask(database)
    jobs.postpone(database, again, 3600)
    assert only(database).due < datetime.now(UTC) + timedelta(seconds=10)


def arrived(database: Database, seconds_ago: float) -> None:
    """An image, and none since."""
    with database.writing() as session:
        session.execute(delete(Change))
        session.add(
            Change(
                recorded=datetime.now(UTC) - timedelta(seconds=seconds_ago),
                action="create",
                instance_id=1,
                study_instance_uid="1.2.1",
                series_instance_uid="1.3.1",
                sop_instance_uid="1.4.1",
            )
        )


@pytest.mark.parametrize("kind", jobs.PUT_OFF)
def test_what_can_wait_is_put_off_while_images_arrive_but_not_for_long(
    database: Database, kind: str
) -> None:
    def taken() -> list[str]:
        claimed = jobs.claim(database, [jobs.IDENTIFY, kind], patient=True)
        jobs.finish(database, claimed)
        return [one.subject for one in claimed]

    coming, longest = (part.total_seconds() for part in jobs.PUT_OFF[kind])
    arrived(database, 0)
    ask(database, "the study", kind=kind, hours=0)
    ask(database, "the patient", kind=jobs.IDENTIFY, hours=0)
    assert taken() == ["the patient"]  # which is not put off
    assert taken() == []
    arrived(database, coming)
    assert taken() == ["the study"]

    arrived(database, 0)
    ask(database, "the study", kind=kind, hours=-longest / 3600)
    ask(database, "another", kind=kind, hours=0)
    assert taken() == ["the study", "another"]  # the one that has waited takes the other along


def test_who_does_everything_now_takes_what_can_wait_while_images_arrive(
    database: Database,
) -> None:
    arrived(database, 0)
    ask(database, kind=jobs.REFRESH, hours=0)
    assert len(jobs.claim(database, [jobs.REFRESH])) == 1


def test_what_is_hastened_is_not_put_off_for_images_that_arrive(database: Database) -> None:
    arrived(database, 0)
    ask(database, kind=jobs.REFRESH, hours=0)
    assert jobs.claim(database, [jobs.REFRESH], patient=True) == []
    with database.writing() as session:
        jobs.hasten(session, jobs.REFRESH, "1", datetime.now(UTC))
    assert len(jobs.claim(database, [jobs.REFRESH], patient=True)) == 1


def test_while_somebody_does_not_answer_only_one_job_calls_them(database: Database) -> None:
    now = datetime.now(UTC)
    ask(database, "trail", kind=jobs.CHECKPOINT)  # whose subject is no number
    for subject in ("1", "2", "3", "4"):
        ask(database, subject, kind=jobs.COMMIT)
    (failed,) = jobs.claim(database, [jobs.COMMIT], 1)
    theirs = jobs.about(jobs.COMMIT).in_([1, 2, 4])
    with database.writing() as session:
        jobs.put_off(session, jobs.COMMIT, failed.subject, theirs, now)
    jobs.fail(database, failed, "nobody answers")

    def due() -> list[str]:
        with database.reading() as session:
            waiting = select(Job.subject).where(Job.due <= datetime.now(UTC)).order_by(Job.subject)
            return list(session.scalars(waiting))

    assert due() == ["3", "trail"]  # what is for others is not put off
    with database.reading() as session:
        first = session.scalars(select(Job).where(Job.due > now).order_by(Job.due)).first()
        assert first is not None
        assert first.id == failed.id

    with database.writing() as session:
        jobs.bring_on(session, jobs.COMMIT, theirs, now)
    assert due() == ["1", "2", "3", "4", "trail"]


def test_who_refuses_everything_is_not_called_ever_faster(database: Database) -> None:
    now = datetime.now(UTC)
    for subject in ("1", "2"):
        ask(database, subject, kind=jobs.COMMIT)
    theirs = jobs.about(jobs.COMMIT).in_([1, 2])
    for refused in jobs.claim(database, [jobs.COMMIT]):
        with database.writing() as session:
            jobs.bring_on(session, jobs.COMMIT, theirs, now)
        jobs.fail(database, refused, "refused")
    assert jobs.claim(database, [jobs.COMMIT]) == []  # each waits for longer each time

    with database.writing() as session:  # nobody answers, then somebody refuses again
        session.execute(update(Job).values(due=now))
    first, second = jobs.claim(database, [jobs.COMMIT])
    with database.writing() as session:
        jobs.put_off(session, jobs.COMMIT, first.subject, theirs, now)
    jobs.fail(database, first, "nobody answers")
    with database.writing() as session:
        jobs.bring_on(session, jobs.COMMIT, theirs, now)
    jobs.fail(database, second, "refused")
    (again,) = jobs.claim(database, [jobs.COMMIT])
    assert again.subject == first.subject
    with database.writing() as session:
        jobs.bring_on(session, jobs.COMMIT, theirs, now)
    jobs.fail(database, again, "refused")
    assert jobs.claim(database, [jobs.COMMIT]) == []


def test_a_study_at_which_a_node_hangs_keeps_no_other_from_it_for_long(database: Database) -> None:
    theirs = jobs.about(jobs.FORWARD).in_(range(1, 6))
    for subject in ("1", "2", "3", "4", "5"):
        ask(database, subject, kind=jobs.FORWARD)
    now, found_out = datetime.now(UTC), Counter[str]()
    calls, elapsed = 0, timedelta()
    while len(found_out) < 5:  # nobody answers, and time passes until a next job is due
        (failed,) = jobs.claim(database, [jobs.FORWARD], 1)
        found_out[failed.subject] += 1
        calls += 1
        with database.writing() as session:
            jobs.put_off(session, jobs.FORWARD, failed.subject, theirs, now)
        jobs.fail(database, failed, "nobody answers")
        with database.writing() as session:
            waiting = session.scalars(select(Job).order_by(Job.due)).all()
            others = [one.due - now for one in waiting if one.subject != failed.subject]
            assert min(others) <= jobs.LONGEST_PUT_OFF
            passed = waiting[0].due - now
            elapsed += passed
            for one in waiting:
                one.due -= passed
    assert sorted(found_out)[1:] == ["2", "3", "4", "5"]
    assert all(found_out[other] == 1 for other in ("2", "3", "4", "5"))
    assert calls < 20
    assert elapsed < timedelta(hours=2)  # each in its turn

    with database.writing() as session:  # it answers the one after: all else goes, but for the one
        jobs.bring_on(session, jobs.FORWARD, theirs, now)
    assert [one.subject for one in jobs.claim(database, [jobs.FORWARD])] == ["2", "3", "4", "5"]

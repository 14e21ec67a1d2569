"""Who does not answer when called keeps nobody else waiting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from exchange import jobs, turns
from exchange.jobs import Claim
from exchange_storage.database import Database
from exchange_storage.records import (
    ApplicationEntity,
    Commitment,
    Delivery,
    Job,
    Organization,
    Route,
)

CALLED = list(jobs.CALLED)


@pytest.fixture
def nodes(database: Database) -> list[int]:
    """A hospital's nodes, more than there are threads; row numbers."""
    with database.writing() as session:
        hospital = Organization(
            code="beicheng",
            name="北城医院",
            credit_code="12120000123450000T",
            issuer="2.25.101",
            registered=datetime.now(UTC),
        )
        session.add(hospital)
        session.flush()
        found = [
            ApplicationEntity(
                organization_id=hospital.id, title=f"WS{number}", address="10.1.0.5", port=104
            )
            for number in range(20)
        ]
        session.add_all(found)
        session.flush()
        return [one.id for one in found]


def asked(database: Database, kind: str, node: int, study: int = 1) -> str:
    """Something is to be told to a node, now: the job's subject."""
    now = datetime.now(UTC)
    with database.writing() as session:
        match kind:
            case jobs.FORWARD:
                row = Delivery(study_instance_uid=f"1.2.{study}", asked=now, entity_id=node)
                session.add(row)
                session.flush()
                subject = str(row.id)
            case jobs.COMMIT:
                transaction = Commitment(
                    organization_id=session.scalars(select(Organization.id)).one(),
                    transaction_uid=f"1.2.{node}.{study}",
                    requester=f"WS{node}",
                    address="10.1.0.5",
                    requested=now,
                )
                session.add(transaction)
                session.flush()
                subject = str(transaction.id)
            case _:
                subject = f"{node}:{study}"
        jobs.ask(session, kind, subject, now)
    return subject


def taken(database: Database, kind: str) -> list[Claim]:
    """What the threads of a worker have in hand, once each that found something to do has it."""
    threads = 2 * jobs.CALLED[kind].silent
    return [one for _ in range(threads) for one in jobs.claim(database, [kind], 1)]


def silent(database: Database, job: Claim) -> None:
    """Nobody has answered it."""
    with database.writing() as session:
        jobs.put_off(session, job.kind, job.subject, Job.subject == "", datetime.now(UTC))
    jobs.fail(database, job, "nobody answers")


def time_passes(database: Database) -> None:
    with database.writing() as session:
        session.execute(update(Job).values(due=datetime.now(UTC) - timedelta(seconds=1)))


@pytest.mark.parametrize("kind", CALLED)
def test_what_comes_for_a_node_while_it_hangs_takes_no_other_thread(
    database: Database, nodes: list[int], kind: str
) -> None:
    for study in range(9):
        asked(database, kind, nodes[0], study)
    other = asked(database, kind, nodes[1])

    first, second = taken(database, kind)
    assert second.subject == other

    asked(database, kind, nodes[0], study=10)
    assert taken(database, kind) == []
    jobs.finish(database, [first])  # it has answered after all
    assert len(taken(database, kind)) == 1


@pytest.mark.parametrize("kind", CALLED)
def test_what_comes_for_a_node_that_was_silent_waits_until_it_is_called_again(
    database: Database, nodes: list[int], kind: str
) -> None:
    asked(database, kind, nodes[0])
    (first,) = taken(database, kind)
    silent(database, first)
    newcomer = asked(database, kind, nodes[0], study=2)
    other = asked(database, kind, nodes[1])
    assert [one.subject for one in taken(database, kind)] == [other]
    with database.reading() as session:
        (job,) = session.scalars(select(Job).where(Job.kind == kind, Job.subject == newcomer))
        assert job.put_off
        assert datetime.now(UTC) < job.due <= datetime.now(UTC) + jobs.LONGEST_PUT_OFF

    time_passes(database)
    (probe,) = taken(database, kind)  # one finds out
    with database.writing() as session:
        jobs.bring_on(session, kind, Job.subject.in_([first.subject, newcomer]), datetime.now(UTC))
    jobs.finish(database, [probe])
    asked(database, kind, nodes[0], study=3)
    assert len(taken(database, kind)) == 1
    with database.reading() as session:
        assert not any(session.scalars(select(Job.put_off).where(Job.kind == kind)))


@pytest.mark.parametrize("kind", CALLED)
def test_nodes_that_were_silent_leave_half_of_the_threads_to_those_that_answer(
    database: Database, nodes: list[int], kind: str
) -> None:
    for node in nodes[:-1]:
        asked(database, kind, node)
        silent(database, *jobs.claim(database, [kind], 1))
    time_passes(database)
    half = jobs.CALLED[kind].silent
    assert len(taken(database, kind)) == half

    well = asked(database, kind, nodes[-1])
    assert [one.subject for one in taken(database, kind)] == [well]


@pytest.mark.parametrize("kind", CALLED)
def test_who_refuses_after_a_silence_is_silent_no_longer(
    database: Database, nodes: list[int], kind: str
) -> None:
    subject = asked(database, kind, nodes[0])
    silent(database, *taken(database, kind))
    time_passes(database)
    (again,) = taken(database, kind)
    with database.writing() as session:
        jobs.bring_on(session, kind, Job.subject == subject, datetime.now(UTC))
    jobs.fail(database, again, "refused")
    other = asked(database, kind, nodes[0], study=2)
    assert [one.subject for one in taken(database, kind)] == [other]


def test_a_destination_that_takes_what_it_is_sent_is_sent_several_studies_at_a_time(
    database: Database, nodes: list[int]
) -> None:
    for study in range(9):
        asked(database, jobs.FORWARD, nodes[0], study)
    (first,) = taken(database, jobs.FORWARD)
    with database.writing() as session:
        session.get_one(Delivery, int(first.subject)).delivered = datetime.now(UTC)
    jobs.finish(database, [first])
    assert len(taken(database, jobs.FORWARD)) == turns.AT_ONE
    assert taken(database, jobs.FORWARD) == []


def test_routes_to_one_service_are_one_destination(database: Database, nodes: list[int]) -> None:
    def by_route(name: str, *, node: int | None = None, url: str = "") -> str:
        with database.writing() as session:
            route = Route(
                organization_id=session.scalars(select(Organization.id)).one(),
                name=name,
                modality="",
                body_part="",
                source="",
                hours="",
                entity_id=node,
                url=url,
                created=datetime.now(UTC),
            )
            session.add(route)
            session.flush()
            delivery = Delivery(
                study_instance_uid="1.2.1", asked=datetime.now(UTC), route_id=route.id
            )
            session.add(delivery)
            session.flush()
            jobs.ask(session, jobs.FORWARD, str(delivery.id), datetime.now(UTC))
            return str(delivery.id)

    cloud = by_route("cloud", url="https://cloud.example.cn/dicom-web")
    by_route("also", url="https://cloud.example.cn/dicom-web")
    archive = by_route("archive", node=nodes[0])
    asked(database, jobs.FORWARD, nodes[0])  # a prior
    assert [one.subject for one in taken(database, jobs.FORWARD)] == [cloud, archive]


@pytest.mark.parametrize("kind", CALLED)
def test_who_calls_nobody_any_more_waits_for_nobody(
    database: Database, nodes: list[int], kind: str
) -> None:
    """A delivery that was called off: its job has only to find that out."""
    with database.writing() as session:
        for number in ("77", "78"):
            subject = f"{number}:1" if kind == jobs.NOTIFY else number
            jobs.ask(session, kind, subject, datetime.now(UTC))
    assert len(taken(database, kind)) == 2

"""What is deleted leaves nothing behind that could be taken for something else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from region import ADMINISTRATOR, CT_IMAGE_STORAGE, WORKER, Region, region
from sqlalchemy import select, text, update

from exchange import (
    check,
    commitment,
    conflicts,
    destruction,
    jobs,
    rejection,
    restoration,
    retention,
    scrub,
)
from exchange.errors import Unavailable
from exchange.ingest import Outcome
from exchange_storage.carried import LARGEST
from exchange_storage.database import Database
from exchange_storage.objects import MemoryStore, Stored
from exchange_storage.records import (
    AuditRecord,
    Conflict,
    Delivered,
    Delivery,
    Destroyed,
    Instance,
    Job,
    Rejection,
    Scrub,
)


def destroyed(city: Region, study: str = "1.2.1") -> None:
    """A rule of one day, a month later."""
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.set_rule(access, "beicheng", "ct", 1)
    with city.exchange.on_behalf_of(WORKER) as access:
        access.now += timedelta(days=30)
        found = {one.study_instance_uid: one for one in retention.expired(access)}
    with city.exchange.on_behalf_of(WORKER) as access:
        retention.destroy(access, found[study])


def removed(city: Region) -> None:
    for job in jobs.claim(city.exchange.database, [jobs.DESTROY]):
        with city.exchange.on_behalf_of(WORKER) as access:
            destruction.remove_objects(access, job.subject)
        jobs.finish(city.exchange.database, [job])


def objects(city: Region) -> list[str]:
    return [one.key for one in city.exchange.objects.list("studies/")]


def test_nothing_refers_any_more_to_the_number_of_a_row_that_is_gone(city: Region) -> None:
    city.send("beicheng")
    city.send("beicheng", body=b"other bytes")  # waits for review
    with city.exchange.database.writing() as session:
        row = session.scalars(select(Instance.id).where(Instance.is_primary)).one()
        delivery = Delivery(study_instance_uid="1.2.1", asked=datetime.now(UTC))
        session.add(delivery)
        session.flush()
        session.add(Delivered(delivery_id=delivery.id, instance_id=row))
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", "113001", ["1.4.1"])

    destroyed(city)

    with city.exchange.database.reading() as session:
        for record in (Instance, Delivered, Conflict):
            assert session.scalars(select(record)).all() == []
        assert session.scalars(select(Rejection.instance_id)).all() == [None]
        assert len(session.scalars(select(Destroyed)).all()) == 2
    removed(city)
    assert objects(city) == []
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert conflicts.waiting(access) == []
        assert restoration.restore(access, "beicheng", ["1.4.1"]).served == 0
    city.send("beicheng", instance="1.4.2", body=b"new")  # may get the number of the old row
    with city.exchange.database.reading() as session:
        assert session.scalars(select(Delivered)).all() == []


def test_what_is_told_of_a_rejected_instance_waits_for_no_work_that_was_put_off(
    city: Region,
) -> None:
    city.send("beicheng")
    later = datetime.now(UTC) + timedelta(hours=1)
    with city.exchange.database.writing() as session:
        session.execute(update(Job).values(due=later))  # as after many failures
    assert jobs.claim(city.exchange.database, [jobs.REFRESH]) == []
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", "113001", ["1.4.1"])
    assert len(jobs.claim(city.exchange.database, [jobs.REFRESH])) == 1


def test_what_is_still_to_be_removed_is_no_damage(city: Region) -> None:
    city.send("beicheng")
    destroyed(city)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        access.now += timedelta(days=1)
        found = [one for one in check.check(access) if isinstance(one, check.Finding)]
    assert [(one.what, one.harmless) for one in found] == [
        ("was deleted and is still to be removed", True)
    ]


def test_what_is_there_again_after_it_was_removed_is_no_harmless_finding(city: Region) -> None:
    city.send("beicheng")
    (key,) = objects(city)
    destroyed(city)
    removed(city)
    city.exchange.objects.put(key, b"pixels")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        access.now += timedelta(days=1)
        found = [one for one in check.check(access) if isinstance(one, check.Finding)]
    assert [(one.key, one.harmless) for one in found] == [(key, False)]


def test_a_document_is_named_that_tells_of_nothing_kept(city: Region) -> None:
    city.send("beicheng")
    city.send("beicheng", study=".1.2", instance="1.4.2", body=b"odd")
    for key in ("1.2.1/1.2.1.1/a.b", "_.1.2/_.1.2.1/a.b", "1.2.2/1.2.2.1/a.b"):
        city.exchange.objects.put(f"derived/{key}", b"of a patient")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        access.now += timedelta(days=1)
        found = [one for one in check.check(access) if isinstance(one, check.Finding)]
    assert [(one.key, one.harmless) for one in found] == [("derived/1.2.2/1.2.2.1/a.b", False)]


def test_the_same_bytes_are_not_taken_while_the_old_ones_are_being_removed(city: Region) -> None:
    city.send("beicheng")
    destroyed(city)
    with pytest.raises(Unavailable, match="send it again"):
        city.send("beicheng")
    removed(city)
    city.send("beicheng")
    assert len(objects(city)) == 1
    with city.exchange.on_behalf_of(WORKER) as access:
        destruction.remove_objects(access, "1.2.1")
    assert len(objects(city)) == 1


def test_studies_under_a_hold_do_not_stand_in_the_way_of_others(city: Region) -> None:
    for number in range(3):
        uid = f"1.2.{number}"
        city.send("beicheng", study=uid, instance=f"1.4.{number}", body=uid.encode())
    city.send("beicheng", study="1.2.3", series="1.3.9", instance="1.4.3", Modality="mr")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.set_rule(access, "beicheng", "MR", 100)
        retention.set_rule(access, "beicheng", "", 1)
        retention.hold(access, "1.2.0", "court")

    def found(**told: Any) -> list[tuple[str, int, bool]]:
        with city.exchange.on_behalf_of(WORKER) as access:
            access.now += timedelta(days=30)
            expired = retention.expired(access, **told)
        return [(one.study_instance_uid, one.instances, one.held) for one in expired]

    assert found() == [("1.2.0", 1, True), ("1.2.1", 1, False), ("1.2.2", 1, False)]
    assert found(limit=1, free=True) == [("1.2.1", 1, False)]


class Interrupted(MemoryStore):
    """Objects; something else happens just after one is removed, or before one is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.after: Callable[[str], object] = lambda _: None
        self.before_keeping: Callable[[], object] = lambda: None

    def keep(self, key: str, content: bytes) -> Stored:
        before, self.before_keeping = self.before_keeping, lambda: None
        before()
        return super().keep(key, content)

    def delete(self, key: str) -> None:
        super().delete(key)
        if key.startswith("studies/"):
            self.after(key)


@pytest.mark.parametrize("body", [b"small", bytes(LARGEST + 1)], ids=["small", "large"])
def test_what_is_sent_again_and_refused_while_it_is_removed_does_not_stay(
    database_url: str, body: bytes
) -> None:
    store = Interrupted()
    with region(database_url, store) as city:
        city.send("beicheng", body=body)
        destroyed(city)

        def again(_: str) -> None:
            store.after = lambda _: None
            with pytest.raises(Unavailable, match="send it again"):
                city.send("beicheng", body=body)
            # What is not carried lies there, and nobody else would remove it.
            assert len(objects(city)) == (len(body) > LARGEST)

        store.after = again
        removed(city)
        removed(city)

        assert objects(city) == []
        city.send("beicheng", body=body)
        removed(city)
        assert len(objects(city)) == 1


def test_what_is_sent_again_just_before_it_is_deleted_does_not_come_back(
    database_url: str,
) -> None:
    store = Interrupted()
    with region(database_url, store) as city:
        city.send("beicheng", body=b"small")

        def deleted() -> None:
            destroyed(city)
            removed(city)

        store.before_keeping = deleted
        assert city.send("beicheng", body=b"small").outcome is Outcome.HELD
        removed(city)

        assert objects(city) == []


def test_a_document_that_is_kept_while_its_study_goes_goes_too(database_url: str) -> None:
    store = Interrupted()
    with region(database_url, store) as city:
        city.send("beicheng")
        destroyed(city)
        store.after = lambda _: store.put("derived/1.2.1/1.2.1.1/made.late", b"of a patient")

        removed(city)

        assert list(store.list("derived/")) == []


def test_who_else_needs_an_object_is_not_looked_for_among_all_instances(city: Region) -> None:
    city.send("beicheng")
    wanted = str(
        destruction._needed({"a": "1.4.1"}).compile(
            city.exchange.database.engine, compile_kwargs={"literal_binds": True}
        )
    )
    with city.exchange.database.writing() as session:
        if city.exchange.database.dialect == "postgresql":
            session.execute(text("SET LOCAL enable_seqscan = off"))
            plan = [row[0] for row in session.execute(text(f"EXPLAIN {wanted}"))]
        else:
            plan = [row.detail for row in session.execute(text(f"EXPLAIN QUERY PLAN {wanted}"))]

    assert any("sop_instance_uid" in line for line in plan if "ndex" in line or "INDEX" in line)


class Watched(MemoryStore):
    """Objects, and how many connections to the index are held while each is read or removed."""

    def __init__(self) -> None:
        super().__init__()
        self.database: Database | None = None
        self.held: list[int] = []

    def digest(self, key: str) -> str:
        self._look()
        return super().digest(key)

    def delete(self, key: str) -> None:
        self._look()
        super().delete(key)

    def _look(self) -> None:
        assert self.database is not None
        self.held.append(self.database.in_use)


def test_no_connection_to_the_index_waits_for_an_object(database_url: str) -> None:
    store = Watched()
    with region(database_url, store) as city:
        store.database = city.exchange.database
        for number in range(3):
            city.send("beicheng", instance=f"1.4.{number}", body=bytes([number]))
        city.exchange.objects.put_down()
        references = [(CT_IMAGE_STORAGE, f"1.4.{number}") for number in range(3)]
        with city.exchange.on_behalf_of(city.system("beicheng")) as access:
            asked = commitment.ask(access, "1.9.1", references)
        with city.exchange.on_behalf_of(WORKER) as access:
            assert commitment.check(access, asked)
        with city.exchange.on_behalf_of(WORKER) as access:
            assert len(commitment.report(access, asked).committed) == 3
        yesterday = datetime.now(UTC) - timedelta(days=2)
        with city.exchange.database.writing() as session:
            session.execute(update(Instance).values(received=yesterday, verified=None))
        assert walked(city).damaged == 0
        assert len(store.held) == 6
        destroyed(city)
        removed(city)
        assert objects(city) == []

        assert store.held == [0] * 9


# The walk of the worker


def damage(city: Region, key: str) -> None:
    city.exchange.objects.put_down()
    city.exchange.objects.store.delete(key)


def walked(city: Region, days: int = 90) -> scrub.Walked:
    with city.exchange.on_behalf_of(WORKER) as access:
        return scrub.walk(access, days=days, until=datetime.now(UTC) + timedelta(seconds=60))


def test_a_walk_reads_all_that_has_settled_and_the_next_one_begins_a_day_later(
    city: Region,
) -> None:
    for number in range(3):
        city.send("beicheng", instance=f"1.4.{number}", body=bytes([number]))
    assert walked(city).damaged == 0
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (first,) = scrub.walks(access)
        assert (first.read, first.finished is not None) == (0, True)  # they came just now
    assert walked(city).again > datetime.now(UTC) + timedelta(hours=23)

    yesterday = datetime.now(UTC) - timedelta(days=2)
    with city.exchange.database.writing() as session:
        session.execute(update(Scrub).values(begun=yesterday))
        session.execute(update(Instance).values(received=yesterday))
        lost = session.scalars(select(Instance.key).order_by(Instance.id)).all()[1]
    damage(city, lost)
    assert walked(city).damaged == 1

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        latest, _ = scrub.walks(access)
        assert (latest.read, latest.damaged) == (3, 1)
        assert [(one.key, one.what) for one in scrub.damages(access)] == [(lost, "missing")]
        assert scrub.known_damages(access) == 1
    with city.exchange.database.reading() as session:
        told = session.scalars(select(AuditRecord).where(AuditRecord.outcome == "failed")).all()
        assert [one.action for one in told] == ["verify"]
        assert len(session.scalars(select(Instance).where(Instance.verified.is_(None))).all()) == 1


def test_what_is_found_whole_again_is_on_no_list(city: Region) -> None:
    city.send("beicheng")
    (key,) = objects(city)
    whole = city.exchange.objects.get(key)
    damage(city, key)
    soon = datetime.now(UTC) + timedelta(days=1)

    def found() -> list[str]:
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            told = list(scrub.scrub(access, before=soon, limit=10))
        return [one.what for one in told if isinstance(one, scrub.Damage)]

    assert found() == ["missing"]
    city.exchange.objects.put(key, [whole])
    assert found() == []
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert scrub.damages(access) == []

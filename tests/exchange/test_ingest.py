"""What becomes of an instance that a hospital sends."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from region import (
    ADMINISTRATOR,
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    ID_CARD,
    WORKER,
    Region,
    region,
)
from sqlalchemy import func, select, text

from exchange import audit, consent, ingest, jobs, retrieval, scrub
from exchange.errors import Invalid, NotFound, Refused, TooLarge
from exchange.ingest import Outcome
from exchange_storage.carried import LARGEST, CarryingStore
from exchange_storage.database import Database
from exchange_storage.objects import MemoryStore
from exchange_storage.records import (
    AuditRecord,
    Change,
    Conflict,
    Instance,
    Job,
    Patient,
    Record,
    Series,
    Study,
)


def rows(city: Region, record: type[Record]) -> int:
    with city.exchange.database.reading() as session:
        return session.execute(select(func.count()).select_from(record)).scalar_one()


def kept(city: Region) -> list[str]:
    return [stored.key for stored in city.exchange.objects.list("studies/")]


def test_an_instance_is_kept_indexed_audited_announced_and_followed_up(city: Region) -> None:
    before = rows(city, AuditRecord)

    assert city.send("beicheng", card=ID_CARD).outcome is Outcome.KEPT

    assert len(kept(city)) == 1
    assert [rows(city, record) for record in (Patient, Study, Series, Instance)] == [1, 1, 1, 1]
    assert rows(city, AuditRecord) == before + 2  # received, and linked to a person
    assert rows(city, Change) == 1
    with city.exchange.database.reading() as session:
        assert set(session.scalars(select(Job.kind))) == {jobs.IDENTIFY, jobs.REFRESH}


def test_the_object_lies_where_an_operator_would_look_for_it(city: Region) -> None:
    city.send("beicheng", body=b"")

    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert kept(city) == [f"studies/1.2.1/1.2.1.1/1.4.1.{empty}.dcm"]


def test_the_same_bytes_again_are_accepted_audited_and_not_doubled(city: Region) -> None:
    city.send("beicheng")
    before = rows(city, AuditRecord)

    assert city.send("beicheng").outcome is Outcome.HELD

    assert len(kept(city)) == 1
    assert rows(city, Instance) == 1
    assert rows(city, Change) == 1
    assert rows(city, AuditRecord) == before + 1


def test_other_bytes_under_the_same_uid_are_kept_beside_the_first_for_review(
    city: Region,
) -> None:
    city.send("beicheng", body=b"first")

    receipt = city.send("beicheng", body=b"second")

    assert receipt.outcome is Outcome.CONFLICT
    assert len(kept(city)) == 2
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        (served,) = retrieval.instances(access, "1.2.1").instances
    assert served.read() == b"first"
    with city.exchange.database.reading() as session:
        conflict = session.scalars(select(Conflict)).one()
        assert conflict.settled is None
        assert "SOP Instance UID" in conflict.reason


@pytest.mark.parametrize(
    ("another", "reason"),
    [
        ({"code": "nanhu"}, "the study belongs to another organization"),
        ({"patient": "P2"}, "the study belongs to another patient"),
        ({"study": "1.2.2", "series": "1.2.1.1"}, "the series belongs to another study"),
    ],
)
def test_nobody_brings_an_instance_into_a_study_that_is_not_theirs(
    city: Region, another: dict[str, str], reason: str
) -> None:
    city.send("beicheng")
    patients = rows(city, Patient)

    receipt = city.send(**{"code": "beicheng", "instance": "1.4.2"} | another)  # type: ignore[arg-type]

    assert receipt == ingest.Receipt(Outcome.CONFLICT, reason)
    assert len(kept(city)) == 2
    assert rows(city, Study) == 1
    assert rows(city, Patient) == patients
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        served = retrieval.instances(access, "1.2.1").instances
    assert [one.sop_instance_uid for one in served] == ["1.4.1"]


def test_the_same_patient_number_at_two_hospitals_is_two_patients(city: Region) -> None:
    city.send("beicheng", patient="100", study="1.2.1", instance="1.4.1")
    city.send("nanhu", patient="100", study="1.2.2", instance="1.4.2")

    assert rows(city, Patient) == 2


def test_studies_without_a_patient_number_are_not_taken_for_the_same_patient(
    city: Region,
) -> None:
    city.send("beicheng", patient="", study="1.2.1", instance="1.4.1")
    city.send("beicheng", patient="", study="1.2.1", instance="1.4.2")
    city.send("beicheng", patient="", study="1.2.2", instance="1.4.3")

    assert rows(city, Patient) == 2
    assert rows(city, Conflict) == 0


def test_twenty_parallel_associations_of_a_new_patient_make_one_patient(city: Region) -> None:
    together = threading.Barrier(20)

    def association(number: int) -> Outcome:
        together.wait()
        return city.send("beicheng", instance=f"1.4.{number}", body=b"%d" % number).outcome

    with ThreadPoolExecutor(20) as pool:
        outcomes = set(pool.map(association, range(1, 21)))

    assert outcomes == {Outcome.KEPT}
    assert [rows(city, record) for record in (Patient, Study, Series, Instance)] == [1, 1, 1, 20]
    with city.exchange.database.reading() as session:
        key, objects = city.exchange.signing_key, city.exchange.objects
        found = [one for one in audit.verify(session, key, objects) if not isinstance(one, int)]
    assert found == []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", ""),
        ("SOPInstanceUID", "../../etc/passwd"),
        ("SeriesInstanceUID", "1." * 40),
        ("SOPClassUID", "CT"),
    ],
)
def test_an_instance_that_could_not_be_found_again_is_refused_and_leaves_nothing(
    city: Region, keyword: str, value: str
) -> None:
    with pytest.raises(Invalid, match=keyword):
        city.send("beicheng", **{keyword: value})  # type: ignore[arg-type]

    assert kept(city) == []
    assert rows(city, Instance) == 0


def test_more_bytes_than_the_limit_are_refused_and_leave_nothing(city: Region) -> None:
    with (
        city.exchange.on_behalf_of(city.system("beicheng")) as access,
        ingest.begin(access, limit=10) as incoming,
    ):
        incoming.write(b"0123456789")
        with pytest.raises(TooLarge):
            incoming.write(b"0")

    assert kept(city) == []


def test_a_clinician_does_not_store_and_the_attempt_is_audited(city: Region) -> None:
    with (
        pytest.raises(Refused, match="clinician may not store"),
        city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
    ):
        ingest.begin(access)

    with city.exchange.database.reading() as session:
        last = session.scalars(select(AuditRecord).order_by(AuditRecord.sequence.desc())).first()
    assert last is not None
    assert (last.action, last.outcome) == ("store", "refused")


def test_what_is_known_of_a_patient_is_completed_and_not_replaced(city: Region) -> None:
    city.send("beicheng", study="1.2.1", instance="1.4.1", PatientBirthDate="", PatientSex="F")
    city.send(
        "beicheng", study="1.2.2", instance="1.4.2", PatientBirthDate="19500101", PatientSex="M"
    )

    with city.exchange.database.reading() as session:
        patient = session.scalars(select(Patient)).one()
    assert (patient.birth_date, patient.sex) == ("19500101", "F")


def test_text_longer_than_the_index_keeps_does_not_hinder_the_instance(city: Region) -> None:
    receipt = city.send("beicheng", StudyDescription="腹" * 5000, PatientName="X" * 5000)

    assert receipt.outcome is Outcome.KEPT


def test_a_unit_that_fails_spoils_no_one_elses_commit(city: Region) -> None:
    ready = threading.Barrier(6)

    def good(number: int) -> bool:
        ready.wait()
        return city.send("beicheng", instance=f"1.4.{number}").outcome is Outcome.KEPT

    def bad(_: int) -> bool:
        ready.wait()
        with city.exchange.on_behalf_of(city.system("beicheng")) as access:
            try:
                access.write(lambda _: 1 / 0)
            except ZeroDivisionError:
                return True
        return False

    with ThreadPoolExecutor(6) as pool:
        good_ones, bad_ones = pool.map(good, range(1, 4)), pool.map(bad, range(3))
        results = [*good_ones, *bad_ones]

    assert all(results)
    assert rows(city, Instance) == 3


def test_the_same_bytes_from_another_hospital_wait_for_review_each_time(city: Region) -> None:
    city.send("beicheng")

    first, again = city.send("nanhu"), city.send("nanhu")

    reason = "the study belongs to another organization"
    assert first == again == ingest.Receipt(Outcome.CONFLICT, reason)
    assert rows(city, Instance) == 2
    assert len(kept(city)) == 1


def test_a_conflict_sent_again_is_answered_as_the_conflict_it_is(city: Region) -> None:
    city.send("beicheng", body=b"first")

    first, again = city.send("beicheng", body=b"second"), city.send("beicheng", body=b"second")

    assert first == again
    assert first.outcome is Outcome.CONFLICT
    assert rows(city, Conflict) == 1


def test_a_later_instance_of_the_study_completes_the_patient(city: Region) -> None:
    city.send("beicheng", PatientTelephoneNumbers="")
    city.send("beicheng", instance="1.4.2", card=ID_CARD, PatientTelephoneNumbers="024-1")

    with city.exchange.database.reading() as session:
        patient = session.scalars(select(Patient)).one()
    assert patient.telephone == "024-1"
    assert patient.person_id is not None


def test_an_opt_out_holds_for_another_hospitals_record_from_its_first_instance(
    city: Region,
) -> None:
    city.send("beicheng", patient="A1", study="1.2.1", instance="1.4.1", card=ID_CARD)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "A1")

    city.send("nanhu", patient="B1", study="1.2.2", instance="1.4.2", card=ID_CARD)

    with (
        pytest.raises(NotFound),
        city.exchange.on_behalf_of(city.clinician("dongshan")) as access,
    ):
        retrieval.instances(access, "1.2.2")


def test_a_slow_reception_does_not_turn_a_studys_last_change_back(city: Region) -> None:
    with city.exchange.on_behalf_of(city.system("beicheng")) as slow, ingest.begin(slow) as coming:
        coming.write(b"slow")
        city.send("beicheng", instance="1.4.2", body=b"fast")
        with city.exchange.database.reading() as session:
            before = session.scalars(select(Study.changed)).one()
        told = {
            "StudyInstanceUID": "1.2.1",
            "SeriesInstanceUID": "1.2.1.1",
            "SOPInstanceUID": "1.4.1",
            "SOPClassUID": CT_IMAGE_STORAGE,
            "PatientID": "P1",
        }
        received = ingest.Received(attributes=told, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN)
        assert ingest.receive(slow, coming, received).outcome is Outcome.KEPT

    with city.exchange.database.reading() as session:
        assert session.scalars(select(Study.changed)).one() >= before


def test_the_last_change_of_a_study_is_kept_as_every_other_moment_is(city: Region) -> None:
    city.send("beicheng")
    city.send("beicheng", instance="1.4.2", body=b"second")

    with city.exchange.database.reading() as session:  # as the database has them: text, in SQLite
        changed = session.execute(text("SELECT changed FROM study")).scalar_one()
        received = session.execute(text("SELECT max(received) FROM instance")).scalar_one()
    assert changed == received


@pytest.mark.parametrize("size", [6, LARGEST, LARGEST + 1, 200_000])
@pytest.mark.parametrize("left", [b"", b"other bytes"], ids=["lost", "damaged"])
def test_an_instance_that_was_lost_or_damaged_is_whole_again_when_it_is_sent_again(
    city: Region, size: int, left: bytes
) -> None:
    city.send("beicheng", body=bytes(size))
    city.exchange.objects.put_down()
    (key,) = kept(city)
    city.exchange.objects.store.delete(key)
    if left:
        city.exchange.objects.store.put(key, left)
    with city.exchange.on_behalf_of(WORKER) as access:
        list(scrub.scrub(access, before=access.now + timedelta(days=1), limit=9))
        assert scrub.known_damages(access) == 1

    assert city.send("beicheng", body=bytes(size)).outcome is Outcome.HELD

    assert city.exchange.objects.get(key) == bytes(size)
    with city.exchange.on_behalf_of(WORKER) as access:
        assert scrub.known_damages(access) == 0


def test_of_a_small_instance_that_was_acknowledged_the_files_of_the_index_have_every_byte(
    tmp_path: Path,
) -> None:
    with region(f"sqlite:///{tmp_path / 'index.sqlite'}") as city:
        city.send("beicheng", body=b"of the utmost importance")
        # What a machine finds that loses power now: no connection was closed.
        (tmp_path / "found").mkdir()
        for file in ("index.sqlite", "index.sqlite-wal"):
            shutil.copy(tmp_path / file, tmp_path / "found" / file)

    database = Database(f"sqlite:///{tmp_path / 'found' / 'index.sqlite'}")
    found = CarryingStore(MemoryStore(), database)
    with database.reading() as session:
        (instance,) = session.scalars(select(Instance))
    assert found.get(instance.key) == b"of the utmost importance"
    found.close()
    database.close()


def test_what_a_failing_unit_would_have_carried_is_not_kept(
    city: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_announce", _fails)

    with pytest.raises(RuntimeError):
        city.send("beicheng")

    assert kept(city) == []
    assert rows(city, Instance) == 0


def _fails(*_: object) -> None:
    raise RuntimeError

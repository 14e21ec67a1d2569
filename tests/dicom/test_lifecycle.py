"""Instances go out of use and come back: rejection notes, conflicts that are settled, the scrub."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asking import ask
from caller import CT, EXPLICIT, STUDY, STUDY_FIND, SUCCESS, Caller, element, identifier, image
from images import ct, data_set, rejection_note
from pydicom import dcmread
from region import ADMINISTRATOR, WORKER
from retrieving import asked, get
from serving import Served, serving
from sqlalchemy import select

from exchange import (
    conflicts,
    destruction,
    jobs,
    organizations,
    rejected,
    rejection,
    restoration,
    retention,
    retrieval,
    scrub,
)
from exchange.errors import Invalid, NotFound, Refused
from exchange.organizations import Entity
from exchange_dicom.differences import differences, pixels
from exchange_dicom.rejection_note import KEY_OBJECT_SELECTION
from exchange_storage.records import AuditRecord, Change, LegalHold

ONE, OTHER = "1.4.1", "1.4.2"
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def store(served: Served, body: bytes, uid: str, title: str = "BEICHENG", kind: str = CT) -> int:
    with Caller(served.port, (kind, (EXPLICIT,)), calling=title) as pacs:
        status = pacs.store(body, uid, kind).status
        pacs.release()
    return status


def note(code: str, *instances: str, uid: str = "1.9.1", study: str = STUDY) -> bytes:
    return rejection_note(code, *instances, uid=uid, study=study)


def shown(served: Served, code: str = "beicheng") -> list[str]:
    """The SOP Instance UIDs of the study that the hospital can retrieve."""
    try:
        with served.city.exchange.on_behalf_of(served.city.system(code)) as access:
            held = retrieval.instances(access, STUDY).instances
    except NotFound:
        return []
    return sorted(one.sop_instance_uid for one in held if one.sop_class_uid == CT)


def changes(served: Served) -> list[str]:
    with served.city.exchange.database.reading() as session:
        return list(session.scalars(select(Change.action).order_by(Change.sequence)))


def destroyed(served: Served) -> None:
    """The worker removes the objects of what was deleted; it may do so twice."""
    for job in jobs.claim(served.city.exchange.database, [jobs.DESTROY]):
        for _ in range(2):
            with served.city.exchange.on_behalf_of(WORKER) as access:
                destruction.remove_objects(access, job.subject)
        jobs.finish(served.city.exchange.database, [job])


def test_every_kind_of_rejection_has_its_behaviour() -> None:
    assert set(rejection.BEHAVIOURS) == set(rejection.CODES)


@pytest.mark.parametrize("code", ["113001", "113037", "113038"])
def test_what_a_hospital_rejects_is_served_no_longer_and_can_be_restored(
    served: Served, code: str
) -> None:
    for uid in (ONE, OTHER):
        store(served, image(instance=uid), uid)
    assert shown(served) == [ONE, OTHER]

    assert store(served, note(code, ONE), "1.9.1", kind=KEY_OBJECT_SELECTION) == SUCCESS

    assert shown(served) == [OTHER]
    assert changes(served)[-2:] == ["reject", "reject"]  # the image, and the note itself
    assert store(served, image(instance=ONE), ONE) == SUCCESS  # again, and still
    assert store(served, image(instance=ONE, pixels=element(0x7FE00010, "OW", b"other!")), ONE) == 0
    assert shown(served) == [OTHER]
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (listed,) = rejected.listed(access, organization="beicheng")
        assert (listed.code, listed.sop_instance_uid, listed.note) == (code, ONE, "1.9.1")
        assert listed.kept
    if code == "113037":
        with (
            served.city.exchange.on_behalf_of(ADMINISTRATOR) as access,
            pytest.raises(Invalid, match="reason"),
        ):
            restoration.restore(access, "beicheng", [ONE])
        assert shown(served) == [OTHER]
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert (
            restoration.restore(access, "beicheng", [ONE], reason="looked at it again").served == 1
        )
    assert shown(served) == [ONE, OTHER]
    assert changes(served)[-1] == "restore"
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert rejected.listed(access) == []
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(NotFound):
        restoration.restore(access, "beicheng", [ONE])


@pytest.mark.parametrize("wrong", [{"kind": MR}, {"of": "1.2.99"}], ids=["SOP class", "study"])
def test_a_note_that_does_not_fit_what_it_names_hides_nothing_and_its_sender_is_told(
    served: Served, wrong: dict[str, str]
) -> None:
    for uid in (ONE, OTHER):
        store(served, image(instance=uid), uid)
    body = rejection_note("113001", ONE, OTHER, study=STUDY, **wrong)

    assert store(served, body, "1.9.1", kind=KEY_OBJECT_SELECTION) == 0xC000
    assert shown(served) == [ONE, OTHER]
    assert store(served, note("113001", ONE), "1.9.1", kind=KEY_OBJECT_SELECTION) == SUCCESS
    assert shown(served) == [OTHER]


def test_who_looks_after_quality_finds_and_gets_what_the_hospital_has_rejected(
    served: Served,
) -> None:
    for code in ("beicheng", "nanhu"):
        entity = Entity(title=f"Q-{code.upper()}", address="127.0.0.1", sees_rejected=True)
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            organizations.add_entity(access, code, entity)
    for uid in (ONE, OTHER):
        store(served, image(instance=uid), uid)
    wanted = {"StudyInstanceUID": STUDY, "NumberOfStudyRelatedInstances": "", "PatientID": ""}

    def found(calling: str) -> tuple[list[str], list[str]]:
        """How many instances the study has, and which."""
        answers = ask(served.port, "STUDY", wanted, calling=calling)
        series = ask(
            served.port,
            "SERIES",
            {"StudyInstanceUID": STUDY, "SeriesInstanceUID": ""},
            calling=calling,
        )
        below = {
            "StudyInstanceUID": STUDY,
            "SeriesInstanceUID": next(iter(series.told("SeriesInstanceUID")), "1.2.3"),
            "SOPInstanceUID": "",
        }
        images = ask(served.port, "IMAGE", below, calling=calling)
        return answers.told("NumberOfStudyRelatedInstances"), images.told("SOPInstanceUID")

    assert found("Q-BEICHENG") == ([], [])
    store(served, note("113001", ONE), "1.9.1", kind=KEY_OBJECT_SELECTION)

    assert found("BEICHENG") == (["1"], [OTHER])
    assert found("Q-BEICHENG") == (["1"], [ONE])
    assert found("Q-NANHU") == ([], [])  # others' are no quality of its own
    by_class = ask(served.port, "STUDY", {"SOPClassesInStudy": "1.2.3"}, calling="Q-BEICHENG")
    assert by_class.pending == (0xFF01,)  # the key takes no part, and that is said
    whole = asked("STUDY", PatientID="P1", StudyInstanceUID=STUDY)
    for calling, fetched in (("Q-BEICHENG", [ONE]), ("BEICHENG", [OTHER]), ("Q-NANHU", [])):
        _, received = get(served, calling, whole)
        assert [one.SOPInstanceUID for one in received] == fetched
    with served.city.exchange.database.reading() as session:
        records = session.scalars(
            select(AuditRecord.content).where(AuditRecord.requester == "Q-BEICHENG")
        ).all()
    assert any('"rejected":true' in one and '"what":"images"' in one for one in records)

    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        restoration.restore(access, "beicheng", [ONE])
    assert found("Q-BEICHENG") == ([], [])


def test_what_no_policy_keeps_any_more_is_deleted_and_may_come_again_as_new(
    served: Served,
) -> None:
    for uid in (ONE, OTHER):
        store(served, image(instance=uid), uid)
    body = note("113039", ONE)
    assert store(served, body, "1.9.1", kind=KEY_OBJECT_SELECTION) == SUCCESS
    assert shown(served) == [OTHER]
    assert changes(served)[-4:] == ["create", "reject", "delete", "reject"]  # and the note itself
    assert len(served.kept(ONE)) == 1  # the object goes by a job, and until then may not come anew
    assert store(served, image(instance=ONE), ONE) != SUCCESS
    destroyed(served)
    assert served.kept(ONE) == []
    with (
        served.city.exchange.on_behalf_of(ADMINISTRATOR) as access,
        pytest.raises(Invalid, match="deleted"),
    ):
        restoration.restore(access, "beicheng", [ONE])

    assert store(served, image(instance=ONE), ONE) == SUCCESS
    assert shown(served) == [ONE, OTHER]


def test_under_a_legal_hold_such_a_note_hides_and_deletes_nothing(served: Served) -> None:
    store(served, image(instance=ONE), ONE)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.hold(access, STUDY, "court")
    store(served, note("113039", ONE), "1.9.1", kind=KEY_OBJECT_SELECTION)
    assert shown(served) == []
    destroyed(served)
    assert len(served.kept(ONE)) == 1
    with served.city.exchange.database.reading() as session:
        told = session.scalars(select(AuditRecord).where(AuditRecord.action == "destroy")).all()
    assert [one.outcome for one in told] == ["refused"]
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert restoration.restore(access, "beicheng", study=STUDY).served == 1
    assert shown(served) == [ONE]


def test_once_the_hold_is_lifted_what_was_to_be_deleted_is(served: Served) -> None:
    for uid in (ONE, OTHER):
        store(served, image(instance=uid), uid)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.hold(access, STUDY, "court")
    store(served, note("113039", ONE), "1.9.1", kind=KEY_OBJECT_SELECTION)
    store(served, note("113001", OTHER, uid="1.9.2"), "1.9.2", kind=KEY_OBJECT_SELECTION)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.lift(access, STUDY)
    destroyed(served)
    assert (len(served.kept(ONE)), len(served.kept(OTHER))) == (0, 1)
    with served.city.exchange.database.reading() as session:
        told = session.scalars(select(AuditRecord).where(AuditRecord.action == "destroy")).all()
    assert [one.outcome for one in told] == ["refused", "success", "success"]  # decided, and done


@pytest.mark.parametrize("by", ["note", "command", "door"])
def test_what_was_rejected_before_can_still_be_deleted(served: Served, by: str) -> None:
    store(served, image(instance=ONE), ONE)
    store(served, note("113001", ONE), "1.9.1", kind=KEY_OBJECT_SELECTION)
    match by:
        case "note":
            body = note("113039", ONE, uid="1.9.2")
            assert store(served, body, "1.9.2", kind=KEY_OBJECT_SELECTION) == SUCCESS
        case "command":
            with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                assert rejection.reject(access, "beicheng", "113039", study=STUDY) == 1
        case _:
            with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
                assert rejection.reject_own(access, "113039", STUDY).count == 1
    destroyed(served)
    assert served.kept(ONE) == []


def test_what_another_hospital_has_rejected_is_not_deleted_by_us(served: Served) -> None:
    store(served, image(instance=ONE), ONE)
    store(served, note("113001", ONE), "1.9.1", kind=KEY_OBJECT_SELECTION)
    body = note("113039", ONE, uid="1.9.2")
    assert store(served, body, "1.9.2", "NANHU", KEY_OBJECT_SELECTION) == SUCCESS
    with (
        served.city.exchange.on_behalf_of(served.city.system("nanhu")) as access,
        pytest.raises(NotFound),
    ):
        rejection.reject_own(access, "113039", STUDY)
    destroyed(served)
    assert len(served.kept(ONE)) == 1


def test_a_study_is_rejected_whole_or_not_at_all(served: Served) -> None:
    for uid in (ONE, OTHER):
        store(served, image(instance=uid), uid)

    def rejects(*uids: str, **of: str) -> int:
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            return rejection.reject(access, "beicheng", "113038", uids, **of)

    with pytest.raises(NotFound, match=r"1\.4\.9"):
        rejects(ONE, "1.4.9")
    for wrong in ({}, {"study": STUDY, "series": f"{STUDY}.1"}):
        with pytest.raises(Invalid, match="either"):
            rejects(**wrong)
    assert shown(served) == [ONE, OTHER]
    assert rejects(study=STUDY) == 2
    assert shown(served) == []
    with pytest.raises(NotFound):
        rejects(study=STUDY)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert restoration.restore(access, "beicheng", study=STUDY).served == 2
    assert shown(served) == [ONE, OTHER]


def test_what_waited_behind_a_rejection_is_promoted_once_that_is_withdrawn(
    served: Served,
) -> None:
    store(served, note("113001", ONE), "1.9.1", kind=KEY_OBJECT_SELECTION)
    assert store(served, image(instance=ONE), ONE) == SUCCESS
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (waiting,) = conflicts.waiting(access)
    with (
        served.city.exchange.on_behalf_of(ADMINISTRATOR) as access,
        pytest.raises(Invalid, match="exchange restore"),
    ):
        conflicts.promote(access, waiting.number)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert restoration.restore(access, "beicheng", [ONE]).served == 0  # it never was in use
        conflicts.promote(access, waiting.number)
    assert shown(served) == [ONE]
    assert changes(served)[-1] == "create"


def test_a_note_that_comes_first_holds_for_what_comes_later(served: Served) -> None:
    store(served, note("113037", ONE), "1.9.1", kind=KEY_OBJECT_SELECTION)
    assert store(served, image(instance=ONE), ONE) == SUCCESS
    assert shown(served) == []


def test_another_hospitals_images_are_not_rejected(served: Served) -> None:
    store(served, image(instance=ONE), ONE)
    body = note("113001", ONE, study="1.77")
    assert store(served, body, "1.9.1", "NANHU", KEY_OBJECT_SELECTION) == SUCCESS
    assert shown(served) == [ONE]
    with served.city.exchange.database.reading() as session:
        told = session.scalars(select(AuditRecord).where(AuditRecord.action == "reject"))
        assert "refused" in {one.outcome for one in told}


def test_a_key_object_selection_of_another_kind_rejects_nothing(served: Served) -> None:
    store(served, image(instance=ONE), ONE)
    store(served, note("113000", ONE), "1.9.1", kind=KEY_OBJECT_SELECTION)
    assert shown(served) == [ONE]


def test_a_study_of_which_all_is_rejected_is_found_by_nobody(served: Served) -> None:
    store(served, image(instance=ONE), ONE)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert rejection.reject(access, "beicheng", "113001", [ONE]) == 1
    with Caller(served.port, (STUDY_FIND, (EXPLICIT,))) as pacs:
        answers = pacs.find(identifier((0x0020000D, "UI", STUDY)))
        pacs.release()
    assert [one.status for one, _ in answers] == [SUCCESS]
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(NotFound):
        rejection.reject(access, "beicheng", "113001", [ONE])
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(Invalid):
        rejection.reject(access, "beicheng", "113000", [ONE])


# Conflicts


def in_conflict(served: Served) -> int:
    """Two versions of one instance; the number of the conflict that waits."""
    store(served, image(instance=ONE), ONE)
    store(
        served,
        image(
            element(0x00200011, "IS", "7"), instance=ONE, pixels=element(0x7FE00010, "OW", b"!!")
        ),
        ONE,
    )
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (waiting,) = conflicts.waiting(access)
    return waiting.number


def digests(served: Served) -> set[str]:
    with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
        return {one.digest for one in retrieval.instances(access, STUDY).instances}


def test_the_reviewer_sees_what_differs(served: Served) -> None:
    number = in_conflict(served)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        pair = conflicts.pair(access, number)
        assert pair.primary is not None
        found = list(differences(access.objects.get, pair.primary.key, pair.conflicting.key))
        apart = pixels(access.objects.get, pair.primary.key, pair.conflicting.key)
    assert [one.attribute for one in found] == ["SeriesNumber", "PixelData"]
    assert (found[0].first, found[0].second) == ("", "7")
    assert (found[1].first, found[1].second) == ("4096 bytes", "2 bytes")
    assert apart.startswith("cannot be decoded")  # there are no rows and columns


def test_the_reviewer_reads_names_and_numbers_and_how_far_pixels_are_apart(
    served: Served, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.dcm", tmp_path / "second.dcm"
    made = ct(first, patient="P1", study=STUDY, number=1)
    other = dcmread(first)
    other.PatientName, other.WindowCenter = "Li^Na=李^娜", 300
    other.ReferringPhysicianName = "张^医生"
    other.StudyDescription = ""  # no difference: there is none in the first
    values = other.pixel_array.copy()
    values[0, :3] += 5
    other.PixelData = values.tobytes()
    other.save_as(second)
    for path in (first, second):
        store(served, data_set(path.read_bytes()), str(made.SOPInstanceUID))
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (waiting,) = conflicts.waiting(access)
        pair = conflicts.pair(access, waiting.number)
        assert pair.primary is not None
        keys = pair.primary.key, pair.conflicting.key
        found = {one.attribute: one for one in differences(access.objects.get, *keys)}
        assert pixels(access.objects.get, *keys) == (
            f"3 of {values.size} values differ, by 5 at most"
        )
        assert pixels(access.objects.get, keys[0], keys[0]) == ""
    assert found["PatientName"].second == "Li^Na=李^娜"
    assert found["WindowCenter"].second == "300"
    told = found["ReferringPhysicianName"]
    assert (told.first, told.second) == ("", "张^医生")
    assert "StudyDescription" not in found
    assert list(found)[-1] == "PixelData"


def test_two_large_images_are_compared_in_the_memory_of_a_few_copies(tmp_path: Path) -> None:
    side = 2048
    stored = {}
    for name, pixel in (("dark", 1), ("bright", 40_000)):
        ct(tmp_path / name, patient="P1", study=STUDY, pixel=pixel, size=side)
        stored[name] = (tmp_path / name).read_bytes()
    pixels(lambda key, *_: stored[key], "dark", "dark")  # what is loaded once does not count

    tracemalloc.start()
    try:
        told = pixels(lambda key, *_: stored[key], "dark", "bright")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert told == f"{side**2} of {side**2} values differ, by 39999 at most"
    assert most < 6 * len(stored["dark"])


def test_an_instance_in_another_patients_study_is_shown_beside_that_patient(
    served: Served,
) -> None:
    store(served, image(instance=ONE), ONE)
    stray = image(instance=OTHER).replace(
        element(0x00100020, "LO", "P1"), element(0x00100020, "LO", "P2")
    )
    assert store(served, stray, OTHER) == SUCCESS
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (waiting,) = conflicts.waiting(access)
        pair = conflicts.pair(access, waiting.number)
        assert pair.primary is None
        assert (pair.known["PatientID"], pair.claimed["PatientID"]) == ("P1", "P2")
    with (
        served.city.exchange.on_behalf_of(ADMINISTRATOR) as access,
        pytest.raises(Invalid, match="another patient: keep or discard"),
    ):
        conflicts.promote(access, waiting.number)


def test_the_right_version_takes_the_others_place(served: Served) -> None:
    number = in_conflict(served)
    before = digests(served)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        conflicts.promote(access, number)
    assert digests(served) != before
    assert changes(served)[-1] == "replace"
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert conflicts.waiting(access) == []
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(NotFound):
        conflicts.keep(access, number)


def test_what_is_discarded_goes_and_what_is_kept_stays(served: Served) -> None:
    number = in_conflict(served)
    assert len(served.kept(ONE)) == 2
    with served.city.exchange.database.writing() as session:
        session.add(
            LegalHold(
                study_instance_uid=STUDY,
                reason="court",
                placed_by="test",
                placed=datetime.now(UTC),
            )
        )
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(Invalid):
        conflicts.discard(access, number)
    with served.city.exchange.database.writing() as session:
        session.scalars(select(LegalHold)).one().lifted = datetime.now(UTC)
    with (
        served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access,
        pytest.raises(Refused),
    ):
        conflicts.discard(access, number)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        conflicts.discard(access, number)
    assert len(served.kept(ONE)) == 2  # the object goes by a job
    destroyed(served)
    assert served.kept(ONE) == [image(instance=ONE)]
    assert shown(served) == [ONE]


# The scrub


def test_a_scrub_names_what_is_damaged_and_goes_on_where_it_stopped(served: Served) -> None:
    for number in range(4):
        store(served, image(instance=f"1.4.{number}"), f"1.4.{number}")
    served.city.exchange.objects.put_down()
    damaged = next((served.root / "objects").rglob("1.4.2.*.dcm"))
    damaged.write_bytes(b"?")
    since = datetime.now(UTC)

    def read(limit: int) -> tuple[int, list[str]]:
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            told = list(scrub.scrub(access, before=since, limit=limit))
        counts = [one for one in told if isinstance(one, int)]
        return counts[-1], [one.what for one in told if isinstance(one, scrub.Damage)]

    assert read(2) == (2, [])
    assert read(10) == (2, ["not the bytes that were received"])
    damaged.unlink()
    assert read(10) == (1, ["missing"])
    with (
        served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access,
        pytest.raises(Refused),
    ):
        list(scrub.scrub(access, before=since, limit=1))


# Retention


def expired(served: Served, days: int) -> list[retention.Expired]:
    """What has expired after so many days."""
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        access.now += timedelta(days=days)
        return list(retention.expired(access))


def ruled(served: Served, modality: str, days: int) -> None:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.set_rule(access, "beicheng", modality, days)


def test_without_a_rule_nothing_expires_and_the_longest_rule_counts(served: Served) -> None:
    store(served, image(instance=ONE), ONE)
    assert expired(served, 10_000) == []
    ruled(served, "MR", 10)
    assert expired(served, 10_000) == []  # there is none for CT
    ruled(served, "", 100)
    assert expired(served, 99) == []
    assert [one.study_instance_uid for one in expired(served, 101)] == [STUDY]
    ruled(served, "CT", 200)
    assert expired(served, 101) == []
    assert [one.instances for one in expired(served, 201)] == [1]


def test_what_has_expired_goes_but_not_under_a_hold(served: Served) -> None:
    store(served, image(instance=ONE), ONE)
    ruled(served, "", 30)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.hold(access, STUDY, "court")
    (study,) = expired(served, 31)
    assert study.held
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(Invalid):
        retention.destroy(access, study)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.lift(access, STUDY)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert retention.destroy(access, study) == 1
    assert shown(served) == []
    assert changes(served)[-1] == "delete"
    destroyed(served)
    assert served.kept(ONE) == []
    assert expired(served, 31) == []
    assert store(served, image(instance=ONE), ONE) == SUCCESS  # it may come again
    assert shown(served) == [ONE]


def test_nobody_but_an_administrator_decides_how_long_is_kept(served: Served) -> None:
    with (
        served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access,
        pytest.raises(Refused),
    ):
        retention.set_rule(access, "beicheng", "", 1)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(Invalid):
        retention.set_rule(access, "beicheng", "", 0)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access, pytest.raises(NotFound):
        retention.lift(access, STUDY)

"""Whole stories across hospitals, with foreign clients: DCMTK, dicomweb-client and plain HTTP."""

from __future__ import annotations

import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from images import ct, files, read
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.uid import generate_uid
from real_parts import free_port
from roles import eventually
from running import DICOM_AS_STORED, DICOM_JSON, RunningExchange, fhir, parts
from sample_city import City, Hospital, Person, Record
from sqlalchemy import create_engine, text

CALLED_OTHERWISE = {
    tag_for_keyword(keyword)
    for keyword in (
        "PatientID",
        "IssuerOfPatientID",
        "IssuerOfPatientIDQualifiersSequence",
        "OtherPatientIDsSequence",
        "OriginalAttributesSequence",
        "InstitutionName",
    )
}
"""What an asker gets otherwise than the owner sent it: by whose number a patient is called."""

CARD = "urn:oid:2.16.156.10011.1.3"


def patient_of(region: RunningExchange, who: str, record: Record) -> str:
    """The FHIR id of a patient record, found by its number at its own hospital."""
    with region.web(who) as client:
        (patient,) = fhir(
            client, "Patient", identifier=record.patient_id, organization=record.hospital.lower()
        )
    return str(patient["id"])


@pytest.fixture(scope="module")
def sent(region: RunningExchange, people: City, city_folder: Path) -> City:
    """J1, first half: all three hospitals have sent what they have, at the same time."""

    def send(hospital: Hospital) -> None:
        folder = city_folder / hospital.code
        if hospital.code == "DS":
            client = region.dicomweb("ris.ds")
            client.store_instances([dcmread(path) for path in files(folder)])
        else:
            done = region.dcmsend(hospital.ae_title, folder)
            assert done.returncode == 0, done.stdout + done.stderr

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(send, people.hospitals))
    return people


def test_j1_what_three_hospitals_send_at_once_is_found_through_every_door(
    region: RunningExchange, sent: City
) -> None:
    for hospital in sent.hospitals:
        own = {
            one.study_instance_uid: one.number_of_instances
            for one in sent.studies
            if one.hospital == hospital.code
        }
        uids = sorted(own)
        with region.web(f"dr.{hospital.code.lower()}") as client:

            def by_fhir(uid: str, client=client) -> list[int]:  # type: ignore[no-untyped-def]
                return [s["numberOfInstances"] for s in fhir(client, "ImagingStudy", _id=uid)]

            def by_qido(uid: str, client=client) -> list[int]:  # type: ignore[no-untyped-def]
                answer = client.get(
                    "/dicom-web/studies",
                    params={"StudyInstanceUID": uid},
                    headers={"Accept": DICOM_JSON},
                )
                return [study["00201208"]["Value"][0] for study in answer.json()]

            def by_find(uid: str, title: str = hospital.ae_title) -> list[int]:
                answers = region.findscu(
                    title, "STUDY", f"StudyInstanceUID={uid}", "NumberOfStudyRelatedInstances"
                )
                return [int(one["NumberOfStudyRelatedInstances"]) for one in answers]

            for uid in uids:
                for door in (by_fhir, by_qido, by_find):
                    eventually(lambda door=door, uid=uid: door(uid), [own[uid]])  # type: ignore[misc]


def known_at_two(people: City) -> tuple[Person, Record, list[str]]:
    """A person with studies at two hospitals, their record at one, and all their studies."""
    for person in people.people:
        studies = [one for one in people.studies if one.person == person.id]
        records = people.records_of(person.id)
        plain = all(one.resident_id == person.resident_id for one in records)
        if plain and len({one.hospital for one in studies}) > 1:
            at = {one.hospital for one in studies}
            record = next(one for one in records if one.hospital in at)
            return person, record, sorted(one.study_instance_uid for one in studies)
    raise AssertionError("the small city has nobody who is known at two hospitals")


@pytest.mark.parametrize("way", ["card", "hanzi", "pinyin"])
def test_j2_a_clinician_finds_a_person_and_opens_another_hospitals_images_and_report(
    region: RunningExchange, sent: City, city_folder: Path, way: str
) -> None:
    person, mine, timeline = known_at_two(sent)
    who = f"dr.{mine.hospital.lower()}"
    asked = {
        "card": {"identifier": f"{CARD}|{person.resident_id}"},
        "hanzi": {"name": person.name, "birthdate": f"{person.birth_date:%Y-%m-%d}"},
        "pinyin": {
            "name": person.pinyin.replace("^", "").lower(),
            "birthdate": f"{person.birth_date:%Y-%m-%d}",
        },
    }[way]

    with region.web(who) as client:

        def studies() -> list[str]:
            patients = fhir(client, "Patient", **asked)
            if not patients:
                return []
            found = fhir(client, "ImagingStudy", patient=str(patients[0]["id"]))
            return sorted(str(one["id"]) for one in found)

        eventually(studies, timeline)
        elsewhere = next(
            one
            for one in sent.studies
            if one.study_instance_uid in timeline and one.hospital != mine.hospital
        )
        answer = client.get(
            f"/dicom-web/studies/{elsewhere.study_instance_uid}",
            headers={"Accept": DICOM_AS_STORED},
        )
    assert answer.status_code == 200
    opened = {
        str(image.SOPInstanceUID): image
        for part in parts(answer.content, answer.headers["content-type"])
        for image in [dcmread(BytesIO(part))]
    }
    originals = {
        str(one.SOPInstanceUID): one for one in map(read, files(city_folder / elsewhere.folder))
    }
    assert opened.keys() == originals.keys()
    for uid, image in opened.items():
        assert image.PatientID == mine.patient_id
        original = originals[uid]
        changed = {
            tag for tag in image.keys() | original.keys() if image.get(tag) != original.get(tag)
        }
        assert changed <= CALLED_OTHERWISE


def test_j2_the_report_can_be_read_in_chinese(
    region: RunningExchange, sent: City, city_folder: Path
) -> None:
    study = next(one for one in sent.studies if one.impression is not None)
    report = next(one for one in study.series if one.modality == "SR")

    (metadata,) = region.dicomweb(f"dr.{study.hospital.lower()}").retrieve_series_metadata(
        study.study_instance_uid, report.series_instance_uid
    )

    assert study.impression is not None
    assert study.impression in str(metadata)


def test_j3_a_pacs_asks_with_its_own_patient_number_and_reads_it_back(
    region: RunningExchange, sent: City
) -> None:
    _, mine, timeline = known_at_two(sent)
    title = sent.hospital(mine.hospital).ae_title

    def ask() -> list[tuple[str, str]]:
        answers = region.findscu(
            title, "STUDY", f"PatientID={mine.patient_id}", "StudyInstanceUID", "IssuerOfPatientID"
        )
        return sorted((one["StudyInstanceUID"], one["PatientID"]) for one in answers)

    eventually(ask, [(uid, mine.patient_id) for uid in timeline])


@pytest.mark.parametrize("tool", ["movescu", "getscu"])
def test_j3_a_pacs_fetches_all_of_the_person_to_itself_under_its_own_number(
    region: RunningExchange, sent: City, city_folder: Path, tmp_path: Path, tool: str
) -> None:
    _, mine, timeline = known_at_two(sent)
    hospital = sent.hospital(mine.hospital)
    theirs = [one for one in sent.studies if one.study_instance_uid in timeline]
    originals = {
        str(original.SOPInstanceUID): (one.hospital, original)
        for one in theirs
        for original in map(read, files(city_folder / one.folder))
    }
    destination: tuple[str, ...] = ()
    if tool == "movescu":
        workstation, port = f"{hospital.ae_title[:12]}-WS", free_port()
        region.run(
            "organization", "add-ae", mine.hospital.lower(), f"{workstation}@127.0.0.1:{port}"
        )
        destination = ("-aem", workstation, "+P", str(port))

    done = region.retrieved(
        tool, hospital.ae_title, tmp_path, *destination, f"PatientID={mine.patient_id}"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    got = {str(image.SOPInstanceUID): image for image in map(dcmread, tmp_path.iterdir())}
    assert got.keys() == originals.keys()
    for uid, image in got.items():
        owner, original = originals[uid]
        assert image.PatientID == mine.patient_id
        if owner != mine.hospital:
            assert image.IssuerOfPatientID == hospital.issuer_oid
            assert image.OtherPatientIDsSequence[-1].PatientID == original.PatientID
            (coerced,) = image.OriginalAttributesSequence
            assert coerced.ReasonForTheAttributeModification == "COERCE"
        assert image.get("SeriesDescription") == original.get("SeriesDescription")


def test_j4_what_a_patient_does_not_want_shared_is_refused_alike_in_every_protocol(
    region: RunningExchange, sent: City, tmp_path: Path
) -> None:
    _, mine, timeline = known_at_two(sent)
    elsewhere = next(
        one
        for one in sent.studies
        if one.study_instance_uid in timeline and one.hospital != mine.hospital
    )
    uid = elsewhere.study_instance_uid
    title = sent.hospital(mine.hospital).ae_title
    owner = sent.hospital(elsewhere.hospital)

    def fetched() -> bool:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        region.retrieved("getscu", title, folder, f"StudyInstanceUID={uid}", level="STUDY")
        return any(folder.iterdir())

    with region.web(f"dr.{mine.hospital.lower()}") as client:

        def doors() -> dict[str, object]:
            json, stored = {"Accept": DICOM_JSON}, {"Accept": DICOM_AS_STORED}
            qido = client.get("/dicom-web/studies", params={"StudyInstanceUID": uid}, headers=json)
            return {
                "WADO-RS": client.get(f"/dicom-web/studies/{uid}", headers=stored).status_code,
                "metadata": client.get(
                    f"/dicom-web/studies/{uid}/metadata", headers=json
                ).status_code,
                "QIDO-RS": len(qido.json() if qido.content else []),
                "FHIR read": client.get(f"/fhir/ImagingStudy/{uid}").status_code,
                "FHIR search": len(fhir(client, "ImagingStudy", _id=uid)),
                "C-FIND": len(region.findscu(title, "STUDY", f"StudyInstanceUID={uid}")),
                "C-GET": fetched(),
            }

        shared: dict[str, object] = {
            "WADO-RS": 200,
            "metadata": 200,
            "QIDO-RS": 1,
            "FHIR read": 200,
            "FHIR search": 1,
            "C-FIND": 1,
            "C-GET": True,
        }
        eventually(doors, shared)
        # Said at the asker's own hospital, it holds for the records at the other ones as well.
        number = ("--organization", mine.hospital.lower(), "--patient", mine.patient_id)
        region.run("consent", "deny", *number)
        try:
            assert doors() == {
                "WADO-RS": 403,
                "metadata": 403,
                "QIDO-RS": 0,
                "FHIR read": 403,
                "FHIR search": 0,
                "C-FIND": 0,
                "C-GET": False,
            }
            reason = client.get(f"/fhir/ImagingStudy/{uid}").json()["issue"][0]["diagnostics"]
            assert "consented to sharing" in reason
            with region.web(f"dr.{owner.code.lower()}") as at_home:
                assert at_home.get(f"/fhir/ImagingStudy/{uid}").status_code == 200
        finally:
            region.run("consent", "permit", *number)
        assert doors() == shared


def test_j5_the_trail_is_proved_whole_and_one_edited_row_is_named(
    region: RunningExchange, sent: City
) -> None:
    region.run("audit", "verify")
    url = region.settings.get(
        "EXCHANGE_DATABASE_URL", f"sqlite:///{region.home}/exchange/index.sqlite"
    )
    engine = create_engine(url)
    edit = text("UPDATE audit_record SET requester = :name WHERE sequence = 7")
    with engine.begin() as connection:
        before = connection.execute(
            text("SELECT requester FROM audit_record WHERE sequence = 7")
        ).scalar_one()
        connection.execute(edit, {"name": "nobody"})
    try:
        found = region.run("audit", "verify", status=1)
    finally:
        with engine.begin() as connection:
            connection.execute(edit, {"name": before})
        engine.dispose()

    assert [line.split("\t")[0] for line in found.stdout.splitlines()] == ["7"]
    region.run("audit", "verify")


def test_j8_other_bytes_under_a_known_uid_are_kept_and_the_first_stays_primary(
    region: RunningExchange, sent: City, tmp_path: Path
) -> None:
    study, instance = generate_uid(), generate_uid()
    first, second = tmp_path / "first.dcm", tmp_path / "second.dcm"
    ct(first, patient="J8", study=study, instance=instance, pixel=1)
    ct(second, patient="J8", study=study, instance=instance, pixel=2)

    for path in (first, second, first):
        assert region.storescu("BEICHENG", path).returncode == 0

    served = region.dicomweb("dr.bc").retrieve_study(study)
    assert [one.PixelData for one in served] == [read(first).PixelData]
    checked = region.run("check")
    assert "Nothing is lost (0 findings" in checked.stderr
    listed = region.run("conflict", "list").stdout.splitlines()
    (waiting,) = (line.split("\t") for line in listed if instance in line)
    assert waiting[2:4] == ["bc", "another instance has this SOP Instance UID"]


def test_an_unknown_caller_is_rejected_and_dcmtk_says_why(region: RunningExchange) -> None:
    done = subprocess.run(
        [
            "echoscu",
            "-v",
            "-aet",
            "NOBODY",
            "-aec",
            "EXCHANGE",
            "127.0.0.1",
            str(region.dimse_port),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stdout + done.stderr

"""A hospital merges two records of a patient: from then on there is one, under every key, until it
takes that back (IHE RAD-12); and patients who have no number are never taken for one another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import web_door
from asking import PATIENT_ROOT, STUDY_ROOT, ask
from caller import SUCCESS
from images import ct
from pydicom import Dataset
from region import Region
from retrieving import asked, get, listens, move, send, workstation
from serving import Served, serving

from exchange import recording, registration

KEPT, MERGED = "0000022912", "DUP1"
OTHERS = "OtherPatientIDsSequence"
BOTH = ["1.2.1", "1.2.2"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Wang came to beicheng as 0000022912, and once as DUP1, which beicheng has merged since."""
    with serving(tmp_path) as made:
        for study, number in zip(BOTH, (KEPT, MERGED), strict=True):
            path = tmp_path / f"{study}.dcm"
            ct(path, patient=number, study=study, AccessionNumber=f"A-{number}")
            send(made, "BEICHENG", path)
        merge(made.city)
        yield made


def merge(city: Region, *, undone: bool = False) -> None:
    for number, into in ((KEPT, ""), (MERGED, "" if undone else KEPT)):
        register(city, number, into)


def register(
    city: Region, number: str, into: str = "", name: str = "Wang^XiaoDong", born: str = ""
) -> None:
    told = registration.Registration(
        number=number,
        name=name,
        birth_date=born,
        replaced_by_number=into,
        render=lambda row, version, _: f"Patient/{row} {version}".encode(),
    )
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        recording.several(access, [registration.Register(told)])


def found(
    served: Served, level: str = "STUDY", calling: str = "BEICHENG", **keys: str
) -> tuple[Dataset, ...]:
    wanted = ("PatientName", "PatientID", "IssuerOfPatientID")
    unique = "NumberOfPatientRelatedStudies" if level == "PATIENT" else "StudyInstanceUID"
    model = PATIENT_ROOT if level == "PATIENT" else STUDY_ROOT
    asked_for: dict[str, object] = {**dict.fromkeys((*wanted, unique), ""), OTHERS: {}, **keys}
    answers = ask(served.port, level, asked_for, model=model, calling=calling)
    assert answers.final == SUCCESS
    return answers.matches


@pytest.mark.parametrize(("study", "number"), [(BOTH[1], KEPT), (BOTH[0], MERGED)])
def test_more_of_a_study_comes_under_either_number_while_these_are_one(
    served: Served, tmp_path: Path, study: str, number: str
) -> None:
    def came() -> list[str]:
        path = tmp_path / "more.dcm"
        ct(path, patient=number, study=study)
        send(served, "BEICHENG", path)
        wanted = {"NumberOfStudyRelatedInstances": ""}
        answers = ask(served.port, "STUDY", {"StudyInstanceUID": study, **wanted})
        return [one.NumberOfStudyRelatedInstances for one in answers.matches]

    assert came() == ["2"]
    merge(served.city, undone=True)
    assert came() == ["2"]  # the next waits for review


def others(match: Dataset) -> list[str]:
    return [one.PatientID for one in match.OtherPatientIDsSequence]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ({"PatientID": KEPT}, KEPT),
        ({"PatientID": "0000*"}, KEPT),
        ({"PatientName": "Wang*"}, KEPT),
        # Whoever asks by the number that was merged is answered by it (PS3.4 C.2.2.2.1).
        ({"PatientID": MERGED}, MERGED),
        ({"PatientID": "DUP*"}, MERGED),
    ],
)
def test_merged_records_are_one_patient_with_all_their_studies_under_every_key(
    served: Served, key: dict[str, str], told: str
) -> None:
    (patient,) = found(served, **key, level="PATIENT")
    assert (patient.PatientID, patient.IssuerOfPatientID) == (told, "2.25.101")
    assert patient.NumberOfPatientRelatedStudies == 2

    studies = found(served, **key)
    assert sorted(one.StudyInstanceUID for one in studies) == BOTH
    assert {one.PatientID for one in studies} == {told}
    # Which other number an image came under, or which one stands, is told beside.
    (other,) = {KEPT, MERGED} - {told}
    came_under = {"1.2.1": KEPT, "1.2.2": MERGED}
    for one in studies:
        assert others(one) == [other] * (
            told == MERGED or came_under[one.StudyInstanceUID] == MERGED
        )


@pytest.mark.parametrize("key", [{"StudyInstanceUID": "1.2.2"}, {"AccessionNumber": "A-DUP1"}])
def test_a_study_of_a_merged_record_is_the_surviving_patients(
    served: Served, key: dict[str, str]
) -> None:
    (study,) = found(served, **key)

    assert (study.PatientID, others(study)) == (KEPT, [MERGED])


def test_another_hospital_is_told_the_number_that_stands(served: Served) -> None:
    studies = found(served, PatientName="Wang*", calling="NANHU")

    assert {(one.PatientID, one.IssuerOfPatientID) for one in studies} == {(KEPT, "2.25.101")}
    (patient,) = found(served, PatientName="Wang*", level="PATIENT", calling="NANHU")
    assert patient.NumberOfPatientRelatedStudies == 2


@pytest.mark.parametrize("number", [KEPT, MERGED])
def test_nothing_is_sent_under_a_number_that_was_merged(served: Served, number: str) -> None:
    with workstation("WS") as ws:
        listens(served, "beicheng", "WS", ws.port)
        move(served, "BEICHENG", "WS", asked("PATIENT", PatientID=number))
        move(served, "BEICHENG", "WS", asked("STUDY", PatientID=number, StudyInstanceUID="1.2.2"))
    assert [one.PatientID for one in ws.received] == [KEPT] * 3
    moved = next(one for one in ws.received if one.StudyInstanceUID == "1.2.2")
    assert [one.PatientID for one in moved.OtherPatientIDsSequence] == [MERGED]
    _, got = get(served, "BEICHENG", asked("PATIENT", PatientID=number))
    assert [one.PatientID for one in got] == [KEPT] * 2


def test_the_web_tells_and_sends_the_same(served: Served) -> None:
    with web_door.opened(served.city) as door:
        for key, told in (("PatientName=Wang*", KEPT), (f"PatientID={MERGED}", MERGED)):
            studies = door.found(f"studies?{key}")
            assert sorted(one["0020000D"]["Value"][0] for one in studies) == BOTH
            assert {one["00100020"]["Value"][0] for one in studies} == {told}
        (series,) = door.found("studies/1.2.2/series?includefield=PatientID")
        assert series["00100020"]["Value"] == [KEPT]
        (metadata,) = door.found("studies/1.2.2/metadata")
        assert metadata["00100020"]["Value"] == [KEPT]
        (image,) = door.client().retrieve_study("1.2.2")
        assert (image.PatientID, image.IssuerOfPatientID) == (KEPT, "2.25.101")


def test_a_record_that_was_merged_into_one_that_was_merged_is_the_last_ones(
    served: Served,
) -> None:
    register(served.city, "P9")
    register(served.city, KEPT, "P9")

    assert {one.PatientID for one in found(served, PatientName="Wang*")} == {"P9"}
    (patient,) = found(served, PatientID=MERGED, level="PATIENT")
    assert (patient.PatientID, patient.NumberOfPatientRelatedStudies) == (MERGED, 2)


def test_an_unknown_patient_who_was_merged_is_counted_with_the_one_they_are(
    served: Served, tmp_path: Path
) -> None:
    ct(tmp_path / "x.dcm", patient="X1", study="1.2.3", PatientName="Unknown^Man")
    send(served, "BEICHENG", tmp_path / "x.dcm")
    register(served.city, "X1", KEPT, name="Unknown^Man")

    for keys in ({"PatientName": "Wang*"}, {"PatientName": "Unknown*"}, {"PatientID": KEPT}):
        (patient,) = found(served, "PATIENT", **keys)
        assert (patient.PatientID, patient.NumberOfPatientRelatedStudies) == (KEPT, 3)


@pytest.mark.parametrize(
    "key", [{}, {"PatientID": KEPT}, {"PatientID": MERGED}, {"PatientName": "Wang^XiaoDong"}]
)
def test_the_surviving_record_says_who_the_one_patient_is(
    served: Served, key: dict[str, str]
) -> None:
    register(served.city, MERGED, name="Wang^Dong", born="19800101")
    register(served.city, KEPT, born="19800102")
    register(served.city, MERGED, KEPT, name="Wang^Dong", born="19800101")
    told = {"PatientBirthDate": "19800102"}

    for level in ("PATIENT", "STUDY"):
        answers = found(served, level, **key, **told)
        assert len(answers) == (1 if level == "PATIENT" else 2)
        assert {(str(one.PatientName), one.PatientBirthDate) for one in answers} == {
            ("Wang^XiaoDong", "19800102")
        }
        assert found(served, level, **key, PatientBirthDate="19800101") == ()
    for other in ("Wang^Dong", "Wang^XiaoDong"):  # the images are found by the name they have
        assert len(found(served, PatientName=other, PatientID=KEPT)) >= 1
    register(served.city, KEPT, name="Li^Dong", born="19800103")  # corrected
    assert len(found(served, PatientName="Li^Dong", PatientBirthDate="19800103")) == 2

    register(served.city, MERGED, name="Wang^Dong", born="19800101")  # taken back
    (patient,) = found(served, "PATIENT", PatientID=MERGED, PatientBirthDate="")
    assert (str(patient.PatientName), patient.PatientBirthDate) == ("Wang^Dong", "19800101")


def test_what_was_merged_before_says_nothing_of_whom_it_is_parted_from(served: Served) -> None:
    register(served.city, "P9", name="Zhao^Min", born="19800109")
    register(served.city, KEPT, "P9")  # with DUP1, which stands for it no more
    assert len(found(served, PatientName="Zhao^Min", PatientBirthDate="19800109")) == 2

    register(served.city, KEPT)
    assert found(served, PatientName="Zhao^Min") == ()
    studies = found(served, PatientName="Wang*", PatientBirthDate="")
    assert {(one.StudyInstanceUID, one.PatientID) for one in studies} == {
        ("1.2.1", KEPT),
        ("1.2.2", KEPT),
    }
    assert {(str(one.PatientName), one.PatientBirthDate) for one in studies} == {
        ("Wang^XiaoDong", "")
    }


def test_what_is_merged_into_another_record_instead_takes_nothing_from_that(
    served: Served,
) -> None:
    for number in ("P8", "P9"):
        register(served.city, number, name="Zhao^Min", born=f"1980010{number[1]}")
    register(served.city, KEPT, "P9")
    register(served.city, KEPT, "P8")

    for key in ({"PatientName": "Zhao^Min"}, {"PatientBirthDate": "19800108"}):
        assert {one.PatientID for one in found(served, **key)} == {"P8"}
        assert len(found(served, **key)) == 2
        assert "P8" in {one.PatientID for one in found(served, "PATIENT", **key)}
    assert found(served, PatientBirthDate="19800109") == ()
    assert len(found(served, "PATIENT", PatientID="P8", PatientName="Zhao^Min")) == 1


def test_what_was_merged_is_two_patients_again_once_that_is_taken_back(served: Served) -> None:
    merge(served.city, undone=True)

    for number, study in zip((KEPT, MERGED), BOTH, strict=True):
        (only,) = found(served, PatientID=number)
        assert (only.StudyInstanceUID, only.PatientID, others(only)) == (study, number, [])
    patients = found(served, PatientName="Wang*", level="PATIENT")
    told = sorted((one.PatientID, one.NumberOfPatientRelatedStudies) for one in patients)
    assert told == [(KEPT, 1), (MERGED, 1)]


def test_patients_without_a_number_are_not_taken_for_one_another(tmp_path: Path) -> None:
    with serving(tmp_path) as made:
        for row, name in enumerate(("Anon^A", "Anon^B", "Anonymized")):
            study, instance = f"1.2.{row}", f"1.4.{row}"
            made.city.send("beicheng", patient="", study=study, instance=instance, PatientName=name)
        patients = found(made, PatientName="Anon*", level="PATIENT")

    told = sorted((str(one.PatientName), one.NumberOfPatientRelatedStudies) for one in patients)
    assert told == [("Anon^A", 1), ("Anon^B", 1), ("Anonymized", 1)]

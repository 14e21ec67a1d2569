"""Search parameters by type: tokens, strings, references, and dates with their precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fhir_door import SHANGHAI, Asker, Door, opened, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from region import ID_CARD, region

from exchange_fhir.search import EVERYTHING, NOTHING, any_of
from exchange_storage.search import AllOf, AnyOf, Holds, Identifier, Match, Owned, Values

SYSTEM = "urn:oid:2.25.101"
CARD = "urn:oid:2.16.156.10011.1.3"


@pytest.fixture(scope="module")
def asker(lasting_database_url: str) -> Iterator[Asker]:
    """A clinician in a region with two studies of Wang at beicheng and one of Li at nanhu."""
    with region(lasting_database_url) as city:
        wang: dict[str, Any] = {"patient": "P,1", "card": ID_CARD, "AccessionNumber": "A|1"}
        address: dict[str, Any] = {"PatientAddress": "Shenyang, 和平区"}
        city.send("beicheng", **wang, **address, study="1.2.1", instance="1.4.1")
        city.send("beicheng", **wang, study="1.2.2", instance="1.4.2", Modality="MR",
                  BodyPartExamined="CHEST")  # fmt: skip
        li: dict[str, Any] = {
            "PatientName": "Lǐ^Na=李^娜",
            "PatientSex": "M",
            "PatientBirthDate": "19700203",
        }
        city.send("nanhu", patient="P2", study="1.2.3", instance="1.4.3", **li)
        yield opened(city).clinician("dongshan")


WANG, LI = "Patient/1", "Patient/2"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (f"identifier={SYSTEM}|P\\,1", [WANG]),
        ("identifier=2.25.101|P\\,1", [WANG]),
        ("identifier=P\\,1", [WANG]),
        ("identifier=P,1", []),
        (f"identifier={SYSTEM}|P2", []),
        (f"identifier={SYSTEM}|", [WANG]),
        ("identifier=|P\\,1", []),
        (f"identifier={CARD}|{ID_CARD.lower()}", [WANG]),
        (f"identifier={ID_CARD}", [WANG]),
        (f"identifier=urn:oid:2.25.999|{ID_CARD}", []),
        ("identifier=nothing,P2", [LI]),
        ("_id=1,2", [WANG, LI]),
        ("_id=x,99999999999999999999", []),
        ("gender=male", [LI]),
        ("gender=unknown", []),
        ("active=true", [WANG, LI]),
        ("active=false", []),
        ("organization=Organization/beicheng", [WANG]),
        ("organization=nanhu", [LI]),
        ("organization:Organization=nanhu", [LI]),
        ("organization=https://exchange.example/fhir/Organization/nanhu", [LI]),
        ("organization=https://elsewhere.example/fhir/Organization/nanhu", []),
        ("organization=Patient/nanhu", []),
    ],
)
def test_a_patient_is_found_by_token_and_reference(
    asker: Asker, asked: str, found: list[str]
) -> None:
    assert asker.ids(f"Patient?{asked}") == found


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("name=wang", [WANG]),
        ("name=王小", [WANG]),
        ("name=WÁNG xiao", [WANG]),
        ("family=li", [LI]),
        ("family=李", [LI]),
        ("given=xiaodong", [WANG]),
        ("given=dong", []),
        ("given:contains=dong", [WANG]),
        ("given:contains=%25", []),
        ("name:contains=*", []),
        ("family:exact=Lǐ", [LI]),
        ("family:exact=Li", []),
        ("name:exact=王小东", [WANG]),
        ("name:exact=Wang XiaoDong", [WANG]),
        ("name:exact=wang xiaodong", []),
        ("family=wang,li", [WANG, LI]),
        ("family=wang&given=na", []),
        ("address=和平", [WANG]),
        ("address-city=shenyang", [WANG]),
        ("address-city:exact=shenyang", []),
        ("phone=1", []),
    ],
)
def test_a_patient_is_found_by_what_they_are_called(
    asker: Asker, asked: str, found: list[str]
) -> None:
    assert asker.ids(f"Patient?{asked}") == found


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("_id=1.2.1", ["1.2.1"]),
        ("identifier=urn:dicom:uid|urn:oid:1.2.1", ["1.2.1"]),
        ("identifier=urn:dicom:uid|1.2.1", ["1.2.1"]),
        ("identifier=urn:oid:1.2.1", ["1.2.1"]),
        ("identifier=A\\|1", ["1.2.2", "1.2.1"]),
        (f"identifier={SYSTEM}|A\\|1", ["1.2.2", "1.2.1"]),
        ("identifier=urn:oid:2.25.102|A\\|1", []),
        ("modality=MR", ["1.2.2"]),
        (
            "modality=http://dicom.nema.org/resources/ontology/DCM|MR,CT",
            ["1.2.3", "1.2.2", "1.2.1"],
        ),
        ("modality=urn:other|MR", []),
        ("bodysite=http://snomed.info/sct|816094009", ["1.2.2"]),
        ("bodysite=51185008", ["1.2.2"]),  # as chest was coded before 2023
        ("bodysite=CHEST", ["1.2.2"]),
        ("bodysite=http://snomed.info/sct|CHEST", []),
        ("bodysite=818981001", []),
        ("bodysite:text=chest", ["1.2.2"]),
        ("bodysite:not=CHEST", ["1.2.3", "1.2.1"]),
        ("status=available&modality=MR", ["1.2.2"]),
        ("status=cancelled", []),
        ("series=1.2.1.1", ["1.2.1"]),
        ("instance=urn:oid:1.4.3", ["1.2.3"]),
        ("dicom-class=urn:oid:1.2.840.10008.5.1.4.1.1.2&modality=MR", ["1.2.2"]),
        ("dicom-class=1.2.3", []),
        ("patient=1", ["1.2.2", "1.2.1"]),
        ("patient=Patient/2", ["1.2.3"]),
        ("subject=https://exchange.example/fhir/Patient/2", ["1.2.3"]),
        ("patient:Patient=2", ["1.2.3"]),
        ("patient=Patient/3", []),
        (f"patient.identifier={CARD}|{ID_CARD}", ["1.2.2", "1.2.1"]),
        (f"patient.identifier={SYSTEM}|P\\,1&modality=CT", ["1.2.1"]),
        ("subject.identifier=P2", ["1.2.3"]),
        ("endpoint=Endpoint/dicomweb-nanhu", ["1.2.3"]),
        ("endpoint=nanhu", []),
    ],
)
def test_a_study_is_found(asker: Asker, asked: str, found: list[str]) -> None:
    assert asker.ids(f"ImagingStudy?{asked}") == [f"ImagingStudy/{uid}" for uid in found]


@pytest.mark.parametrize(
    "asked",
    [
        "Patient?birthdate=31.12.1949",
        "Patient?birthdate=1949-02-30",
        "Patient?birthdate=xx1949",
        "Patient?birthdate=1949-12-31T10",
        "Patient?_lastUpdated=yesterday",
        "Patient?name:soundex=wang",
        "Patient?gender:below=male",
        "Patient?identifier=a|b|c",
        "Patient?identifier=|",
        "Patient?name=a%00b",
        "Patient?_count=-1",
        "ImagingStudy?identifier=|",
        "ImagingStudy?_sort=started,bodysite",
        "Patient?name=" + "x" * 2000,
        "Patient?" + "&".join(["name=x"] * 101),
    ],
)
def test_what_cannot_be_read_is_refused_and_not_guessed(asker: Asker, asked: str) -> None:
    asker.refused(asked, 400, "invalid")


@pytest.mark.parametrize(
    "asked",
    [
        "name=" + ",".join(f"n{at}" for at in range(101)),
        "&".join(f"name=n{at}" for at in range(50))
        + "&identifier="
        + ",".join(map(str, range(51))),
        "&".join(["family=" + ",".join(f"n{at}" for at in range(11))] * 10),
    ],
)
def test_a_search_of_too_many_values_is_refused_before_the_index_is_asked(
    asker: Asker, asked: str
) -> None:
    told = asker.refused(f"Patient?{asked}", 400, "too-costly")
    assert "100 values" in told
    form = "application/x-www-form-urlencoded"
    outcome(asker.post("Patient/_search", asked, form), 400, "too-costly")


def test_a_hundred_values_are_answered_and_a_value_given_twice_counts_once(asker: Asker) -> None:
    names = ",".join(["li", *(f"n{at}" for at in range(99))])
    assert asker.ids(f"Patient?name={names},{names}") == [LI]


def test_a_search_that_is_too_long_is_refused(asker: Asker) -> None:
    long = "&".join(f"name={'x' * 1000}{at}" for at in range(17))
    asker.refused(f"Patient?{long}", 413, "too-long")


def test_what_is_asked_of_one_place_is_asked_there_at_once() -> None:
    owned = Owned((1,))
    numbers = [AllOf((owned, Match("PatientID", Values((one,))))) for one in "ab"]
    assert any_of(numbers) == AllOf((owned, Match("PatientID", Values(("a", "b")))))
    classes = [Holds((Match("SOPClassUID", Values((one,))),)) for one in "aba"]
    assert any_of(classes) == Holds((Match("SOPClassUID", Values(("a", "b"))),))
    nested = AnyOf((Match("PatientID", Values(("a",))), Identifier("a")))
    other = AnyOf((Match("PatientID", Values(("b",))), Identifier("b")))
    assert any_of((nested, other)) == AnyOf(
        (Match("PatientID", Values(("a", "b"))), Identifier("a"), Identifier("b"))
    )
    assert any_of(()) == any_of((NOTHING, NOTHING)) == NOTHING
    assert any_of((EVERYTHING, owned)) == AnyOf((EVERYTHING, owned))


# -- Dates ----------------------------------------------------------------------------------------

STUDIES = [
    ("20251231", "235959"),
    ("20251231", ""),
    ("20260101", ""),
    ("20260101", "000000"),
    ("20260101", "10"),
    ("20260101", "1030"),
    ("20260101", "103000.5"),
    ("20260101", "103001"),
    ("20260101", "235959.999"),
    ("20260102", "0000"),
    ("20260131", "120000"),
    ("20260201", ""),
    ("20261231", "2359"),
    ("20270101", "00"),
    ("", ""),
    ("", "103000"),
]


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """A region whose studies began at `STUDIES`; the patient was born on the study's day."""
    place: Path = tmp_path_factory.mktemp("dated")
    with region(f"sqlite:///{place / 'index.sqlite'}", hospitals=("beicheng",)) as city:
        for at, (date, time) in enumerate(STUDIES):
            city.send(
                "beicheng",
                patient=f"P{at}",
                study=f"1.2.{at}",
                instance=f"1.4.{at}",
                StudyDate=date,
                StudyTime=time,
                PatientBirthDate=date,
            )
        yield opened(city).clinician("beicheng")


def target(date: str, time: str) -> tuple[datetime, datetime] | None:
    """When the thing began and ended, as R4 3.1.1.4.2 reads it."""
    if not date:
        return None
    start = datetime.strptime(date, "%Y%m%d").replace(tzinfo=SHANGHAI)
    if not time:
        return start, start + timedelta(days=1)
    clock = time.partition(".")[0].ljust(6, "0")
    start += timedelta(hours=int(clock[:2]), minutes=int(clock[2:4]), seconds=int(clock[4:]))
    return start, start + timedelta(seconds=1)


Precision = tuple[str, Callable[[datetime], datetime]]
PRECISIONS: tuple[Precision, ...] = (
    ("%Y", lambda at: at.replace(year=at.year + 1, month=1, day=1)),
    ("%Y-%m", lambda at: (at.replace(day=1) + timedelta(days=32)).replace(day=1)),
    ("%Y-%m-%d", lambda at: at + timedelta(days=1)),
    ("%Y-%m-%dT%H:%M", lambda at: at + timedelta(minutes=1)),
    ("%Y-%m-%dT%H:%M:%S", lambda at: at + timedelta(seconds=1)),
)


def holds(prefix: str, low: datetime, high: datetime, start: datetime, end: datetime) -> bool:
    equal = low <= start and end <= high
    return {
        "": equal,
        "eq": equal,
        "ne": not equal,
        "gt": end > high,
        "lt": start < low,
        "ge": end > high or equal,
        "le": start < low or equal,
        "sa": start >= high,
        "eb": end <= low,
    }[prefix]


MOMENTS = st.sampled_from(
    [known for date, time in STUDIES if (known := target(date, time)) is not None]
).flatmap(lambda span: st.sampled_from([span[0], span[1], span[0] - timedelta(seconds=1)]))


@given(
    prefix=st.sampled_from(["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"]),
    at=MOMENTS,
    precision=st.sampled_from(PRECISIONS),
    zone=st.sampled_from(["", "+08:00", "Z"]),
    born=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_date_means_all_of_its_span(
    dated: Asker, prefix: str, at: datetime, precision: Precision, zone: str, born: bool
) -> None:
    form, following = precision
    low = datetime.strptime(at.strftime(form), form).replace(tzinfo=SHANGHAI)
    high = following(low)
    value = prefix + low.strftime(form)
    if "T" in form and zone == "Z":
        value = f"{prefix}{(low - timedelta(hours=8)).strftime(form)}Z"
    elif "T" in form:
        value += zone
    expected = set()
    for number, (date, time) in enumerate(STUDIES):
        span = target(date, "" if born else time)
        if span is not None and holds(prefix, low, high, *span):
            expected.add(number)

    if born:
        found = {
            int(one.partition("/")[2]) - 1 for one in dated.ids(f"Patient?birthdate={quote(value)}")
        }
    else:
        found = {
            int(one.rpartition(".")[2]) for one in dated.ids(f"ImagingStudy?started={quote(value)}")
        }
    assert found == expected


def test_about_a_date_is_a_tenth_of_its_distance_from_today(dated: Asker) -> None:
    assert dated.ids("Patient?birthdate=ap1900") == []
    assert len(dated.ids("Patient?birthdate=ap2026-01-01&_count=500")) >= 8


def test_the_ends_of_the_calendar_are_dates_too(dated: Asker) -> None:
    dates = sum(1 for date, _ in STUDIES if date)
    for asked in ("le9999", "lt9999-12-31T23:59:59-12:00", "ge0001", "gt0001-01-01T00:00:00Z"):
        for search in (f"Patient?birthdate={asked}", f"ImagingStudy?started={asked}"):
            assert len(dated.ids(search)) == dates
        dated.ids(f"Patient?_lastUpdated={asked}")
    dated.refused("Patient?birthdate=0000", 400, "invalid")


def test_what_changed_since_is_asked_by_what_was_told_before(door: Door) -> None:
    door.city.send("beicheng", study="1.2.1", instance="1.4.1")
    asker = door.clinician("nanhu")
    told = asker.read("ImagingStudy/1.2.1")["meta"]["lastUpdated"]

    assert asker.ids(f"ImagingStudy?_lastUpdated={told}") == ["ImagingStudy/1.2.1"]
    assert asker.ids(f"ImagingStudy?_lastUpdated=gt{told}") == []

    door.city.send("beicheng", study="1.2.2", instance="1.4.2")
    assert asker.ids(f"ImagingStudy?_lastUpdated=gt{told}") == ["ImagingStudy/1.2.2"]
    assert asker.ids(f"ImagingStudy?_lastUpdated=le{told}") == ["ImagingStudy/1.2.1"]

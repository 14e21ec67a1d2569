"""What the fictional city holds, and city.json, in which it says so to tests and demonstrations."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CITY_FILE = "city.json"


@dataclass(frozen=True, slots=True)
class Hospital:
    """A municipal hospital with its own PACS and its own patient numbers."""

    code: str
    name: str
    english_name: str
    unified_social_credit_code: str
    issuer_oid: str
    """The assigning authority of its patient numbers."""
    ae_title: str
    character_set: tuple[str, ...]
    """The values of Specific Character Set (0008,0005) that its PACS writes."""
    patient_number_pattern: str
    """A regular expression that its patient numbers match."""


@dataclass(frozen=True, slots=True)
class Person:
    """A citizen as he or she is in truth, whatever the hospitals wrote down."""

    id: str
    name: str
    pinyin: str
    """As a DICOM name component group: Wang^XiaoDong."""
    birth_date: date
    sex: str
    """M or F."""
    resident_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """One registration of a person at one hospital, with whatever that hospital got wrong."""

    hospital: str
    patient_id: str
    person: str
    patient_name: str
    """As written to (0010,0010), with its component groups."""
    birth_date: date | None
    sex: str
    resident_id: str | None
    """As written to (0010,1002): 18 characters, an old 15-digit number, mistyped, or absent."""
    traps: tuple[str, ...] = ()
    """What is unusual here, in words: see population.TRAPS."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a study; every instance of it shares SOP class and transfer syntax."""

    series_instance_uid: str
    modality: str
    description: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """One examination at one hospital."""

    study_instance_uid: str
    hospital: str
    patient_id: str
    person: str
    accession_number: str
    started: datetime
    description: str
    body_part: str
    series: tuple[Series, ...]
    impression: str | None
    """The conclusion of its Structured Report; None where nobody reported yet."""
    folder: str
    """Relative to the city's folder, with forward slashes."""

    @property
    def number_of_instances(self) -> int:
        """Number of Study Related Instances (0020,1208), report included."""
        return sum(len(series.sop_instance_uids) for series in self.series)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in Study (0008,0061), sorted."""
        return tuple(sorted({series.modality for series in self.series}))


@dataclass(frozen=True, slots=True)
class City:
    """The whole of it; `City.read(out)` brings back what `generate(out)` wrote."""

    seed: str
    size: str
    until: date
    hospitals: tuple[Hospital, ...]
    people: tuple[Person, ...]
    records: tuple[Record, ...]
    studies: tuple[Study, ...]

    @property
    def number_of_instances(self) -> int:
        """All DICOM files of all studies."""
        return sum(study.number_of_instances for study in self.studies)

    def hospital(self, code: str) -> Hospital:
        """The hospital of that code; raises KeyError."""
        return _the_one(self.hospitals, lambda hospital: hospital.code == code, code)

    def person(self, person_id: str) -> Person:
        """The person of that id; raises KeyError."""
        return _the_one(self.people, lambda person: person.id == person_id, person_id)

    def record(self, hospital: str, patient_id: str) -> Record:
        """The registration of that number at that hospital; raises KeyError."""
        return _the_one(
            self.records,
            lambda record: (record.hospital, record.patient_id) == (hospital, patient_id),
            f"{hospital} {patient_id}",
        )

    def records_of(self, person_id: str) -> tuple[Record, ...]:
        """Everywhere this person is registered, twice at one hospital included."""
        return tuple(record for record in self.records if record.person == person_id)

    def studies_of(self, person_id: str) -> tuple[Study, ...]:
        """This person's true timeline over all hospitals, oldest first."""
        own = (study for study in self.studies if study.person == person_id)
        return tuple(sorted(own, key=lambda study: study.started))

    def trapped(self, trap: str) -> tuple[Record, ...]:
        """The registrations with that trap."""
        return tuple(record for record in self.records if trap in record.traps)

    def write(self, out: Path) -> None:
        """Write city.json, the same bytes for the same city."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1, default=_iso)
        (out / CITY_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, out: Path) -> "City":
        """Read the city.json in `out`; raises FileNotFoundError when there is none."""
        city = json.loads((out / CITY_FILE).read_text(encoding="utf-8"))
        return cls(
            seed=city["seed"],
            size=city["size"],
            until=date.fromisoformat(city["until"]),
            hospitals=tuple(Hospital(**_tuples(hospital)) for hospital in city["hospitals"]),
            people=tuple(Person(**_dated(person)) for person in city["people"]),
            records=tuple(Record(**_tuples(_dated(record))) for record in city["records"]),
            studies=tuple(_study(study) for study in city["studies"]),
        )


def _the_one(items: Iterable[T], wanted: Callable[[T], bool], key: str) -> T:
    for item in items:
        if wanted(item):
            return item
    raise KeyError(key)


def _iso(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in {CITY_FILE}")


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}


def _dated(row: dict[str, Any]) -> dict[str, Any]:
    born = row["birth_date"]
    return row | {"birth_date": date.fromisoformat(born) if born else None}


def _study(row: dict[str, Any]) -> Study:
    series = tuple(Series(**_tuples(each)) for each in row["series"])
    return Study(**row | {"started": datetime.fromisoformat(row["started"]), "series": series})

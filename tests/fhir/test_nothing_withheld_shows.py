"""Whatever is asked, and however: FHIR shows and counts exactly what the policy permits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from crowding import crowded
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fhir_door import Asker, Door, entries, name, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from region import ADMINISTRATOR, HOSPITALS, Region
from sample_city.identifiers import resident_id

from exchange import consent, policy
from exchange.access import Exchange
from exchange.policy import Action, Facts, Permit, Purpose
from exchange_storage.database import Database
from exchange_storage.objects import MemoryStore

CODES = tuple(HOSPITALS)
PERSONS = ("Wang^Min=王^敏", "Wang^Na=王^娜", "Li^Min=李^敏")
CARDS = [resident_id("219901", date(1970, 2, 3), 100 + 2 * at) for at in range(len(PERSONS))]


@dataclass(frozen=True, slots=True)
class World:
    """Which hospitals share, who is known where, who has opted out there, and who asks."""

    sharing: tuple[bool, ...]
    records: tuple[tuple[int, int, bool, int], ...]
    """Hospital, person, whether the card was sent, number of studies; each pair once."""
    opted_out: tuple[int, ...]
    """Rows of records at which the patient opted out."""
    asker: int
    purpose: Purpose
    refreshed: bool
    crowded: bool

    def permitted(self) -> list[bool]:
        """For each record what the policy decides, worked out without the database."""
        return [self._permits(row) for row in range(len(self.records))]

    def same(self, row: int) -> set[int]:
        """The rows of the same person: those that are linked."""
        _, person, carded, _ = self.records[row]
        if not carded:
            return {row}
        return {r for r, (_, p, c, _) in enumerate(self.records) if p == person and c}

    def _permits(self, row: int) -> bool:
        owner = self.records[row][0]
        facts = Facts(
            owner=owner,
            owner_shares=self.sharing[owner],
            asker_shares=self.sharing[self.asker],
            opted_out=bool(self.same(row) & set(self.opted_out)),
        )
        asker = policy.Requester(
            name="asker",
            role=policy.Role.CLINICIAN,
            organization=self.asker,
            purpose=self.purpose,
        )
        return isinstance(policy.decide(asker, Action.RETRIEVE, facts), Permit)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    pairs = [(at, person) for at in range(len(CODES)) for person in range(len(PERSONS))]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=2, max_size=7, unique=True))
    records = tuple(
        (at, person, draw(st.integers(0, 4)) > 0, draw(st.integers(1, 2))) for at, person in chosen
    )
    rows = st.lists(st.sampled_from(range(len(records))), max_size=2, unique=True)
    return World(
        sharing=tuple(draw(st.integers(0, 4)) > 0 for _ in CODES),
        records=records,
        opted_out=tuple(draw(rows)),
        asker=draw(st.sampled_from(range(len(CODES)))),
        purpose=draw(st.sampled_from([Purpose.TREATMENT] * 3 + [Purpose.PUBLIC_HEALTH])),
        refreshed=draw(st.booleans()),
        crowded=draw(st.booleans()),
    )


def study(row: int, number: int) -> str:
    return f"1.2.{row}.{number}"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ed25519PrivateKey]:
    """An index that is ready for its first hospital, to be copied, and its key."""
    path = tmp_path_factory.mktemp("empty") / "index.sqlite"
    key = Ed25519PrivateKey.generate()
    exchange = Exchange(Database(f"sqlite:///{path}"), MemoryStore(), key)
    exchange.prepare()
    exchange.close()
    return path, key


@contextmanager
def lived(
    world: World, empty: tuple[Path, Ed25519PrivateKey], *, written: bool = False
) -> Iterator[Asker]:
    """The world as a region, with what hospitals wrote if wanted; the asker's door to it."""
    with TemporaryDirectory() as place:
        path = shutil.copy(empty[0], place)
        city = Region(Exchange(Database(f"sqlite:///{path}"), MemoryStore(), empty[1]))
        try:
            for code, sharing in zip(CODES, world.sharing, strict=True):
                city.register(code, sharing=sharing)
            for row, (at, person, carded, studies) in enumerate(world.records):
                for number in range(studies):
                    city.send(
                        CODES[at],
                        patient=f"P{row}",
                        study=study(row, number),
                        instance=f"1.4.{row}.{number}",
                        card=CARDS[person] if carded else None,
                        PatientName=PERSONS[person],
                        PatientBirthDate="19700203",
                    )
            city.identify()
            for row in world.opted_out:
                with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                    consent.opt_out(access, CODES[world.records[row][0]], f"P{row}")
            door = opened(city)
            if world.refreshed:
                door.refresh()
            for row, (at, *_) in enumerate(world.records if written else ()):
                _record(door, CODES[at], row)
            with crowded() if world.crowded else nullcontext():
                yield door.asker(city.clinician(CODES[world.asker], world.purpose))
        finally:
            city.exchange.close()


def _record(door: Door, code: str, row: int) -> None:
    """What a hospital wrote of its record: two Observations and a DiagnosticReport of the first."""
    system = door.system(code)
    subject = {"subject": {"reference": f"Patient/{row + 1}"}}
    coded = {"status": "final", "code": {"coding": [{"code": "seen"}]}}
    told: list[dict[str, Any]] = [
        {"resourceType": "Practitioner", "id": f"doctor{row}", "name": [{"family": "张"}]},
        *(
            {"resourceType": "Observation", "id": f"o{row}-{number}", **coded, **subject,
             "performer": [{"reference": f"Practitioner/doctor{row}"}],
             "derivedFrom": [{"reference": f"ImagingStudy/{study(row, 0)}"}]}
            for number in range(2)
        ),
        {"resourceType": "DiagnosticReport", "id": f"r{row}", **coded, **subject,
         "result": [{"reference": f"Observation/o{row}-0"}]},
    ]  # fmt: skip
    for one in told:
        response = system.send("PUT", f"{one['resourceType']}/{one['id']}", one)
        assert response.status_code == 201, response.text


def recorded(world: World) -> st.SearchStrategy[str]:
    """Questions that lead through what hospitals wrote."""
    row = st.sampled_from(range(len(world.records)))
    asked = st.one_of(
        st.sampled_from(
            [
                "Observation?code=seen",
                "Observation?status:not=preliminary",
                "Observation?patient.name=wang",
                "Observation?code=seen&patient.name=wang",
                "Observation?code=seen&patient.name=wang&performer:Practitioner.name=zhang",
                "Observation?code=seen&derived-from:ImagingStudy.patient.name=wang",
                "DiagnosticReport?status=final&result.patient.name=wang",
                "Observation?subject:Patient.organization.name:contains=医院",
                "Observation?derived-from:ImagingStudy.modality=CT",
                "Observation?_has:DiagnosticReport:result:code=seen",
                "DiagnosticReport?result.code=seen",
                "DiagnosticReport?result.performer:Practitioner.name=zhang",
                "Practitioner?_has:Observation:performer:code=seen",
                "Practitioner?_has:Observation:performer:_has:DiagnosticReport:result:code=seen",
                "Patient?_has:Observation:patient:code=seen",
                "Patient?_has:ImagingStudy:patient:modality=CT",
                "ImagingStudy?_has:Observation:derived-from:code=seen",
                "ImagingStudy?patient.name=wang",
            ]
        ),
        row.map(lambda r: f"Observation?patient={r + 1}"),
        row.map(lambda r: f"Observation?_id=o{r}-0,o{r}-1"),
        row.map(lambda r: f"Observation?performer=doctor{r}"),
        row.map(lambda r: f"Observation?patient.identifier={CARDS[world.records[r][1]]}"),
        row.map(lambda r: f"Practitioner?_id=doctor{r}&_revinclude=Observation:performer"),
        row.map(lambda r: f"Patient/{r + 1}/Observation?status=final"),
    )
    more = st.sampled_from(
        [
            "",
            "&_count=1",
            "&_sort=-_lastUpdated&_count=2",
            "&_include=*&_include:iterate=DiagnosticReport:result",
            "&_revinclude=DiagnosticReport:result&_include:iterate=Observation:subject",
            "&_revinclude=AuditEvent:*&_revinclude:iterate=AuditEvent:entity&_include:iterate=AuditEvent:*",
        ]
    )
    return st.tuples(asked, more).map("".join)


def questions(world: World) -> st.SearchStrategy[str]:
    row = st.sampled_from(range(len(world.records)))
    patients = st.one_of(
        st.just("name=wang"),
        st.just("given=敏"),
        st.just("birthdate=1970"),
        st.just("_sort=-_lastUpdated"),
        row.map(lambda r: f"_id={r + 1},{(r + 1) % len(world.records) + 1}"),
        row.map(lambda r: f"identifier=P{r}"),
        row.map(lambda r: f"identifier=urn:oid:2.25.{101 + world.records[r][0]}|P{r}"),
        row.map(lambda r: f"identifier={CARDS[world.records[r][1]]}"),
        st.sampled_from(CODES).map(lambda code: f"organization={code}"),
    )
    studies = st.one_of(
        st.just("modality=CT"),
        st.just("_sort=started"),
        row.map(lambda r: f"patient={r + 1}"),
        row.map(lambda r: f"subject=Patient/{r + 1}"),
        row.map(lambda r: f"_id={study(r, 0)},{study(r, 1)}"),
        row.map(lambda r: f"identifier=urn:oid:{study(r, 0)}"),
        row.map(lambda r: f"instance=1.4.{r}.0"),
        row.map(lambda r: f"patient.identifier=urn:oid:2.25.{101 + world.records[r][0]}|P{r}"),
        row.map(lambda r: f"patient.identifier={CARDS[world.records[r][1]]}"),
        st.sampled_from(CODES).map(lambda code: f"endpoint=dicomweb-{code}"),
    )
    persons = st.one_of(
        st.sampled_from(["name=wang", "name=敏", "birthdate=1970", "gender=unknown", "_sort=_id"]),
        row.map(lambda r: f"identifier={CARDS[world.records[r][1]]}"),
        row.map(lambda r: f"identifier=urn:oid:2.25.{101 + world.records[r][0]}|P{r}"),
        row.map(lambda r: f"link=Patient/{r + 1}"),
        row.map(lambda r: f"patient={r + 1}"),
        st.integers(1, 4).map(lambda number: f"_id={number}"),
    )
    more = st.sampled_from(["", "&_count=1", "&_count=2&_total=accurate", "&_include=*"])
    back = st.sampled_from(["", "&_revinclude=ImagingStudy:patient"])
    return st.one_of(
        st.tuples(st.just("Patient?"), patients, more, back).map("".join),
        st.tuples(st.just("ImagingStudy?"), studies, more).map("".join),
        st.tuples(st.just("Person?"), persons, more).map("".join),
    )


def of_person(shown: dict[str, Any]) -> set[str]:
    """The records that a Person is linked to, whose numbers are all that it has."""
    records = {link["target"]["reference"] for link in shown["link"]}
    assert records
    numbers = {one["value"] for one in shown["identifier"] if one["value"] not in CARDS}
    assert numbers == {f"P{int(one.removeprefix('Patient/')) - 1}" for one in records}
    return records


@given(worlds(), st.data())
@settings(max_examples=15, deadline=None)
def test_nothing_withheld_shows_through_what_refers_to_it(
    empty: tuple[Path, Ed25519PrivateKey], world: World, data: st.DataObject
) -> None:
    permitted = [row for row, yes in enumerate(world.permitted()) if yes]
    seen = {f"Patient/{row + 1}" for row in permitted}
    seen |= {f"DiagnosticReport/r{row}" for row in permitted}
    seen |= {f"Observation/o{row}-{number}" for row in permitted for number in range(2)}
    seen |= {
        f"ImagingStudy/{study(row, number)}"
        for row in permitted
        for number in range(world.records[row][3])
    }
    directory = {f"Practitioner/doctor{row}" for row in range(len(world.records))}
    open_to_all = {"Organization", "Endpoint"}
    with lived(world, empty, written=True) as asker:
        assert set(asker.ids("Observation")) == {one for one in seen if one[:2] == "Ob"}
        doctors = asker.ids("Practitioner?_has:Observation:performer:code=seen")
        assert set(doctors) == {f"Practitioner/doctor{row}" for row in permitted}
        for asked in data.draw(st.lists(recorded(world), min_size=2, max_size=8)):
            matches: list[str] = []
            for bundle in asker.pages(f"{asked}&_total=accurate"):
                matches += [name(entry) for entry in entries(bundle)]
                for entry in entries(bundle) + entries(bundle, "include"):
                    kind = entry["resource"]["resourceType"]
                    assert kind in open_to_all or name(entry) in seen | directory, asked
            assert len(matches) == len(set(matches)) == bundle["total"], asked
        row = data.draw(st.sampled_from(range(len(world.records))))
        person = world.same(row) if row in permitted else set()
        expected = {f"Observation/o{one}-{number}" for one in person for number in range(2)}
        for asked in (f"Observation?patient={row + 1}", f"Patient/{row + 1}/Observation"):
            assert set(asker.ids(asked)) == expected & seen


@given(worlds(), st.data())
@settings(max_examples=40, deadline=None)
def test_no_search_shows_or_counts_what_the_policy_refuses(
    empty: tuple[Path, Ed25519PrivateKey], world: World, data: st.DataObject
) -> None:
    permitted = world.permitted()
    patients = {f"Patient/{row + 1}" for row, yes in enumerate(permitted) if yes}
    studies = {
        f"ImagingStudy/{study(row, number)}"
        for row, yes in enumerate(permitted)
        if yes
        for number in range(world.records[row][3])
    }
    with lived(world, empty) as asker:
        assert set(asker.ids("Patient")) == patients
        assert set(asker.ids("ImagingStudy")) == studies
        for asked in data.draw(st.lists(questions(world), min_size=1, max_size=6)):
            matches: list[str] = []
            for bundle in asker.pages(asked):
                matches += [name(entry) for entry in entries(bundle)]
                shown = entries(bundle) + entries(bundle, "include")
                for entry in shown:
                    if entry["resource"]["resourceType"] in {"Patient", "ImagingStudy"}:
                        assert name(entry) in patients | studies
                    if entry["resource"]["resourceType"] == "Person":
                        assert of_person(entry["resource"]) <= patients
                        continue
                    for linked in entry["resource"].get("link", []):
                        assert linked["other"]["reference"] in patients
            assert len(matches) == len(set(matches)) == bundle["total"]
        for bundle in asker.pages("Person"):
            for entry in entries(bundle):
                person = name(entry)
                assert of_person(asker.read(person)) == of_person(entry["resource"])
        row = data.draw(st.sampled_from(range(len(world.records))))
        found = entries(asker.bundle(f"Person?link=Patient/{row + 1}"))
        same = {f"Patient/{one + 1}" for one in world.same(row)} & patients
        linked_to = [of_person(one["resource"]) for one in found]
        assert linked_to in ([same], []) if permitted[row] else linked_to == []
        expected = {
            f"ImagingStudy/{study(other, number)}"
            for other in world.same(row)
            if permitted[row]
            for number in range(world.records[other][3])
        }
        assert set(asker.ids(f"ImagingStudy?patient={row + 1}")) == expected & studies
        withheld = 403 if any(permitted[one] for one in world.same(row)) else 404
        told = [
            asker.get(one).status_code
            for one in (f"Patient/{row + 1}", f"ImagingStudy/{study(row, 0)}")
        ]
        assert told == ([200, 200] if permitted[row] else [withheld, withheld])


def test_the_numbers_of_a_hospital_that_does_not_share_find_nothing_for_others(
    empty: tuple[Path, Ed25519PrivateKey], tmp_path: Path
) -> None:
    path = shutil.copy(empty[0], tmp_path)
    city = Region(Exchange(Database(f"sqlite:///{path}"), MemoryStore(), empty[1]))
    try:
        for code in CODES:
            city.register(code, sharing=code != CODES[0])
        alone: dict[str, Any] = {"card": CARDS[0], "PatientName": "Ouyang^Min=欧阳^敏"}
        city.send(CODES[0], patient="A1", study="1.2.1", instance="1.4.1", **alone)
        known: dict[str, Any] = {"card": CARDS[0], "PatientName": PERSONS[0]}
        city.send(CODES[1], patient="B1", study="1.2.2", instance="1.4.2", **known)
        city.identify()
        door = opened(city)
        owner, other = door.clinician(CODES[0]), door.clinician(CODES[2])
        number = f"urn:oid:{HOSPITALS[CODES[0]][1]}|A1"
        for asked in (
            f"Patient?identifier={number}",
            "Patient?identifier=A1",
            "Patient?name=ouyang",
            f"Patient?organization={CODES[0]}",
            "ImagingStudy?patient=1",
            "ImagingStudy?patient.identifier=A1",
            f"ImagingStudy?patient.identifier={number}",
            f"ImagingStudy?subject.identifier={number},nothing",
            f"ImagingStudy?patient.identifier={number}&modality=CT",
        ):
            for total in ("", "&_total=accurate"):
                bundle = other.bundle(f"{asked}{total}")
                assert (asked, bundle["total"], entries(bundle)) == (asked, 0, [])
            assert owner.bundle(asked)["total"] > 0
        shared = f"urn:oid:{HOSPITALS[CODES[1]][1]}|B1"
        assert other.ids(f"ImagingStudy?patient.identifier={shared}") == ["ImagingStudy/1.2.2"]
    finally:
        city.exchange.close()

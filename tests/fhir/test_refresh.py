"""What is kept of a study: derived by the worker, served as it lies, and never stale."""

from __future__ import annotations

import orjson
import pytest
from fhir_door import SHANGHAI, Door
from region import WORKER
from sqlalchemy import select, update

from exchange import documents, query
from exchange.documents import Document
from exchange.errors import Invalid, Refused
from exchange_fhir.refresh import refresh
from exchange_fhir.resources import imaging_study
from exchange_storage.records import ResourceVersion


def kept(door: Door) -> list[tuple[int, bool, bytes]]:
    with door.city.exchange.database.reading() as session:
        rows = session.scalars(select(ResourceVersion).order_by(ResourceVersion.version))
        return [(row.version, row.is_current, row.content) for row in rows]


def altered(door: Door) -> None:
    """The kept bytes say so when they are served."""
    with door.city.exchange.database.writing() as session:
        content = session.scalars(
            select(ResourceVersion.content).where(ResourceVersion.is_current)
        ).one()
        told = orjson.dumps(orjson.loads(content) | {"description": "from the kept bytes"})
        session.execute(
            update(ResourceVersion).where(ResourceVersion.is_current).values(content=told)
        )


def derived(version: int) -> Document:
    return Document(
        resource_type="ImagingStudy", resource_id="1.2.1", version=version, content=b"{}"
    )


def test_the_kept_bytes_are_served_as_they_lie(door: Door) -> None:
    door.city.send("beicheng", StudyDescription="胸部 CT")
    asker = door.clinician("nanhu")
    derived = asker.get("ImagingStudy/1.2.1")

    assert door.refresh() == 1

    ((version, is_current, content),) = kept(door)
    assert is_current
    assert content == derived.content
    assert derived.headers["etag"] == f'W/"{version}"'
    assert asker.get("ImagingStudy/1.2.1").content == derived.content
    altered(door)
    assert asker.read("ImagingStudy/1.2.1")["description"] == "from the kept bytes"
    (entry,) = asker.bundle("ImagingStudy")["entry"]
    assert entry["resource"]["description"] == "from the kept bytes"


def test_what_is_kept_is_not_served_once_the_study_has_changed(door: Door) -> None:
    door.city.send("beicheng")
    door.refresh()
    altered(door)
    asker = door.clinician("nanhu")

    door.city.send("beicheng", instance="1.4.2")

    told = asker.read("ImagingStudy/1.2.1")
    assert (told["numberOfInstances"], "description" in told) == (2, False)
    before = int(told["meta"]["versionId"])
    door.refresh()
    assert [(version, current) for version, current, _ in kept(door)][-1] == (before, True)
    assert sum(current for _, current, _ in kept(door)) == 1
    assert asker.read("ImagingStudy/1.2.1") == told


def test_refreshing_again_or_too_late_changes_nothing(door: Door) -> None:
    door.city.send("beicheng")
    door.refresh()
    door.refresh()
    door.refresh_study(999)
    ((version, _, content),) = kept(door)

    with door.city.exchange.on_behalf_of(WORKER) as access:
        documents.keep(access, [derived(version - 1)])

    assert kept(door) == [(version, True, content)]


def test_what_is_kept_is_the_same_for_every_asker(door: Door) -> None:
    door.city.send("beicheng")
    told = [door.clinician(code).read("ImagingStudy/1.2.1") for code in door.city.ids]
    door.refresh()
    told += [door.clinician(code).read("ImagingStudy/1.2.1") for code in door.city.ids]
    assert told == [told[0]] * 6


def test_only_the_exchange_itself_keeps_documents(door: Door) -> None:
    with (
        pytest.raises(Refused),
        door.city.exchange.on_behalf_of(door.city.clinician("nanhu")) as access,
    ):
        documents.keep(access, [derived(1)])
    assert kept(door) == []


def test_what_is_not_fhir_is_not_kept_and_the_error_tells_no_patient(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.city.send("beicheng")
    derived = imaging_study.to_fhir

    def broken(*given: object) -> dict[str, object]:
        return derived(*given) | {"status": ["王小东"]}  # type: ignore[arg-type]

    monkeypatch.setattr(imaging_study, "to_fhir", broken)

    with pytest.raises(Invalid, match="not valid at status") as caught:
        door.refresh_study(1)
    assert "王" not in str(caught.value)
    assert kept(door) == []


def test_studies_that_changed_together_are_derived_in_one_commit(door: Door) -> None:
    for at in range(3):
        door.city.send("beicheng", study=f"1.2.{at}", instance=f"1.4.{at}", patient=f"P{at}")
    asker = door.clinician("nanhu")
    derived = [asker.get(f"ImagingStudy/1.2.{at}").content for at in range(3)]
    with door.city.exchange.on_behalf_of(WORKER) as access:
        refresh(access, [1, 999, 3, 2], timezone=SHANGHAI)
    with door.city.exchange.database.reading() as session:
        rows = session.execute(
            select(ResourceVersion.resource_id, ResourceVersion.content).order_by(
                ResourceVersion.resource_id
            )
        ).all()
    assert [tuple(row) for row in rows] == [(f"1.2.{at}", derived[at]) for at in range(3)]


def test_a_page_of_studies_asks_for_their_contents_once(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(5):
        door.city.send("beicheng", study=f"1.2.{at}", instance=f"1.4.{at}")
    asked: list[int] = []
    contents = query.contents

    def counted(access: object, studies: list[query.Found]) -> object:
        asked.append(len(studies))
        return contents(access, studies)  # type: ignore[arg-type]

    monkeypatch.setattr(query, "contents", counted)
    asker = door.clinician("nanhu")

    asker.bundle("ImagingStudy")
    door.refresh_study(1)
    asker.bundle("ImagingStudy")
    assert asked == [5, 1, 4]

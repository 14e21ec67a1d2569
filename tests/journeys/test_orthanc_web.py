"""Orthanc's DICOMweb plug-in beside the exchange, as its client and as its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from images import ct
from real_parts import Orthanc
from region import ADMINISTRATOR, ID_CARD, WORKER
from sqlalchemy import select
from web_door import Door, empty

from exchange import jobs, routing
from exchange.routing import Rule
from exchange_dicom.forward import deliver
from exchange_storage.records import Study

OWN, OTHER = "1.2.826.2", "1.2.826.1"
"""Studies of one person: of nanhu, whose PACS is Orthanc, and of beicheng."""


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with empty(tmp_path / "exchange") as made:
        yield made


@pytest.fixture
def orthanc(door: Door, tmp_path: Path) -> Iterator[Orthanc]:
    """Knows the exchange as a DICOMweb server, at which it is nanhu's system."""
    home = tmp_path / "orthanc-home"
    (home / "storage").mkdir(parents=True)
    made = Orthanc(home, title="NANHU-PACS", peer=("EXCHANGE", 11112)).start()
    server = {"Url": door.root, "HttpHeaders": {"Authorization": "Bearer nanhu"}}
    try:
        made.rest("PUT", "/dicom-web/servers/exchange", server)
        yield made
    finally:
        made.stop()


def uploaded(orthanc: Orthanc, path: Path) -> str:
    """Nanhu's own image in Orthanc; its number there."""
    ct(path, patient="N7", study=OWN, card=ID_CARD)
    return str(orthanc.rest("POST", "/instances", path.read_bytes())["ID"])


def test_orthanc_stores_searches_and_retrieves_by_dicomweb(
    door: Door, orthanc: Orthanc, tmp_path: Path
) -> None:
    """What it gets of beicheng it gets under nanhu's number for the person."""
    number = uploaded(orthanc, tmp_path / "own.dcm")
    sent = orthanc.rest(
        "POST", "/dicom-web/servers/exchange/stow", {"Resources": [number], "Synchronous": True}
    )
    assert int(sent["InstancesCount"]) == 1
    ct(tmp_path / "other.dcm", patient="P1", study=OTHER, card=ID_CARD)
    assert door.send((tmp_path / "other.dcm").read_bytes()).status_code == 200
    door.city.identify()

    asked = {"Uri": "/studies", "Arguments": {"PatientID": "N7"}}
    found = orthanc.rest("POST", "/dicom-web/servers/exchange/qido", asked)
    assert sorted(str(one["0020000D"]["Value"]) for one in found) == [OTHER, OWN]

    fetched = orthanc.rest(
        "POST", "/dicom-web/servers/exchange/retrieve",
        {"Resources": [{"Study": OTHER}], "Synchronous": True},
    )  # fmt: skip
    assert fetched
    (there,) = orthanc.rest(
        "POST",
        "/tools/find",
        {"Level": "Study", "Query": {"StudyInstanceUID": OTHER}, "Expand": True},
    )
    assert there["PatientMainDicomTags"]["PatientID"] == "N7"


def test_a_route_leads_to_orthanc_by_stow_and_it_serves_what_it_was_sent(
    door: Door, orthanc: Orthanc, tmp_path: Path
) -> None:
    exchange = door.city.exchange
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        routing.add(access, "beicheng", Rule(name="on", url=orthanc.dicomweb))
    ct(tmp_path / "other.dcm", patient="P1", study=OTHER, card=ID_CARD)
    assert door.send((tmp_path / "other.dcm").read_bytes()).status_code == 200
    with exchange.database.reading() as session:
        row = session.scalars(select(Study.id).where(Study.study_instance_uid == OTHER)).one()
    with exchange.on_behalf_of(WORKER) as access:
        assert routing.plan(access, row) == 1
    for job in jobs.claim(exchange.database, [jobs.FORWARD]):
        deliver(
            exchange, WORKER, int(job.subject), calling="EXCHANGE",
            timezone=ZoneInfo("Asia/Shanghai"),
        )  # fmt: skip

    assert len(orthanc.rest("GET", "/instances")) == 1
    (told,) = orthanc.rest("GET", f"/dicom-web/studies/{OTHER}/metadata")
    assert told["0020000D"]["Value"] == [OTHER]

"""Orthanc as a hospital's PACS: store, find, move, get and storage commitment, both directions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from images import ct
from real_parts import LOOPBACK, Orthanc
from region import ADMINISTRATOR, ID_CARD, WORKER
from serving import Served, serving
from sqlalchemy import select, update

from exchange import jobs, organizations, retrieval, routing
from exchange.errors import NotFound, Unavailable
from exchange.organizations import Entity
from exchange_dicom import scu
from exchange_dicom.commitment import report
from exchange_dicom.forward import Credentials, deliver
from exchange_storage.records import Job, Study
from exchange_storage.search import Level

STUDY = "1.2.826.1"
PATIENCE = 60


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
def orthanc(served: Served, tmp_path: Path) -> Iterator[Orthanc]:
    """The PACS of nanhu, registered with the port at which it listens."""
    home = tmp_path / "orthanc"
    (home / "storage").mkdir(parents=True)
    made = Orthanc(home, title="NANHU-PACS", peer=("EXCHANGE", served.port))
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        entity = Entity(title="NANHU-PACS", address=LOOPBACK, port=made.dicom_port)
        organizations.add_entity(access, "nanhu", entity)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def uploaded(orthanc: Orthanc, folder: Path, **told: Any) -> str:
    """A CT slice in Orthanc; returns its Orthanc number."""
    path = folder / "own.dcm"
    ct(path, **({"patient": "N7", "study": "1.2.826.2", "card": ID_CARD} | told))
    return str(orthanc.rest("POST", "/instances", path.read_bytes())["ID"])


def from_beicheng(served: Served, folder: Path, count: int = 2) -> None:
    """Beicheng's PACS sends a study of the same person, by our own SCU."""
    for number in range(count):
        ct(folder / f"b{number}.dcm", patient="P1", study=STUDY, card=ID_CARD, number=number + 1)
    node = scu.Node(host=LOOPBACK, port=served.port, called="EXCHANGE", calling="BEICHENG")
    files = [one for one in scu.files(sorted(folder.glob("b*.dcm"))) if isinstance(one, scu.File)]
    assert [one.answer for one in scu.send(node, files) if not one.stored] == []


def has(served: Served, study: str) -> int:
    try:
        with served.city.exchange.on_behalf_of(served.city.system("nanhu")) as access:
            return len(retrieval.instances(access, study).instances)
    except NotFound:
        return 0


def test_orthanc_sends_and_finds_another_hospitals_study_by_its_own_number(
    served: Served, orthanc: Orthanc, tmp_path: Path
) -> None:
    orthanc.rest("POST", "/modalities/exchange/store", [uploaded(orthanc, tmp_path)])
    from_beicheng(served, tmp_path)
    assert has(served, "1.2.826.2") == 1

    query = orthanc.rest(
        "POST",
        "/modalities/exchange/query",
        {"Level": "Study", "Query": {"PatientID": "N7", "StudyInstanceUID": "", "PatientName": ""}},
    )["ID"]
    answers = [
        orthanc.rest("GET", f"/queries/{query}/answers/{one}/content?simplify")
        for one in orthanc.rest("GET", f"/queries/{query}/answers")
    ]

    assert {one["StudyInstanceUID"] for one in answers} == {STUDY, "1.2.826.2"}
    assert {one["PatientID"] for one in answers} == {"N7"}
    assert {one["PatientName"] for one in answers} == {"Wang^XiaoDong=王^小东"}


def test_orthanc_has_another_hospitals_images_moved_to_itself_under_its_own_number(
    served: Served, orthanc: Orthanc, tmp_path: Path
) -> None:
    orthanc.rest("POST", "/modalities/exchange/store", [uploaded(orthanc, tmp_path)])
    from_beicheng(served, tmp_path)
    orthanc.rest(
        "POST",
        "/modalities/exchange/move",
        {
            "Level": "Study",
            "Resources": [{"PatientID": "N7", "StudyInstanceUID": STUDY}],
            "TargetAet": "NANHU-PACS",
        },
    )
    studies = [orthanc.rest("GET", f"/studies/{one}") for one in orthanc.rest("GET", "/studies")]
    (moved,) = [one for one in studies if one["MainDicomTags"]["StudyInstanceUID"] == STUDY]
    assert moved["PatientMainDicomTags"]["PatientID"] == "N7"
    assert len(orthanc.rest("GET", f"/studies/{moved['ID']}/instances")) == 2


def test_orthanc_is_answered_for_what_it_has_sent(
    served: Served, orthanc: Orthanc, tmp_path: Path
) -> None:
    number = uploaded(orthanc, tmp_path)
    orthanc.rest("POST", "/modalities/exchange/store", [number])
    tags = orthanc.rest("GET", f"/instances/{number}/simplified-tags")
    asked = orthanc.rest(
        "POST",
        "/modalities/exchange/storage-commitment",
        {
            "DicomInstances": [
                {"SOPClassUID": tags["SOPClassUID"], "SOPInstanceUID": tags["SOPInstanceUID"]}
            ]
        },
    )["ID"]
    for job in jobs.claim(served.city.exchange.database, [jobs.COMMIT]):
        report(served.city.exchange, WORKER, int(job.subject), calling="EXCHANGE")
    deadline = time.monotonic() + PATIENCE
    told = {"Status": "Pending"}
    while told["Status"] == "Pending" and time.monotonic() < deadline:
        told = orthanc.rest("GET", f"/storage-commitment/{asked}")
    assert told["Status"] == "Success", told


def test_our_own_commands_store_find_and_move_at_orthanc(
    served: Served, orthanc: Orthanc, tmp_path: Path
) -> None:
    node = scu.Node(host=LOOPBACK, port=orthanc.dicom_port, called="NANHU-PACS", calling="EXCHANGE")
    scu.echo(node)
    ct(tmp_path / "new.dcm", patient="N8", study="1.2.826.8")
    files = [one for one in scu.files([tmp_path / "new.dcm"]) if isinstance(one, scu.File)]
    assert [one.stored for one in scu.send(node, files)] == [True]
    (match,) = scu.find(node, Level.STUDY, [("PatientID", "N8")])
    assert match.StudyInstanceUID == "1.2.826.8"
    (tmp_path / "got").mkdir()
    counts = list(scu.get(node, Level.STUDY, [("StudyInstanceUID", "1.2.826.8")], tmp_path / "got"))
    assert counts[-1].completed == 1
    assert len(list((tmp_path / "got").iterdir())) == 1
    # Orthanc sends what it is asked to send to us as a hospital's PACS does.
    counts = list(scu.move(node, Level.STUDY, [("StudyInstanceUID", "1.2.826.8")], "EXCHANGE"))
    assert (counts[-1].completed, counts[-1].failed) == (1, 0)
    assert has(served, "1.2.826.8") == 1


def test_a_route_by_stow_rs_waits_for_a_login_and_then_brings_all(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "storage").mkdir()
    cloud = Orthanc(
        tmp_path, title="CLOUD", peer=("EXCHANGE", served.port), login=("exchange", "long secret")
    )
    logins = tmp_path / "netrc"
    logins.touch()
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        routing.add(
            access, "beicheng", routing.Rule(name="cloud", modality="ct", url=cloud.dicomweb)
        )
    from_beicheng(served, tmp_path, 3)
    with served.city.exchange.database.reading() as session:
        row = session.scalars(select(Study.id)).one()
    with served.city.exchange.on_behalf_of(WORKER) as access:
        assert routing.plan(access, row) == 1

    def deliver_now() -> None:
        (job,) = jobs.claim(served.city.exchange.database, [jobs.FORWARD])
        try:
            deliver(
                served.city.exchange,
                WORKER,
                int(job.subject),
                calling="EXCHANGE",
                timezone=ZoneInfo("Asia/Shanghai"),
                credentials=Credentials(netrc=logins),
            )
        finally:
            jobs.postpone(served.city.exchange.database, job, 0)

    with pytest.raises(Unavailable, match="does not answer"):
        deliver_now()
    made_due(served)
    cloud.start()
    try:
        with pytest.raises(Unavailable, match="HTTP 401"):
            deliver_now()
        logins.write_text('machine 127.0.0.1 login exchange password "long secret"\n')
        deliver_now()
        (study,) = cloud.rest("GET", "/studies")
        assert cloud.rest("GET", f"/studies/{study}/statistics")["CountInstances"] == 3
        tags = cloud.rest("GET", f"/studies/{study}")
        assert tags["PatientMainDicomTags"]["PatientID"] == "P1"  # the hospital's own images
    finally:
        cloud.stop()
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (listed,) = routing.everything(access)
    assert (listed.waiting, listed.delivered) == (0, 1)


def made_due(served: Served) -> None:
    """Time has passed: what was put off is due now."""
    with served.city.exchange.database.writing() as session:
        session.execute(update(Job).values(due=datetime.now(UTC)))

"""A hospital's images go where its routes lead, and an order brings priors: whatever is down."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
import ready
from images import ct, data_set, rejection_note
from pydicom import FileMetaDataset, dcmread, dcmwrite
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage
from real_parts import LOOPBACK, PostgreSQL, ends_with_us, free_ports
from region import ADMINISTRATOR, ID_CARD, credit_code
from roles import eventually
from running import RunningExchange

from exchange import deliveries, organizations, routing
from exchange.organizations import Entity

STUDY = "1.2.826.1"
PATIENCE = 180


@pytest.fixture(params=["sqlite", "postgresql"])
def region(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningExchange]:
    """Two hospitals; that of the north has a workstation, that of the south takes priors."""
    told = {}
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        told["EXCHANGE_DATABASE_URL"] = ready.postgresql(server)
    made = RunningExchange(tmp_path, told)
    with made.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
        for at, code in enumerate(("north", "south")):
            organizations.register(
                access,
                code=code,
                name=code,
                credit_code=credit_code(f"1212000012345{at:04}"),
                issuer=f"2.25.{at + 1}",
                entities=[Entity(title=code.upper(), address=LOOPBACK)],
            )
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def storescp(folder: Path, port: int, title: str) -> Iterator[None]:
    """DCMTK's storage SCP, that listens: who calls before would wait a minute to try again."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        ends_with_us("storescp", "-od", str(folder), "+xa", "-aet", title, str(port))
    )
    try:
        eventually(lambda: listens(port), True)
        yield
    finally:
        process.terminate()
        process.wait(180)


def listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port)).close()
    except ConnectionRefusedError:
        return False
    return True


def until(true: Callable[[], bool], region: RunningExchange) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, region.log()
        time.sleep(0.2)


def waiting(region: RunningExchange) -> list[deliveries.Waiting]:
    with region.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
        return list(deliveries.waiting(access))


def got(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def images(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    for number in range(count):
        ct(folder / f"{number}.dcm", patient="P1", study=STUDY, number=number + 1, card=ID_CARD)
    return sorted(folder.iterdir())


def test_what_waits_for_a_node_that_is_down_survives_a_kill_and_arrives_once(
    region: RunningExchange, tmp_path: Path
) -> None:
    workstation, priors = free_ports(2)
    with region.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
        node = Entity(title="WS", address=LOOPBACK, port=workstation)
        organizations.add_entity(access, "north", node)
        node = Entity(title="PRIORS", address=LOOPBACK, port=priors, receives_priors=True)
        organizations.add_entity(access, "south", node)
        routing.add(access, "north", routing.Rule(name="reading", destination="WS"))
    sent = images(tmp_path / "sent", 3)
    assert region.storescu("NORTH", *sent).returncode == 0
    until(lambda: any(one.attempts for one in waiting(region)), region)
    (line,) = region.run("route", "waiting").stdout.splitlines()
    (told,) = json.loads(region.run("route", "waiting", "--json").stdout)
    assert (str(told["number"]), told["study_instance_uid"]) == (
        line.split("\t")[0],
        line.split("\t")[3],
    )
    assert line.split("\t")[2:5] == ["reading", STUDY, "north:WS"]
    assert "does not answer" in line

    region.kill()
    region.start()
    assert [one.route for one in waiting(region)] == ["reading"]

    at_the_workstation = tmp_path / "workstation"
    with storescp(at_the_workstation, workstation, "WS"):
        region.run("route", "retry")
        until(lambda: waiting(region) == [], region)
        assert len(got(at_the_workstation)) == 3
        for path in got(at_the_workstation):
            path.unlink()

        # An order of the other hospital brings them there, under its own number.
        region.run(
            "order", "add", "--organization", "south", "--accession", "A1", "--patient", "S7",
            "--name", "Wang^XiaoDong", "--birth-date", "19491231", "--sex", "F",
            "--id-card", ID_CARD, "--modality", "CT", "--date", "20261201",
        )  # fmt: skip
        with storescp(tmp_path / "priors", priors, "PRIORS"):
            region.run("route", "retry")
            until(lambda: len(got(tmp_path / "priors")) == 3 and waiting(region) == [], region)
            assert {dcmread(path).PatientID for path in got(tmp_path / "priors")} == {"S7"}

            # They are rejected: both hear of it, and nobody is sent the images again.
            note = tmp_path / "note.dcm"
            written(note, *(str(dcmread(path).SOPInstanceUID) for path in sent))
            assert region.storescu("NORTH", note).returncode == 0
            for folder in (at_the_workstation, tmp_path / "priors"):
                until(lambda folder=folder: bool(notes(folder)), region)  # type: ignore[misc]
    assert len(got(at_the_workstation)) == 1
    assert region.findscu("NORTH", "STUDY", f"StudyInstanceUID={STUDY}") == []
    assert region.run("audit", "verify").returncode == 0


def written(path: Path, *uids: str) -> None:
    """A rejection note for reasons of quality, as a file."""
    body = rejection_note("113001", *uids, study=STUDY)
    document = read_dataset(BytesIO(body), is_implicit_VR=False, is_little_endian=True)
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, document, enforce_file_format=True)
    assert data_set(path.read_bytes()) == body


def notes(folder: Path) -> list[Path]:
    """What of the files are rejection notes, written whole."""
    return [
        path
        for path in got(folder)
        if path.name.startswith("KO") or KeyObjectSelectionDocumentStorage in path.name
    ]

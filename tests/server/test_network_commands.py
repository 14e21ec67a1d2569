"""`exchange echo`, `send`, `query`, `move`, `get` and `commit` at other nodes: what they say."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import Authority
from images import ct
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    RTPlanStorage,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]
from real_parts import LOOPBACK, Part, free_port
from retrieving import workstation

from exchange_server.cli import main

STUDY = "1.2.826.1"
Command = Callable[..., str]


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Give a command; returns all that it says."""
    monkeypatch.setenv("EXCHANGE_LANGUAGE", "en")

    def typed(*arguments: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = "".join(capsys.readouterr())
        assert int(ended.value.code or 0) == status, said
        return said

    return typed


class Archive(Part):
    """DCMTK's dcmqrscp as ARCHIVE, which knows the node WS."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port, self.workstation = free_port(), free_port()

    def command(self) -> list[str]:
        (self.directory / "kept").mkdir(exist_ok=True)
        lines = (
            f"NetworkTCPPort = {self.port}",
            "MaxPDUSize = 16384",
            "MaxAssociations = 16",
            "HostTable BEGIN",
            f"ws = (WS, {LOOPBACK}, {self.workstation})",
            "HostTable END",
            "VendorTable BEGIN",
            "VendorTable END",
            "AETable BEGIN",
            f"ARCHIVE {self.directory / 'kept'} RW (9, 1024mb) ANY",
            "AETable END",
        )
        (self.directory / "dcmqrscp.cfg").write_text("\n".join(lines) + "\n")
        program = shutil.which("dcmqrscp")
        assert program is not None
        return [program, "-c", str(self.directory / "dcmqrscp.cfg")]

    def environment(self) -> dict[str, str]:
        return os.environ | {"TCP_NODELAY": "1"}

    def answers(self) -> bool:
        done = subprocess.run(
            ["echoscu", "-aec", "ARCHIVE", LOOPBACK, str(self.port)],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0


@dataclass(frozen=True, slots=True)
class Asked:
    """An archive, and our commands as a person gives them to it."""

    archive: Archive
    exchange: Command

    def __call__(self, command: str, *arguments: str, status: int = 0) -> str:
        address = f"{LOOPBACK}:{self.archive.port}"
        titles = ("--called", "ARCHIVE", "--calling", "BEICHENG")
        return self.exchange(command, address, *arguments, *titles, status=status)


@pytest.fixture
def asked(tmp_path: Path, exchange: Command) -> Iterator[Asked]:
    home = tmp_path / "archive"
    home.mkdir()
    archive = Archive(home)
    archive.start()
    try:
        yield Asked(archive, exchange)
    finally:
        archive.stop()


def study(folder: Path) -> set[str]:
    """A CT slice and a report on it, as files in `folder`; their SOP Instance UIDs."""
    image = ct(folder / "ct.dcm", patient="P1", study=STUDY)
    report = dcmread(str(get_testdata_file("reportsi.dcm")))
    report.PatientID, report.StudyInstanceUID = "P1", STUDY
    report.save_as(folder / "sr.dcm")
    return {str(image.SOPInstanceUID), str(report.SOPInstanceUID)}


KEY = ("--key", f"StudyInstanceUID={STUDY}")


def test_everything_can_be_asked_of_dcmtks_archive(asked: Asked, tmp_path: Path) -> None:
    sent = study(tmp_path / "sent")
    assert "answers" in asked("echo")
    assert "2 sent, 0 failed" in asked("send", str(tmp_path / "sent"))
    assert STUDY in asked("query", "--key", "PatientID=P1")

    (tmp_path / "got").mkdir()
    assert "2 done, 0 failed" in asked("get", str(tmp_path / "got"), *KEY)
    assert {dcmread(path).SOPInstanceUID for path in (tmp_path / "got").iterdir()} == sent


def test_files_go_as_they_are_or_without_loss_in_what_the_other_node_takes(
    exchange: Command, tmp_path: Path
) -> None:
    names = ("MR_small_RLE", "MR_small_implicit", "MR_small_bigendian", "MR_small_jp2klossless")
    paths = [str(get_testdata_file(f"{name}.dcm")) for name in names]
    with workstation("WS", ImplicitVRLittleEndian, RLELossless) as ws:
        node = (f"{LOOPBACK}:{ws.port}", *paths, "--called", "WS", "--calling", "BEICHENG")
        assert "4 sent, 0 failed" in exchange("send", *node)
    assert [one.file_meta.TransferSyntaxUID for one in ws.received] == [
        RLELossless,
        *[ImplicitVRLittleEndian] * 3,
    ]
    for path, image in zip(paths, ws.received, strict=True):
        assert (image.pixel_array == dcmread(path).pixel_array).all()

    with workstation("WS", RLELossless) as ws:
        node = (f"{LOOPBACK}:{ws.port}", *paths[:2], "--called", "WS", "--calling", "BEICHENG")
        told = exchange("send", *node, status=1)
    assert "1 sent, 1 failed" in told
    assert "no transfer syntax that the receiver takes can be made without loss" in told


def test_a_file_is_sent_as_what_its_data_set_is_and_its_file_meta_only_stands_in(
    exchange: Command, tmp_path: Path
) -> None:
    other = str(get_testdata_file("rtplan.dcm"))  # its file meta names another instance
    plan = dcmread(other)
    assert plan.SOPInstanceUID != plan.file_meta.MediaStorageSOPInstanceUID
    image = ct(tmp_path / "nameless.dcm", patient="P1", study=STUDY)
    nameless = dcmread(tmp_path / "nameless.dcm")
    del nameless.SOPInstanceUID, nameless.SOPClassUID
    nameless.save_as(tmp_path / "nameless.dcm")
    with workstation(
        "WS",
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        sop_classes=(RTPlanStorage, CTImageStorage),
    ) as ws:
        paths = (other, str(tmp_path / "nameless.dcm"))
        node = (f"{LOOPBACK}:{ws.port}", *paths, "--called", "WS", "--calling", "BEICHENG")
        assert "2 sent, 0 failed" in exchange("send", *node)
    told = [one.file_meta.MediaStorageSOPInstanceUID for one in ws.received]
    assert told == [plan.SOPInstanceUID, image.SOPInstanceUID]


def test_a_move_that_fails_in_part_names_what_did_not_go_and_why(
    asked: Asked, tmp_path: Path
) -> None:
    study(tmp_path / "sent")
    asked("send", str(tmp_path / "sent"))
    with workstation("WS", ExplicitVRLittleEndian, port=asked.archive.workstation) as ws:
        told = asked("move", "--to", "WS", *KEY, status=1)  # it takes no reports
    assert "1 done, 1 failed" in told
    assert "B000" in told
    assert len(ws.received) == 1


def test_what_is_refused_is_told_with_the_status_and_what_it_means(
    asked: Asked, tmp_path: Path
) -> None:
    study(tmp_path / "sent")
    asked("send", str(tmp_path / "sent"))
    assert "A801" in asked("move", "--to", "NOBODY", *KEY, status=1)
    assert "is not a keyword of PS3.6" in asked("query", "--key", "Patient=1", status=1)
    wrong = asked.exchange(
        *("echo", f"{LOOPBACK}:{asked.archive.port}"),
        *("--called", "OTHER", "--calling", "BEICHENG"),
        status=1,
    )
    assert "permanent, by its service-user): called AE title not recognized" in wrong


def test_commands_speak_tls_with_dcmtk_and_say_what_is_wrong_with_it(
    exchange: Command, tmp_path: Path
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    ws, own, stranger = authority.issue("ws"), authority.issue("own"), other.issue("stranger")
    port = free_port()

    class StoreSCP(Part):
        def command(self) -> list[str]:
            program = shutil.which("storescp")
            assert program is not None
            flags = ["+tls", str(ws.key), str(ws.certificate), "+cf", str(authority.certificate)]
            return [program, *flags, "-od", str(self.directory), "-aet", "WS", str(port)]

        def answers(self) -> bool:
            done = subprocess.run(
                ["echoscu", "+tls", str(own.key), str(own.certificate), "+cf",
                 str(authority.certificate), LOOPBACK, str(port)],
                capture_output=True, check=False,
            )  # fmt: skip
            return done.returncode == 0

    (tmp_path / "ws").mkdir()
    image = ct(tmp_path / "one.dcm", patient="P1", study=STUDY)
    node = (f"{LOOPBACK}:{port}", "--called", "WS", "--calling", "BEICHENG")
    trusting = ("--tls-ca", str(authority.certificate))
    shown = ("--tls-certificate", str(own.certificate), "--tls-key", str(own.key))
    server = StoreSCP(tmp_path / "ws")
    server.start()
    try:
        address, *titles = node
        sent = exchange("send", address, str(tmp_path / "one.dcm"), *titles, *trusting, *shown)
        assert "1 sent, 0 failed" in sent
        told = exchange("echo", *node, *trusting, status=1)
        assert "it may not accept our certificate" in told  # it wants one
        wrong = ("--tls-certificate", str(stranger.certificate), "--tls-key", str(stranger.key))
        assert "certificate" in exchange("echo", *node, *trusting, *wrong, status=1)
        told = exchange("echo", *node, "--tls-ca", str(other.certificate), *shown, status=1)
        assert "its certificate is not accepted" in told
        assert "wants --tls-ca" in exchange("echo", *node, *shown, status=1)
        for files, said in (
            ((*trusting, *shown[:2]), "no private key in it: --tls-key names the file"),
            ((*trusting, *shown[:3], str(stranger.key)), "--tls-key is not the key of"),
            ((*trusting, *shown[:3], str(own.certificate)), "a certificate and its key, in PEM"),
            (("--tls-ca", str(own.key), *shown), "--tls-ca is not a file of certificates"),
        ):
            assert said in exchange("echo", *node, *files, status=1)
    finally:
        server.stop()
    kept = [path for path in (tmp_path / "ws").iterdir() if path.name.startswith("CT")]
    assert [dcmread(path).SOPInstanceUID for path in kept] == [image.SOPInstanceUID]


@contextmanager
def takes_requests_alone(listening: int | None = None) -> Iterator[str]:
    """A node that takes requests for storage commitment and brings no report: where it is. At the
    port, if one is given, it calls and says nothing."""
    entity, called = AE("ARCHIVE"), AE("ARCHIVE")
    entity.add_supported_context(StorageCommitmentPushModel)
    called.add_requested_context(StorageCommitmentPushModel)
    calls: list[Association] = []

    def take(_: Event) -> tuple[int, None]:
        if listening is not None:
            calls.append(called.associate(LOOPBACK, listening))
        return 0x0000, None

    server = entity.start_server(
        (LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, take)]
    )
    assert server is not None
    try:
        yield f"{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        for call in calls:
            call.abort()


def test_who_is_brought_no_commitment_report_is_told_how_it_may_come(
    exchange: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study(tmp_path / "sent")
    port = free_port()
    given = (str(tmp_path / "sent"), "--wait", "1")
    with takes_requests_alone() as address:
        same = exchange("commit", address, *given, status=1)
    with takes_requests_alone(port) as address:
        own = exchange("commit", address, *given, "--listen", str(port), status=1)
    assert "brought no report over the same association" in same
    assert "--listen PORT" in same
    assert f"brought no report to port {port}" in own
    assert "--wait SECONDS" in own
    warned = [one for one in caplog.records if one.name.startswith("exchange_dicom")]
    assert [one.getMessage() for one in warned if one.levelno >= logging.WARNING] == []

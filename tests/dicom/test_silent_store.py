"""The object store has stopped in the middle of the day: whoever retrieves is told, and soon."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import urllib3
from real_parts import SeaweedFS
from retrieving import STUDY, asked, get, known_at_two_hospitals, listens, move, workstation
from serving import serving

from exchange_storage import s3
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.s3 import S3Store
from exchange_storage.spool import SpooledStore

NONE_DONE = 0xA702


def test_of_a_study_whose_store_has_stopped_one_image_finds_out_and_all_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "s3"
    place.mkdir()
    server = SeaweedFS(place).start()
    assert server.process
    address = server.address
    remote = S3Store.connect(
        address.endpoint,
        address.access_key,
        address.secret_key,
        "exchange",
        secure=False,
        staging=tmp_path / "staging",
    )
    objects = SpooledStore(FilesystemStore(tmp_path / "spool"), remote)
    waited: list[Exception] = []
    not_heard = s3._Server.not_heard

    def noted(self: s3._Server, since: float, error: Exception) -> None:
        waited.append(error)
        not_heard(self, since, error)

    try:
        with serving(tmp_path, objects=objects) as served, workstation("NANHU-WS") as ws:
            known_at_two_hospitals(served, tmp_path, 6)
            served.city.exchange.objects.put_down()
            objects.drain()
            assert objects.waiting() == 0
            listens(served, "nanhu", "NANHU-WS", ws.port)
            monkeypatch.setattr(s3, "READING", urllib3.Timeout(connect=5, read=0.5))
            monkeypatch.setattr(s3, "SILENT_SECONDS", 600.0)
            monkeypatch.setattr(s3._Server, "not_heard", noted)
            os.kill(server.process.pid, signal.SIGSTOP)
            wanted = asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
            moved = move(served, "NANHU", "NANHU-WS", wanted)
            got, received = get(served, "NANHU", wanted)
            os.kill(server.process.pid, signal.SIGCONT)
        for final, listed in (moved[-1], got[-1]):
            assert (final.Status, final.NumberOfFailedSuboperations) == (NONE_DONE, 6)
            assert listed is not None
            assert len(listed.FailedSOPInstanceUIDList) == 6
        assert received == ws.received == []
        assert len(waited) == 1
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
        server.stop()

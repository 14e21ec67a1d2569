"""What was promised to a PACS comes, whatever happened meanwhile: reports and notifications."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caller import CT, SUCCESS, calling, image
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from real_parts import LOOPBACK, free_port
from roles import PATIENCE, eventually, small_exchange
from running import RunningExchange

from exchange_dicom.contexts import (
    INSTANCE_AVAILABILITY_NOTIFICATION,
    STORAGE_COMMITMENT_INSTANCE,
    STORAGE_COMMITMENT_PUSH,
)

ALL_COMMITTED = 1


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[RunningExchange]:
    made = small_exchange(tmp_path, {})
    try:
        yield made
    finally:
        made.kill()


def test_a_commitment_and_a_notification_come_after_every_process_was_killed(
    exchange: RunningExchange,
) -> None:
    port = free_port()
    exchange.run("organization", "remove-ae", "beicheng", f"BEICHENG@{LOOPBACK}")
    exchange.run(
        "organization", "add-ae", "beicheng", f"BEICHENG@{LOOPBACK}:{port}", "--availability"
    )
    exchange.start()
    with calling(exchange.dimse_port) as pacs:
        assert pacs.store(image(), "1.4.1").status == SUCCESS
    asked, item = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, "1.4.1"
    asked.TransactionUID, asked.ReferencedSOPSequence = generate_uid(), [item]
    entity = AE("BEICHENG")
    entity.add_requested_context(STORAGE_COMMITMENT_PUSH)
    association = entity.associate(LOOPBACK, exchange.dimse_port, ae_title="EXCHANGE")
    status, _ = association.send_n_action(
        asked, 1, STORAGE_COMMITMENT_PUSH, STORAGE_COMMITMENT_INSTANCE
    )
    assert status.Status == SUCCESS
    association.release()
    exchange.kill()
    exchange.start()

    told: dict[str, Dataset] = {}
    committed, notified = threading.Event(), threading.Event()

    def take_report(event: Any) -> tuple[int, None]:
        assert event.event_type == ALL_COMMITTED
        told["report"] = event.event_information
        committed.set()
        return SUCCESS, None

    def take_notification(event: Any) -> tuple[int, Dataset]:
        told["notification"] = event.attribute_list
        notified.set()
        return SUCCESS, Dataset()

    listening = AE("BEICHENG")
    listening.add_supported_context(STORAGE_COMMITMENT_PUSH, scu_role=True, scp_role=True)
    listening.add_supported_context(INSTANCE_AVAILABILITY_NOTIFICATION)
    server = listening.start_server(
        (LOOPBACK, port),
        block=False,
        evt_handlers=[
            (evt.EVT_N_EVENT_REPORT, take_report),
            (evt.EVT_N_CREATE, take_notification),
        ],
    )
    assert server is not None
    try:
        assert committed.wait(PATIENCE)
        assert notified.wait(PATIENCE)
        # A report's answer goes out in a thread of its own, after all that its handler does.
        eventually(lambda: server.active_associations, [])
    finally:
        server.shutdown()
    assert told["report"].TransactionUID == asked.TransactionUID
    assert told["notification"].StudyInstanceUID == "1.2.1"

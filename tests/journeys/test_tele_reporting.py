"""A hospital has its images reported on elsewhere: the worklist goes there, and the news come back.

Over two processes that serve HTTP, so that what one of them is told the other one tells.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browsing import chromium, visitor
from region import ADMINISTRATOR, credit_code
from running import PASSWORD, RunningExchange
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin
from worklist_door import elements, new_uid, performed, performer, step

from exchange import organizations, users
from exchange.policy import Role
from exchange_dicom.media_types import DICOM_JSON

GLOBAL = "1.2.840.10008.5.1.4.34.5"
JSON = {"Content-Type": DICOM_JSON}


@pytest.fixture(scope="module")
def reporting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    """Two hospitals that share, each with an information system and one with a radiologist."""
    made = RunningExchange(tmp_path_factory.mktemp("reporting"), {"EXCHANGE_WEB_PROCESSES": "2"})
    with made.opened() as exchange, exchange.on_behalf_of(ADMINISTRATOR) as access:
        for code, name, issuer in (("bc", "北城医院", "2.25.101"), ("nh", "南湖医院", "2.25.102")):
            organizations.register(
                access,
                code=code,
                name=name,
                credit_code=credit_code(f"121200001234500{issuer[-2:]}"),
                issuer=issuer,
                entities=[],
            )
        for name, code, role in (
            ("ris.bc", "bc", Role.SYSTEM),
            ("ris.nh", "nh", Role.SYSTEM),
            ("dr.nh", "nh", Role.CLINICIAN),
        ):
            users.add(
                access,
                name=name,
                display_name=name,
                role=role,
                organization=code,
                password=PASSWORD,
            )
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def listening(reporting: RunningExchange, title: str, name: str) -> Iterator[ClientConnection]:
    url = f"ws{reporting.url.removeprefix('http')}/dicom-web/ws/subscribers/{title}"
    headers = {"Authorization": f"Bearer {reporting.token(name)}"}
    with connect(url, additional_headers=headers, proxy=None) as socket:
        yield socket


def reported(socket: ClientConnection) -> tuple[int, str]:
    """Event type, and the state where it tells one."""
    told = json.loads(socket.recv(timeout=120))
    return told["00001002"]["Value"][0], told.get("00741000", {}).get("Value", [""])[0]


def test_a_study_is_reported_on_in_another_hospital(reporting: RunningExchange) -> None:
    uid = new_uid()
    with (
        reporting.web("ris.bc") as sender,
        reporting.web("dr.nh") as reader,
        reporting.web("ris.nh") as ris,
    ):
        subscribers = f"/dicom-web/workitems/{GLOBAL}/subscribers"
        assert ris.post(f"{subscribers}/NH_RIS").status_code == 201
        with (
            listening(reporting, "NH_RIS", "ris.nh") as there,
            listening(reporting, "NH_RIS", "ris.nh") as again,
        ):
            body = step(ScheduledHumanPerformersSequence=[performer("南湖医院")])
            answer = sender.post(f"/dicom-web/workitems?{uid}", json=body, headers=JSON)
            assert answer.status_code == 201, answer.text
            for socket in (there, again):
                assert reported(socket) == (1, "SCHEDULED")
                assert reported(socket) == (5, "")

        answer = sender.post(f"/dicom-web/workitems/{uid}/subscribers/BC_RIS?deletionlock=true")
        assert answer.status_code == 201
        with listening(reporting, "BC_RIS", "ris.bc") as back:
            assert reported(back) == (1, "SCHEDULED")
            state = f"/dicom-web/workitems/{uid}/state"
            lock = elements(TransactionUID="2.25.1")
            claimed = elements(ProcedureStepState="IN PROGRESS") | lock
            assert reader.put(state, json=claimed, headers=JSON).status_code == 200
            assert reported(back) == (1, "IN PROGRESS")
            path = f"/dicom-web/workitems/{uid}?2.25.1"
            assert reader.post(path, json=performed(), headers=JSON).status_code == 200
            done = elements(ProcedureStepState="COMPLETED") | lock
            assert reader.put(state, json=done, headers=JSON).status_code == 200
            assert reported(back) == (1, "COMPLETED")
        (told,) = sender.get(f"/dicom-web/workitems/{uid}").json()
        assert told["00741216"]["Value"]


OPENED = """([address]) => new Promise((told) => {
    const socket = new WebSocket(address);
    socket.onmessage = (message) => { socket.close(); told(message.data); };
    socket.onerror = () => told("refused");
})"""
"""What a page hears first over a notification connection."""


def test_a_page_of_ours_listens_and_one_from_elsewhere_does_not(
    reporting: RunningExchange, tmp_path: Path
) -> None:
    """Browsers send the session's cookie to every port of a host: it is the Origin that tells."""
    uid = new_uid()
    body = step(ScheduledHumanPerformersSequence=[performer("南湖医院")])
    with reporting.web("ris.bc") as sender:
        answer = sender.post(f"/dicom-web/workitems?{uid}", json=body, headers=JSON)
        assert answer.status_code == 201
    channel = f"ws{reporting.url.removeprefix('http')}/dicom-web/ws/subscribers/DESK"
    (tmp_path / "page.html").write_text("<title>elsewhere</title>")
    quiet = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), quiet)
    serving = threading.Thread(target=elsewhere.serve_forever)
    serving.start()
    try:
        with chromium() as browser, visitor(browser, reporting.url) as context:
            page = context.new_page()
            page.goto("/portal/sign-in")
            page.fill("#name", "dr.nh")
            page.fill("#password", PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_url("**/portal/search*")
            subscribed = page.evaluate(
                "(path) => fetch(path, {method: 'POST'}).then((answer) => answer.status)",
                f"/dicom-web/workitems/{uid}/subscribers/DESK",
            )
            assert subscribed == 201
            assert uid in page.evaluate(OPENED, [channel])

            page.goto(f"http://127.0.0.1:{elsewhere.server_port}/page.html")
            assert page.evaluate(OPENED, [channel]) == "refused"
            cookies = "; ".join(f"{one['name']}={one['value']}" for one in context.cookies())
    finally:
        elsewhere.shutdown()
        serving.join()
        elsewhere.server_close()
    shown = {"Cookie": cookies}
    for origin in (Origin("https://elsewhere.example"), Origin("null")):
        with pytest.raises(InvalidStatus) as refused:
            connect(channel, additional_headers=shown, origin=origin, proxy=None)
        assert refused.value.response.status_code == 401


def test_who_watches_is_told_that_the_exchange_goes_down_and_is_back(
    reporting: RunningExchange,
) -> None:
    """The last in this file: it ends the exchange of all of them, and starts it again."""
    with reporting.web("ris.bc") as ris:
        there = f"/dicom-web/workitems/{GLOBAL}/subscribers/BC_RIS"
        assert ris.post(there).status_code == 201

    def status(socket: ClientConnection) -> str:
        while True:
            told = json.loads(socket.recv(timeout=120))
            if told["00001002"]["Value"] == [4]:
                return str(told["00741242"]["Value"][0])

    with listening(reporting, "BC_RIS", "ris.bc") as socket:
        ending = threading.Thread(target=reporting.stop)
        ending.start()
        assert status(socket) == "GOING DOWN"
        with pytest.raises(ConnectionClosed):
            status(socket)
        ending.join()
    reporting.start()
    with listening(reporting, "BC_RIS", "ris.bc") as socket:
        assert status(socket) == "RESTARTED"

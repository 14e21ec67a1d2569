"""Workitems as somebody sends them to the web door, and subscribers that listen."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx2
from pydicom.dataset import Dataset
from web_door import Door
from websockets.sync.client import ClientConnection, connect

from exchange_dicom.media_types import DICOM_JSON

_numbers = itertools.count(1)


def new_uid() -> str:
    return f"2.25.9{next(_numbers)}"


def code(value: str, scheme: str = "99CITY", meaning: str = "x") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def performer(organization: str = "", name: str = "") -> Dataset:
    item = Dataset()
    item.HumanPerformerOrganization = organization
    item.HumanPerformerName = name
    return item


def step(**told: Any) -> dict[str, Any]:
    """A workitem as DICOM JSON: what PS3.4 wants of one, and `told`; None leaves out."""
    data = Dataset()
    for keyword, value in {
        "ProcedureStepState": "SCHEDULED",
        "ScheduledProcedureStepPriority": "MEDIUM",
        "ProcedureStepLabel": "CT胸部诊断",
        "WorklistLabel": "READING",
        "ScheduledProcedureStepStartDateTime": "20261126103000",
        "InputReadinessState": "READY",
        "ScheduledWorkitemCodeSequence": [code("110005", "DCM", "Interpretation")],
        "StudyInstanceUID": "1.2.840.99.1",
        "PatientID": "P1",
        "PatientName": "Wang^XiaoDong=王^小东",
        "PatientBirthDate": "19491231",
        "PatientSex": "F",
        **told,
    }.items():
        if value is not None:
            setattr(data, keyword, value)
    return dict(json.loads(data.to_json()))


def elements(**told: Any) -> dict[str, Any]:
    data = Dataset()
    for keyword, value in told.items():
        setattr(data, keyword, value)
    return dict(json.loads(data.to_json()))


def performed(**left_out: None) -> dict[str, Any]:
    """What a performed procedure needs before the step is completed, but what is left out."""
    item = Dataset()
    item.PerformedStationNameCodeSequence = [code("ST1")]
    item.PerformedProcedureStepStartDateTime = "20261126110000"
    item.PerformedWorkitemCodeSequence = [code("110005", "DCM", "Interpretation")]
    item.PerformedProcedureStepEndDateTime = "20261126111500"
    for keyword in left_out:
        delattr(item, keyword)
    return elements(UnifiedProcedureStepPerformedProcedureSequence=[item])


def sent(
    door: Door, path: str, body: Any = None, who: str = "beicheng", method: str = "POST"
) -> httpx2.Response:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
    return door.http.request(
        method,
        f"{door.root}/{path}",
        content=content,
        headers={"Authorization": f"Bearer {who}", "Content-Type": DICOM_JSON},
    )


def created(door: Door, who: str = "beicheng", **told: Any) -> str:
    uid = new_uid()
    answer = sent(door, f"workitems?{uid}", step(**told), who)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"{door.root}/workitems/{uid}"
    return uid


def to_state(
    door: Door, uid: str, state: str, transaction: str = "2.25.1", who: str = "beicheng"
) -> httpx2.Response:
    told = elements(ProcedureStepState=state)
    if transaction:
        told |= elements(TransactionUID=transaction)
    return sent(door, f"workitems/{uid}/state", told, who, "PUT")


def change(
    door: Door, uid: str, transaction: str = "", who: str = "beicheng", **told: Any
) -> httpx2.Response:
    query = f"?{transaction}" if transaction else ""
    return sent(door, f"workitems/{uid}{query}", elements(**told), who)


def read(door: Door, uid: str, who: str = "beicheng") -> Dataset:
    answer = door.get(f"workitems/{uid}", who)
    assert answer.status_code == 200, answer.text
    (told,) = answer.json()
    return Dataset.from_json(told)


def warning(answer: httpx2.Response) -> str:
    """The words of the one Warning header field."""
    (told,) = answer.headers.get_list("Warning")
    prefix, _, words = told.partition(": ")
    assert prefix.startswith("299 http")
    return str(words)


def subscribe(
    door: Door, title: str, uid: str, who: str = "beicheng", **query: str
) -> httpx2.Response:
    parameters = "&".join(f"{name}={quote(value)}" for name, value in query.items())
    path = f"workitems/{uid}/subscribers/{quote(title)}" + "?" * bool(parameters) + parameters
    return sent(door, path, who=who)


@contextmanager
def listening(door: Door, title: str, who: str = "beicheng") -> Iterator[ClientConnection]:
    """A subscriber's notification connection."""
    address = f"ws{door.root.removeprefix('http')}/ws/subscribers/{quote(title)}"
    headers = {"Authorization": f"Bearer {who}"}
    with connect(address, additional_headers=headers, proxy=None, compression=None) as socket:
        yield socket


def event(socket: ClientConnection) -> dict[str, Any]:
    """The next event report: its attributes by keyword, those of commands too."""
    told = json.loads(socket.recv(timeout=120))
    command = {tag: told.pop(tag)["Value"][0] for tag in list(told) if tag < "00080000"}
    report = Dataset.from_json(told)
    return {
        "type": command["00001002"],
        "workitem": command["00001000"],
        "message": command["00000110"],
        "class": command["00000002"],
        **{one.keyword: one.value for one in report},
    }


def states(socket: ClientConnection, count: int) -> list[tuple[str, str]]:
    """So many state reports, as workitem and state."""
    found = [event(socket) for _ in range(count)]
    assert {one["type"] for one in found} == {1}
    return [(one["workitem"], one["ProcedureStepState"]) for one in found]


def is_silent(
    door: Door, socket: ClientConnection, title: str, who: str = "beicheng", *, to_all: bool = False
) -> bool:
    """Nothing came: the next reports are those of a workitem made to be reported.

    `to_all` says that the subscriber is subscribed to its hospital's worklist already.
    """
    marker = created(door, who)
    assert subscribe(door, title, marker, who).status_code == 201
    return [event(socket)["workitem"] for _ in range(1 + to_all)] == [marker] * (1 + to_all)

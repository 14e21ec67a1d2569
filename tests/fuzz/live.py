"""Damaged conversations with a node in a process of its own, and whether it is well afterwards."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from accidents import changed
from caller import CT, EXPLICIT, IMPLICIT, STUDY_FIND, SUCCESS, VERIFICATION, Caller, image, value
from pydicom import Dataset
from pynetdicom.dsutils import encode
from real_parts import LOOPBACK
from roles import Role, small_exchange
from target import Finding

from exchange_dicom import contexts, dimse
from exchange_dicom.dimse import CommandField
from exchange_dicom.pdu import (
    COMMAND,
    LAST,
    RELEASE_RQ,
    AssociateRequest,
    ProposedContext,
    RoleSelection,
    UserInformation,
)

KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
NAME = "Wang^XiaoDong=王^小东"

PATIENCE = 180
"""Seconds within which a node has let go of what the callers before cost it."""

SETTINGS = {
    "EXCHANGE_DIMSE_ARTIM_TIMEOUT": "2",
    "EXCHANGE_DIMSE_NETWORK_TIMEOUT": "5",
    "EXCHANGE_DIMSE_PDU_TIMEOUT": "5",
}
STILL = 10
"""Looks, a quarter of a second apart, that see the same."""

WARM = 60
"""Conversations before threads and files are counted."""

ECHO_EACH = 50
"""Conversations after each of which a sound caller is served as ever."""

INSTANCES = 50
"""Different ones that are sent: what they are asked for is not to take longer and longer."""

THREADS, FILES, ROOM = 4, 32, 64 << 20
"""By which the node may grow while it is talked to: its pools fill, of threads that keep objects,
of connections with the index, of open directories. A caller that left one behind would not be the
only one; and it would be aborted after seconds."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a sender asks for, in an Explicit VR Little Endian context of `abstract_syntax`."""

    abstract_syntax: str
    command: bytes
    data: bytes | None = None


@cache
def operations(number: int) -> list[Operation]:
    """One of each that the node has; `number` makes the UIDs of what is stored."""
    instance, step = f"1.5.{number}", f"1.6.{number}"
    asked: list[tuple[CommandField, str, str, bytes | Dataset]] = [
        (CommandField.C_FIND_RQ, contexts.PATIENT_ROOT_FIND, "", _question("PATIENT")),
        (CommandField.C_FIND_RQ, STUDY_FIND, "", _question("STUDY")),
        (CommandField.C_MOVE_RQ, contexts.STUDY_ROOT_MOVE, "", _question("STUDY")),
        (CommandField.C_GET_RQ, contexts.STUDY_ROOT_GET, "", _question("STUDY")),
        (CommandField.C_FIND_RQ, contexts.MODALITY_WORKLIST_FIND, "", _worklist()),
        (CommandField.N_CREATE_RQ, contexts.PERFORMED_PROCEDURE_STEP, step, _begun()),
        (CommandField.N_SET_RQ, contexts.PERFORMED_PROCEDURE_STEP, step, _ended()),
        (
            CommandField.N_ACTION_RQ,
            contexts.STORAGE_COMMITMENT_PUSH,
            contexts.STORAGE_COMMITMENT_INSTANCE,
            _commitment(number),
        ),
        (CommandField.C_STORE_RQ, CT, instance, image(instance=instance)),
        (CommandField.C_STORE_RQ, KEY_OBJECT, f"{instance}.1", _note(f"{instance}.1")),
    ]
    made = [
        Operation(
            model,
            dimse.request(
                message,
                at + 1,
                model,
                named,
                data_set_present=True,
                move_destination="BEICHENG" if message is CommandField.C_MOVE_RQ else "",
                action_type=1 if message is CommandField.N_ACTION_RQ else None,
            ),
            data if isinstance(data, bytes) else _encoded(data),
        )
        for at, (message, model, named, data) in enumerate(asked)
    ]
    step_read = dimse.request(
        CommandField.N_GET_RQ,
        20,
        contexts.PERFORMED_PROCEDURE_STEP_RETRIEVE,
        step,
        attribute_identifiers=(0x00100010,),
    )
    echo = dimse.request(CommandField.C_ECHO_RQ, 21, VERIFICATION)
    return [
        *made,
        Operation(contexts.PERFORMED_PROCEDURE_STEP_RETRIEVE, step_read),
        Operation(VERIFICATION, echo),
    ]


@cache
def request() -> bytes:
    """An A-ASSOCIATE-RQ for all of them."""
    models = dict.fromkeys(one.abstract_syntax for one in operations(0))
    return AssociateRequest(
        called_ae="EXCHANGE",
        calling_ae="BEICHENG",
        contexts=tuple(
            ProposedContext(2 * at + 1, model, (EXPLICIT, IMPLICIT))
            for at, model in enumerate(models)
        ),
        user=UserInformation(
            implementation_class_uid="1.2.3",
            roles=(RoleSelection(CT, scu=True, scp=True),),
            extended={STUDY_FIND: b"\1\1\1"},
        ),
    ).encode()


def said(operation: Operation, chance: random.Random) -> bytes:
    """The operation as PDUs; accidents befall its data set, its command set or the PDUs."""
    models = list(dict.fromkeys(one.abstract_syntax for one in operations(0)))
    context = 2 * models.index(operation.abstract_syntax) + 1
    command, data = operation.command, operation.data
    others = [one.data for one in operations(0) if one.data]
    where = chance.randrange(4)
    if where == 0:
        command = changed(command, chance, [command])[:60000]
    elif where in (1, 2) and data is not None:
        data = changed(data, chance, others)
    parts = [value(context, COMMAND | LAST, command)]
    if data is not None:
        cut = chance.randrange(len(data) + 1)
        parts += [value(context, 0, data[:cut]), value(context, LAST, data[cut:])]
    whole = b"".join(parts)
    return changed(whole, chance, [whole]) if where == 3 else whole


def converse(home: Path, count: int, seed: int, told: Callable[[str], None]) -> list[Finding]:
    """Talk to a node `count` times, and look how it is: see the module's docstring of `fuzz`."""
    exchange = small_exchange(home, SETTINGS)
    node = Role(exchange, "node")
    node.start()
    try:
        found = list(_talk(node, exchange.dimse_port, count, seed, told))
    finally:
        node.stop()
    log = node.log()
    for sign in ("handler failed", "Traceback", "XiaoDong", "王", "\\u738b"):
        if sign in log:
            at = log.index(sign)
            found.append(
                Finding("live", count, f"{sign!r} in the log: {log[at - 300 : at + 3000]}")
            )
    return found


def _talk(
    node: Role, port: int, count: int, seed: int, told: Callable[[str], None]
) -> list[Finding]:
    found: list[Finding] = []
    before: tuple[int, int, int] | None = None
    for number in range(count + WARM):
        chance = random.Random(f"{seed} live {number}")
        with contextlib.suppress(OSError):
            _converse(port, number, chance)
        if number == WARM:
            before = _settled(node)
        if number % ECHO_EACH == 0 and (wrong := _served(port, number)):
            found.append(Finding("live", number, wrong))
            break
        if number % 1000 == 999:
            told(f"live: {number + 1} conversations, (threads, files, bytes) {_held(node)}")
    if before is None:
        return found
    after = _settled(node)
    told(f"live: (threads, files, bytes) were {before}, are {after}")
    if after[0] > before[0] + THREADS or after[1] > before[1] + FILES:
        found.append(Finding("live", count, f"threads, files left: {before} {after}"))
    if after[2] > before[2] + ROOM:
        found.append(Finding("live", count, f"memory: {before} {after}"))
    return found


def _converse(port: int, number: int, chance: random.Random) -> None:
    """One association; its request may be damaged, or what is asked in it."""
    asked = request()
    with socket.create_connection((LOOPBACK, port), PATIENCE) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if chance.random() < 0.1:
            asked = changed(asked, chance, [asked])
        peer.sendall(asked)
        chosen = chance.choice(operations(number % INSTANCES))
        peer.sendall(said(chosen, chance))
        if chance.random() < 0.5:
            peer.sendall(RELEASE_RQ)
        match chance.randrange(8):
            case 0:  # gone without a word
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            case 1:  # gone, and does not wait for the answer
                return
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass


def _served(port: int, number: int) -> str:
    """What is wrong with how a sound caller is served; "" if nothing is."""
    instance = f"1.7.{number}"
    try:
        with Caller(port) as pacs:
            if pacs.echo() != SUCCESS:
                return "no echo"
            status = pacs.store(image(instance=instance, study="1.2.7"), instance).status
            pacs.release()
    except Exception as error:  # whatever it is, it is what was looked for
        return f"a sound caller met {error!r}"
    return "" if status == SUCCESS else f"a sound image was answered {status:04X}"


def _held(node: Role) -> tuple[int, int, int]:
    """Threads, open files and bytes of memory of the node."""
    assert node.process is not None
    process = Path(f"/proc/{node.process.pid}")
    status = (process / "status").read_text()
    memory = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir())), memory


def _settled(node: Role) -> tuple[int, int, int]:
    """What it holds as soon as that does not change any more."""
    deadline = time.monotonic() + PATIENCE
    last = _held(node)
    unchanged = 0
    while time.monotonic() < deadline and unchanged < STILL:
        time.sleep(0.25)
        now = _held(node)
        unchanged = unchanged + 1 if now[:2] == last[:2] else 0
        last = now
    return last


def _encoded(told: Dataset) -> bytes:
    written = encode(told, is_implicit_vr=False, is_little_endian=True)
    assert written is not None
    return written


def _question(level: str) -> Dataset:
    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.QueryRetrieveLevel = level
    asked.PatientName = "Wang*"
    asked.PatientID = "P1"
    asked.PatientBirthDate = "19400101-19501231"
    if level != "PATIENT":
        asked.StudyDate, asked.StudyTime = "20260101-", "0800-1200"
        asked.StudyInstanceUID = "1.2.1\\1.2.7"
        asked.ModalitiesInStudy = "CT"
    return asked


def _worklist() -> Dataset:
    step, asked = Dataset(), Dataset()
    step.ScheduledStationAETitle = "CT1"
    step.ScheduledProcedureStepStartDate = "20261101-20261130"
    step.Modality = "CT"
    asked.SpecificCharacterSet = "GB18030"
    asked.PatientName = NAME
    asked.ScheduledProcedureStepSequence = [step]
    return asked


def _begun() -> Dataset:
    scheduled, step = Dataset(), Dataset()
    scheduled.StudyInstanceUID = "1.2.1"
    scheduled.AccessionNumber = "A1"
    step.SpecificCharacterSet = "ISO_IR 192"
    step.PerformedProcedureStepID = "1"
    step.PerformedStationAETitle = "CT1"
    step.PerformedProcedureStepStartDate, step.PerformedProcedureStepStartTime = "20261101", "1010"
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    step.Modality = "CT"
    step.PatientName, step.PatientID = NAME, "P1"
    step.ScheduledStepAttributesSequence = [scheduled]
    return step


def _ended() -> Dataset:
    reference, series, step = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.5.1"
    series.SeriesInstanceUID = "1.2.1.1"
    series.ReferencedImageSequence = [reference]
    step.PerformedProcedureStepStatus = "COMPLETED"
    step.PerformedProcedureStepEndDate, step.PerformedProcedureStepEndTime = "20261101", "1020"
    step.PerformedSeriesSequence = [series]
    return step


def _commitment(number: int) -> Dataset:
    reference, asked = Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.5.1"
    asked.TransactionUID = f"1.8.{number}"
    asked.ReferencedSOPSequence = [reference] * 3
    return asked


def _note(instance: str) -> Dataset:
    title, reference, series, study, note = (Dataset() for _ in range(5))
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113001", "DCM", "Rejected"
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.5.2"
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.1.1", [reference]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "1.2.1", [series]
    note.SpecificCharacterSet = "ISO_IR 192"
    note.SOPClassUID, note.SOPInstanceUID = KEY_OBJECT, instance
    note.StudyInstanceUID, note.SeriesInstanceUID = "1.2.1", "1.2.1.2"
    note.PatientName, note.PatientID, note.Modality = NAME, "P1", "KO"
    note.ConceptNameCodeSequence = [title]
    note.CurrentRequestedProcedureEvidenceSequence = [study]
    return note

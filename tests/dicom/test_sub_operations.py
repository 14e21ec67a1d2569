"""C-MOVE and C-GET, one sub-operation at a time: contexts, associations, counts, cancels."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from caller import (
    EXPLICIT,
    IMPLICIT,
    SUCCESS,
    Caller,
    Hung,
    calling,
    element,
    identifier,
    image,
    value,
)
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.filereader import read_dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)
from pynetdicom import AllStoragePresentationContexts
from real_parts import free_port
from region import WORKER
from retrieving import (
    STUDY,
    asked,
    get,
    known_at_two_hospitals,
    listens,
    move,
    outcomes,
    send,
    workstation,
)
from serving import Served, serving
from sqlalchemy import insert, select

from exchange import scrub
from exchange_dicom.contexts import PATIENT_ROOT_GET, PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE
from exchange_dicom.conversation import Limits
from exchange_dicom.dimse import (
    Command,
    CommandField,
    SubOperations,
    cancel_request,
    request,
    response,
)
from exchange_dicom.pdu import COMMAND, LAST, Abort, RoleSelection
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.records import Instance

DEFLATED = str(DeflatedExplicitVRLittleEndian)
CANCEL, SOME_FAILED, NONE_DONE, PENDING = 0xFE00, 0xB000, 0xA702, 0xFF00


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def of_one_patient(folder: Path) -> dict[str, Path]:
    """A CT and the same MR in three transfer syntaxes, all of one patient and study."""
    study, made = generate_uid(), {}
    for name in ("CT_small", "MR_small", "MR_small_RLE", "MR_small_jp2klossless"):
        one = dcmread(str(get_testdata_file(f"{name}.dcm")))
        one.PatientID, one.StudyInstanceUID, one.SeriesInstanceUID = "P1", study, generate_uid()
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        made[name] = folder / f"{name}.dcm"
        one.save_as(made[name])
    return made


# Presentation contexts


def test_one_association_has_a_context_for_everything_that_is_sent(
    served: Served, tmp_path: Path
) -> None:
    files = of_one_patient(tmp_path)
    send(served, "BEICHENG", *files.values())
    with workstation("BEICHENG-WS", JPEG2000Lossless, ExplicitVRLittleEndian) as ws:
        listens(served, "beicheng", "BEICHENG-WS", ws.port)
        (*_, (final, _)) = move(served, "BEICHENG", "BEICHENG-WS", asked("PATIENT", PatientID="P1"))

    assert (final.Status, final.NumberOfCompletedSuboperations) == (SUCCESS, 4)
    assert len(set(ws.associations)) == 1
    came = {one.SOPInstanceUID: one.file_meta.TransferSyntaxUID for one in ws.received}
    assert [came[dcmread(path).SOPInstanceUID] for path in files.values()] == [
        ExplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRLittleEndian,  # RLE is not taken: decompressed
        JPEG2000Lossless,  # as it is kept
    ]


def test_what_the_destination_does_not_take_fails_alone_and_is_said(
    served: Served, tmp_path: Path
) -> None:
    files = of_one_patient(tmp_path)
    send(served, "BEICHENG", *files.values())
    with workstation("BEICHENG-WS", RLELossless, sop_classes=[MRImageStorage]) as ws:
        listens(served, "beicheng", "BEICHENG-WS", ws.port)
        (*_, (final, listed)) = move(
            served, "BEICHENG", "BEICHENG-WS", asked("PATIENT", PatientID="P1")
        )

    assert final.Status == SOME_FAILED
    assert (final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (1, 3)
    assert "NumberOfRemainingSuboperations" not in final
    assert final.ErrorComment
    assert [one.SOPInstanceUID for one in ws.received] == [
        dcmread(files["MR_small_RLE"]).SOPInstanceUID
    ]
    assert listed is not None
    assert "SpecificCharacterSet" not in listed
    assert set(listed.FailedSOPInstanceUIDList) == {
        dcmread(path).SOPInstanceUID for name, path in files.items() if name != "MR_small_RLE"
    }


def test_more_kinds_than_an_association_has_contexts_take_another(served: Served) -> None:
    classes = [str(one.abstract_syntax) for one in AllStoragePresentationContexts[:70]]
    with Caller(served.port, *((one, (EXPLICIT,)) for one in classes)) as pacs:
        for number, one in enumerate(classes):
            instance = f"1.4.{number}"
            body = image(sop_class=one, instance=instance)
            assert pacs.store(body, instance, one).status == SUCCESS
        pacs.release()
    with workstation("BEICHENG-WS", sop_classes=classes) as ws:
        listens(served, "beicheng", "BEICHENG-WS", ws.port)
        (*_, (final, _)) = move(served, "BEICHENG", "BEICHENG-WS", asked("PATIENT", PatientID="P1"))
    assert (final.Status, final.NumberOfCompletedSuboperations) == (SUCCESS, 70)
    assert len(set(ws.associations)) == 2


# Parallel associations


@pytest.mark.parametrize("images", [9, 3])
@pytest.mark.parametrize("allowed", [10, 1])
def test_parallel_associations_share_the_work_also_where_some_are_rejected(
    tmp_path: Path, allowed: int, images: int
) -> None:
    with serving(tmp_path, Limits(move_associations=3)) as served:
        known_at_two_hospitals(served, tmp_path, images)
        everybody = threading.Barrier(3)
        with workstation("NANHU-WS", associations=allowed) as ws:
            if allowed > 1:  # each of the three has an image in hand at the same time
                ws.meanwhile = lambda: (everybody.wait(180), None)[1]
            listens(served, "nanhu", "NANHU-WS", ws.port)
            answers = move(
                served, "NANHU", "NANHU-WS", asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
            )
    final, _ = answers[-1]
    assert (final.Status, final.NumberOfCompletedSuboperations) == (SUCCESS, images)
    assert len({one.SOPInstanceUID for one in ws.received}) == len(ws.received) == images
    assert len(set(ws.associations)) == min(allowed, 3)
    remaining = [one.NumberOfRemainingSuboperations for one, _ in answers[:-1]]
    assert remaining == list(range(images - 1, 0, -1))


class Defective(FilesystemStore):
    """A store with a defect: of some objects it tells what nobody has thought of."""

    defect = ""

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if self.defect and self.defect in key:
            raise RuntimeError("a defect")
        return super().stream(key, start, length)


@pytest.mark.parametrize("associations", [1, 3])
def test_a_move_in_which_a_defect_shows_is_never_called_a_success(
    tmp_path: Path, associations: int
) -> None:
    store = Defective(tmp_path / "store")
    with serving(tmp_path, Limits(move_associations=associations), objects=store) as served:
        paths = known_at_two_hospitals(served, tmp_path, 9)
        store.defect = str(dcmread(paths[4]).SOPInstanceUID) + "."
        with workstation("NANHU-WS") as ws:
            listens(served, "nanhu", "NANHU-WS", ws.port)
            answers = move(
                served, "NANHU", "NANHU-WS", asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
            )
    final, _ = answers[-1]
    assert "Status" not in final  # the association was aborted
    assert len(ws.received) < 9


class Watched(FilesystemStore):
    """A store that notes which objects were asked for, in order."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.asked_for: list[str] = []

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.asked_for.append(key)
        return super().stream(key, start, length)


@pytest.mark.parametrize("by", ["C-MOVE", "C-GET"])
def test_the_next_image_is_made_ready_while_the_receiver_looks_at_the_one_before(
    tmp_path: Path, by: str
) -> None:
    store = Watched(tmp_path / "store")
    with serving(tmp_path, objects=store) as served, workstation("NANHU-WS") as ws:
        known_at_two_hospitals(served, tmp_path, 4)
        listens(served, "nanhu", "NANHU-WS", ws.port)

        def looks(received: list[Dataset]) -> None:
            deadline = time.monotonic() + 60
            while len(store.asked_for) < min(len(received) + 2, 4):
                assert time.monotonic() < deadline
                time.sleep(0.01)

        ws.meanwhile = lambda: looks(ws.received)
        study = asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
        store.asked_for.clear()
        if by == "C-MOVE":
            (*_, (final, _)) = move(served, "NANHU", "NANHU-WS", study)
        else:
            (*_, (final, _)), _ = get(served, "NANHU", study, meanwhile=looks)
    assert (final.Status, final.NumberOfCompletedSuboperations) == (SUCCESS, 4)
    assert len(store.asked_for) == len(set(store.asked_for)) == 4


def test_what_was_made_ready_for_an_association_that_breaks_leaves_over_another(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, Limits(move_associations=2)) as served, workstation("NANHU-WS") as ws:
        known_at_two_hospitals(served, tmp_path, 9)
        both = threading.Barrier(2)

        def meanwhile() -> None:
            if len(ws.associations) <= 2:
                both.wait(180)  # each of the two has an image in hand
                if len(ws.received) == 0:
                    ws.associations[0].abort()

        ws.meanwhile = meanwhile
        listens(served, "nanhu", "NANHU-WS", ws.port)
        (*_, (final, listed)) = move(
            served, "NANHU", "NANHU-WS", asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
        )
    assert final.Status == SOME_FAILED
    assert (final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (8, 1)
    assert listed is not None
    assert len({one.SOPInstanceUID for one in ws.received} | {listed.FailedSOPInstanceUIDList}) == 9


FRAGMENTS = struct.pack("<HH2sHL", 0x0042, 0x0011, b"OB", 0, 0xFFFFFFFF) + b"".join(
    struct.pack("<HHL", 0xFFFE, kind, len(fragment)) + fragment
    for kind, fragment in ((0xE000, b""), (0xE000, b"%PDF"), (0xE0DD, b""))
)
"""An Encapsulated Document in fragments, which only pixels may be (PS3.5 A.4)."""


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
def test_what_cannot_be_written_anew_fails_alone_on_the_askers_association(
    served: Served, syntax: str
) -> None:
    kind = "1.2.840.10008.5.1.4.1.1.2"
    with calling(served.port, (kind, (syntax,))) as pacs:
        for name, odd in (("1.4.1", b""), ("1.4.2", FRAGMENTS), ("1.4.3", b"")):
            sent = image(odd, instance=name)
            if syntax == DEFLATED:
                packed = zlib.compressobj(wbits=-zlib.MAX_WBITS)
                sent = packed.compress(sent) + packed.flush()
            assert pacs.store(sent + b"\0" * (len(sent) % 2), name).status == SUCCESS
    contexts = ((PATIENT_ROOT_GET, (EXPLICIT,)), (kind, (IMPLICIT,)))
    roles = [RoleSelection(kind, scu=False, scp=True)]
    received = []
    with Caller(served.port, *contexts, roles=roles) as asking:
        command, body = wanted("P1")
        for control, part in ((COMMAND | LAST, command), (LAST, body)):
            asking.send(value(asking.contexts[PATIENT_ROOT_GET][0], control, part))
        while (told := asking.message())[0].status == PENDING or told[0].sop_instance:
            if told[0].command_field is CommandField.C_STORE_RQ:
                received.append(told[0].sop_instance)
                answer = value(asking.contexts[kind][0], COMMAND | LAST, response(told[0], SUCCESS))
                asking.send(answer)
        asking.release()
    final, listed = told
    assert received == ["1.4.1", "1.4.3"]
    assert (final.status, final.sub_operations.completed) == (SOME_FAILED, 2)
    assert listed.endswith(b"1.4.2\0")


# Cancels


def wanted(patient: str, *, destination: str = "", number: int = 7) -> tuple[bytes, bytes]:
    """C-MOVE-RQ or C-GET-RQ for all of a patient, and its identifier."""
    model = PATIENT_ROOT_MOVE if destination else PATIENT_ROOT_GET
    command = request(
        CommandField.C_MOVE_RQ if destination else CommandField.C_GET_RQ,
        number,
        model,
        data_set_present=True,
        move_destination=destination,
    )
    return command, identifier((0x00100020, "LO", patient), level="PATIENT")


def final_of(asking: Caller) -> tuple[Command, list[str]]:
    """The final response, and the UIDs it lists."""
    while True:
        command, body = asking.message()
        if command.status != PENDING:
            listed = read_dataset(io.BytesIO(body), is_implicit_VR=False, is_little_endian=True)
            failed = listed.get("FailedSOPInstanceUIDList") or []
            return command, [failed] if isinstance(failed, str) else list(failed)


@pytest.mark.parametrize("associations", [1, 2])
def test_a_move_that_is_called_off_ends_with_the_image_under_way(
    tmp_path: Path, associations: int
) -> None:
    with serving(tmp_path, Limits(move_associations=associations)) as served:
        known_at_two_hospitals(served, tmp_path, 12)
        with (
            workstation("NANHU-WS") as ws,
            Caller(served.port, (PATIENT_ROOT_MOVE, (EXPLICIT,)), calling="NANHU") as asking,
        ):
            listens(served, "nanhu", "NANHU-WS", ws.port)
            context, _ = asking.contexts[PATIENT_ROOT_MOVE]
            called_off = threading.Barrier(associations)

            def call_off() -> None:
                if called_off.wait(180) == 0:
                    asking.send(value(context, COMMAND | LAST, cancel_request(7)))
                called_off.wait(180)

            ws.meanwhile = call_off
            command, body = wanted("N7", destination="NANHU-WS")
            asking.send(value(context, COMMAND | LAST, command), value(context, LAST, body))
            final, failed = final_of(asking)
            asking.release()
    done = len(ws.received)
    assert final.status == CANCEL
    assert done == associations
    assert final.sub_operations == SubOperations(13 - done, completed=done)
    assert failed == []


def test_a_get_that_is_called_off_ends_with_the_image_under_way(
    served: Served, tmp_path: Path
) -> None:
    known_at_two_hospitals(served, tmp_path, 5)
    with Caller(
        served.port,
        (PATIENT_ROOT_GET, (EXPLICIT,)),
        (CTImageStorage, (EXPLICIT,)),
        calling="NANHU",
        roles=[RoleSelection(CTImageStorage, scu=False, scp=True)],
    ) as asking:
        context, _ = asking.contexts[PATIENT_ROOT_GET]
        images, _ = asking.contexts[CTImageStorage]
        command, body = wanted("N7")
        asking.send(value(context, COMMAND | LAST, command), value(context, LAST, body))
        stored, _ = asking.message()
        assert stored.command_field is CommandField.C_STORE_RQ
        asking.send(
            value(context, COMMAND | LAST, cancel_request(7)),
            value(images, COMMAND | LAST, response(stored, SUCCESS)),
        )
        final, failed = final_of(asking)
        asking.release()
    assert final.status == CANCEL
    assert final.sub_operations == SubOperations(5, completed=1)
    assert failed == []
    told = outcomes(served)
    assert {one["reason"] for one in told} == {"called off by the asker"}
    assert [sum(one[which] for one in told) for which in ("completed", "unsent")] == [1, 5]


def test_a_move_ends_with_its_asker(served: Served, tmp_path: Path) -> None:
    known_at_two_hospitals(served, tmp_path, 12)
    with workstation("NANHU-WS") as ws:
        listens(served, "nanhu", "NANHU-WS", ws.port)
        with Caller(served.port, (PATIENT_ROOT_MOVE, (EXPLICIT,)), calling="NANHU") as asking:
            context, _ = asking.contexts[PATIENT_ROOT_MOVE]
            ws.meanwhile = lambda: asking.send(Abort(0).encode())
            command, body = wanted("N7", destination="NANHU-WS")
            asking.send(value(context, COMMAND | LAST, command), value(context, LAST, body))
            with suppress(Hung, OSError):
                while True:
                    asking.message()
            ws.associations[0].join(180)
    assert len(ws.received) == 1
    deadline = time.monotonic() + 180
    while not (told := outcomes(served)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {one["reason"] for one in told} == {"the asker, or the exchange, broke it off"}
    assert sum(one["completed"] for one in told) <= 1


# What cannot be read, or counted


def test_an_image_that_cannot_be_read_fails_alone(served: Served, tmp_path: Path) -> None:
    paths = known_at_two_hospitals(served, tmp_path, 4)
    gone, cut = (str(dcmread(path).SOPInstanceUID) for path in paths[1:3])
    served.city.exchange.objects.put_down()
    next((served.root / "objects").rglob(f"{gone}.*.dcm")).unlink()
    damaged = next((served.root / "objects").rglob(f"{cut}.*.dcm"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with workstation("NANHU-WS") as ws:
        listens(served, "nanhu", "NANHU-WS", ws.port)
        (*_, (final, listed)) = move(
            served, "NANHU", "NANHU-WS", asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
        )
    assert final.Status == SOME_FAILED
    assert (final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (2, 2)
    assert listed is not None
    assert set(listed.FailedSOPInstanceUIDList) == {gone, cut}
    assert len(ws.received) == 2


def test_what_is_known_to_be_damaged_is_not_sent_until_it_came_again(
    served: Served, tmp_path: Path
) -> None:
    paths = known_at_two_hospitals(served, tmp_path, 3)
    uid = str(dcmread(paths[1]).SOPInstanceUID)
    served.city.exchange.objects.put_down()
    damaged = next((served.root / "objects").rglob(f"{uid}.*.dcm"))
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"damaged!")
    with served.city.exchange.on_behalf_of(WORKER) as access:
        before = access.now + timedelta(days=1)
        assert any(
            isinstance(one, scrub.Damage) for one in scrub.scrub(access, before=before, limit=100)
        )
    with workstation("NANHU-WS") as ws:
        listens(served, "nanhu", "NANHU-WS", ws.port)
        wanted = asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
        (*_, (first, listed)) = move(served, "NANHU", "NANHU-WS", wanted)
        send(served, "BEICHENG", paths[1])
        (*_, (second, _)) = move(served, "NANHU", "NANHU-WS", wanted)
    assert (first.Status, first.NumberOfCompletedSuboperations) == (SOME_FAILED, 2)
    assert listed is not None
    assert listed.FailedSOPInstanceUIDList == uid
    assert (second.Status, second.NumberOfCompletedSuboperations) == (SUCCESS, 3)


def test_an_image_at_which_the_receiver_aborts_keeps_no_other_from_it(
    served: Served, tmp_path: Path
) -> None:
    paths = known_at_two_hospitals(served, tmp_path, 4)
    with workstation("NANHU-WS") as ws:

        def abort() -> None:
            if len(ws.associations) == 2:
                ws.associations[-1].abort()

        ws.meanwhile = abort
        listens(served, "nanhu", "NANHU-WS", ws.port)
        (*_, (final, listed)) = move(
            served, "NANHU", "NANHU-WS", asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
        )
    assert final.Status == SOME_FAILED
    assert (final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (3, 1)
    assert listed is not None
    assert listed.FailedSOPInstanceUIDList == dcmread(paths[1]).SOPInstanceUID
    assert len(set(ws.associations)) == 2


def test_a_receiver_that_aborts_at_each_image_is_not_called_for_all_of_them(
    served: Served, tmp_path: Path
) -> None:
    known_at_two_hospitals(served, tmp_path, 5)
    with workstation("NANHU-WS") as ws:
        ws.meanwhile = lambda: ws.associations[-1].abort()
        listens(served, "nanhu", "NANHU-WS", ws.port)
        (*_, (final, _)) = move(
            served, "NANHU", "NANHU-WS", asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
        )
    assert (final.Status, final.NumberOfFailedSuboperations) == (NONE_DONE, 5)
    assert len(ws.associations) == 3


def test_more_sub_operations_than_can_be_counted_are_told_as_the_most_that_can(
    served: Served,
) -> None:
    count = 66_000
    with calling(served.port) as pacs:
        assert pacs.store(image(), "1.4.1").status == SUCCESS
    with served.city.exchange.database.writing() as session:
        kept = session.scalars(select(Instance)).one()
        row = {
            column.key: getattr(kept, column.key)
            for column in Instance.__table__.columns
            if column.key not in {"id", "sop_instance_uid"}
        }
        session.execute(
            insert(Instance),
            [row | {"sop_instance_uid": f"1.5.{number}"} for number in range(count - 1)],
        )
    listens(served, "beicheng", "BEICHENG-WS", free_port())  # where nobody listens
    with Caller(served.port, (STUDY_ROOT_MOVE, (EXPLICIT,))) as asking:
        context, _ = asking.contexts[STUDY_ROOT_MOVE]
        command = request(
            CommandField.C_MOVE_RQ,
            1,
            STUDY_ROOT_MOVE,
            data_set_present=True,
            move_destination="BEICHENG-WS",
        )
        study = element(0x0020000D, "UI", "1.2.1")
        body = element(0x00080052, "CS", "STUDY") + study
        asking.send(value(context, COMMAND | LAST, command), value(context, LAST, body))
        final, failed = final_of(asking)
        asking.release()
    assert final.status == NONE_DONE
    assert final.sub_operations == SubOperations(None, failed=65_535)
    assert sum(len(uid) + 1 for uid in failed) <= 65_534
    assert len(failed) > 5_000

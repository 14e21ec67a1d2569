"""Hospitals fetch what they may have: over their own association, or to a node of theirs (J3)."""

from __future__ import annotations

import os
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from caller import SUCCESS, calling
from caller import element as written
from caller import image as ct_slice
from images import ct, data_set
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    MPEG4HP41,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    VideoEndoscopicImageStorage,
    generate_uid,
)
from pynetdicom import build_role
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from real_parts import free_port
from region import ADMINISTRATOR, ID_CARD
from retrieving import (
    HEAD,
    STUDY,
    asked,
    associated,
    get,
    known_at_two_hospitals,
    listens,
    move,
    outcomes,
    send,
    workstation,
)
from serving import Served, serving

from exchange import audit, consent, retrieval, trail
from exchange.errors import Unavailable
from exchange_dicom import contexts, scu
from exchange_dicom.dimse import SubOperations
from exchange_storage.search import Level

UNKNOWN_DESTINATION, SOME_FAILED, NONE_DONE = 0xA801, 0xB000, 0xA702


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


# J3: under the asker's own number


def test_another_hospitals_images_come_under_the_askers_own_number(
    served: Served, tmp_path: Path
) -> None:
    theirs = known_at_two_hospitals(served, tmp_path)
    with workstation("NANHU-WS") as ws:
        listens(served, "nanhu", "NANHU-WS", ws.port)
        answers = move(
            served, "NANHU", "NANHU-WS", asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
        )

    final, _ = answers[-1]
    assert final.Status == SUCCESS
    assert (final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (3, 0)
    assert "NumberOfRemainingSuboperations" not in final
    assert [one.NumberOfRemainingSuboperations for one, _ in answers[:-1]] == [2, 1]
    assert ws.originators == [("NANHU", 1)] * 3
    assert len(ws.received) == 3
    for image, path in zip(ws.received, theirs, strict=True):
        sent = dcmread(path)
        assert (image.PatientID, image.IssuerOfPatientID) == ("N7", "2.25.102")
        numbers = [(o.PatientID, o.get("IssuerOfPatientID")) for o in image.OtherPatientIDsSequence]
        assert numbers[-1] == ("P1", "2.25.101")
        assert numbers[:-1] == [(ID_CARD, None)]
        assert image.InstitutionName == "北城医院"
        (original,) = image.OriginalAttributesSequence
        assert original.ModifiedAttributesSequence[0].PatientID == "P1"
        assert original.ReasonForTheAttributeModification == "COERCE"
        changed = {
            "PatientID", "IssuerOfPatientID", "OtherPatientIDsSequence", "InstitutionName",
            "OriginalAttributesSequence",
        }  # fmt: skip
        for element in sent:
            if element.keyword not in changed:
                assert image[element.tag].value == element.value


def test_the_owner_gets_its_images_back_byte_for_byte(served: Served, tmp_path: Path) -> None:
    paths = known_at_two_hospitals(served, tmp_path, 1)
    (tmp_path / "got").mkdir()
    pacs = scu.Node(host="127.0.0.1", port=served.port, called="EXCHANGE", calling="BEICHENG")
    keys = [("StudyInstanceUID", STUDY)]

    told = list(scu.get(pacs, Level.STUDY, keys, tmp_path / "got"))

    assert told[-1] == scu.Progress(SubOperations(None, completed=1))
    (got,) = (tmp_path / "got").iterdir()
    assert data_set(got.read_bytes()) == data_set(paths[0].read_bytes())


def test_dcmtk_gets_what_is_asked_for_over_its_own_association(
    served: Served, tmp_path: Path
) -> None:
    known_at_two_hospitals(served, tmp_path)
    (tmp_path / "got").mkdir()
    subprocess.run(
        ["getscu", "-P", "-aet", "NANHU", "-aec", "EXCHANGE", "-od", str(tmp_path / "got"),
         "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=N7", "-k", f"StudyInstanceUID={STUDY}",
         "127.0.0.1", str(served.port)],
        check=True, capture_output=True, timeout=180, env=os.environ | {"TCP_NODELAY": "1"},
    )  # fmt: skip
    assert {dcmread(path).PatientID for path in (tmp_path / "got").iterdir()} == {"N7"}


def test_dcmtk_moves_the_images_of_a_whole_patient_to_itself(
    served: Served, tmp_path: Path
) -> None:
    known_at_two_hospitals(served, tmp_path)
    port = free_port()
    listens(served, "nanhu", "NANHU-WS", port)
    (tmp_path / "got").mkdir()
    subprocess.run(
        ["movescu", "-P", "-aet", "NANHU", "-aec", "EXCHANGE", "-aem", "NANHU-WS", "-od",
         str(tmp_path / "got"), "+P", str(port), "-k", "QueryRetrieveLevel=PATIENT",
         "-k", "PatientID=N7", "127.0.0.1", str(served.port)],
        check=True, capture_output=True, timeout=180, env=os.environ | {"TCP_NODELAY": "1"},
    )  # fmt: skip
    got = [dcmread(path) for path in (tmp_path / "got").iterdir()]
    assert len(got) == 4
    assert {(one.PatientID, str(one.get("IssuerOfPatientID", ""))) for one in got} == {
        ("N7", "2.25.102"),
        ("N7", ""),  # nanhu's own, as it was sent
    }


# What is withheld


def test_what_the_patient_does_not_share_does_not_leave_and_its_refusal_is_recorded(
    served: Served, tmp_path: Path
) -> None:
    known_at_two_hospitals(served, tmp_path)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    answers, received = get(served, "NANHU", asked("PATIENT", PatientID="N7"))

    assert answers[-1][0].Status == SUCCESS
    assert [one.StudyInstanceUID for one in received] == ["1.2.826.2"]
    answers, received = get(served, "BEICHENG", asked("PATIENT", PatientID="P1"))
    assert len([one for one in received if one.StudyInstanceUID == STUDY]) == 3
    with served.city.exchange.database.reading() as session:
        told = [record.content for record in audit.latest(session, 20)]
    assert any('"withheld":1' in one and '"action":"retrieve"' in one for one in told)
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (refused,) = [
            one for one in trail.records(access, study=STUDY) if one["outcome"] == "refused"
        ]
        assert refused in trail.records(access, patient=("beicheng", "P1"))
    assert (refused["requester"], refused["action"]) == ("NANHU", "retrieve")
    assert refused["reason"] == "the patient has not consented to sharing"
    assert b"N7" in b64decode(refused["detail"]["asked"])


def test_images_are_sent_to_the_askers_own_nodes_only(served: Served, tmp_path: Path) -> None:
    known_at_two_hospitals(served, tmp_path)
    with workstation("DONGSHAN-WS") as ws:
        listens(served, "dongshan", "DONGSHAN-WS", ws.port)
        wanted = asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
        for nobody in ("DONGSHAN-WS", "NANHU", "NOBODY"):  # NANHU calls, but does not listen
            ((answer, _),) = move(served, "NANHU", nobody, wanted)
            assert answer.Status == UNKNOWN_DESTINATION
    assert ws.received == []
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        told = trail.records(access, study=STUDY, requester="NANHU")
        assert [one for one in trail.records(access, patient=("beicheng", "P1")) if one in told]
    failed = [one["detail"]["to"] for one in told if one["outcome"] == "failed"]
    assert failed == ["NOBODY", "NANHU", "DONGSHAN-WS"]


# What does not go as it should


@pytest.mark.parametrize("remark", [0xB000, 0xB201, 0x0107])
def test_what_the_destination_refuses_is_listed(
    served: Served, tmp_path: Path, remark: int
) -> None:
    paths = known_at_two_hospitals(served, tmp_path)
    with workstation("NANHU-WS") as ws:
        ws.answers += [0x0000, 0xA700, remark]
        listens(served, "nanhu", "NANHU-WS", ws.port)
        answers = move(
            served, "NANHU", "NANHU-WS", asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
        )

    final, listed = answers[-1]
    assert final.Status == SOME_FAILED
    counts = (
        final.NumberOfCompletedSuboperations,
        final.NumberOfFailedSuboperations,
        final.NumberOfWarningSuboperations,
    )
    assert counts == (1, 1, 1)
    assert listed is not None
    assert listed.FailedSOPInstanceUIDList == dcmread(paths[1]).SOPInstanceUID
    (recorded,) = outcomes(served)
    assert recorded == {
        "study": STUDY, "outcome": "failed", "reason": "answered with status A700",
        "what": "images, sent", "to": "NANHU-WS",
        "completed": 1, "warned": 1, "failed": 1, "unsent": 0,
    }  # fmt: skip


def test_the_audit_trail_tells_how_each_retrieval_ended(served: Served, tmp_path: Path) -> None:
    known_at_two_hospitals(served, tmp_path)
    listens(served, "nanhu", "NANHU-WS", free_port())
    of_the_patient = asked("PATIENT", PatientID="N7")

    answers, _ = get(served, "NANHU", of_the_patient)
    assert answers[-1][0].Status == SUCCESS
    ((final, _),) = move(served, "NANHU", "NANHU-WS", of_the_patient)
    assert final.Status == NONE_DONE

    told = [
        (one["study"], one["to"], one["outcome"], one["completed"], one["failed"])
        for one in outcomes(served)
    ]
    assert sorted(told[:2]) == [(STUDY, "", "success", 3, 0), ("1.2.826.2", "", "success", 1, 0)]
    assert sorted(told[2:]) == [
        (STUDY, "NANHU-WS", "failed", 0, 3), ("1.2.826.2", "NANHU-WS", "failed", 0, 1),
    ]  # fmt: skip


def test_what_cannot_be_recorded_is_not_called_a_success(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_at_two_hospitals(served, tmp_path, 1)

    def lost(*_: object, **__: object) -> None:
        raise Unavailable("the index does not answer; try again later")

    monkeypatch.setattr(retrieval, "sent", lost)
    answers, received = get(served, "NANHU", asked("PATIENT", PatientID="N7"))
    assert len(received) == 2
    assert answers[-1][0].Status == 0xA701


def test_a_destination_that_does_not_answer_fails_all(served: Served, tmp_path: Path) -> None:
    known_at_two_hospitals(served, tmp_path)
    listens(served, "nanhu", "NANHU-WS", free_port())

    ((final, listed),) = move(
        served, "NANHU", "NANHU-WS", asked("STUDY", PatientID="N7", StudyInstanceUID=STUDY)
    )

    assert final.Status == NONE_DONE
    assert final.NumberOfFailedSuboperations == 3
    assert listed is not None
    assert len(listed.FailedSOPInstanceUIDList) == 3


def test_without_the_scp_role_nothing_comes_by_c_get(served: Served, tmp_path: Path) -> None:
    known_at_two_hospitals(served, tmp_path)
    answers, received = get(served, "NANHU", asked("PATIENT", PatientID="N7"), role=False)
    assert answers[-1][0].Status == NONE_DONE
    assert received == []


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("STUDY", {"PatientID": "N7"}),
        ("STUDY", {"PatientID": "N7", "StudyInstanceUID": "*"}),
        ("STUDY", {"StudyInstanceUID": STUDY}),
        ("SERIES", {"PatientID": "N7", "SeriesInstanceUID": HEAD}),
        ("PATIENT", {}),
        ("PATIENT", {"PatientID": "N7\\N8"}),
        ("PATIENT", {"PatientID": "N7", "IssuerOfPatientID": "2.25.102\\2.25.101"}),
        ("STUDY", {"PatientID": "N7", "StudyInstanceUID": STUDY, "StudyDate": "20200101"}),
        ("SLICE", {"PatientID": "N7"}),
    ],
)
def test_a_retrieval_that_does_not_name_what_it_wants_is_refused(
    served: Served, tmp_path: Path, level: str, keys: dict[str, str]
) -> None:
    known_at_two_hospitals(served, tmp_path, 1)
    with workstation("NANHU-WS") as ws:
        listens(served, "nanhu", "NANHU-WS", ws.port)
        ((answer, _),) = move(served, "NANHU", "NANHU-WS", asked(level, **keys))
        assert answer.Status == 0xA900
    assert ws.received == []


# Which images


@pytest.mark.parametrize("model", [contexts.STUDY_ROOT_MOVE, contexts.STUDY_ROOT_GET])
def test_a_whole_patient_is_had_in_study_root_too(
    served: Served, tmp_path: Path, model: str
) -> None:
    # Study Root has no such level (C.6.2.1), but Orthanc has no other way to ask for it.
    known_at_two_hospitals(served, tmp_path)

    def asking(**keys: str) -> tuple[int, int]:
        identifier = asked("PATIENT", **keys)
        if model == contexts.STUDY_ROOT_MOVE:
            before = len(ws.received)
            (*_, (final, _)) = move(served, "NANHU", "NANHU-WS", identifier, model)
            return final.Status, len(ws.received) - before
        answers, received = get(served, "NANHU", identifier, model=model)
        return answers[-1][0].Status, len(received)

    with workstation("NANHU-WS") as ws:
        listens(served, "nanhu", "NANHU-WS", ws.port)
        assert asking(PatientID="N7") == (SUCCESS, 4)
        assert asking(PatientID="N7", IssuerOfPatientID="2.25.102") == (SUCCESS, 4)
        assert asking(PatientID="N7\\N8") == (0xA900, 0)
        assert asking(PatientID="N*") == (0xA900, 0)
        assert asking() == (0xA900, 0)
        assert asking(PatientID="N7", StudyInstanceUID=STUDY) == (0xA900, 0)


def test_several_can_be_named_at_the_level_that_is_asked_for(
    served: Served, tmp_path: Path
) -> None:
    paths = known_at_two_hospitals(served, tmp_path)
    uids = [str(dcmread(path).SOPInstanceUID) for path in paths]
    studies = asked("STUDY", PatientID="N7", StudyInstanceUID=f"{STUDY}\\1.2.826.2")
    images = asked(
        "IMAGE",
        PatientID="N7",
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=HEAD,
        SOPInstanceUID=f"{uids[0]}\\{uids[2]}",
    )
    several = asked(
        "SERIES",
        PatientID="N7",
        StudyInstanceUID=f"{STUDY}\\1.2.826.2",  # above the level there is one
        SeriesInstanceUID=HEAD,
    )
    answers, received = get(served, "NANHU", studies)
    assert (answers[-1][0].Status, len(received)) == (SUCCESS, 4)
    answers, received = get(served, "NANHU", images)
    assert answers[-1][0].Status == SUCCESS
    assert [one.SOPInstanceUID for one in received] == [uids[0], uids[2]]
    answers, received = get(served, "NANHU", several)
    assert (answers[-1][0].Status, received) == (0xA900, [])


@pytest.mark.parametrize("negotiated", [True, False])
def test_an_image_is_had_by_its_uid_alone_where_relational_retrieval_was_negotiated(
    served: Served, tmp_path: Path, negotiated: bool
) -> None:
    path, *_ = known_at_two_hospitals(served, tmp_path)
    uid = str(dcmread(path).SOPInstanceUID)
    relational = SOPClassExtendedNegotiation()
    relational.sop_class_uid = contexts.STUDY_ROOT_MOVE
    relational.service_class_application_information = b"\1\1"
    with workstation("NANHU-WS") as ws:
        listens(served, "nanhu", "NANHU-WS", ws.port)
        with associated(
            served,
            "NANHU",
            contexts.STUDY_ROOT_MOVE,
            ext_neg=[relational] if negotiated else [],
        ) as association:
            granted = association.acceptor.sop_class_extended
            wanted = asked("IMAGE", SOPInstanceUID=uid)
            (*_, (final, _)) = association.send_c_move(wanted, "NANHU-WS", contexts.STUDY_ROOT_MOVE)
    if negotiated:  # and nothing else that was asked for
        assert granted == {contexts.STUDY_ROOT_MOVE: b"\1\0"}
        assert final.Status == SUCCESS
        assert [one.SOPInstanceUID for one in ws.received] == [uid]
        assert ws.received[0].PatientID == "N7"
    else:
        assert (final.Status, ws.received) == (0xA900, [])


# Transfer syntaxes


@pytest.mark.parametrize(
    ("file", "sop_class", "taken"),
    [
        ("CT_small.dcm", CTImageStorage, ImplicitVRLittleEndian),
        ("MR_small_implicit.dcm", MRImageStorage, ExplicitVRLittleEndian),
        ("MR_small_bigendian.dcm", MRImageStorage, ExplicitVRLittleEndian),
        ("MR_small_RLE.dcm", MRImageStorage, ExplicitVRLittleEndian),
        ("MR_small_RLE.dcm", MRImageStorage, ImplicitVRLittleEndian),
        ("MR_small_jp2klossless.dcm", MRImageStorage, ExplicitVRLittleEndian),
        ("MR_small_jpeg_ls_lossless.dcm", MRImageStorage, ExplicitVRLittleEndian),
        ("MR_small_RLE.dcm", MRImageStorage, RLELossless),
        ("MR_small_jp2klossless.dcm", MRImageStorage, JPEG2000Lossless),
        ("MR_small_bigendian.dcm", MRImageStorage, ExplicitVRBigEndian),
    ],
)
def test_images_come_as_they_are_or_without_loss_in_what_the_asker_takes(
    served: Served, tmp_path: Path, file: str, sop_class: str, taken: str
) -> None:
    path = Path(str(get_testdata_file(file)))
    send(served, "BEICHENG", path)
    sent = dcmread(path)

    answers, received = get(
        served, "BEICHENG", asked("PATIENT", PatientID=sent.PatientID), taken, sop_class=sop_class
    )

    assert answers[-1][0].Status == SUCCESS
    (image,) = received
    assert image.file_meta.TransferSyntaxUID == taken
    assert (image.pixel_array == sent.pixel_array).all()
    for element in sent:
        if element.tag.element and element.keyword != "PixelData":
            assert image[element.tag].value == element.value


@pytest.mark.parametrize("preferred", ["+xs", "+xv", "+xt", "+xr", "+xb", "+xd", "+xi"])
def test_whatever_dcmtk_prefers_it_gets_what_is_kept_plain_and_what_is_compressed(
    served: Served, tmp_path: Path, preferred: str
) -> None:
    kept = {}
    for name in ("MR_small", "MR_small_RLE", "MR_small_jpeg_ls_lossless", "MR_small_bigendian"):
        one = dcmread(str(get_testdata_file(f"{name}.dcm")))
        one.PatientID, one.StudyInstanceUID, one.SeriesInstanceUID = "P1", STUDY, HEAD
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.save_as(tmp_path / f"{name}.dcm")
        send(served, "BEICHENG", tmp_path / f"{name}.dcm")
        kept[one.SOPInstanceUID] = one.pixel_array
    (tmp_path / "got").mkdir()
    subprocess.run(
        ["getscu", preferred, "-S", "-aet", "BEICHENG", "-aec", "EXCHANGE",
         "-od", str(tmp_path / "got"), "-k", "QueryRetrieveLevel=STUDY",
         "-k", f"StudyInstanceUID={STUDY}", "127.0.0.1", str(served.port)],
        check=True, capture_output=True, timeout=180, env=os.environ | {"TCP_NODELAY": "1"},
    )  # fmt: skip
    got = [dcmread(path) for path in (tmp_path / "got").iterdir()]
    assert len(got) == len(kept)
    assert all((one.pixel_array == kept[one.SOPInstanceUID]).all() for one in got)


@pytest.mark.parametrize("scu_role", [True, False])
@pytest.mark.parametrize(
    ("sop_class", "first", "taken"),
    [
        (MRImageStorage, JPEGLSLossless, ExplicitVRLittleEndian),
        # Videos are kept as nothing else.
        (VideoEndoscopicImageStorage, MPEG4HP41, MPEG4HP41),
    ],
)
def test_whoever_wants_to_receive_is_answered_with_what_can_be_sent(
    served: Served, sop_class: str, first: str, taken: str, scu_role: bool
) -> None:
    with associated(
        served,
        "BEICHENG",
        contexts.PATIENT_ROOT_GET,
        storage=[(sop_class, [first, ExplicitVRLittleEndian, ImplicitVRLittleEndian])],
        ext_neg=[build_role(sop_class, scp_role=True, scu_role=scu_role)],
    ) as association:
        chosen = {one.abstract_syntax: one.transfer_syntax for one in association.accepted_contexts}
        assert chosen[sop_class] == [taken]


@pytest.mark.parametrize("said", ["nonsense", str(ImplicitVRLittleEndian)])
def test_what_a_sender_says_of_a_file_within_its_data_set_is_believed_by_nobody(
    served: Served, said: str
) -> None:
    sent = ct_slice(study="1.2.826.7", instance="1.2.826.77")
    with calling(served.port, (CTImageStorage, (ExplicitVRLittleEndian,))) as pacs:
        assert pacs.store(written(0x00020010, "UI", said) + sent, "1.2.826.77").status == SUCCESS

    for taken in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        wanted = asked("STUDY", PatientID="P1", StudyInstanceUID="1.2.826.7")
        answers, (received,) = get(served, "BEICHENG", wanted, taken)
        assert answers[-1][0].Status == SUCCESS
        assert (received.PatientID, len(received.PixelData)) == ("P1", 4096)


NO_SEQUENCE = b"\1\2\3\4" * 4
"""The value of a sequence, as its head says."""


@pytest.mark.parametrize(
    ("asker", "tag", "taken", "vr"),
    [
        ("BEICHENG", 0x00400555, ExplicitVRLittleEndian, "SQ"),  # byte for byte
        ("NANHU", 0x00400555, ExplicitVRLittleEndian, "UN"),
        ("NANHU", 0x00111001, ImplicitVRLittleEndian, "UN"),
        # Without VRs the dictionary would have every reader stumble over it.
        ("BEICHENG", 0x00400555, ImplicitVRLittleEndian, None),
        ("NANHU", 0x00400555, ImplicitVRLittleEndian, None),
    ],
)
def test_a_sequence_that_is_none_is_called_unknown_to_whoever_can_be_told(
    served: Served, tmp_path: Path, asker: str, tag: int, taken: str, vr: str | None
) -> None:
    known_at_two_hospitals(served, tmp_path, 1)
    odd = ct_slice(study="1.2.826.7", series="1.2.826.7.1", instance="1.2.826.77")
    at = odd.index(written(0x0020000D, "UI", "1.2.826.7")) if tag < 0x00200000 else -4108
    odd = odd[:at] + written(tag, "SQ", NO_SEQUENCE) + odd[at:]
    with calling(served.port, (CTImageStorage, (ExplicitVRLittleEndian,))) as pacs:
        assert pacs.store(odd, "1.2.826.77").status == SUCCESS

    number = {"BEICHENG": "P1", "NANHU": "N7"}[asker]
    wanted = asked("STUDY", PatientID=number, StudyInstanceUID="1.2.826.7")
    answers, received = get(served, asker, wanted, taken)

    assert answers[-1][0].Status == (SUCCESS if vr else NONE_DONE)
    for sent in received:
        element = sent.get_item(tag)
        assert sent.PatientID == number
        assert (element.VR or "UN", bytes(element.value)) == (vr, NO_SEQUENCE)


@pytest.mark.parametrize(
    ("file", "sop_class", "taken"),
    [
        ("CT_small.dcm", CTImageStorage, [ExplicitVRLittleEndian]),
        ("CT_small.dcm", CTImageStorage, [ImplicitVRLittleEndian]),
        ("MR_small_implicit.dcm", MRImageStorage, [ImplicitVRLittleEndian]),
        ("MR_small_implicit.dcm", MRImageStorage, [ExplicitVRLittleEndian]),
        ("MR_small_bigendian.dcm", MRImageStorage, [ExplicitVRBigEndian, ExplicitVRLittleEndian]),
        ("MR_small_RLE.dcm", MRImageStorage, [RLELossless]),
        ("MR_small_RLE.dcm", MRImageStorage, [ImplicitVRLittleEndian]),
        ("MR_small_jp2klossless.dcm", MRImageStorage, [JPEG2000Lossless]),
        ("image_dfl.dcm", SecondaryCaptureImageStorage, [DeflatedExplicitVRLittleEndian]),
        ("image_dfl.dcm", SecondaryCaptureImageStorage, [ExplicitVRLittleEndian]),
    ],
)
def test_another_hospitals_images_get_the_askers_number_in_whatever_they_are_written(
    served: Served, tmp_path: Path, file: str, sop_class: str, taken: list[str]
) -> None:
    known_at_two_hospitals(served, tmp_path, 1)
    sent = dcmread(str(get_testdata_file(file)))
    sent.PatientID = "P1"
    sent.SOPInstanceUID = sent.file_meta.MediaStorageSOPInstanceUID = UID("1.2.826.77")
    sent.save_as(tmp_path / "odd.dcm")
    send(served, "BEICHENG", tmp_path / "odd.dcm")

    answers, received = get(
        served, "NANHU", asked("PATIENT", PatientID="N7"), *taken, sop_class=sop_class
    )

    assert answers[-1][0].Status in {SUCCESS, SOME_FAILED}  # not every asker takes the CTs
    (image,) = [one for one in received if one.SOPInstanceUID == "1.2.826.77"]
    assert (image.PatientID, image.IssuerOfPatientID) == ("N7", "2.25.102")
    assert image.OtherPatientIDsSequence[-1].PatientID == "P1"
    assert image.OriginalAttributesSequence[-1].ModifiedAttributesSequence[0].PatientID == "P1"
    assert (image.pixel_array == sent.pixel_array).all()


def test_what_cannot_be_sent_without_loss_fails_alone(served: Served, tmp_path: Path) -> None:
    lossless = tmp_path / "ct.dcm"
    ct(lossless, patient="P1", study=STUDY)
    send(served, "BEICHENG", lossless)

    answers, received = get(served, "BEICHENG", asked("PATIENT", PatientID="P1"), RLELossless)

    assert answers[-1][0].Status == NONE_DONE
    assert received == []

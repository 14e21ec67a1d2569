"""Hospitals' systems talk to the node, rightly and wrongly: PS3.4 annexes A, B and C over sockets.

What is refused leaves nothing behind, and never costs the next caller anything.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from caller import (
    CT,
    EXPLICIT,
    IMPLICIT,
    INSTANCE,
    PATIENT_FIND,
    SERIES,
    STUDY,
    STUDY_FIND,
    SUCCESS,
    VERIFICATION,
    Caller,
    Hung,
    calling,
    element,
    identifier,
    image,
    store_request,
    value,
)
from images import ct, data_set
from pydicom.filereader import read_dataset
from region import ADMINISTRATOR, credit_code
from serving import Served, serving

from exchange import check, organizations
from exchange.organizations import Entity
from exchange_dicom.conversation import Limits
from exchange_dicom.dimse import NO_DATA_SET, CommandField, Element, encode, request
from exchange_dicom.identifier import IDENTIFIER_LENGTH
from exchange_dicom.negotiation import Conduct
from exchange_dicom.pdu import (
    COMMAND,
    LAST,
    RELEASE_RQ,
    Abort,
    AbortReason,
    AbortSource,
    AssociateReject,
    ContextResult,
    RejectReason,
)
from exchange_dicom.status import type_of
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import StoreFull

UNIFIED_WORKLIST = "1.2.840.10008.5.1.4.34.6.1"
BASIC_PRINT = "1.2.840.10008.5.1.1.9"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"

CANCEL, PENDING, PENDING_UNSUPPORTED = 0xFE00, 0xFF00, 0xFF01
NO_SUCH_SOP_CLASS, UNRECOGNIZED_OPERATION = 0x0122, 0x0211
OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000

MUTATIONS = 300


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


# Associations


@pytest.mark.parametrize(
    ("calling_ae", "called_ae", "reason"),
    [
        ("NOBODY", "EXCHANGE", RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED),
        ("", "EXCHANGE", RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED),
        ("BEICHENG", "ORTHANC", RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED),
    ],
)
def test_who_is_not_registered_or_calls_somebody_else_is_told_so(
    served: Served, calling_ae: str, called_ae: str, reason: RejectReason
) -> None:
    with pytest.raises(Hung) as hung:
        Caller(served.port, calling=calling_ae, called=called_ae)

    assert hung.value.args == (AssociateReject(reason),)
    served.goes_on()


def test_a_registered_title_that_calls_from_another_address_is_not_recognized(
    served: Served,
) -> None:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.register(
            access,
            code="xicheng",
            name="西城医院",
            credit_code=credit_code("12120000123450009"),
            issuer="2.25.109",
            entities=[Entity(title="XICHENG", address="192.0.2.9")],
        )

    with pytest.raises(Hung) as hung:
        Caller(served.port, calling="XICHENG")

    assert hung.value.args == (AssociateReject(RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED),)


def test_each_proposed_context_is_answered_for_itself(served: Served) -> None:
    proposed = (
        (VERIFICATION, (IMPLICIT,)),
        (CT, (JPEG_LOSSLESS, EXPLICIT)),
        ("1.3.12.2.1107.5.9.1", (EXPLICIT,)),
        (UNIFIED_WORKLIST, (IMPLICIT,)),
        ("1.2.840.10008.5.1.4.1.1.4", ("1.2.3.4",)),
        (STUDY_FIND, (IMPLICIT, EXPLICIT)),
        (BASIC_PRINT, (IMPLICIT,)),
    )

    with calling(served.port, *proposed) as pacs:
        answers = [(one.result, one.transfer_syntax) for one in pacs.answer.contexts]

    accepted, unknown = ContextResult.ACCEPTANCE, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    assert answers == [
        (accepted, IMPLICIT),
        (accepted, JPEG_LOSSLESS),  # the sender's first, since nothing is converted
        (accepted, EXPLICIT),  # a private SOP class
        (unknown, IMPLICIT),
        (ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, "1.2.3.4"),
        (accepted, EXPLICIT),  # ours: text says its VR
        (unknown, IMPLICIT),
    ]


# C-STORE


CUT = image()[:150]
DEEP = b"".join(
    struct.pack("<HH2sHLHHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    for _ in range(10_000)
)
FOUR_GIGABYTES = struct.pack("<HH2sHL", 0x0029, 0x1010, b"OB", 0, 0xFFFFFFFE)
WITHOUT_END = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + struct.pack(
    "<HHL", 0xFFFE, 0xE000, 0
)
LONG_UID = "1." + "2" * 63
BAD_DATA_SETS = {
    "nothing": b"",
    "random bytes": random.Random(7).randbytes(5000),
    "text": b"GET / HTTP/1.1\r\nHost: exchange\r\n\r\n" * 20,
    "cut within the header": CUT,
    "cut within the pixels": image()[:-1000],
    "cut by one word": image()[:-2],
    "pixels longer than 4 GB": image(
        pixels=FOUR_GIGABYTES.replace(b"\x29\0\x10\x10", b"\xe0\x7f\x10\0")
    ),
    "an element longer than 4 GB": image(FOUR_GIGABYTES),
    "fragments without an end": image(pixels=WITHOUT_END),
    "10,000 sequences within one another": image(DEEP),
    "no Study Instance UID": image(study=""),
    "no Series Instance UID": image(series=""),
    "no SOP Instance UID": image(instance=""),
    "no SOP Class UID": image(sop_class=""),
    "a Study Instance UID that climbs": image(study="../../../etc/passwd"),
    "a Series Instance UID that climbs": image(series="1.2/../../3"),
    "a Study Instance UID of 65 characters": image(study=LONG_UID),
    "a Series Instance UID of letters": image(series="série"),
}


@pytest.mark.parametrize("sent", BAD_DATA_SETS.values(), ids=BAD_DATA_SETS.keys())
def test_what_is_no_whole_image_is_not_understood_and_not_kept(served: Served, sent: bytes) -> None:
    with calling(served.port) as pacs:
        answer = pacs.store(sent, INSTANCE)

        assert (answer.status, answer.sop_instance) == (CANNOT_UNDERSTAND, INSTANCE)
        assert answer.error_comment
        assert served.held() == (0, 0, 0)
        assert pacs.store(image(), INSTANCE).status == SUCCESS
    assert served.kept(INSTANCE) == [image()]
    served.goes_on()


def test_an_image_that_is_not_in_its_transfer_syntax_is_not_kept_as_what_it_is_not(
    served: Served,
) -> None:
    implicit = struct.pack("<HHL", 0x0008, 0x0016, 26) + b"1.2.840.10008.5.1.4.1.1.2\0"
    for syntax, other in ((EXPLICIT, implicit), (IMPLICIT, image())):
        with Caller(served.port, (CT, (syntax,)), calling="BEICHENG") as pacs:
            answer = pacs.store(other, INSTANCE)
            assert answer.status == CANNOT_UNDERSTAND
            assert "transfer syntax" in answer.error_comment
            pacs.release()
    assert served.held() == (0, 0, 0)


@pytest.mark.parametrize("uid", ["../../../../tmp/x", "1..//2", LONG_UID, "1.2.x"])
def test_a_uid_that_is_none_is_refused_though_command_and_data_set_agree(
    served: Served, uid: str
) -> None:
    with calling(served.port) as pacs:
        assert pacs.store(image(instance=uid), uid).status == CANNOT_UNDERSTAND
    assert served.held() == (0, 0, 0)
    served.goes_on()


@pytest.mark.parametrize(
    ("instance", "sop_class"),
    [
        ("1.4.2", CT),
        ("", CT),
        ("../1.4.1", CT),
        (LONG_UID * 300, CT),
        (INSTANCE, "1.2.3"),
        (INSTANCE, ""),
    ],
    ids=["another", "none", "a path", "20,000 characters", "another class", "no class"],
)
def test_a_command_that_names_another_instance_than_follows_is_refused(
    served: Served, instance: str, sop_class: str
) -> None:
    with calling(served.port) as pacs:
        answer = pacs.ask(CT, store_request(1, sop_class, instance), image())

        assert answer.status == MISMATCH
        assert "differs between command and data set" in answer.error_comment
    assert served.held() == (0, 0, 0)
    served.goes_on()


def test_operations_that_a_context_does_not_have_are_not_recognized(served: Served) -> None:
    store = store_request(1, CT, INSTANCE)
    move = request(
        CommandField.C_MOVE_RQ, 2, STUDY_FIND, data_set_present=True, move_destination="BEICHENG"
    )
    find = request(CommandField.C_FIND_RQ, 3, STUDY_FIND, data_set_present=True)
    action = request(CommandField.N_ACTION_RQ, 4, "1.2.840.10008.1.20.1", "1.2", action_type=1)
    bare = request(CommandField.C_STORE_RQ, 5, CT, INSTANCE)
    contexts = ((VERIFICATION, (IMPLICIT,)), (CT, (EXPLICIT,)), (STUDY_FIND, (EXPLICIT,)))

    with calling(served.port, *contexts) as pacs:
        assert pacs.ask(VERIFICATION, store, image()).status == UNRECOGNIZED_OPERATION
        assert pacs.ask(STUDY_FIND, store, image()).status == UNRECOGNIZED_OPERATION
        assert pacs.ask(STUDY_FIND, move, identifier()).status == UNRECOGNIZED_OPERATION
        assert pacs.ask(CT, bare).status == UNRECOGNIZED_OPERATION
        assert pacs.ask(CT, action).status == UNRECOGNIZED_OPERATION
        assert pacs.ask(CT, find, identifier()).status == UNRECOGNIZED_OPERATION
        assert pacs.echo() == SUCCESS
    assert served.held() == (0, 0, 0)


def test_an_object_longer_than_the_limit_is_refused_and_the_association_goes_on(
    tmp_path: Path,
) -> None:
    long = image(pixels=element(0x7FE00010, "OW", bytes(100_000)))

    with serving(tmp_path, Limits(instance_bytes=50_000)) as served, calling(served.port) as pacs:
        assert pacs.store(long, INSTANCE).status == OUT_OF_RESOURCES
        assert served.held() == (0, 0, 0)
        assert pacs.store(image(), INSTANCE).status == SUCCESS


@pytest.mark.parametrize("ending", ["closed", "aborted", "released", "another command"])
def test_an_image_that_is_broken_off_is_not_kept(served: Served, ending: str) -> None:
    with Caller(served.port) as pacs:
        context, _ = pacs.contexts[CT]
        command = value(context, COMMAND | LAST, store_request(1, CT, INSTANCE))
        pacs.send(command, value(context, 0, image()))
        match ending:
            case "closed":
                pacs.socket.close()
            case "aborted":
                pacs.send(Abort(AbortSource.SERVICE_USER).encode())
            case "released":
                pacs.send(RELEASE_RQ)
                assert pacs.hung() == Abort(
                    AbortSource.SERVICE_PROVIDER, AbortReason.UNEXPECTED_PDU
                )
            case _:
                pacs.send(command)
                assert pacs.hung() == Abort(
                    AbortSource.SERVICE_PROVIDER, AbortReason.UNEXPECTED_PDU_PARAMETER
                )
    served.goes_on()
    assert served.kept(INSTANCE) == []


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\x04\0\0\0\0\x0a\0\0\0\xff\x03\0abcd", AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (b"\x04\0\xff\xff\xff\xff", AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (value(3, COMMAND | LAST, b"nonsense"), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (value(9, COMMAND | LAST, b""), AbortReason.INVALID_PDU_PARAMETER_VALUE),
        (value(3, LAST, image()), AbortReason.UNEXPECTED_PDU_PARAMETER),
        (b"\x63\0\0\0\0\0", AbortReason.UNRECOGNIZED_PDU),
        (b"GET / HTTP/1.1\r\n\r\n", AbortReason.UNRECOGNIZED_PDU),
        (b"\x01\0\0\0\0\0", AbortReason.UNEXPECTED_PDU),
    ],
    ids=[
        "a value longer than its PDU",
        "a PDU of 4 GB",
        "no command set",
        "an unknown context",
        "data without a command",
        "an unknown PDU",
        "HTTP",
        "a second request",
    ],
)
def test_a_pdu_that_breaks_the_protocol_is_answered_with_the_reason(
    served: Served, sent: bytes, reason: AbortReason
) -> None:
    with Caller(served.port) as pacs:
        pacs.send(sent)
        assert pacs.hung() == Abort(AbortSource.SERVICE_PROVIDER, reason)
    served.goes_on()


@pytest.mark.parametrize("length", [0, 5, 40, 100])
def test_a_request_that_is_cut_off_costs_nobody_else_anything(served: Served, length: int) -> None:
    cut = (b"\x01\0\0\0\0\xce" + b"\0\1\0\0" + b"EXCHANGE".ljust(16) * 2 + bytes(100))[:length]
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(cut)
    served.goes_on()


def test_dcmtk_sends_and_finds(served: Served, tmp_path: Path) -> None:
    sent = ct(tmp_path / "one.dcm", patient="P1", study=STUDY)
    peer = ["-aet", "BEICHENG", "-aec", "EXCHANGE", "127.0.0.1", str(served.port)]

    subprocess.run(["storescu", "-xs", *peer, str(tmp_path / "one.dcm")], check=True)

    (kept,) = served.kept(str(sent.SOPInstanceUID))
    assert kept == data_set((tmp_path / "one.dcm").read_bytes())
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=P1", "-k", "StudyInstanceUID"]
    found = subprocess.run(
        ["findscu", "-v", "-S", *keys, *peer], check=True, capture_output=True, text=True
    )
    assert f"[{STUDY}" in found.stdout + found.stderr


# C-FIND


@pytest.fixture
def asked(served: Served) -> Iterator[Caller]:
    """An association for questions, at an exchange that holds one study of two series."""
    for series in ("1.2.1.1", "1.2.1.2"):
        instance = f"{series}.9"
        with calling(served.port) as pacs:
            sent = image(series=series, instance=instance)
            assert pacs.store(sent, instance).status == SUCCESS
    contexts = ((STUDY_FIND, (EXPLICIT,)), (PATIENT_FIND, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,)))
    with calling(served.port, *contexts) as pacs:
        yield pacs


PATIENT_ID = (0x00100020, "LO", "P1")
STUDY_KEY = (0x0020000D, "UI", "")
SERIES_KEY = (0x0020000E, "UI", "")

BAD_QUESTIONS = {
    "nothing": b"",
    "random bytes": random.Random(9).randbytes(400),
    "cut off": identifier(PATIENT_ID)[:-3],
    "no level": identifier(PATIENT_ID, level=""),
    "no such level": identifier(PATIENT_ID, level="EXAM"),
    "a level of the other model": identifier(PATIENT_ID, level="PATIENT"),
    "a series without its study": identifier(SERIES_KEY, level="SERIES"),
    "a series of any study": identifier((0x0020000D, "UI", "*"), SERIES_KEY, level="SERIES"),
    "an image without its series": identifier((0x0020000D, "UI", STUDY), level="IMAGE"),
    "a date that is none": identifier((0x00080020, "DA", "yesterday")),
    "half a date range": identifier((0x00080020, "DA", "2026-20")),
    "a time that is none": identifier((0x00080030, "TM", "noon")),
    "too long": identifier((0x00081030, "LO", "x" * 60_000), (0x00100010, "PN", "y" * 60_000)),
    "a value too long": identifier((0x00081030, "LO", "x" * 2000)),
    "10,000 sequences within one another": DEEP[: IDENTIFIER_LENGTH - 100],
    "a length of 4 GB": identifier(PATIENT_ID) + FOUR_GIGABYTES,
}


@pytest.mark.parametrize("sent", BAD_QUESTIONS.values(), ids=BAD_QUESTIONS.keys())
def test_a_question_that_makes_no_sense_is_refused_with_the_reason(
    asked: Caller, sent: bytes
) -> None:
    ((answer, body),) = asked.find(sent)

    assert answer.status == MISMATCH
    assert answer.error_comment
    assert body == b""
    assert len(asked.find(identifier(STUDY_KEY, PATIENT_ID))) == 2


def test_a_key_that_cannot_be_matched_is_announced_with_every_match(asked: Caller) -> None:
    plain = asked.find(identifier(STUDY_KEY, PATIENT_ID))
    unsupported = asked.find(identifier(STUDY_KEY, PATIENT_ID, (0x00102160, "SH", "Han")))

    assert [answer.status for answer, _ in plain] == [PENDING, SUCCESS]
    assert [answer.status for answer, _ in unsupported] == [PENDING_UNSUPPORTED, SUCCESS]


def test_private_and_unknown_keys_are_passed_over(asked: Caller) -> None:
    private = element(0x00110010, "LO", "SHENZHEN") + element(0x00111001, "UN", "1")
    question = identifier(STUDY_KEY, PATIENT_ID)

    answers = asked.find(question[: question.index(b"\x20\0\x0d\0")] + private)

    assert answers[-1][0].status == SUCCESS


def test_relational_queries_are_answered_where_they_were_negotiated(served: Served) -> None:
    served.goes_on()
    question = identifier((0x0020000E, "UI", SERIES), PATIENT_ID, level="SERIES")
    with Caller(
        served.port, (STUDY_FIND, (EXPLICIT,)), extended={STUDY_FIND: b"\1\1\1"}
    ) as relational:
        assert relational.answer.user.extended == {STUDY_FIND: b"\1\1\1"}
        answers = relational.find(question)
        relational.release()
    with calling(served.port, (STUDY_FIND, (EXPLICIT,))) as hierarchical:
        refused = hierarchical.find(question)

    assert [answer.status for answer, _ in answers] == [PENDING, SUCCESS]
    assert [answer.status for answer, _ in refused] == [MISMATCH]


def test_a_question_can_be_called_off(asked: Caller) -> None:
    context, _ = asked.contexts[STUDY_FIND]
    find = request(CommandField.C_FIND_RQ, 77, STUDY_FIND, data_set_present=True)
    cancel = encode(
        {
            Element.COMMAND_FIELD: CommandField.C_CANCEL_RQ,
            Element.MESSAGE_ID_BEING_RESPONDED_TO: 77,
            Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
        }
    )

    asked.send(
        value(context, COMMAND | LAST, find),
        value(context, LAST, identifier(STUDY_KEY)),
        value(context, COMMAND | LAST, cancel),
    )

    assert asked.message()[0].status == CANCEL
    assert asked.echo() == SUCCESS


def test_too_many_matches_are_refused_rather_than_cut(tmp_path: Path) -> None:
    with serving(tmp_path, Limits(matches=2)) as served:
        with calling(served.port) as pacs:
            for number in range(1, 4):
                sent = image(
                    instance=f"1.4.{number}", study=f"1.2.{number}", series=f"1.2.{number}.1"
                )
                assert pacs.store(sent, f"1.4.{number}").status == SUCCESS
        with calling(served.port, (STUDY_FIND, (EXPLICIT,))) as pacs:
            ((refused, _),) = pacs.find(identifier(STUDY_KEY))
            selective = pacs.find(identifier((0x0020000D, "UI", "1.2.2")))

    assert refused.status == OUT_OF_RESOURCES
    assert "more than 2 matches: ask for less of them" in refused.error_comment
    assert [answer.status for answer, _ in selective] == [PENDING, SUCCESS]


@pytest.mark.parametrize(
    ("declared", "encoding", "answered"),
    [
        ("GB18030", "gb18030", "GB18030"),
        ("GBK", "gbk", "GBK"),
        ("ISO_IR 192", "utf-8", "ISO_IR 192"),
    ],
)
def test_a_pacs_is_answered_in_the_character_set_that_it_asked_in(
    asked: Caller, declared: str, encoding: str, answered: str
) -> None:
    keys = (STUDY_KEY, (0x00080005, "CS", declared), (0x00100010, "PN", "*=王^小东"))

    (pending, body), (final, _) = asked.find(identifier(*keys, text=encoding))

    assert (pending.status, final.status) == (PENDING, SUCCESS)
    told = read_dataset(io.BytesIO(body), False, True)
    assert told.SpecificCharacterSet == answered
    name = body[body.index(b"\x10\0\x10\0PN") + 8 :]
    assert name.startswith("Wang^XiaoDong=王^小东".encode(encoding))


# What nobody thought of


def test_the_node_survives_what_nobody_thought_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    impatient = Conduct(artim_timeout=2, network_timeout=2, pdu_timeout=2)
    with serving(tmp_path, conduct=impatient) as served:
        for seed in range(MUTATIONS):
            chance = random.Random(seed)
            contexts = ((CT, (EXPLICIT,)), (STUDY_FIND, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,)))
            with contextlib.suppress(OSError), Caller(served.port, *contexts) as pacs:
                pacs.send(mutated(conversation(f"1.5.{seed}"), chance))
                pacs.socket.shutdown(socket.SHUT_WR)
                while pacs.socket.recv(65536):
                    pass
            if seed % 30 == 29:
                with calling(served.port) as pacs:
                    assert pacs.echo() == SUCCESS, f"seed {seed}"
            assert "handler failed" not in caplog.text, f"seed {seed}: {caplog.text}"
        served.goes_on()
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            found = [one for one in check.check(access) if isinstance(one, check.Finding)]
        assert found == []


def conversation(instance: str) -> bytes:
    """All that a caller says after the association is accepted: image, question, echo, release."""
    find = request(CommandField.C_FIND_RQ, 2, STUDY_FIND, data_set_present=True)
    return b"".join(
        (
            value(1, COMMAND | LAST, store_request(1, CT, instance)),
            value(1, 0, image(instance=instance)[:1000]),
            value(1, LAST, image(instance=instance)[1000:]),
            value(3, COMMAND | LAST, find),
            value(3, LAST, identifier(STUDY_KEY, PATIENT_ID)),
            value(5, COMMAND | LAST, request(CommandField.C_ECHO_RQ, 3, VERIFICATION)),
            RELEASE_RQ,
        )
    )


def mutated(said: bytes, chance: random.Random) -> bytes:
    """`said` with up to four bytes changed, stretches cut, repeated or put in."""
    changed = bytearray(said)
    for _ in range(chance.randint(1, 4)):
        # Where the structure is: most of the rest are pixels.
        at = chance.choice((chance.randrange(500), chance.randrange(len(changed) or 1)))
        stretch = slice(at, at + chance.choice((1, 2, 4, 8, 40)))
        match chance.randrange(6):
            case 0:
                changed[stretch] = chance.randbytes(len(changed[stretch]))
            case 1:
                changed[stretch] = b"\xff" * len(changed[stretch])
            case 2:
                changed[stretch] = bytes(len(changed[stretch]))
            case 3:
                del changed[stretch]
            case 4:
                changed[at:at] = changed[stretch]
            case _:
                changed[at:at] = chance.randbytes(chance.randint(1, 8))
    return bytes(changed)


# What operators see


class Full(FilesystemStore):
    """A store without room for images."""

    def stage(self) -> NoReturn:
        raise StoreFull("No space left on device")


def test_operators_see_how_each_operation_was_answered_and_why_images_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answered: list[tuple[str, str, int]] = []

    def observed(operation: CommandField, code: int) -> None:
        answered.append((operation.service, type_of(code), code))

    full = Full(tmp_path / "full")
    with (
        serving(tmp_path, objects=full, observed=observed) as served,
        calling(served.port) as pacs,
    ):
        assert pacs.echo() == SUCCESS
        assert pacs.store(image(), INSTANCE).status == OUT_OF_RESOURCES

    assert answered == [("C-ECHO", "success", 0), ("C-STORE", "failure", OUT_OF_RESOURCES)]
    (line,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert line == (
        "C-STORE of BEICHENG was refused with A700: the object store is full; nothing was kept"
    )

"""C-FIND beyond the plain question: what is negotiated is served, what is not is not (C.5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from caller import (
    EXPLICIT,
    IMPLICIT,
    STUDY_FIND,
    SUCCESS,
    VERIFICATION,
    Caller,
    identifier,
    value,
)
from serving import Served, serving
from sqlalchemy import insert, select

from exchange_dicom import data_set
from exchange_dicom.conversation import Limits
from exchange_dicom.dimse import NO_DATA_SET, CommandField, Element, encode, request
from exchange_dicom.pdu import COMMAND, LAST
from exchange_storage.records import Instance, Series, Study

PENDING, PENDING_UNSUPPORTED, OUT_OF_RESOURCES, CANCEL = 0xFF00, 0xFF01, 0xA700, 0xFE00
NAME, PATIENT_ID = 0x00100010, 0x00100020
DATE, TIME, UID = 0x00080020, 0x00080030, 0x0020000D
RELATIONAL, COMBINED, FUZZY = b"\1\0\0\0", b"\0\1\0\0", b"\0\0\1\0"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        city = made.city
        city.send("beicheng", study="1.2.1", instance="1", StudyDate="20261101", StudyTime="080000")
        city.send("beicheng", study="1.2.2", instance="2", StudyDate="20261102", StudyTime="070000")
        city.send("beicheng", study="1.2.3", instance="3", StudyDate="20261103", StudyTime="090000",
                  patient="P2", PatientName="Wong^Xiaodong")  # fmt: skip
        yield made


def found(
    served: Served, *keys: tuple[int, str, str], extended: bytes = b"", text: str = "utf-8"
) -> list[str]:
    """The Study Instance UIDs of the matches."""
    negotiated = {STUDY_FIND: extended} if extended else None
    with Caller(served.port, (STUDY_FIND, (EXPLICIT,)), extended=negotiated) as pacs:
        if extended:
            assert pacs.answer.user.extended[STUDY_FIND] == extended
        answers = pacs.find(identifier((UID, "UI", ""), *keys, text=text))
        pacs.release()
    assert answers[-1][0].status == SUCCESS
    return sorted(told(body)[UID] for _, body in answers[:-1])


def told(body: bytes) -> dict[int, str]:
    return {
        one.tag: bytes(one.value or b"").decode("utf-8", "replace").strip(" \0")
        for one in data_set.elements(body, EXPLICIT)
    }


def test_a_date_and_its_time_are_one_moment_only_when_that_is_negotiated(served: Served) -> None:
    span = (DATE, "DA", "20261101-20261103"), (TIME, "TM", "0730-0800")
    # Each for itself: any of the days, between half past seven and eight.
    assert found(served, *span) == ["1.2.1"]
    # As one moment: from the first day's half past seven to the third day's eight.
    assert found(served, *span, extended=COMBINED) == ["1.2.1", "1.2.2"]


def test_names_that_sound_alike_match_only_when_that_is_negotiated(served: Served) -> None:
    assert found(served, (NAME, "PN", "Wang^XiaoDong")) == ["1.2.1", "1.2.2"]
    utf_8 = (0x00080005, "CS", "ISO_IR 192")
    homophone = (NAME, "PN", "王晓东")
    assert found(served, utf_8, homophone, extended=FUZZY) == ["1.2.1", "1.2.2"]
    assert found(served, utf_8, homophone) == []
    assert found(served, (NAME, "PN", "Zhang^Wei"), extended=FUZZY) == []


@pytest.mark.parametrize(
    "name",
    [
        "王小东",
        "王^小东",
        "=王^小东",
        "WANG^XIAODONG",
        "wang^xiaodong",
        "wáng^xiǎodōng",
        "ＷＡＮＧ^XiaoDong",
        "王*",
    ],
)
def test_a_name_is_found_in_any_of_its_groups_case_and_width(served: Served, name: str) -> None:
    assert found(served, (0x00080005, "CS", "ISO_IR 192"), (NAME, "PN", name)) == [
        "1.2.1",
        "1.2.2",
    ]


def test_what_is_not_served_of_extended_negotiation_is_not_granted(served: Served) -> None:
    asked = {STUDY_FIND: b"\1\1\1\1\1\1"}
    with Caller(served.port, (STUDY_FIND, (EXPLICIT,)), extended=asked) as pacs:
        assert pacs.answer.user.extended[STUDY_FIND] == b"\1\1\1\0\0\0"
        pacs.release()


def test_a_question_without_a_selective_key_is_refused_in_a_large_archive(tmp_path: Path) -> None:
    with serving(tmp_path, Limits(matches=2)) as made:
        for number in range(4):
            made.city.send("beicheng", study=f"1.2.{number}", instance=f"1.4.{number}")
        with Caller(made.port, (STUDY_FIND, (EXPLICIT,))) as pacs:
            ((refused, _),) = pacs.find(identifier())
            assert refused.status == OUT_OF_RESOURCES
            assert refused.error_comment
            answers = pacs.find(identifier((UID, "UI", "1.2.3")))
            assert [one.status for one, _ in answers] == [PENDING, SUCCESS]
            pacs.release()


def test_a_key_that_is_not_supported_is_announced_with_each_match(served: Served) -> None:
    with Caller(served.port, (STUDY_FIND, (EXPLICIT,))) as pacs:
        answers = pacs.find(
            identifier((UID, "UI", "1.2.1"), (0x00104000, "LT", "nothing"), (NAME, "PN", ""))
        )
        pacs.release()
    assert [one.status for one, _ in answers] == [PENDING_UNSUPPORTED, SUCCESS]
    assert 0x00104000 not in told(answers[0][1])


MANY = 3000
"""Matches of 2.5 KB each: more than the buffers of a connection hold."""


def test_a_question_is_called_off_in_the_midst_of_its_matches(served: Served) -> None:
    with served.city.exchange.database.writing() as session:
        for record, above in ((Study, None), (Series, "study_id"), (Instance, "series_id")):
            row = dict(session.execute(select(record.__table__).limit(1)).mappings().one())
            told = {key for key in row if key.endswith(("description", "_name"))}
            uid = next(key for key in row if key.endswith("instance_uid"))
            own = {"id", uid, "key"} & row.keys()
            session.execute(
                insert(record),
                [
                    row
                    | dict.fromkeys(told, "胸" * 255)
                    | {key: 1000 + n if key == "id" else f"1.9.{n}" for key in own}
                    | ({above: 1000 + n} if above else {})
                    for n in range(MANY)
                ],
            )
        session.commit()
    wanted = [(0x00081030, "LO", ""), (0x00080090, "PN", ""), (PATIENT_ID, "LO", "P1")]
    with Caller(served.port, (STUDY_FIND, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,))) as pacs:
        context, _ = pacs.contexts[STUDY_FIND]
        find = request(CommandField.C_FIND_RQ, 7, STUDY_FIND, data_set_present=True)
        question = identifier((UID, "UI", ""), *wanted)
        pacs.send(value(context, COMMAND | LAST, find), value(context, LAST, question))
        assert pacs.message()[0].status == PENDING
        cancel = encode(
            {
                Element.COMMAND_FIELD: CommandField.C_CANCEL_RQ,
                Element.MESSAGE_ID_BEING_RESPONDED_TO: 7,
                Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
            }
        )
        pacs.send(value(context, COMMAND | LAST, cancel))
        statuses = [pacs.message()[0].status]
        while statuses[-1] == PENDING:
            statuses.append(pacs.message()[0].status)
        assert statuses[-1] == CANCEL
        assert len(statuses) < MANY
        assert pacs.echo() == SUCCESS  # the association goes on
        pacs.release()


def test_a_question_without_an_identifier_is_refused_with_the_reason(served: Served) -> None:
    with Caller(served.port, (STUDY_FIND, (EXPLICIT,))) as pacs:
        answer = pacs.ask(STUDY_FIND, request(CommandField.C_FIND_RQ, 7, STUDY_FIND))
        assert (answer.status, answer.error_comment) == (0xA900, "the identifier is missing")
        pacs.release()

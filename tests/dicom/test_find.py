"""C-FIND beyond the plain question: what is negotiated is served, what is not is not (C.5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from caller import EXPLICIT, STUDY_FIND, SUCCESS, Caller, identifier
from serving import Served, serving

from exchange_dicom import data_set
from exchange_dicom.conversation import Limits

PENDING, PENDING_UNSUPPORTED, OUT_OF_RESOURCES = 0xFF00, 0xFF01, 0xA700
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

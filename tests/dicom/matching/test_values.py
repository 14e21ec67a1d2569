"""What a C-FIND matches, asked by pynetdicom: values, ranges, names, times (PS3.4 C.2.2.2)."""

from __future__ import annotations

from calendar import monthrange
from datetime import date
from typing import Any

import pytest
from asking import ask
from caller import EXPLICIT, IMPLICIT
from hypothesis import given
from hypothesis import strategies as st
from matched import (
    ALL,
    CHEST,
    COMBINED,
    CT,
    LI,
    MUELLER,
    OURS,
    PENDING,
    RELATIONAL,
    SR,
    SUCCESS,
    YAMADA,
    ZHANG,
    findscu,
    studies,
)
from serving import Served

from exchange.errors import Invalid
from exchange_dicom.query import matching
from exchange_storage.search import Range, Values

# The character set of a question and of its answers (C.2.2.2, C.4.1.1.3)


def test_the_character_set_of_a_question_is_no_key_and_its_answer_says_its_own(
    served: Served,
) -> None:
    keys = {"StudyInstanceUID": CHEST, "PatientName": ""}
    for declared, answered in (
        ("ISO_IR 100", "ISO_IR 192"),  # which has no hanzi
        ("GB18030", "GB18030"),
        ("ISO_IR 192", "ISO_IR 192"),
        ("", "ISO_IR 192"),
    ):
        (match,) = ask(served.port, "STUDY", keys, character_set=declared).matches
        assert match.SpecificCharacterSet == answered
        assert match.PatientName == "Wang^XiaoDong=王^小东"


def test_an_answer_in_ascii_says_nothing_of_character_sets(served: Served) -> None:
    (match,) = ask(served.port, "STUDY", {"StudyInstanceUID": CHEST}, character_set="").matches
    assert "SpecificCharacterSet" not in match


# Single values, wildcards, lists and universal matching (C.2.2.2.1 to .4)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        # single values: exact, and in the case in which they were sent
        ({"AccessionNumber": "A1"}, [CHEST]),
        ({"AccessionNumber": "a1"}, []),
        ({"AccessionNumber": "a2"}, [YAMADA]),
        ({"StudyDescription": "胸部平扫 Chest"}, [CHEST]),
        ({"StudyDescription": "胸部平扫"}, []),
        ({"PatientSex": "F", "StudyDate": "20261101"}, [CHEST]),
        ({"PatientID": "P2"}, [YAMADA]),
        ({"StudyID": "S-1"}, [CHEST]),
        # wildcards, in text alone
        ({"AccessionNumber": "A*"}, [CHEST, LI]),
        ({"AccessionNumber": "?2"}, [YAMADA]),
        ({"AccessionNumber": "?"}, []),
        ({"StudyDescription": "*hest*"}, [CHEST, YAMADA]),
        ({"StudyDescription": "*Chest*"}, [CHEST]),
        ({"StudyDescription": "胸部??*"}, [CHEST]),
        ({"StudyDescription": "*100%"}, [YAMADA]),
        ({"StudyDescription": "*%*"}, [YAMADA]),
        ({"PatientID": "P?"}, [CHEST, YAMADA, LI, MUELLER, OURS]),
        # UIDs have no wildcards but may be a list; that of one UID is a single value
        ({"StudyInstanceUID": "1.2.*"}, []),
        ({"StudyInstanceUID": "1.2.?"}, []),
        ({"StudyInstanceUID": ["1.2.1", "1.2.4", "9.9"]}, [CHEST, MUELLER]),
        ({"StudyInstanceUID": "1.2.3"}, [LI]),
        # universal matching
        ({"StudyInstanceUID": "*"}, ALL),
        ({"PatientName": "*"}, ALL),
        ({"PatientName": "*^*=*"}, ALL),
        ({"AccessionNumber": "**"}, ALL),
        ({"AccessionNumber": "", "PatientName": "", "StudyDate": ""}, ALL),
    ],
)
def test_values_wildcards_lists_and_nothing_match_as_the_standard_says(
    served: Served, keys: dict[str, Any], found: list[str]
) -> None:
    assert studies(served, **keys) == found


@pytest.mark.parametrize(
    ("level", "keys", "found"),
    [
        ("SERIES", {"SeriesInstanceUID": "", "SeriesNumber": "1"}, 1),
        ("SERIES", {"SeriesInstanceUID": "", "Modality": "C?"}, 1),
        ("SERIES", {"SeriesInstanceUID": ["1.2.1.1", "1.2.1.2"]}, 2),
        ("SERIES", {"SeriesInstanceUID": "", "SeriesDescription": "肺*"}, 1),
        ("IMAGE", {"SOPInstanceUID": "", "InstanceNumber": "12"}, 1),
        ("IMAGE", {"SOPInstanceUID": "", "InstanceNumber": "1"}, 1),
        ("IMAGE", {"SOPInstanceUID": ["1.4.1", "1.4.2"]}, 2),
        ("IMAGE", {"SOPInstanceUID": "", "Rows": 512}, 2),
        ("IMAGE", {"SOPInstanceUID": "", "Rows": 511}, 0),
        ("IMAGE", {"SOPInstanceUID": "", "SOPClassUID": CT}, 2),
        ("IMAGE", {"SOPInstanceUID": "", "SOPClassUID": SR}, 0),
    ],
)
def test_the_lower_levels_match_in_the_same_way(
    served: Served, level: str, keys: dict[str, Any], found: int
) -> None:
    above = {"StudyInstanceUID": CHEST} | (
        {"SeriesInstanceUID": "1.2.1.1"} if level == "IMAGE" else {}
    )
    answers = ask(served.port, level, above | keys)
    assert (answers.final, len(answers.matches)) == (SUCCESS, found)


def test_numbers_have_no_wildcards(served: Served) -> None:
    done = findscu(
        served, "-S", "-k", "QueryRetrieveLevel=IMAGE", "-k", f"StudyInstanceUID={CHEST}",
        "-k", "SeriesInstanceUID=1.2.1.1", "-k", "SOPInstanceUID", "-k", "InstanceNumber=1*",
    )  # fmt: skip
    assert "Success" in done
    assert "Pending" not in done


@pytest.mark.parametrize("key", ["StudyDate=2026*", "StudyTime=10*", "StudyDate=*2026"])
def test_dates_and_times_have_no_wildcards(served: Served, key: str) -> None:
    done = findscu(served, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", key)
    assert "Error: DataSetDoesNotMatchSOPClass" in done


# Ranges (C.2.2.2.5), and times by their meaning (C.2.2.2.1.3)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"StudyDate": "20261101"}, [CHEST]),
        ({"StudyDate": "20261101-20261102"}, [CHEST, YAMADA]),
        ({"StudyDate": "-20251231"}, [OURS, ZHANG]),
        ({"StudyDate": "20261103-"}, [LI, MUELLER]),
        ({"StudyDate": "20261102-20261101"}, []),
        ({"StudyDate": "2026.11.01-2026.11.02"}, [CHEST, YAMADA]),
        # the 31st ends every month
        ({"StudyDate": "20261101-20261131"}, [CHEST, YAMADA, LI, MUELLER]),
        ({"StudyDate": "-2026.02.31"}, [OURS, ZHANG]),
        ({"StudyTime": "101500"}, [CHEST]),
        ({"StudyTime": "1015"}, [CHEST]),
        ({"StudyTime": "10"}, [CHEST]),
        ({"StudyTime": "101500.000"}, [CHEST]),
        ({"StudyTime": "070000"}, [YAMADA]),
        ({"StudyTime": "07"}, [YAMADA]),
        ({"StudyTime": "1630"}, [LI]),
        ({"StudyTime": "10:15"}, [CHEST]),
        ({"StudyTime": "07-1015"}, [CHEST, YAMADA]),
        ({"StudyTime": "-0700"}, [YAMADA, ZHANG]),
        ({"StudyTime": "2359-"}, [OURS]),
        ({"StudyTime": "1600-2400"}, [LI, OURS]),  # to the end of the day
        ({"PatientBirthDate": "19800101"}, [YAMADA]),
        ({"PatientBirthDate": "-19491231", "StudyDate": "20261101-"}, [CHEST, MUELLER]),
    ],
)
def test_ranges_hold_both_their_ends_and_times_mean_what_they_say(
    served: Served, keys: dict[str, Any], found: list[str]
) -> None:
    assert studies(served, **keys) == found


@pytest.mark.parametrize(
    ("date", "time", "apart", "combined"),
    [
        ("20261101-20261103", "1000-1630", [CHEST, LI], [CHEST, YAMADA, LI]),
        ("20261101-", "1100-", [LI], [YAMADA, LI, MUELLER]),
        ("-20261101", "-1000", [ZHANG], [OURS, ZHANG]),
        # not the same form of range: each for itself, negotiated or not
        ("20261101-20261103", "1000-", [CHEST, LI], [CHEST, LI]),
        ("20261101-20261103", "10", [CHEST], [CHEST]),
        ("20261101", "1000-1100", [CHEST], [CHEST]),
    ],
)
def test_date_and_time_are_combined_when_negotiated_and_both_are_the_same_kind_of_range(
    served: Served, date: str, time: str, apart: list[str], combined: list[str]
) -> None:
    assert studies(served, StudyDate=date, StudyTime=time) == apart
    assert studies(served, COMBINED, StudyDate=date, StudyTime=time) == combined


@given(st.dates(), st.integers(0, 99))
def test_a_range_may_end_on_the_thirty_first_of_any_month_and_on_no_other_day_that_is_none(
    day: date, number: int
) -> None:
    written, month = f"{day.year:04}{day.month:02}{day.day:02}", f"{day.year:04}{day.month:02}"
    last = monthrange(day.year, day.month)[1]
    assert matching("StudyDate", written) == Values((written,))
    assert matching("StudyDate", f"{written}-") == Range(written, None)
    if 1 <= number <= 31:
        end = Range(f"{month}01", f"{month}{min(number, last):02}")
        assert matching("StudyDate", f"{month}01-{month}{number:02}") == end
    else:
        with pytest.raises(Invalid, match="StudyDate is not a day of the calendar"):
            matching("StudyDate", f"{month}01-{month}{number:02}")
    if not 1 <= number <= last:
        for alone in (f"{month}{number:02}", f"{month}{number:02}-"):
            with pytest.raises(Invalid, match="StudyDate is not a day of the calendar"):
                matching("StudyDate", alone)


@pytest.mark.parametrize("time", ["25", "24", "1060", "10:15:61", "-2500", "2400-", "1015-2401"])
def test_a_time_that_no_clock_shows_is_refused_like_a_day_of_no_calendar(time: str) -> None:
    with pytest.raises(Invalid, match="StudyTime is not a time of the day"):
        matching("StudyTime", time)


# Names, in any of their three groups (PS3.5 6.2; C.2.2.2.1.1)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        *(
            (name, [CHEST, OURS])
            for name in (
                "Wang^XiaoDong", "wang^xiaodong", "WANG^XIAODONG", "WANG^XIAO DONG", "Wang*",
                "王小东", "王^小东", "=王^小东", "Wang^XiaoDong=王^小东", "王*", "*小东", "王?东",
                "*=王^小东", "Wáng^Xiǎodōng", "wang2^xiao3dong1", "Wang2 Xiao3dong1",
                "ＷＡＮＧ^ＸｉａｏＤｏｎｇ", "Wang^XiaoDong^^^", "wangxiaodong", "Wang^Xiao*",
                "XiaoDong Wang", "XiaoDong*", "小东*",
            )
        ),
        *(
            (name, [YAMADA])
            for name in ("yamada^tarou", "山田^太郎", "やまだ^たろう", "==やまだ^たろう", "やまだ*")
        ),
        *((name, [LI]) for name in ("李娜", "Li^Na", "lǐ^nà", "LI^*", "=李*")),
        *((name, [MUELLER]) for name in ("Müller^Jürgen", "MULLER^JURGEN", "müller*")),
        ("Wang", []),
        ("小东", []),
        ("Wang^Wei", []),
        ("XiaoDong^*", []),
        ("XiaoDong^Wang", []),
    ],
)  # fmt: skip
def test_a_name_is_found_by_any_of_its_groups_in_any_case_width_and_tone(
    served: Served, name: str, found: list[str]
) -> None:
    assert studies(served, PatientName=name) == found


REFERRING = (
    "Zhao^Min", "zhao^min", "赵^敏", "ZHAO*", "=赵*", "ＺＨＡＯ^min", "Zhao4^Min3", "赵敏",
)  # fmt: skip
PERFORMING = ("王^芳", "wang^fang", "Wang2^Fang1", "王*")
OPERATORS = ("孙丽", "SUN^LI", "Qian*", "钱^伟")


@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        *(("ReferringPhysicianName", name) for name in REFERRING),
        *(("PerformingPhysicianName", name) for name in PERFORMING),
        *(("OperatorsName", name) for name in OPERATORS),
    ],
)
def test_other_persons_are_found_as_patients_are(served: Served, keyword: str, name: str) -> None:
    def found(by: str) -> list[str]:
        return ask(
            served.port, "SERIES", {"StudyInstanceUID": "", keyword: by}, extended=RELATIONAL
        ).studies

    assert found(name)[:1] == [CHEST]
    for other in ("Zhao", "Zhou^Min", "Sun^Wei"):
        assert found(other) == []


@pytest.mark.parametrize(
    ("keyword", "name"),
    [("ReferringPhysicianName", "Zao^Min"), ("PerformingPhysicianName", "王^方")],
)
def test_other_persons_are_found_by_sound_only_when_that_is_negotiated(
    served: Served, keyword: str, name: str
) -> None:
    asked = {"StudyInstanceUID": "", keyword: name}
    assert ask(served.port, "SERIES", asked, extended=RELATIONAL).studies == []
    assert ask(served.port, "SERIES", asked, extended=b"\1\0\1").studies[:1] == [CHEST]


# Padding (PS3.5 6.2)


def test_padding_and_the_spaces_around_values_and_titles_do_not_count(served: Served) -> None:
    keys = {"StudyInstanceUID": f"{CHEST}\0", "AccessionNumber": " A1 ", "StudyID": "S-1 "}
    for calling in ("BEICHENG", " BEICHENG "):
        for syntax in (EXPLICIT, IMPLICIT):
            answers = ask(served.port, "STUDY", keys, calling=calling, transfer_syntax=syntax)
            assert answers.studies == [CHEST]


# Time zones (C.2.2.2; PS3.3 C.12.1.1.8)


def test_times_are_those_of_the_hospital_whatever_zone_is_named(served: Served) -> None:
    keys = {"StudyDate": "20261101", "StudyTime": "101500", "TimezoneOffsetFromUTC": "+0000"}
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": ""} | keys)
    assert answers.studies == [CHEST]
    assert answers.pending == (PENDING,)
    (match,) = answers.matches
    assert (match.StudyTime, match.get("TimezoneOffsetFromUTC", "")) == ("101500", "")

"""C-FIND asked by pynetdicom and DCMTK: matching, levels, optional keys (PS3.4 annex C).

The sections name what implementers get wrong: the character set of a question, wildcards, ranges,
sequences, statuses, the hierarchy, what is negotiated, names, padding, and time zones.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from asking import PATIENT_ROOT, STUDY_ROOT, Answers, ask
from caller import EXPLICIT, IMPLICIT, Caller, element
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from region import ID_CARD
from serving import Served, serving

from exchange_dicom.attributes import tag_and_vr
from exchange_storage.search import ATTRIBUTES

SUCCESS, PENDING, PENDING_UNSUPPORTED, MISMATCH = 0x0000, 0xFF00, 0xFF01, 0xA900
RELATIONAL, COMBINED, FUZZY = b"\1\0\0", b"\0\1\0", b"\0\0\1"
SR = "1.2.840.10008.5.1.4.1.1.88.11"
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Studies of three hospitals, four of them BEICHENG's; nobody changes them."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").create_schema()
    with serving(tmp_path_factory.mktemp("matching"), database_url=url) as made:
        send = made.city.send
        chest: dict[str, Any] = {
            "AccessionNumber": "A1", "StudyDescription": "胸部平扫 Chest", "StudyID": "S-1",
            "ReferringPhysicianName": "Zhao^Min=赵^敏", "PatientTelephoneNumbers": "0755-1",
        }  # fmt: skip
        send("beicheng", study="1.2.1", instance="1.4.1", SeriesNumber="1",
             SeriesDescription="肺窗", BodyPartExamined="CHEST", InstanceNumber="1", Rows="512",
             PerformingPhysicianName="王^芳", OperatorsName="孙^丽\\Qian^Wei=钱^伟",
             card=ID_CARD, requests=(("R1", "S1"), ("R2", "S2")), **chest)  # fmt: skip
        send("beicheng", study="1.2.1", instance="1.4.2", SeriesNumber="1", InstanceNumber="12",
             BodyPartExamined="CHEST", Rows="512", card=ID_CARD, **chest)  # fmt: skip
        send("beicheng", study="1.2.1", series="1.2.1.2", instance="1.4.3", SeriesNumber="2",
             Modality="SR", SOPClassUID=SR, card=ID_CARD, **chest)  # fmt: skip
        send("beicheng", patient="P2", study="1.2.2", instance="1.4.4", StudyDate="20261102",
             StudyTime="070000.000", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
             AccessionNumber="a2", StudyDescription="chest 100%", Modality="MR",
             PatientBirthDate="19800101", PatientSex="M")  # fmt: skip
        send("beicheng", patient="P3", study="1.2.3", instance="1.4.5", StudyDate="20261103",
             StudyTime="1630", PatientName="=李^娜", AccessionNumber="A3", Modality="DX",
             PatientBirthDate="")  # fmt: skip
        send("beicheng", patient="P4", study="1.2.4", instance="1.4.6", StudyDate="20261104",
             StudyTime="", PatientName="Müller^Jürgen", AccessionNumber="",
             Modality="US")  # fmt: skip
        send("nanhu", patient="N7", study="1.3.1", instance="1.5.1", StudyDate="20251231",
             StudyTime="235959", Modality="PT", card=ID_CARD)  # fmt: skip
        send("dongshan", patient="D9", study="1.3.2", instance="1.5.2", StudyDate="20240101",
             StudyTime="000000", PatientName="Zhang^Wei=张^伟", Modality="CR")  # fmt: skip
        made.city.identify()
        yield made


def studies(served: Served, extended: bytes = b"", **keys: Any) -> list[str]:
    """The studies that a Study Root question finds."""
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": ""} | keys, extended=extended)
    assert answers.final == SUCCESS, answers.comment
    return answers.studies


CHEST, YAMADA, LI, MUELLER, OURS, ZHANG = "1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.3.1", "1.3.2"
ALL = [CHEST, YAMADA, LI, MUELLER, OURS, ZHANG]


# 1 The character set of a question and of its answers (C.2.2.2, C.4.1.1.3)


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


# 2 Single values, wildcards, lists and universal matching (C.2.2.2.1 to .4)


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


# 3 Ranges (C.2.2.2.5), and times by their meaning (C.2.2.2.1.3)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"StudyDate": "20261101"}, [CHEST]),
        ({"StudyDate": "20261101-20261102"}, [CHEST, YAMADA]),
        ({"StudyDate": "-20251231"}, [OURS, ZHANG]),
        ({"StudyDate": "20261103-"}, [LI, MUELLER]),
        ({"StudyDate": "20261102-20261101"}, []),
        ({"StudyDate": "2026.11.01-2026.11.02"}, [CHEST, YAMADA]),
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


# 4 Sequences (C.2.2.2.6)


def test_a_sequence_matches_by_its_item_and_returns_what_the_item_asks(served: Served) -> None:
    def other(**item: str) -> Answers:
        return ask(served.port, "STUDY", {"StudyInstanceUID": "", "OtherPatientIDsSequence": item})

    asked = other(PatientID="N7")
    assert asked.studies == [OURS]
    (item,) = asked.matches[0].OtherPatientIDsSequence
    assert [one.keyword for one in item] == ["PatientID"]
    assert item.PatientID == "N7"

    both = other(PatientID="N7", IssuerOfPatientID="2.25.102")
    assert both.studies == [CHEST, OURS]  # the person whom that hospital knows so
    assert other(PatientID="N7", IssuerOfPatientID="2.25.103").studies == []
    assert other(PatientID="N?").studies == [OURS]
    assert other(PatientID=ID_CARD).studies == [CHEST, OURS]


def test_a_series_is_found_by_the_request_that_it_was_made_for(served: Served) -> None:
    def asked(level: str = "SERIES", **item: str) -> Answers:
        keys = {"StudyInstanceUID": CHEST, "SeriesInstanceUID": ""}
        return ask(served.port, level, keys | {"RequestAttributesSequence": item})

    both = asked(RequestedProcedureID="R1", ScheduledProcedureStepID="")
    assert both.pending == (PENDING,)
    items = both.matches[0].RequestAttributesSequence  # all of them, whichever matched
    told = [(one.RequestedProcedureID, one.ScheduledProcedureStepID) for one in items]
    assert told == [("R1", "S1"), ("R2", "S2")]
    assert len(asked(RequestedProcedureID="R?").matches) == 1
    assert asked(RequestedProcedureID="R1", ScheduledProcedureStepID="S2").matches == ()
    assert len(asked(RequestedProcedureID="").matches) == 2
    assert set(asked(AccessionNumber="").pending) == {PENDING_UNSUPPORTED}


@pytest.mark.parametrize("item", [None, {}], ids=["no item", "an empty item"])
def test_a_sequence_without_keys_matches_all_and_is_returned_whole(
    served: Served, item: dict[str, str] | None
) -> None:
    keys = {"StudyInstanceUID": OURS, "OtherPatientIDsSequence": item}
    answers = ask(served.port, "STUDY", keys)
    ((whole,),) = (one.OtherPatientIDsSequence for one in answers.matches)
    assert (whole.PatientID, whole.IssuerOfPatientID) == ("N7", "2.25.102")
    assert whole.TypeOfPatientID == "TEXT"


# 5 Statuses (C.4.1.1.4)


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"PatientName": "", "ModalitiesInStudy": "CT"}, PENDING),
        ({"PatientComments": ""}, PENDING_UNSUPPORTED),  # not kept
        ({"PatientComments": "x"}, PENDING_UNSUPPORTED),
        ({"NumberOfStudyRelatedInstances": "3"}, PENDING_UNSUPPORTED),  # returned, not matched
        ({"Modality": "CT"}, PENDING_UNSUPPORTED),  # of a level below
        ({"OtherPatientIDsSequence": {"PatientID": "", "IssuerOfPatientID": ""}}, PENDING),
        ({"OtherPatientIDsSequence": {"PatientAge": ""}}, PENDING_UNSUPPORTED),
        ({"ProcedureCodeSequence": {"CodeValue": ""}}, PENDING_UNSUPPORTED),
    ],
)
def test_every_match_says_whether_all_keys_were_supported(
    served: Served, keys: dict[str, Any], status: int
) -> None:
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": CHEST} | keys)
    assert (answers.pending, answers.final) == ((status,), SUCCESS)
    assert ("PatientComments" in answers.matches[0]) is False


def test_no_match_is_a_success_without_anything(served: Served) -> None:
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": "9.9.9"})
    assert (answers.matches, answers.final, answers.comment) == ((), SUCCESS, "")


# 6 The hierarchy, in both information models (C.4.1.3.1, C.6.1, C.6.2)

ABOVE = {
    "PATIENT": (),
    "STUDY": ("PatientID",),
    "SERIES": ("PatientID", "StudyInstanceUID"),
    "IMAGE": ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
}
OWN = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
OF_CHEST = {"PatientID": "P1", "StudyInstanceUID": CHEST, "SeriesInstanceUID": "1.2.1.1"}
BELOW_CHEST = {
    "PATIENT": ["P1"],
    "STUDY": [CHEST, OURS],
    "SERIES": ["1.2.1.1", "1.2.1.2"],
    "IMAGE": ["1.4.1", "1.4.2"],
}


def unique(model: str, level: str) -> dict[str, str]:
    """The unique keys above a level of a model, as the chest study has them."""
    keys = ABOVE[level] if model == PATIENT_ROOT else ABOVE[level][1:]
    return {key: OF_CHEST[key] for key in keys}


LEVELS = [
    *((PATIENT_ROOT, level) for level in ABOVE),
    *((STUDY_ROOT, level) for level in ABOVE if level != "PATIENT"),
]


@pytest.mark.parametrize(("model", "level"), LEVELS)
def test_every_level_of_both_models_is_asked_with_the_unique_keys_above_it(
    served: Served, model: str, level: str
) -> None:
    above = unique(model, level)
    own = {OWN[level]: "", "PatientName": ""} if level == "STUDY" else {OWN[level]: ""}
    if level == "PATIENT":
        own = {"PatientID": "P1"}
    elif (model, level) == (STUDY_ROOT, "STUDY"):
        own |= {"PatientID": "P1"}

    answers = ask(served.port, level, above | own, model=model)

    assert answers.final == SUCCESS
    assert answers.told(OWN[level]) == BELOW_CHEST[level]
    for match in answers.matches:
        assert match.QueryRetrieveLevel == level
        assert match.RetrieveAETitle == "EXCHANGE"
        assert {key: match[key].value for key in above} == above


@pytest.mark.parametrize(
    ("model", "level", "missing"),
    [(model, level, missing) for model, level in LEVELS for missing in unique(model, level)],
)
def test_a_unique_key_above_the_level_is_given_once_or_the_question_is_refused(
    served: Served, model: str, level: str, missing: str
) -> None:
    given = unique(model, level)
    wild = given[missing][:-1] + "*"
    for instead in ({}, {missing: ""}, {missing: wild}, {missing: ["1.2.1", "1.2.2"]}):
        if missing == "PatientID" and isinstance(instead.get(missing), list):
            continue
        keys = {key: value for key, value in given.items() if key != missing}
        answers = ask(served.port, level, keys | instead | {OWN[level]: ""}, model=model)
        assert (answers.final, answers.matches) == (MISMATCH, ())
        assert answers.comment == f"{missing} must be given as a single value"


@pytest.mark.parametrize(
    ("model", "level"), [(STUDY_ROOT, "PATIENT"), (STUDY_ROOT, ""), (PATIENT_ROOT, "WORKLIST")]
)
def test_a_level_that_the_model_does_not_have_is_refused(
    served: Served, model: str, level: str
) -> None:
    answers = ask(served.port, level, {"PatientID": "P1"}, model=model)
    assert (answers.final, answers.matches) == (MISMATCH, ())
    assert answers.comment == "QueryRetrieveLevel is not one of the information model"


# 7 What is negotiated (C.5.1.1)


@pytest.mark.parametrize("model", [PATIENT_ROOT, STUDY_ROOT])
def test_relational_questions_leave_out_what_is_above_and_match_what_is_below(
    served: Served, model: str
) -> None:
    def relational(level: str, **keys: Any) -> Answers:
        return ask(served.port, level, keys, model=model, extended=RELATIONAL)

    series = relational("SERIES", SeriesInstanceUID="", Modality="SR")
    assert series.told("SeriesInstanceUID") == ["1.2.1.2"]
    assert series.studies == [CHEST]  # the unique key above, though nobody asked
    image = relational("IMAGE", SOPInstanceUID=["1.4.2", "1.4.5"], PatientName="")
    assert image.told("SeriesInstanceUID") == ["1.2.1.1", "1.2.3.1"]
    assert image.pending == (PENDING, PENDING)

    assert relational("STUDY", StudyInstanceUID="", Modality="MR").studies == [YAMADA]
    below = {"Modality": "SR", "SOPInstanceUID": "1.4.3"}
    assert relational("STUDY", StudyInstanceUID="", **below).studies == [CHEST]
    # of one instance, not of one each
    mixed = {"Modality": "CT", "SOPInstanceUID": "1.4.3"}
    assert relational("STUDY", StudyInstanceUID="", **mixed).studies == []
    assert relational("SERIES", SeriesInstanceUID="", InstanceNumber="12").studies == [CHEST]
    if model == PATIENT_ROOT:
        assert relational("PATIENT", PatientID="", StudyDate="20261102").told("PatientID") == ["P2"]
        assert relational("PATIENT", PatientID="", Modality="PT").told("PatientID") == ["P1"]


def test_what_is_below_the_level_does_not_match_unless_relational(served: Served) -> None:
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": "", "Modality": "MR"})
    assert answers.studies == ALL
    assert set(answers.pending) == {PENDING_UNSUPPORTED}


def test_fuzzy_names_match_by_sound_only_when_that_is_negotiated(served: Served) -> None:
    assert studies(served, PatientName="Wan^Xiaodong") == []
    assert studies(served, FUZZY, PatientName="Wan^Xiaodong") == [CHEST, OURS]
    assert studies(served, PatientName="张^玮") == []
    assert studies(served, FUZZY, PatientName="张^玮") == [ZHANG]


# 14 Names, in any of their three groups (PS3.5 6.2; C.2.2.2.1.1)


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


# Optional keys (C.3.4, C.6.1.1, C.6.2.1)


def test_a_study_tells_what_it_holds(served: Served) -> None:
    wanted = (
        "ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances", "InstanceAvailability", "RetrieveAETitle",
        "InstitutionName", "IssuerOfPatientID", "OtherPatientIDs",
    )  # fmt: skip
    keys: dict[str, Any] = dict.fromkeys(wanted, "")
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": [CHEST, OURS]} | keys)
    chest, ours = sorted(answers.matches, key=lambda one: str(one.StudyInstanceUID))

    assert answers.pending == (PENDING, PENDING)
    assert list(chest.ModalitiesInStudy) == ["CT", "SR"]
    assert sorted(chest.SOPClassesInStudy) == sorted([CT, SR])
    assert (chest.NumberOfStudyRelatedSeries, chest.NumberOfStudyRelatedInstances) == (2, 3)
    assert (chest.InstanceAvailability, chest.RetrieveAETitle) == ("ONLINE", "EXCHANGE")
    assert (chest.InstitutionName, chest.IssuerOfPatientID) == ("北城医院", "2.25.101")
    assert chest.OtherPatientIDs in ("", None)
    # Another hospital's study stands under the asker's own number, the owner's beside it.
    assert (ours.InstitutionName, ours.IssuerOfPatientID) == ("南湖医院", "2.25.101")
    assert ours.OtherPatientIDs == "N7"


def test_a_patient_and_a_series_are_counted_too(served: Served) -> None:
    counts = {
        "NumberOfPatientRelatedStudies": "", "NumberOfPatientRelatedSeries": "",
        "NumberOfPatientRelatedInstances": "",
    }  # fmt: skip
    (patient,) = ask(
        served.port, "PATIENT", {"PatientID": "P1"} | counts, model=PATIENT_ROOT
    ).matches
    assert [patient[keyword].value for keyword in counts] == [2, 3, 4]
    series = ask(
        served.port, "SERIES",
        {"StudyInstanceUID": CHEST, "SeriesInstanceUID": "", "NumberOfSeriesRelatedInstances": ""},
    )  # fmt: skip
    assert series.told("NumberOfSeriesRelatedInstances") == ["1", "2"]
    assert set(series.pending) == {PENDING}


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"ModalitiesInStudy": "SR"}, [CHEST]),
        ({"ModalitiesInStudy": ["SR", "MR"]}, [CHEST, YAMADA]),
        ({"ModalitiesInStudy": "?R", "StudyDate": "20261101-"}, [CHEST, YAMADA]),
        ({"SOPClassesInStudy": SR}, [CHEST]),
        ({"SOPClassesInStudy": [SR, "1.2.3"]}, [CHEST]),
        ({"OtherPatientIDs": ID_CARD}, [CHEST, OURS]),
        ({"OtherPatientIDs": f"{ID_CARD[:6]}*"}, [CHEST, OURS]),
        ({"OtherPatientIDs": "D9"}, [ZHANG]),
        ({"PatientID": "N7", "IssuerOfPatientID": "2.25.102"}, [CHEST, OURS]),
        ({"PatientID": "P1", "IssuerOfPatientID": "2.25.999"}, []),
    ],
)
def test_optional_keys_match(served: Served, keys: dict[str, Any], found: list[str]) -> None:
    assert studies(served, **keys) == found
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": ""} | keys)
    assert set(answers.pending) <= {PENDING}


# 15 Padding (PS3.5 6.2)


def test_padding_and_the_spaces_around_values_and_titles_do_not_count(served: Served) -> None:
    keys = {"StudyInstanceUID": f"{CHEST}\0", "AccessionNumber": " A1 ", "StudyID": "S-1 "}
    for calling in ("BEICHENG", " BEICHENG "):
        for syntax in (EXPLICIT, IMPLICIT):
            answers = ask(served.port, "STUDY", keys, calling=calling, transfer_syntax=syntax)
            assert answers.studies == [CHEST]


# 20 Time zones (C.2.2.2; PS3.3 C.12.1.1.8)


def test_times_are_those_of_the_hospital_whatever_zone_is_named(served: Served) -> None:
    keys = {"StudyDate": "20261101", "StudyTime": "101500", "TimezoneOffsetFromUTC": "+0000"}
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": ""} | keys)
    assert answers.studies == [CHEST]
    assert answers.pending == (PENDING,)
    (match,) = answers.matches
    assert (match.StudyTime, match.get("TimezoneOffsetFromUTC", "")) == ("101500", "")


# DCMTK


def findscu(served: Served, *arguments: str, query: str = "") -> str:
    done = subprocess.run(
        ["findscu", "-v", "-aet", "BEICHENG", "-aec", "EXCHANGE", *arguments,
         "127.0.0.1", str(served.port), *([query] if query else [])],
        check=False, capture_output=True, timeout=180, env=os.environ | {"TCP_NODELAY": "1"},
    )  # fmt: skip
    return (done.stdout + done.stderr).decode("utf-8", "replace")


@pytest.mark.parametrize(("model", "option"), [(PATIENT_ROOT, "-P"), (STUDY_ROOT, "-S")])
def test_dcmtk_asks_at_every_level(served: Served, model: str, option: str) -> None:
    for level in ABOVE:
        if model == STUDY_ROOT and level == "PATIENT":
            continue
        keys = unique(model, level) | {"QueryRetrieveLevel": level}
        told = findscu(
            served, option, "-k", OWN[level],
            *(part for key, value in keys.items() for part in ("-k", f"{key}={value}")),
        )  # fmt: skip
        for uid in BELOW_CHEST[level]:
            assert re.search(rf"\[{re.escape(uid)}[ \0]?\]", told), f"{level}: {told}"


def test_dcmtk_finds_hanzi_in_the_character_set_that_it_asked_in(
    served: Served, tmp_path: Any
) -> None:
    for declared, encoding in (("GB18030", "gb18030"), ("ISO_IR 192", "utf-8")):
        query = tmp_path / f"{encoding}.txt"
        query.write_bytes(
            f"(0008,0005) CS {declared}\n(0008,0052) CS STUDY\n".encode()
            + "(0010,0010) PN [王小东]\n(0020,000d) UI\n".encode(encoding)
        )
        asked = tmp_path / f"{encoding}.dcm"
        subprocess.run(["dump2dcm", str(query), str(asked)], check=True, timeout=180)
        answers = tmp_path / encoding
        answers.mkdir()
        told = findscu(served, "-S", "-X", "-od", str(answers), query=str(asked))
        assert told.count("Pending") >= 2
        for answer in answers.iterdir():
            assert "王^小东".encode(encoding) in answer.read_bytes()


# What nobody asks


VALUES = st.one_of(
    st.sampled_from(["", "*", "?", "-", "\\", "=", "^", "王小东", "20261101-", "10-", "1.2.1"]),
    st.text(st.sampled_from("*?-\\^=%_'\"\0 王é1a.:\x1b"), max_size=12),
    st.text(max_size=20),
)
KEYS = st.dictionaries(
    st.sampled_from([*ATTRIBUTES, "ModalitiesInStudy", "SOPClassesInStudy", "OtherPatientIDs"]),
    VALUES,
    max_size=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    keys=KEYS,
    level=st.sampled_from(["PATIENT", "STUDY", "SERIES", "IMAGE"]),
    declared=st.sampled_from(["", "ISO_IR 100", "ISO_IR 192", "GB18030", "\\ISO 2022 IR 58"]),
    extended=st.sampled_from([b"", b"\1\1\1"]),
)
def test_whatever_is_asked_is_answered_in_the_terms_of_the_protocol(
    served: Served, keys: dict[str, str], level: str, declared: str, extended: bytes
) -> None:
    told = [(0x00080005, "CS", declared.encode()), (0x00080052, "CS", level.encode())]
    for keyword, text in keys.items():
        tag, vr = tag_and_vr(keyword)
        told.append((tag, vr, text.encode("utf-8", "replace")[:200]))
    question = b"".join(element(*one) for one in sorted(told))
    negotiated = {PATIENT_ROOT: extended} if extended else None
    with Caller(served.port, (PATIENT_ROOT, (EXPLICIT,)), extended=negotiated) as pacs:
        final, body = pacs.find(question, PATIENT_ROOT)[-1]
        assert (final.status, body) in {(SUCCESS, b""), (MISMATCH, b"")}
        assert bool(final.error_comment) is (final.status == MISMATCH)
        pacs.release()

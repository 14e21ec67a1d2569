"""What a C-FIND asks for, by pynetdicom and DCMTK: levels, sequences, optional keys (PS3.4 C.6)."""

from __future__ import annotations

import re
import struct
import subprocess
from typing import Any

import pytest
from asking import PATIENT_ROOT, STUDY_ROOT, Answers, ask
from caller import EXPLICIT, Caller, calling, element
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matched import (
    ALL,
    CHEST,
    CT,
    FUZZY,
    MISMATCH,
    MUELLER,
    OURS,
    PENDING,
    PENDING_UNSUPPORTED,
    RELATIONAL,
    SR,
    SUCCESS,
    YAMADA,
    ZHANG,
    findscu,
    studies,
)
from region import ID_CARD
from serving import Served

from exchange_dicom.attributes import tag_and_vr
from exchange_storage.search import ATTRIBUTES

# Sequences (C.2.2.2.6)


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
    assert other(PatientID="N7", IssuerOfPatientID="2.25.?02").studies == [CHEST, OURS]
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


@pytest.mark.parametrize("keyword", ["PatientID", "NumberOfStudyRelatedInstances"])
def test_what_is_no_sequence_is_not_asked_for_as_one(served: Served, keyword: str) -> None:
    tag, _ = tag_and_vr(keyword)
    item = element(0x00100020, "LO", "P1")
    within = struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item
    with calling(served.port, (STUDY_ROOT, (EXPLICIT,))) as pacs:
        question = element(0x00080052, "CS", "STUDY") + element(tag, "SQ", within)
        ((final, _),) = pacs.find(question)
        assert (final.status, final.error_comment) == (MISMATCH, f"{keyword} is not a sequence")


# Statuses (C.4.1.1.4)


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"PatientName": "", "ModalitiesInStudy": "CT"}, PENDING),
        ({"PatientComments": ""}, PENDING_UNSUPPORTED),  # not kept
        ({"PatientComments": "x"}, PENDING_UNSUPPORTED),
        ({"NumberOfStudyRelatedInstances": "3"}, PENDING_UNSUPPORTED),  # returned, not matched
        ({"Modality": "CT"}, PENDING_UNSUPPORTED),  # of a level below
        ({"OtherPatientIDsSequence": {"PatientID": "", "IssuerOfPatientID": ""}}, PENDING),
        ({"PatientID": "*", "IssuerOfPatientID": "2.25.102"}, PENDING_UNSUPPORTED),
        ({"PatientID": "P1", "IssuerOfPatientID": "*"}, PENDING),
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


# The hierarchy, in both information models (C.4.1.3.1, C.6.1, C.6.2)

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
    own = [name for of, name in LEVELS if of == model]
    assert answers.comment == f"QueryRetrieveLevel must be one of {', '.join(own)}"


# What is negotiated (C.5.1.1)


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


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"Modality": "MR"}, PENDING),
        ({"Modality": "M?", "SOPInstanceUID": "1.4.4"}, PENDING),
        ({"Modality": "MR", "SeriesDescription": ""}, PENDING_UNSUPPORTED),  # not told here
        ({"Modality": "MR", "PatientComments": "x"}, PENDING_UNSUPPORTED),
        ({"Modality": "*"}, PENDING_UNSUPPORTED),
    ],
)
def test_what_took_part_in_matching_is_not_called_unsupported_though_it_is_below_the_level(
    served: Served, keys: dict[str, str], status: int
) -> None:
    wanted = {"StudyInstanceUID": YAMADA} | keys
    answers = ask(served.port, "STUDY", wanted, extended=RELATIONAL)
    assert (answers.studies, answers.pending) == ([YAMADA], (status,))
    assert "Modality" not in answers.matches[0]


@pytest.mark.parametrize(
    ("item", "status"),
    [
        ({"RequestedProcedureID": "R1"}, PENDING),
        ({"RequestedProcedureID": "R1", "ScheduledProcedureStepID": ""}, PENDING_UNSUPPORTED),
    ],
)
def test_nor_is_a_sequence_below_the_level_all_of_whose_item_was_matched(
    served: Served, item: dict[str, str], status: int
) -> None:
    wanted = {"StudyInstanceUID": CHEST, "RequestAttributesSequence": item}
    answers = ask(served.port, "STUDY", wanted, extended=RELATIONAL)
    assert (answers.studies, answers.pending) == ([CHEST], (status,))


def test_fuzzy_names_match_by_sound_only_when_that_is_negotiated(served: Served) -> None:
    assert studies(served, PatientName="Wan^Xiaodong") == []
    assert studies(served, FUZZY, PatientName="Wan^Xiaodong") == [CHEST, OURS]
    assert studies(served, PatientName="张^玮") == []
    assert studies(served, FUZZY, PatientName="张^玮") == [ZHANG]


# Optional keys (C.3.4, C.6.1.1, C.6.2.1)


SEVERAL = ["0755-21", "0755-22", "0755-23"]


@pytest.mark.parametrize("number", [*SEVERAL, "*-2?", "*-23", "\\".join(SEVERAL)])
def test_one_of_several_values_is_enough_and_all_are_returned(served: Served, number: str) -> None:
    wanted = {"StudyInstanceUID": "", "PatientTelephoneNumbers": number}
    (found,) = ask(served.port, "STUDY", wanted).matches
    assert found.StudyInstanceUID == YAMADA
    assert list(found.PatientTelephoneNumbers) == SEVERAL
    assert studies(served, PatientTelephoneNumbers="755-22") == []


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
        ({"ModalitiesInStudy": ["C*", "MR"]}, [CHEST, YAMADA, ZHANG]),
        ({"ModalitiesInStudy": ["U?", "S*", "XX"]}, [CHEST, MUELLER]),
        ({"ModalitiesInStudy": ["*", "XX"]}, ALL),
        ({"SOPClassesInStudy": SR}, [CHEST]),
        ({"SOPClassesInStudy": [SR, "1.2.3"]}, [CHEST]),
        ({"OtherPatientIDs": ID_CARD}, [CHEST, OURS]),
        ({"OtherPatientIDs": f"{ID_CARD[:6]}*"}, [CHEST, OURS]),
        ({"OtherPatientIDs": "D9"}, [ZHANG]),
        ({"PatientID": "N7", "IssuerOfPatientID": "2.25.102"}, [CHEST, OURS]),
        ({"PatientID": "P1", "IssuerOfPatientID": "2.25.999"}, []),
        ({"PatientID": "N7", "IssuerOfPatientID": "2.25.10?"}, [CHEST, OURS]),
        ({"PatientID": "N7", "IssuerOfPatientID": "2*"}, [CHEST, OURS]),
        ({"PatientID": "N7", "IssuerOfPatientID": "2.25.[0-9]*"}, []),
        ({"PatientID": "N7", "IssuerOfPatientID": "3.*"}, []),
    ],
)
def test_optional_keys_match(served: Served, keys: dict[str, Any], found: list[str]) -> None:
    assert studies(served, **keys) == found
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": ""} | keys)
    assert set(answers.pending) <= {PENDING}


def test_more_values_with_wildcards_than_anybody_has_modalities_are_refused(
    served: Served,
) -> None:
    wanted = [f"{number}*" for number in range(65)]
    answers = ask(served.port, "STUDY", {"StudyInstanceUID": "", "ModalitiesInStudy": wanted})
    assert (answers.final, answers.matches) == (MISMATCH, ())
    assert answers.comment == "a list may have at most 64 values with wildcards"


# DCMTK


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

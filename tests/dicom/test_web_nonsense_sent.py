"""Whatever is asked of the index, or sent to be kept, is answered, and never by a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_door import IMAGE, STUDY, Door, ct, data_set, empty

from exchange_dicom import multipart
from exchange_dicom.media_types import DICOM_JSON, DICOM_XML
from exchange_dicom.native_model import to_xml
from exchange_storage.search import ATTRIBUTES

LEVELS = ["studies", "series", "instances", f"studies/{STUDY}/series", "changefeed"]
NAMES = [
    *ATTRIBUTES, "includefield", "limit", "offset", "fuzzymatching", "emptyvaluematching",
    "accept", "after", "since", "before", "00100010", "00080061", "ModalitiesInStudy",
    "OtherPatientIDsSequence.PatientID", "00101002.00100021", "IssuerOfPatientID", "....",
    "RequestAttributesSequence.ScheduledProcedureStepID", "SOPClassesInStudy", "00090010",
]  # fmt: skip
VALUES = [
    "", "*", "?", "=", "^", "\\", ",", "a\\b", "王*", "-", "20260101-", "20261301", "1-2-3", "true",
    "-1", "1e9", "nan", "99999999999999999999", "all", "x" * 3000, "'", '"', "%", "_", "\x00", "٣",
    "2026-11-26T08:00:00+08:00", "2026-11-26", "application/json", "1.2.3,4", STUDY,
]  # fmt: skip

text = st.text(max_size=12)
words = st.one_of(st.sampled_from(VALUES), text)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> object:
    with empty(tmp_path_factory.mktemp("nonsense")) as made:
        assert made.send(ct(1), ct(2)).status_code == 200
        yield made


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(LEVELS),
    st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), text), words), max_size=4),
)
def test_any_question_of_the_index_has_an_answer(
    door: Door, place: str, query: list[tuple[str, str]]
) -> None:
    written = "&".join(
        f"{quote(name.encode('utf-8', 'ignore'))}={quote(value.encode('utf-8', 'ignore'))}"
        for name, value in query
    )

    answer = door.get(f"{place}?{written}")

    assert answer.status_code in (200, 204, 400, 406), (written, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70).filter(lambda one: -(2**63) <= one < 2**64),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.just("pixels"),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["vr", "Value", "InlineBinary", "BulkDataURI", "Alphabetic", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)
TAGS = ["00080016", "00080018", "0020000D", "00100010", "00280010", "00081110", "00091001",
        "7FE00010", "00020010", "FFFEE000", "00080000", "00080005", "7fe00010", "x"]  # fmt: skip
VRS = ["AT", "CS", "DS", "FD", "IS", "LO", "OB", "OW", "PN", "SQ", "SV", "UI", "UN", "US", "UT", ""]
elements = st.one_of(
    anything,
    st.fixed_dictionaries(
        {"vr": st.sampled_from(VRS)},
        optional={
            "Value": st.one_of(st.lists(anything, max_size=3), anything),
            "InlineBinary": anything,
            "BulkDataURI": anything,
        },
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(anything, st.dictionaries(st.sampled_from(TAGS), elements, max_size=4)))
def test_any_metadata_that_are_sent_have_an_answer(door: Door, sent: Any) -> None:
    whole = json.loads(data_set().to_json())
    for model in [sent, {**whole, **sent}] if isinstance(sent, dict) else [sent]:
        body = (
            multipart.head({"Content-Type": DICOM_JSON}, "b")
            + json.dumps(model).encode()
            + multipart.head({"Content-Location": "pixels"}, "b")
            + b"1234"
            + multipart.tail("b")
        )

        answer = door.post(body, f'multipart/related; type="{DICOM_JSON}"; boundary=b')

        assert answer.status_code in (200, 202, 400, 409), answer.text
        assert "processing failure" not in answer.headers.get("Warning", "")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=6))
def test_damaged_xml_has_an_answer(door: Door, place: int, damage: bytes) -> None:
    whole = to_xml(json.loads(data_set().to_json()))
    at = place % len(whole)
    damaged = whole[:at] + damage + whole[at + len(damage) :]
    body = multipart.head({"Content-Type": DICOM_XML}, "b") + damaged + multipart.tail("b")

    answer = door.post(body, f'multipart/related; type="{DICOM_XML}"; boundary=b')

    assert answer.status_code in (200, 202, 400, 409), answer.text
    assert "processing failure" not in answer.headers.get("Warning", "")
    assert IMAGE not in answer.text or answer.status_code != 400


def test_a_foreign_client_deletes(tmp_path: Path) -> None:
    with empty(tmp_path) as door:
        door.send(ct(1), ct(2))
        client = door.client()
        client.delete_instance(STUDY, f"{STUDY}.1", IMAGE)
        assert len(client.search_for_instances(STUDY)) == 1
        client.delete_study(STUDY)
        assert client.search_for_studies() == []

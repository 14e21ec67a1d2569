"""Whatever is asked of the web door for what it holds is answered, and never by a failure."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_door import IMAGE, SERIES, STUDY, Door, data_set, empty, file

HERE = [f"studies/{STUDY}", f"studies/{STUDY}/series/{SERIES}"]
HERE.append(f"{HERE[1]}/instances/{IMAGE}")
BELOW = [
    "", "/metadata", "/rendered", "/thumbnail", "/pixeldata", "/frames/1", "/frames/1,2",
    "/frames/9", "/frames/1/rendered", "/frames/2/thumbnail", "/bulkdata/7FE00010",
    "/bulkdata/00280010", "/bulkdata/00081110/1/00081150",
]  # fmt: skip
TYPES = [
    "*/*", "image/*", "image/jpeg", "image/png;q=0.5", "image/gif", "image/jls", "image/jp2",
    "application/dicom", "application/dicom+json", "application/octet-stream", "application/zip",
    'multipart/related; type="application/octet-stream"; transfer-syntax=*',
    'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.80',
    'multipart/related; type="image/png"', "multipart/related", 'multipart/related; type="', ";",
]  # fmt: skip
NAMES = [
    "window", "viewport", "quality", "accept", "annotation", "requestType", "studyUID",
    "seriesUID", "objectUID", "contentType", "rows", "region", "windowWidth", "frameNumber",
]  # fmt: skip
NUMBERS = ["0", "1", "-1", "1e400", "nan", "0.0001", "99999999999", "64", "", "x", "１"]

printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
values = st.one_of(
    printable,
    st.text(max_size=8),
    st.lists(st.sampled_from([*NUMBERS, "linear", "sigmoid"]), max_size=6).map(",".join),
    st.sampled_from([*TYPES, "WADO", STUDY, SERIES, IMAGE]),
)


@pytest.fixture(scope="module")
def cine(tmp_path_factory: pytest.TempPathFactory) -> object:
    """An archive of one cine of two frames."""
    with empty(tmp_path_factory.mktemp("cine")) as door:
        image = data_set(
            Rows=8,
            Columns=8,
            NumberOfFrames=2,
            PhotometricInterpretation="MONOCHROME2",
            PixelData=np.arange(128, dtype="<u2").tobytes(),
        )
        assert door.send(file(image)).status_code == 200
        yield door


@settings(max_examples=400, deadline=None)
@given(
    place=st.sampled_from([f"{here}{below}" for here in HERE for below in BELOW] + ["wado"]),
    query=st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), printable), values), max_size=5),
    accept=st.one_of(st.none(), printable, st.lists(st.sampled_from(TYPES)).map(", ".join)),
    asked=st.one_of(st.just(""), printable, st.sampled_from(["bytes=0-1", "bytes=-0", "bytes=9-"])),
)
def test_any_question_has_an_answer(
    cine: Door, place: str, query: list[tuple[str, str]], accept: str | None, asked: str
) -> None:
    written = "&".join(
        f"{quote(name.encode('utf-8', 'ignore'))}={quote(value.encode('utf-8', 'ignore'))}"
        for name, value in query
    )
    headers = {"Authorization": "Bearer dr.beicheng", "Range": asked.strip()}
    if accept is not None:
        headers["Accept"] = accept.strip()

    answer = cine.http.get(f"{cine.root}/{place}?{written}", headers=headers)

    assert answer.status_code in (200, 206, 400, 404, 406, 413, 416), answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"

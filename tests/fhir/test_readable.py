"""What a hospital wrote is read as people read it, whatever it holds, and nothing of it acts."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from exchange_fhir import cda, legible, readable
from exchange_fhir.readable import Readable

SHANGHAI = ZoneInfo("Asia/Shanghai")
XHTML = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'


def read(resource: dict[str, Any]) -> Readable:
    content = json.dumps(resource).encode()
    return readable.read(content, base="https://exchange.example.cn/fhir/", timezone=SHANGHAI)


def line(told: Readable, name: str) -> tuple[str, ...]:
    return next((one.texts for one in told.lines if one.name == name), ())


def test_a_result_stands_with_its_unit_range_and_meaning_and_keeps_its_digits() -> None:
    written = (
        b'{"resourceType":"Observation","status":"final","code":{"text":"K"},'
        b'"valueQuantity":{"value":5.60,"unit":"mmol/L"},'
        b'"interpretation":[{"coding":[{"code":"H","display":"High"}]}],'
        b'"referenceRange":[{"low":{"value":3.5,"unit":"mmol/L"},'
        b'"high":{"value":5.30,"unit":"mmol/L"}}]}'
    )
    (one,) = readable.results(written, SHANGHAI)

    assert (one.value, one.ranges) == ("5.60 mmol/L", ("3.5 mmol/L – 5.30 mmol/L",))
    assert one.interpretation == (("H", "High"),)
    assert (one.number, one.low, one.high) == (5.6, 3.5, 5.3)


def test_a_blood_pressure_is_two_results() -> None:
    told = read(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "血压"},
            "component": [
                {"code": {"text": "收缩压"}, "valueQuantity": {"value": 140, "unit": "mmHg"}},
                {"code": {"text": "舒张压"}, "valueQuantity": {"value": 90, "unit": "mmHg"}},
                {"code": {"text": "体位"}, "dataAbsentReason": {"text": "未记录"}},
            ],
        }
    )

    assert [(one.name, one.value) for one in told.results] == [
        ("收缩压", "140 mmHg"),
        ("舒张压", "90 mmHg"),
        ("体位", "未记录"),
    ]
    assert line(told, "component") == ()


def test_what_nobody_has_thought_of_is_shown_all_the_same() -> None:
    told = read(
        {
            "resourceType": "Immunization",
            "status": "completed",
            "vaccineCode": {"coding": [{"code": "J07", "display": "流感疫苗"}]},
            "occurrenceDateTime": "2026-10-01T00:30:00Z",
            "expirationDate": "2027-01-01",
            "primarySource": False,
            "doseQuantity": {"value": 0.5, "unit": "mL"},
            "performer": [{"actor": {"display": "张护士"}}],
            "protocolApplied": [{"doseNumberPositiveInt": 2, "series": "基础免疫"}],
            "reaction": [{"date": "2026-10-02", "reported": True}],
        }
    )

    assert told.title == "流感疫苗"
    assert line(told, "occurrenceDateTime") == ("2026-10-01 08:30",)
    assert line(told, "primarySource") == ("false",)
    assert line(told, "doseQuantity") == ("0.5 mL",)
    assert line(told, "performer") == ("actor: 张护士",)
    assert line(told, "protocolApplied") == ("doseNumberPositiveInt: 2; series: 基础免疫",)


def test_references_of_this_server_lead_on_and_those_of_others_do_not() -> None:
    told = read(
        {
            "resourceType": "DiagnosticReport",
            "status": "final",
            "code": {"text": "CT"},
            "basedOn": [{"reference": "https://exchange.example.cn/fhir/ServiceRequest/o1"}],
            "result": [{"reference": "Observation/r1"}, {"reference": "Observation/r1"}],
            "imagingStudy": [{"reference": "ImagingStudy/1.2.3"}],
            "performer": [{"reference": "https://evil.example/fhir/Observation/x"}],
            "presentedForm": [
                {"contentType": "application/pdf", "url": "Binary/b1", "title": "报告单"},
                {"contentType": "application/pdf", "url": "https://evil.example/a.pdf"},
            ],
        }
    )

    assert {(one.kind, one.logical_id) for one in told.leads} == {
        ("ServiceRequest", "o1"),
        ("Observation", "r1"),
        ("ImagingStudy", "1.2.3"),
    }
    assert told.studies == ("1.2.3",)
    assert "imagingStudy" not in {line.name for line in told.lines}  # whose UID nobody reads
    inside, outside = told.attachments
    assert (inside.binary, inside.outside) == ("b1", "")
    assert (outside.binary, outside.outside) == ("", "https://evil.example/a.pdf")


def test_what_may_turn_around_what_is_said_is_noticed() -> None:
    plain = {"resourceType": "Condition", "code": {"text": "肺炎"}}
    altered = {**plain, "stage": [{"modifierExtension": [{"url": "urn:x", "valueBoolean": True}]}]}

    assert not read(plain).is_altered
    assert read(altered).is_altered


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("<p>平稳 &amp; <b>好转</b></p>", "<p>平稳 &amp; <b>好转</b></p>"),
        ('<p style="position:fixed" onclick="x()" class="bar">a</p>', "<p>a</p>"),
        ('<a href="https://evil.example">点此</a>', "点此"),
        ('<img src="https://evil.example/x.png" alt="x"/>看', "看"),
        ("<script>alert(1)</script>文", "文"),
        ("<form><input/>按<button>x</button></form>", "按x"),
        ("<p>a<!-- b -->c</p>", "<p>ac</p>"),
        ("&lt;script&gt;", "&lt;script&gt;"),
        ('<svg xmlns="http://www.w3.org/2000/svg"><a>x</a></svg>', ""),
        ("<h1>总结</h1>", "<h4>总结</h4>"),
    ],
)
def test_a_narrative_is_written_anew_from_elements_that_do_nothing(
    written: str, shown: str
) -> None:
    assert legible.narrated(XHTML.format(written)) == shown


@pytest.mark.parametrize(
    "div",
    [
        "<div",
        '<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]><div>&e;</div>',
        '<!DOCTYPE d [<!ENTITY e "x">]><div>&e;</div>',
    ],
)
def test_a_narrative_that_is_none_is_not_shown(div: str) -> None:
    assert legible.narrated(div) == ""


def test_a_long_text_is_cut_and_still_whole_html() -> None:
    deep = "<div>" * 60 + "底" + "</div>" * 60
    wide = "<p>" + "字" * 1000 + "</p>"
    for written in (XHTML.format(deep), XHTML.format(wide * 400), XHTML.format("<br/>" * 90_000)):
        shown = legible.narrated(written)
        assert len(shown) < legible.CHARACTERS * 3
        etree.fromstring(f"<div>{shown.replace('<br>', '<br/>')}</div>")


_NAMES = st.sampled_from(
    [
        *("value", "text", "code", "coding", "reference", "display", "identifier", "low", "high"),
        *("url", "contentType", "data", "title", "system", "start", "family", "given", "unit"),
        *("note", "component", "referenceRange", "interpretation", "valueQuantity"),
        "modifierExtension",
    ]
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(_NAMES, _JSON, max_size=8))
@settings(max_examples=150, deadline=None)
def test_nothing_that_is_json_breaks_the_reading(resource: dict[str, Any]) -> None:
    read({"resourceType": "Observation", **resource})
    readable.results(json.dumps({"resourceType": "Observation", **resource}).encode(), SHANGHAI)


CDA = """<?xml version="1.0" encoding="UTF-8"?>
<ClinicalDocument xmlns="urn:hl7-org:v3">
  <title>门诊病历</title><effectiveTime value="20261101101500+0800"/>
  <recordTarget><patientRole><patient><name><family>王</family><given>小东</given></name></patient>
  </patientRole></recordTarget>
  <author><assignedAuthor><assignedPerson><name>李医生</name></assignedPerson></assignedAuthor>
  </author>
  <component><structuredBody><component><section><title>主诉</title><text>
  <paragraph>咳嗽<content styleCode="Bold">三天</content></paragraph>
  <list><item>无发热</item></list>
  <table><tbody><tr><td onclick="x()">体温</td><td>36.8</td></tr></tbody></table>
  <linkHtml href="javascript:alert(1)">更多</linkHtml>
  <renderMultiMedia referencedObject="m1"/>
  </text><component><section><title>体征</title></section></component></section></component>
  </structuredBody></component>
</ClinicalDocument>"""


def test_a_cda_document_is_read_by_its_sections() -> None:
    told = cda.read(CDA.encode())

    assert (told.title, told.moment, told.patient) == ("门诊病历", "20261101101500", "王小东")
    assert told.authors == ("李医生",)
    assert [(one.title, one.level) for one in told.sections] == [("主诉", 1), ("体征", 2)]
    html = "".join(told.sections[0].html.split())
    assert "<p>咳嗽<span>三天</span></p><ul><li>无发热</li></ul>" in html
    assert "<td>体温</td><td>36.8</td>" in html
    assert "更多" in html
    assert "href" not in html
    assert "onclick" not in html


@pytest.mark.parametrize(
    "content",
    [b"", b"%PDF-1.4", b"<a/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", b" " * 5_000_000],
)
def test_what_is_no_cda_document_is_told_so(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"document|XML"):
        cda.read(content)

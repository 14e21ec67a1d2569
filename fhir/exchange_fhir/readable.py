"""A resource as people read it: lines, results with their ranges, text, documents, and leads.

Every element of every type is shown (FHIR R4 2.24), by its name where nothing better is known of
it: what a hospital wrote is not dropped because nobody has thought of it here.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from exchange_fhir import elements, json_format, legible
from exchange_fhir.datatypes import DICOM_UID, Json
from exchange_fhir.definitions import search_parameters
from exchange_fhir.moments import WRITTEN
from exchange_fhir.outcome import Problem

LINES = 200
"""Of a resource, at most."""

TEXTS = 100
"""Of a line, at most."""

TEXT = 4000
"""Characters of one text, at most."""

DEPTH = 6
"""Elements inside each other that are told within one line."""

ATTACHMENTS = 20
"""Documents of one resource, at most."""

_UNSAID = frozenset(
    {"resourceType", "id", "meta", "text", "contained", "implicitRules", "language", "extension"}
    | {"modifierExtension", "subject", "patient", "status", "identifier", "masterIdentifier", "url"}
)
"""Elements that are told in another place, or to machines."""

_TITLES = ("code", "medicationCodeableConcept", "vaccineCode", "type", "class", "category", "title")
_VALUES = (
    *("valueQuantity", "valueCodeableConcept", "valueString", "valueBoolean", "valueInteger"),
    *("valueRange", "valueRatio", "valueSampledData", "valueTime", "valueDateTime", "valuePeriod"),
)
_RESULTS = frozenset({*_VALUES, "interpretation", "referenceRange", "dataAbsentReason"})
"""Elements of an Observation and its components that stand in a row of results."""

# What becomes part of an address of ours: letters and digits, and never ".." alone.
_ID = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9\-.]{1,64}", re.ASCII)
_UID = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """An element, and what it says."""

    name: str
    """Of the element, such as ``onsetDateTime``."""
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lead:
    """Another resource of this server to which one leads."""

    element: str
    kind: str
    logical_id: str
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was measured or seen: an Observation's value, or that of a component."""

    name: str
    value: str
    interpretation: tuple[tuple[str, str], ...]
    """Codes such as ``H``, with what they say."""
    ranges: tuple[str, ...]
    number: float | None = None
    unit: str = ""
    low: float | None = None
    """Of the first reference range that is for everybody."""
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A document of a resource: in it, in a Binary of this server, or elsewhere."""

    element: str
    title: str
    media_type: str
    size: int | None
    binary: str
    """Logical id of the Binary; "" where it is none."""
    outside: str
    """Its address on another server, which is told and not fetched."""
    encoded: str | None = field(repr=False)
    """Its content in Base64, where the resource itself has it."""

    @property
    def data(self) -> bytes | None:
        """The same, decoded; None where that cannot be done."""
        return None if self.encoded is None else _decoded(self.encoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """What a resource says."""

    kind: str
    title: str
    status: str
    moment: str
    """YYYYMMDDHHMMSS as the hospitals' clocks show it, with zeros; "" for never."""
    lines: tuple[Line, ...]
    results: tuple[Result, ...]
    leads: tuple[Lead, ...]
    attachments: tuple[Attached, ...]
    codes: tuple[tuple[str, str], ...]
    """System and code of what it is about."""
    identifiers: tuple[str, ...]
    studies: tuple[str, ...]
    """Study Instance UIDs to which it refers."""
    narrative: str
    """HTML, safe to show as it is."""
    narrative_status: str
    is_altered: bool
    """Whether it has modifier extensions, which may turn around what it says (R4 2.4.1.2)."""


def read(
    content: bytes,
    *,
    base: str,
    timezone: ZoneInfo,
    moment: str = "",
    naming: Callable[[str], str] = str,
) -> Readable:
    """What the JSON of a resource says. `base` is the address of the FHIR server, or "".

    `naming` gives elements inside a line their names. Raises Problem for what is no JSON object.
    """
    told = json_format.parse(content)
    kind = str(told.get("resourceType", ""))
    reading = _Reading(told, base, timezone, naming)
    lines = reading.lines()
    text = told.get("text") if isinstance(told.get("text"), dict) else {}
    return Readable(
        kind=kind,
        title=title(told) or kind,
        status=str(told.get("status", "")),
        moment=moment,
        lines=tuple(lines[:LINES]),
        results=tuple(_results(told, timezone)),
        leads=tuple(dict.fromkeys(reading.leads)),
        attachments=tuple(reading.attachments[:ATTACHMENTS]),
        codes=tuple(_codes(told.get("code"))),
        identifiers=tuple(
            dict.fromkeys(
                str(one["value"])[:255]
                for one in (
                    *_several(told.get("masterIdentifier")),
                    *_several(told.get("identifier")),
                )
                if isinstance(one, dict) and one.get("value")
            )
        ),
        studies=studies(told, base),
        narrative=legible.narrated(str(text.get("div", ""))) if text else "",
        narrative_status=str(text.get("status", "")) if text else "",
        is_altered=_altered(told, 0),
    )


def title(told: Json) -> str:
    """What it is, in a few words; "" where it does not say."""
    for name in _TITLES:
        if told.get(name) and (said := _concept(told[name])):
            return said[:500]
    return ""


def studies(told: Json, base: str) -> tuple[str, ...]:
    """The Study Instance UIDs that its references lead to."""
    found: dict[str, None] = {}
    for reference in _references(told, 0):
        kind, logical_id = elements.target(str(reference.get("reference", "")), base)
        if kind == "ImagingStudy" and _UID.fullmatch(logical_id):
            found[logical_id] = None
        identifier = reference.get("identifier")
        if isinstance(identifier, dict) and identifier.get("system") == DICOM_UID:
            uid = str(identifier.get("value", "")).removeprefix("urn:oid:")
            if _UID.fullmatch(uid):
                found[uid] = None
    return tuple(found)[:TEXTS]


def referring(source: str, kind: str) -> tuple[str, ...]:
    """Under which search parameters resources of type `source` refer to those of type `kind`."""
    return tuple(
        one.name
        for one in search_parameters.of(source).values()
        if one.type == "reference" and one.is_kept and (kind in one.target or not one.target)
    )


def attachment(readable: Readable, number: int) -> Attached | None:
    """The document of that number, from 0 on."""
    return readable.attachments[number] if 0 <= number < len(readable.attachments) else None


def binary(content: bytes) -> bytes | None:
    """What a Binary holds; None where that cannot be read."""
    try:
        data = json_format.parse(content).get("data", "")
    except Problem:
        return None
    return _decoded(data) if isinstance(data, str) else None


class _Reading:
    """A resource that is being read: what it leads to is gathered on the way."""

    def __init__(
        self, told: Json, base: str, timezone: ZoneInfo, naming: Callable[[str], str]
    ) -> None:
        self.leads: list[Lead] = []
        self.attachments: list[Attached] = []
        self._told = told
        self._base = base
        self._timezone = timezone
        self._naming = naming
        self._contained = {
            str(one.get("id", "")): one
            for one in _several(told.get("contained"))
            if isinstance(one, dict)
        }

    def lines(self) -> list[Line]:
        """All elements that are not told elsewhere."""
        skipped = _UNSAID | _RESULTS if self._told.get("resourceType") == "Observation" else _UNSAID
        found = []
        for name, value in self._told.items():
            if name in skipped or name.startswith("_"):
                continue
            texts = [
                text
                for one in _several(value)[:TEXTS]
                if not _is_measured(name, one) and (text := self._said(name, one, 0)[:TEXT])
            ]
            if texts:
                found.append(Line(name, tuple(texts)))
        return found

    def _said(self, name: str, value: Any, depth: int) -> str:
        match value:
            case bool():
                return "true" if value else "false"
            case str():
                return moment(value, self._timezone)
            case int() | float() | json_format.Written():
                return _number(value)
            case list():
                return "; ".join(self._said(name, one, depth) for one in value[:TEXTS])
            case dict():
                return self._composed(name, value, depth)
            case _:
                return ""

    def _composed(self, name: str, value: Json, depth: int) -> str:
        if depth > DEPTH:
            return "…"
        if "contentType" in value or ("url" in value and "title" in value) or "data" in value:
            return self._attached(name, value)
        if "reference" in value or {"type"} < {*value, "type"} <= {"type", "identifier", "display"}:
            return self._referred(name, value)
        known = _datatype(value, self._timezone)
        if known:
            return known
        parts = []
        for inner, one in value.items():
            if inner in {"id", "extension", "modifierExtension"} or inner.startswith("_"):
                continue
            said = self._said(inner, one, depth + 1)
            if said:
                parts.append(
                    said if inner in {"text", "reference"} else f"{self._naming(inner)}: {said}"
                )
        return "; ".join(parts)

    def _referred(self, name: str, value: Json) -> str:
        written = str(value.get("reference", ""))
        shown = str(value.get("display", ""))
        if written.startswith("#"):
            inner = self._contained.get(written[1:], {})
            return shown or title(inner) or _concept(inner.get("name")) or written
        kind, logical_id = elements.target(written, self._base)
        identifier = value.get("identifier")
        if not shown and isinstance(identifier, dict):
            shown = str(identifier.get("value", ""))
        if kind and _ID.fullmatch(logical_id):
            self.leads.append(Lead(name, kind, logical_id, shown))
            if kind == "ImagingStudy" and _UID.fullmatch(logical_id):
                return shown  # it is one of the studies, and nobody reads its UID
        return shown or written

    def _attached(self, name: str, value: Json) -> str:
        address = str(value.get("url", ""))
        kind, logical_id = elements.target(address, self._base)
        inside = kind == "Binary"
        size = value.get("size")
        self.attachments.append(
            Attached(
                element=name,
                title=str(value.get("title", ""))[:255],
                media_type=str(value.get("contentType", ""))[:255],
                size=size if isinstance(size, int) else None,
                binary=logical_id if inside and _ID.fullmatch(logical_id) else "",
                outside="" if inside else address[:2000],
                encoded=value["data"] if isinstance(value.get("data"), str) else None,
            )
        )
        return str(value.get("title", "")) or str(value.get("contentType", "")) or address


def moment(written: str, timezone: ZoneInfo) -> str:
    """A date-time as the hospitals' clocks show it; other text as it is."""
    if "T" not in written or not WRITTEN.fullmatch(written):
        return written
    try:
        return f"{datetime.fromisoformat(written).astimezone(timezone):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return written


def results(content: bytes, timezone: ZoneInfo) -> tuple[Result, ...]:
    """What an Observation says, as rows."""
    try:
        return tuple(_results(json_format.parse(content), timezone))
    except Problem:
        return ()


def _results(told: Json, timezone: ZoneInfo) -> Iterator[Result]:
    if told.get("resourceType") != "Observation":
        return
    if any(name in told for name in _RESULTS):
        yield _result(told, title(told), timezone)
    for component in _several(told.get("component"))[:TEXTS]:
        if isinstance(component, dict):
            yield _result(component, _concept(component.get("code")), timezone)


def _result(told: Json, name: str, timezone: ZoneInfo) -> Result:
    value = next((told[element] for element in _VALUES if element in told), None)
    shown = _plain(value, timezone) or _concept(told.get("dataAbsentReason"))
    quantity = value if isinstance(value, dict) and "value" in value else {}
    ranges = [one for one in _several(told.get("referenceRange")) if isinstance(one, dict)]
    everybody = [one for one in ranges if not one.get("appliesTo") and not one.get("age")]
    first = everybody[0] if everybody else {}
    return Result(
        name=name[:500],
        value=shown[:TEXT],
        interpretation=tuple(
            (next((code for _, code in _codes(one)), ""), _concept(one))
            for one in _several(told.get("interpretation"))[:10]
        ),
        ranges=tuple(said for one in ranges[:10] if (said := _range(one)[:TEXT])),
        number=_value(quantity),
        unit=str(quantity.get("unit") or quantity.get("code") or ""),
        low=_value(first.get("low")),
        high=_value(first.get("high")),
    )


def _range(told: Json) -> str:
    low, high = told.get("low"), told.get("high")
    said = ""
    if isinstance(low, dict) or isinstance(high, dict):
        said = _bounds(low, high)
    for name in ("type", "appliesTo"):
        if label := "; ".join(_concept(one) for one in _several(told.get(name))):
            said = f"{label}: {said}"
    text = str(told.get("text", ""))
    return f"{said} ({text})" if said and text else said or text


def _bounds(low: Any, high: Any) -> str:
    below = _quantity(low) if isinstance(low, dict) else ""
    above = _quantity(high) if isinstance(high, dict) else ""
    if not below:
        return f"≤ {above}"
    return f"{below} – {above}" if above else f"≥ {below}"


def _datatype(value: Json, timezone: ZoneInfo) -> str:
    """One of the datatypes in a line; "" for what is none of them."""
    keys = value.keys() - {"id", "extension"}
    if keys & {"coding"} or ("text" in keys and keys <= {"text", "coding"}):
        return _concept(value)
    if "code" in keys and keys <= {"system", "version", "code", "display", "userSelected"}:
        return _concept(value)
    if "value" in keys and keys <= {"value", "comparator", "unit", "system", "code", "currency"}:
        if "unit" in keys or "comparator" in keys or not isinstance(value["value"], str):
            return _quantity(value)
        return str(value["value"])  # an identifier, or how to reach somebody
    if keys and keys <= {"start", "end"}:
        ends = [moment(str(value.get(end, "")), timezone) for end in ("start", "end")]
        return " – ".join(ends).strip()
    if keys and keys <= {"low", "high"}:
        return _bounds(value.get("low"), value.get("high"))
    if keys == {"numerator", "denominator"}:
        return f"{_quantity(value['numerator'])} / {_quantity(value['denominator'])}"
    if "value" in keys and keys <= {"use", "type", "system", "value", "period", "assigner", "rank"}:
        return str(value["value"])
    if keys & {"family", "given"}:
        return str(value.get("text") or " ".join([str(value.get("family", "")), *_given(value)]))
    if "text" in keys and keys <= {"text", "time", "authorString", "authorReference"}:
        return _note(value, timezone)
    return ""


def _note(value: Json, timezone: ZoneInfo) -> str:
    by = value.get("authorString") or _reference_shown(value.get("authorReference"))
    at = moment(str(value.get("time", "")), timezone)
    said = ", ".join(part for part in (str(by or ""), at) if part)
    return f"{value['text']} ({said})" if said else str(value["text"])


def _plain(value: Any, timezone: ZoneInfo) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return moment(value, timezone)
        case dict() if "data" in value and "origin" in value:
            return f"{len(str(value['data']).split())} × {_quantity(value['origin'])}"
        case dict():
            return _datatype(value, timezone)
        case _:
            return _number(value)


def _concept(value: Any) -> str:
    """A CodeableConcept or Coding, or the first of several, in words."""
    one = value[0] if isinstance(value, list) and value else value
    if isinstance(one, str):
        return one
    if not isinstance(one, dict):
        return ""
    codings = [one, *(coding for coding in _several(one.get("coding")) if isinstance(coding, dict))]
    shown = next((text for coding in codings if (text := coding.get("display"))), "")
    code = next((text for coding in codings if (text := coding.get("code"))), "")
    return str(one.get("text") or shown or code)


def _codes(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for coding in _several(value.get("coding")):
            if isinstance(coding, dict) and coding.get("code"):
                yield str(coding.get("system", "")), str(coding["code"])


def _quantity(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    number = value.get("value")
    told = _number(number) if isinstance(number, int | float | json_format.Written) else ""
    unit = value.get("unit") or value.get("code") or value.get("currency") or ""
    return f"{value.get('comparator', '')}{told} {unit}".strip()


def _number(value: Any) -> str:
    return value.text if isinstance(value, json_format.Written) else str(value)


def _value(quantity: Any) -> float | None:
    number = quantity.get("value") if isinstance(quantity, dict) else None
    if isinstance(number, bool) or not isinstance(number, int | float | json_format.Written):
        return None
    return float(number) if math.isfinite(float(number)) else None


def _given(name: Json) -> Sequence[str]:
    return [str(one) for one in _several(name.get("given"))]


def _reference_shown(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    return str(value.get("display") or value.get("reference") or "")


def _references(told: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    if depth > json_format.DEPTH:
        return
    match told:
        case dict():
            if "reference" in told or "identifier" in told:
                yield told
            for name, inner in told.items():
                if name != "contained":
                    yield from _references(inner, depth + 1)
        case list():
            for inner in told:
                yield from _references(inner, depth + 1)
        case _:
            return


def _altered(told: Any, depth: int) -> bool:
    match told:
        case dict():
            if told.get("modifierExtension"):
                return True
            return any(
                _altered(inner, depth + 1) for name, inner in told.items() if name != "contained"
            )
        case list():
            return any(_altered(inner, depth + 1) for inner in told)
        case _:
            return False


def _decoded(data: str) -> bytes | None:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_measured(name: str, value: Any) -> bool:
    """Whether it is a component that stands among the results."""
    return name == "component" and isinstance(value, dict) and bool(_RESULTS & value.keys())


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]

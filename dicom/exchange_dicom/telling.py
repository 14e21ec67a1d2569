"""How one asker is told of instances in DICOM JSON (PS3.18 annex F): a text that is kept for all of
them becomes the asker's, without being read as a whole.

The text that is kept has line feeds where something can be different for an asker: JSON allows
them between its tokens, and within strings they are escaped. What is told is what a retrieval sends
(see `coercion`): the patient's number becomes the asker's, the owner's stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from exchange_dicom.coercion import COERCED, Coercion
from exchange_dicom.resources import Root

_PLACES = sorted(f"{tag:08X}" for tag in COERCED)
_INSTITUTION, _NUMBER, _ISSUER, _QUALIFIERS, _OTHERS, _ORIGINAL = _PLACES

_NAME = re.compile(
    rb'\{(?:"Alphabetic":"(?:[^"\\]|\\.)*",)?"Ideographic":("(?:[^"\\]|\\.)*")', re.DOTALL
)
_WESTERN = re.compile(r"[A-Za-z]")

Slots = tuple[tuple[str, bytes], ...]
"""Attributes of an instance that may change, each by its tag with its text."""


@dataclass(frozen=True, slots=True)
class Telling:
    """What is different for an asker: the address, the patient's number, how names are written."""

    root: Root
    coercion: Coercion | None = None
    hanzi: bool = False
    """Names in their ideographic group alone, for a viewer that shows the alphabetic one only."""

    def changes(self, kept: Root) -> bool:
        """Whether a text that is kept with the addresses of `kept` is not this asker's already."""
        return self.root != kept or self.coercion is not None or self.hanzi

    def of(self, text: bytes, kept: Root) -> bytes:
        """The text of instances, as `written` makes it with the addresses of `kept`."""
        if self.root != kept:
            text = text.replace(
                b'"BulkDataURI":"%b/' % kept.url.encode(),
                b'"BulkDataURI":"%b/' % self.root.url.encode(),
            )
        if self.coercion is not None:
            text = _with_number(text, self.coercion)
        return in_hanzi(text) if self.hanzi else text


def written(model: Mapping[str, Mapping[str, Any]]) -> bytes:
    """One instance as it is kept: with a line for each attribute that may change."""
    lines: list[dict[str, Any]] = [{}]
    places = iter((*_PLACES, "G"))
    place = next(places)
    for tag, attribute in model.items():
        if tag >= place:
            lines.append({})
            while tag > place:
                place = next(places)
        lines[-1][tag] = attribute
        if tag == place:
            lines.append({})
            place = next(places)
    texts = [orjson.dumps(line)[1:-1] for line in lines if line]
    return b"{\n" + b",\n".join(texts) + b"\n}"


def in_hanzi(text: bytes) -> bytes:
    """DICOM JSON whose names have the ideographic group, as one reads it, for the alphabetic one.

    ``王^小东`` is read 王小东; a name with letters in it keeps its parts apart.
    """
    return _NAME.sub(_alphabetic, text)


def _alphabetic(found: re.Match[bytes]) -> bytes:
    group = str(orjson.loads(found[1]))
    read = group if _WESTERN.search(group) else group.replace("^", "").strip()
    return b'{"Alphabetic":%b,"Ideographic":%b' % (orjson.dumps(read), found[1])


def _with_number(text: bytes, coercion: Coercion) -> bytes:
    """The text of instances with the coerced number of their patient."""
    known: dict[Slots, list[tuple[str, bytes]]] = {}
    out: list[bytes] = []
    lines: list[tuple[str, bytes]] = []
    for line in text.split(b"\n"):
        if line.startswith(b"}"):
            out.append(b",\n".join(_changed(lines, known, coercion)))
            lines = []
        if line.startswith(b"}") or line.endswith(b"{"):  # or both: ``},{``
            out.append(line)
        elif line:
            lines.append((line[1:9].decode("ascii"), line.removesuffix(b",")))
    return b"\n".join(out)


def _changed(
    lines: list[tuple[str, bytes]],
    known: dict[Slots, list[tuple[str, bytes]]],
    coercion: Coercion,
) -> Iterator[bytes]:
    """The lines of one instance; of a series nearly all have the same to be changed."""
    slots = tuple(one for one in lines if one[0] in _PLACES)
    if slots not in known:
        known[slots] = sorted(_coerced(slots, coercion))
    new = list(known[slots])
    for tag, line in lines:
        while new and new[0][0] <= tag:
            yield new.pop(0)[1]
        if tag not in _PLACES:
            yield line
    for _, line in new:
        yield line


def _coerced(slots: Slots, coercion: Coercion) -> Iterator[tuple[str, bytes]]:
    """What stands there in place of the old attributes, as `coercion.coerced` writes it."""
    old = {tag: orjson.loads(b"{%b}" % line)[tag] for tag, line in slots}
    for tag, attribute in _attributes(old, coercion).items():
        yield tag, orjson.dumps({tag: attribute})[1:-1]


def _attributes(old: Mapping[str, Any], coercion: Coercion) -> dict[str, Any]:
    replaced = {tag: old.get(tag) or {"vr": "LO"} for tag in (_NUMBER, _ISSUER)}
    if _QUALIFIERS in old:
        replaced[_QUALIFIERS] = old[_QUALIFIERS]
    new = {
        _NUMBER: _one("LO", coercion.patient_id),
        _ISSUER: _one("LO", coercion.issuer),
        _ORIGINAL: _with_item(
            old.get(_ORIGINAL),
            {
                "04000550": {"vr": "SQ", "Value": [replaced]},
                "04000562": _one("DT", f"{coercion.at:%Y%m%d%H%M%S.%f%z}"),
                "04000563": _one("LO", coercion.system),
                "04000564": _one("LO", ""),
                "04000565": _one("CS", "COERCE"),
            },
        ),
    }
    owner = (coercion.owner_patient_id, coercion.owner_issuer)
    if (coercion.patient_id, coercion.issuer) != owner:
        number = {_NUMBER: _one("LO", owner[0]), _ISSUER: _one("LO", owner[1])}
        new[_OTHERS] = _with_item(old.get(_OTHERS), number | {"00100022": _one("CS", "TEXT")})
    elif _OTHERS in old:
        new[_OTHERS] = old[_OTHERS]
    named = old.get(_INSTITUTION)
    new[_INSTITUTION] = named if named and "Value" in named else _one("LO", coercion.institution)
    return new


def _one(vr: str, value: str) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value else {"vr": vr}


def _with_item(sequence: Mapping[str, Any] | None, item: Mapping[str, Any]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": [*(sequence or {}).get("Value", ()), item]}

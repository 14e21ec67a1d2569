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
from operator import itemgetter
from typing import Any

import orjson

from exchange_dicom.coercion import COERCED, Coercion
from exchange_dicom.resources import Root

_TAGS = sorted(f"{tag:08X}" for tag in COERCED)
_INSTITUTION, _NUMBER, _ISSUER, _QUALIFIERS, _OTHERS, _ORIGINAL = _TAGS
_PLACES = frozenset(tag.encode() for tag in _TAGS)

_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_NAME = re.compile(rb'"Alphabetic":' + _TEXT + rb',"Ideographic":(' + _TEXT + rb")", re.DOTALL)
_NAME_ALONE = re.compile(rb'\{"Ideographic":(' + _TEXT + rb")", re.DOTALL)
_WESTERN = re.compile(r"[A-Za-z]")

Slots = tuple[bytes, ...]
"""The lines of an instance's attributes that may change."""


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
    places = iter((*_TAGS, "G"))
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
    known: dict[bytes, bytes] = {}

    def both(found: re.Match[bytes]) -> bytes:
        group = found[1]
        if group not in known:  # as that of the patient is once for each instance
            told = orjson.dumps(_read(str(orjson.loads(group))))
            known[group] = b'"Alphabetic":%b,"Ideographic":%b' % (told, group)
        return known[group]

    text = _NAME.sub(both, text)
    return _NAME_ALONE.sub(lambda found: b"{" + both(found), text)


def _read(group: str) -> str:
    return group if _WESTERN.search(group) else group.replace("^", "").strip()


def _with_number(text: bytes, coercion: Coercion) -> bytes:
    """The text of instances with the coerced number of their patient."""
    known: dict[Slots, list[tuple[bytes, bytes]]] = {}
    out: list[bytes] = []
    lines: list[bytes] = []
    for line in text.split(b"\n"):
        if line[:1] == b'"':
            lines.append(line)
            continue
        if line[:1] == b"}":
            out += _changed(lines, known, coercion)
            lines = []
        out.append(line)  # such as ``},{``
    return b"\n".join(out)


def _changed(
    lines: list[bytes], known: dict[Slots, list[tuple[bytes, bytes]]], coercion: Coercion
) -> list[bytes]:
    """The lines of one instance; of a series nearly all have the same to be changed."""
    if lines:
        lines[-1] += b","
    slots = tuple(line for line in lines if line[1:9] in _PLACES)
    if slots not in known:
        known[slots] = sorted(_coerced(slots, coercion))
    old = [(line[1:9], line) for line in lines if line[1:9] not in _PLACES]
    changed = [line for _, line in sorted(old + known[slots], key=itemgetter(0))]
    changed[-1] = changed[-1].removesuffix(b",")
    return changed


def _coerced(slots: Slots, coercion: Coercion) -> Iterator[tuple[bytes, bytes]]:
    """What stands there in place of the old attributes, as `coercion.coerced` writes it."""
    old: dict[str, Any] = {}
    for line in slots:
        old |= orjson.loads(b"{%b}" % line.removesuffix(b","))
    for tag, attribute in _attributes(old, coercion).items():
        yield tag.encode(), orjson.dumps({tag: attribute})[1:-1] + b","


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

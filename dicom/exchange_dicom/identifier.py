"""The identifier of a query or retrieval: what it asks for, and how it is answered (PS3.4 C.4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from pydicom.datadict import keyword_for_tag

from exchange.errors import Invalid
from exchange_dicom import attributes, data_set
from exchange_dicom.character_sets import CharacterSet, determine
from exchange_dicom.data_set import Element
from exchange_dicom.header import DataSetError
from exchange_dicom.repertoire import UTF_8, Repertoire, declared, instead
from exchange_storage.search import Level

IDENTIFIER_LENGTH = 1 << 16
"""Bytes of the longest identifier that is read."""

ELEMENTS = 512
"""Elements of an identifier, those within items counted."""

UNIQUE: Mapping[Level, str] = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
"""The unique key of each level (C.6.1.1, C.6.2.1)."""

_NEVER_MATCHED = frozenset({"SpecificCharacterSet", "TimezoneOffsetFromUTC", "RetrieveAETitle"})
"""They say how the identifier is to be read (C.2.2.2), or are the answer's own."""
_ALWAYS = _NEVER_MATCHED | {"QueryRetrieveLevel"}
_CHARACTER_SET = 0x00080005
_EVERY_TAG = 1 << 32
_OF_NO_DATA_SET = 0x00080000
"""Below it are tags of commands and files, which no data set has (PS3.5 7.1). Some repeat them from
the answer or file that they ask by."""
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_CODE_VALUES = frozenset({"CodeValue", "LongCodeValue", "URNCodeValue"})
"""One attribute in three forms (PS3.3 8.1): who wants a code does not know which one it has."""
_NONE: frozenset[str] = frozenset()
_SPLIT_NOT = frozenset({"LT", "ST", "UT", "UR"})


@dataclass(frozen=True, slots=True)
class Identifier:
    """The identifier of a query or retrieval: its keys, and all attributes that it wants."""

    wanted: frozenset[str]
    """Keywords, or tags of what has none; without those that every answer has."""
    items: Mapping[str, frozenset[str]]
    """Of a sequence that is wanted, what is wanted in its items: all where nothing is named. One
    within an item is named by the keywords on the way there, joined by dots."""
    keys: tuple[tuple[str, str], ...]
    """Keyword, or keywords of sequences and of an attribute in their item joined by dots, and the
    value, if there is one."""
    asked_level: str
    repertoire: Repertoire | None
    """What the asker reads; None where it declared nothing that is known."""

    @classmethod
    def read(cls, raw: bytes, transfer_syntax: str) -> Identifier:
        """Raises Invalid."""
        found: list[Element] = []
        end = 0
        try:
            for element, _, end in data_set.located(raw, transfer_syntax, _EVERY_TAG):  # noqa: B007
                found.append(element)
        except DataSetError as error:
            raise Invalid("the identifier is not a data set") from error
        if any(raw[end:]):
            raise Invalid("the identifier ends within an element")
        everything = list(_flat(found))
        if len(everything) > ELEMENTS:
            raise Invalid(f"the identifier has more than {ELEMENTS} elements")
        character_set = _character_set(found, everything)
        keys: dict[str, str] = {}
        wanted: set[str] = set()
        items: dict[str, frozenset[str]] = {}
        for element in found:
            keyword = _keyword(element.tag)
            if not keyword:
                if _counts(element.tag):
                    wanted.add(f"{element.tag:08X}")
                continue
            wanted.add(keyword)
            for path, one in _keys(keyword, element):
                if one.vr != "SQ":
                    keys[path] = _text(one, character_set)
                else:
                    names = {_keyword(each.tag) for each in _one_item(path, one)} - {""}
                    items[path] = frozenset(
                        names | (_CODE_VALUES if names & _CODE_VALUES else _NONE)
                    )
        level = keys.pop("QueryRetrieveLevel", "")
        return cls(
            wanted=frozenset(wanted) - _ALWAYS,
            items=items,
            keys=tuple((k, v) for k, v in keys.items() if v and k not in _NEVER_MATCHED),
            asked_level=level,
            repertoire=declared(character_set.used),
        )

    def level(
        self, levels: Sequence[Level], *, relational: bool, beyond: Sequence[Level] = ()
    ) -> Level:
        """The level asked for, with the unique keys above it there (PS3.4 C.4.1.2.1).

        Of levels `beyond` those of the model no key is needed below. Raises Invalid.
        """
        level = Level.__members__.get(self.asked_level.strip())
        if level is None or level not in {*beyond, *levels}:
            names = ", ".join(one.name for one in (*beyond, *levels))
            raise Invalid(f"QueryRetrieveLevel must be one of {names}")
        given = dict(self.keys)
        for above in levels:
            key = UNIQUE[above]
            value = given.get(key, "")
            if above < level and not relational and (not value or set(value) & set("*?\\")):
                raise Invalid(f"{key} must be given as a single value")
        return level

    def answer(
        self,
        told: Mapping[str, attributes.Value],
        levels: Sequence[Level],
        level: Level,
        ae_title: str,
        *,
        explicit: bool,
    ) -> bytes:
        """The identifier of one response: of what was wanted the keys that are supported.

        Others are not returned, rather than returned as if they were empty (C.2.2.1.3). The unique
        keys of the levels above are always there (C.4.1.3.1.1), wanted or not.
        """
        body = self.narrowed(told)
        for above in levels:
            if above < level:
                body[UNIQUE[above]] = told[UNIQUE[above]]
        body["QueryRetrieveLevel"] = level.name
        body["RetrieveAETitle"] = ae_title
        return write(body, self.repertoire, explicit=explicit)

    def narrowed(self, told: Mapping[str, attributes.Value]) -> dict[str, attributes.Value]:
        """What is wanted of `told`, and of the items of its sequences (C.2.2.2.6)."""
        body = {keyword: told[keyword] for keyword in self.wanted if keyword in told}
        for path in self.items:
            if path in body:
                body[path] = self._narrowed(path, body[path])
        return body

    def _narrowed(self, path: str, told: attributes.Value) -> attributes.Value:
        names = self.items.get(path)
        if not names or isinstance(told, str | int):
            return told
        return [
            {
                name: self._narrowed(f"{path}.{name}", value)
                for name, value in item.items()
                if name in names
            }
            for item in told
            if isinstance(item, Mapping)
        ]

    def lacks(
        self,
        supported: Collection[str],
        within: Mapping[str, Collection[str]],
        matched: Set[str] = frozenset(),
    ) -> bool:
        """Whether something is wanted that is not among `supported` attributes, or not in the items
        of a sequence for which `within` tells what they have: an optional key without support.

        A key that was `matched` had support, also where the level has no value of it to return.
        """
        return any(
            keyword not in supported and not self._paths(keyword) <= matched
            for keyword in self.wanted
        ) or any(
            not names <= set(within[keyword])
            for keyword, names in self.items.items()
            if keyword in within
        )

    def _paths(self, keyword: str) -> Set[str]:
        """What of it are keys: those in its item, if it is a sequence (see `keys`)."""
        return {f"{keyword}.{name}" for name in self.items.get(keyword, ())} or {keyword}


def write(
    body: Mapping[str, attributes.Value], repertoire: Repertoire | None, *, explicit: bool
) -> bytes:
    """A response's identifier in the character set of its asker, if that has all its characters.

    Specific Character Set is left out where all is in the default repertoire (C.4.1.1.3.2).
    """
    for one in (repertoire or Repertoire(()), instead(repertoire)):
        declaration = one.declaration
        told = {**body, "SpecificCharacterSet": declaration} if declaration else body
        with suppress(UnicodeEncodeError):
            return attributes.encode(told, explicit=explicit, encoding=one.encode)
    # Half of a surrogate pair has no place in any character set.
    return attributes.encode({**body, "SpecificCharacterSet": UTF_8}, explicit=explicit)


@lru_cache(4096)
def _keyword(tag: int) -> str:
    """The keyword of a standard attribute of a data set, "" of any other, and of a group length."""
    return keyword_for_tag(tag) if tag & 0xFFFF and tag >= _OF_NO_DATA_SET else ""


def _counts(tag: int) -> bool:
    """Whether an attribute without keyword is asked for: no group length, no private creator."""
    group, number = tag >> 16, tag & 0xFFFF
    return number > 0xFF if group % 2 else number > 0


def _keys(path: str, element: Element) -> Iterator[tuple[str, Element]]:
    """An attribute and all that are in its item, by their paths. Raises Invalid."""
    yield path, element
    if element.vr != "SQ":
        return
    keyword = _keyword(element.tag)
    if attributes.tag_and_vr(keyword)[1] != "SQ":
        raise Invalid(f"{keyword} is not a sequence")
    for one in _one_item(path, element):
        if name := _keyword(one.tag):
            yield from _keys(f"{path}.{name}", one)


def _one_item(keyword: str, element: Element) -> tuple[Element, ...]:
    """The item that is to be matched; no item, or an empty one, matches everything (C.2.2.2.6)."""
    if not element.items:
        return ()
    if len(element.items) > 1:
        raise Invalid(f"{keyword} must have one item")
    return element.items[0]


def _flat(found: Iterable[Element]) -> Iterable[Element]:
    for element in found:
        yield element
        if element.items:
            yield from _flat(chain.from_iterable(element.items))


def _character_set(found: Sequence[Element], everything: Sequence[Element]) -> CharacterSet:
    declaration = next(
        (bytes(one.value or b"") for one in found if one.tag == _CHARACTER_SET), b""
    ).decode("ascii", "replace")
    texts = [(one.vr, bytes(one.value)) for one in everything if one.value]
    return determine(
        declaration.strip(" \0")[:256],
        [value for vr, value in texts if vr != "PN" and vr not in _NUMBERS],
        [value for vr, value in texts if vr == "PN"],
    )


def _text(element: Element, character_set: CharacterSet) -> str:
    """A value as text: padding is not significant (PS3.5 6.2), numbers are in decimal."""
    if element.value is None:
        return ""
    raw = bytes(element.value)
    if element.vr in _NUMBERS:
        return data_set.numbers(element.vr, raw)
    text = character_set.decode(raw, name=element.vr == "PN").replace("\0", " ")
    if element.vr in _SPLIT_NOT:
        return text.strip(" ")
    return "\\".join(part.strip(" ") for part in text.split("\\")).strip("\\")

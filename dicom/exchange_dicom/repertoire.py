"""Text written in the character set that its reader has declared (PS3.5 section 6.1.2.5).

What reads it is `character_sets`: both use the tables of PS3.3 C.12.1.1.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from exchange_dicom.character_sets import ESCAPES, RIGHT_HALVES, spelt

UTF_8 = "ISO_IR 192"
GB18030 = "GB18030"

CODECS = {"ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk"}
"""Table C.12-5, sets without code extensions; GBK is written strictly, for whoever has no more."""

_G0 = {"6": b"\x1b(B", "13": b"\x1b(J", "87": b"\x1b$B", "159": b"\x1b$(D"}
_G1 = {number: b"\x1b" + escape for escape, (element, number) in ESCAPES.items() if element == "G1"}
"""What announces a set, by ISO registration number: as 7-bit codes, and as 8-bit codes."""
_TEXT_DELIMITERS = frozenset("\\\t\n\f\r")
_NAME_DELIMITERS = _TEXT_DELIMITERS | {"^", "="}


@dataclass(frozen=True, slots=True)
class Repertoire:
    """A character set to write in: its defined terms, none for the default repertoire."""

    terms: tuple[str, ...]

    @property
    def declaration(self) -> str:
        """The value of Specific Character Set that says so; "" where it is to be left out."""
        return "\\".join("" if term == "ISO 2022 IR 6" else term for term in self.terms)

    def encode(self, text: str, *, name: bool = False) -> bytes:
        """The bytes of one value field; `name` for VR PN, whose ``^`` and ``=`` delimit too.

        Raises UnicodeEncodeError for what the character set does not have.
        """
        if text.isascii():
            return text.encode("ascii")
        first = self.terms[0] if self.terms else "ISO_IR 6"
        if codec := CODECS.get(first):
            return text.encode(codec)
        if first.startswith("ISO_IR") and len(self.terms) < 2:
            return b"".join(_in_set(c, first.rpartition(" ")[2]) for c in text)
        return _extended(text, self.terms, _NAME_DELIMITERS if name else _TEXT_DELIMITERS)


@lru_cache(256)
def declared(declaration: str) -> Repertoire | None:
    """The repertoire of a Specific Character Set; None where a term is unknown."""
    terms = spelt(declaration)
    if terms is None:
        return None
    if len(terms) == 1 and terms[0] in ("ISO_IR 6", "ISO 2022 IR 6"):
        return Repertoire(())
    return Repertoire(terms)


def instead(repertoire: Repertoire | None) -> Repertoire:
    """What whoever declared `repertoire` is answered in where it lacks a character.

    GB 18030 holds all of Unicode, and all that reads Chinese in China reads it; Unicode in UTF-8
    is what everybody else is most likely to read.
    """
    terms = repertoire.terms if repertoire else ()
    chinese = any(term in ("GBK", GB18030, "ISO 2022 IR 58") for term in terms)
    return Repertoire((GB18030 if chinese else UTF_8,))


def _in_set(character: str, number: str) -> bytes:
    """One character in ASCII or in the set with this ISO registration number.

    Raises UnicodeEncodeError.
    """
    if character.isascii():
        return character.encode("ascii")
    match number:
        case "87" | "159":
            found = character.encode("euc_jp")
            # 0x8E leads to JIS X 0201, 0x8F to 0212; a single byte is what ASCII has instead.
            if len(found) == (3 if number == "159" else 2) and found[0] != 0x8E:
                return bytes(byte & 0x7F for byte in found[-2:])
        case "13":
            found = character.encode("shift_jis")
            if len(found) == 1 and found[0] >= 0xA0:
                return found
        case _:
            found = character.encode(RIGHT_HALVES[number] or "ascii")
            if found[0] >= 0xA0 and len(found) == 1 + (number in ("58", "149")):
                return found
    raise UnicodeEncodeError(f"ISO-IR {number}", character, 0, 1, "not in the set")


def _extended(text: str, terms: tuple[str, ...], delimiters: frozenset[str]) -> bytes:
    """Text under ISO 2022 code extensions: each run of a set other than the first is announced,
    and the first one is back before a delimiter and at the end (PS3.5 6.1.2.5.3)."""
    numbers = [term.rpartition(" ")[2] for term in terms]
    initial = numbers[0]
    basic = "13" if initial == "13" else "6"
    written = bytearray()
    left, right = basic, initial
    for character in text:
        if character.isascii():
            if left != basic:
                written += _G0[basic]
                left = basic
            if character in delimiters:
                right = initial
            written += character.encode("ascii")
            continue
        number, value = _first_that_has(character, numbers)
        if number in _G1 and number != right:
            written += _G1[number]
            right = number
        elif number not in _G1 and number != left:
            written += _G0[number]
            left = number
        written += value
    return bytes(written + (_G0[basic] if left != basic else b""))


def _first_that_has(character: str, numbers: list[str]) -> tuple[str, bytes]:
    for number in numbers:
        try:
            return number, _in_set(character, number)
        except UnicodeEncodeError:
            continue
    raise UnicodeEncodeError("ISO 2022", character, 0, 1, "in none of the sets declared")

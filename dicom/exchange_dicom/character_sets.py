"""Specific Character Set, as PS3.3 C.12.1.1.2 and PS3.5 6.1.2 define it, and as it is got wrong.

The bytes in the kept file stay as they came; what is repaired here is the text for the index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

ESC = b"\x1b"

STAND_ALONE = {"ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gb18030"}
"""Table C.12-5, sets without code extensions. GB 18030 reads all that GBK wrote."""

RIGHT_HALVES: dict[str, str | None] = {
    "6": None,
    "13": "shift_jis",
    "58": "gb2312",
    "87": None,
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "euc_kr",
    "159": None,
    "166": "iso8859_11",
    "203": "iso8859_15",
}
"""Tables C.12-2 to C.12-4: ISO registration number -> codec of the bytes 0x80-0xFF (G1)."""

ESCAPES: dict[bytes, tuple[str, str]] = {
    b"(B": ("G0", "6"),
    b"(J": ("G0", "13"),
    b"$B": ("G0", "87"),
    b"$@": ("G0", "87"),  # the 1978 edition of JIS X 0208, still sent by old modalities
    b"$(D": ("G0", "159"),
    b")I": ("G1", "13"),
    b"-A": ("G1", "100"),
    b"-B": ("G1", "101"),
    b"-C": ("G1", "109"),
    b"-D": ("G1", "110"),
    b"-F": ("G1", "126"),
    b"-G": ("G1", "127"),
    b"-H": ("G1", "138"),
    b"-L": ("G1", "144"),
    b"-M": ("G1", "148"),
    b"-T": ("G1", "166"),
    b"-b": ("G1", "203"),
    b"$)A": ("G1", "58"),
    b"$)C": ("G1", "149"),
}
"""Tables C.12-3 and C.12-4: what follows ESC -> code element and ISO registration number."""

_ESCAPE = re.compile(ESC + b"(" + b"|".join(map(re.escape, ESCAPES)) + b")")
_RUN = re.compile(_ESCAPE.pattern + rb"|([\x80-\xff]+)|([\x00-\x1a\x1c-\x7f]+|\x1b)")
_PAIR = re.compile(rb"([\x21-\x7e]{2})|([\x00-\x7f])")

# PS3.5 6.1.2.5.3: code extensions end before these; "^" and "=" only where they mean something.
_NAME_DELIMITERS = re.compile(rb"[\\^=\t\n\f\r]")
_TEXT_DELIMITERS = re.compile(rb"[\\\t\n\f\r]")

_TRAIL_BEHIND_HANZI = re.compile("[\u2e80-\uffff][@-~]")
"""In UTF-8 what may be two characters of GB 18030, the second with an ASCII byte."""
_LETTER_AT_HANZI = re.compile("[A-Za-z][\u3400-\u9fff]|[\u3400-\u9fff][A-Za-z]")

_TERM = re.compile(r"ISO[ _-]?(2022)?[ _-]?(?:IR)?[ _-]?([0-9]{1,3})")
_ALIASES = {
    "UTF-8": "ISO_IR 192",
    "UTF8": "ISO_IR 192",
    "GB2312": "GBK",
    "ISO 2022 GBK": "GBK",
    "ISO_IR 58": "GBK",
    "GB 18030": "GB18030",
    "GB-18030": "GB18030",
}

_NEVER_FIRST = frozenset(f"ISO 2022 IR {number}" for number in ("58", "87", "149", "159"))
"""Multi-byte sets have to be announced (Table C.12-4), so none can be the first value."""

_ASCII_OR_LATIN_1 = frozenset({"ISO_IR 6", "ISO 2022 IR 6", "ISO_IR 100", "ISO 2022 IR 100"})
_ASCII = frozenset({"ISO_IR 6", "ISO 2022 IR 6"})

IS_UTF_8 = "the bytes are UTF-8"
IS_GB18030 = "the bytes are GB18030"
IS_LATIN_1 = "8-bit text of an undeclared set, read as Latin-1"
MISSPELT = "misspelt or misplaced defined term"
UNKNOWN = "unknown defined term"
UNDECLARED_ESCAPES = "escape sequences of a set that is not declared"
UNDECODABLE = "undecodable bytes are replaced"


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """How the text of a data set was read: provenance for the index (PS3.3 C.12.1.1.2).

    `declared` is Specific Character Set as sent, `used` the defined terms that were applied
    (joined by backslashes), `reason` why they differ or what was lost; None when read as declared.
    """

    declared: str
    used: str
    reason: str | None

    def decode(self, value: bytes, *, name: bool = False) -> str:
        """The text of one value field; `name` for VR PN, whose ``^`` and ``=`` delimit too.

        Never raises: what cannot be decoded becomes U+FFFD. Backslashes are still in place and
        now safe to split at, which they are not in bytes (PS3.5 6.1.2.5.3, GBK trail byte 0x5C).
        """
        if value.isascii() and ESC not in value:
            return value.decode("ascii")
        first, _, _ = self.used.partition("\\")
        if codec := STAND_ALONE.get(first):
            return _without_escapes(value).decode(codec, "replace")
        return _extended(value, first, _NAME_DELIMITERS if name else _TEXT_DELIMITERS)


def determine(declared: str, texts: Sequence[bytes], names: Sequence[bytes] = ()) -> CharacterSet:
    """Decide once, over all text values of a data set, which character set they are in.

    Conservative: the declaration stands unless the bytes speak against it. UTF-8 or GB 18030
    under no declaration, ISO_IR 6 or ISO_IR 100 is repaired only where the text is then UTF-8
    throughout or Chinese for the greater part, so genuine Latin-1 stays. Never raises.
    """
    terms, remark = _terms(declared)
    stated = CharacterSet(declared, "\\".join(terms), remark)
    everything = b"\n".join((*texts, *names))
    if everything.isascii() and ESC not in everything:
        return stated
    escapes = {number for _, number in map(ESCAPES.__getitem__, _ESCAPE.findall(everything))}
    chosen = (
        _repaired(stated, terms, _unescaped(texts, names), escapes)
        or _extension(stated, terms, escapes)
        or _contradicted(stated, terms, escapes)
    )
    if not _loses(chosen, texts, names):
        return chosen
    if terms[0] not in STAND_ALONE and chosen.reason not in (IS_UTF_8, IS_GB18030):
        # Nothing contradicted the declaration, yet it does not fit.
        chosen = _undeclared(stated, terms, _without_escapes(everything)) or chosen
        if not _loses(chosen, texts, names):
            return chosen
    reason = f"{chosen.reason}; {UNDECODABLE}" if chosen.reason else UNDECODABLE
    return CharacterSet(declared, chosen.used, reason)


def spelt(declared: str) -> tuple[str, ...] | None:
    """The defined terms of a declaration, as PS3.3 spells them; None where one is unknown."""
    terms, remark = _terms(declared)
    return None if remark == UNKNOWN else terms


def _loses(chosen: CharacterSet, texts: Sequence[bytes], names: Sequence[bytes]) -> bool:
    return any("\ufffd" in chosen.decode(text) for text in texts) or any(
        "\ufffd" in chosen.decode(name, name=True) for name in names
    )


@lru_cache(maxsize=256)
def _terms(declared: str) -> tuple[tuple[str, ...], str | None]:
    """The defined terms of a declaration, spelt as PS3.3 does, and a remark if they were not."""
    stated = [term.strip(" \0").upper() for term in declared.split("\\")]
    while len(stated) > 1 and not stated[-1]:
        stated.pop()
    default = "ISO 2022 IR 6" if len(stated) > 1 else "ISO_IR 6"
    terms = [_spelt(term) if term else default for term in stated]
    for term in terms:
        if term in STAND_ALONE:
            return (term,), None if stated == [term] else MISSPELT
    known = [term for term in terms if term is not None]
    if len(known) < len(terms):
        return tuple(known) or ("ISO_IR 6",), UNKNOWN
    placed = known[0] not in _NEVER_FIRST
    return tuple(known), None if placed and all(map(_same, known, stated)) else MISSPELT


def _same(term: str, stated: str) -> bool:
    return stated in (term, "")


def _spelt(term: str) -> str | None:
    """The defined term that `term` is or was meant to be; None if there is none."""
    if term in STAND_ALONE:
        return term
    if term in _ALIASES:
        return _ALIASES[term]
    match = _TERM.fullmatch(term)
    if match is None:
        return None
    extension, number = match.groups()
    if number == "192":
        return "ISO_IR 192"
    if number not in RIGHT_HALVES:
        return None
    multi_byte = number in ("58", "87", "149", "159")
    return f"ISO 2022 IR {number}" if extension or multi_byte else f"ISO_IR {number}"


def _repaired(
    stated: CharacterSet, terms: tuple[str, ...], plain: bytes, escapes: set[str]
) -> CharacterSet | None:
    """The set that the 8-bit bytes outside of escape sequences prove, if not the declared one."""
    if plain.isascii() or not escapes <= {"6", "58"}:
        return None
    first = terms[0]
    utf_8 = CharacterSet(stated.declared, "ISO_IR 192", IS_UTF_8)
    gb18030 = CharacterSet(stated.declared, "GB18030", IS_GB18030)
    as_gb18030 = plain.decode("gb18030", "replace")
    if first == "ISO_IR 192":
        repair = not _is_utf_8(plain) and _plausible(as_gb18030) and _mostly_chinese(as_gb18030)
        return gb18030 if repair else None
    if first in STAND_ALONE:
        if not _is_utf_8(plain):
            return None
        # GB text is by accident UTF-8 of characters of two bytes or of four, hardly ever of three.
        read = plain.decode("utf_8", "replace")
        hanzi = [c for c in read if not c.isascii() and c != "\ufffd"]
        meant = all(c >= "\u2e80" for c in hanzi) and any(c <= "\uffff" for c in hanzi)
        meant = meant and len(hanzi) > len(_TRAIL_BEHIND_HANZI.findall(read))
        return utf_8 if meant or not _plausible(as_gb18030) else None
    if first not in _ASCII_OR_LATIN_1:
        return None
    if _is_utf_8(plain) and not (_two_byte_only(plain) and _all_first_level(as_gb18030)):
        return utf_8
    escape_forgotten = "ISO 2022 IR 58" in terms and first in _ASCII
    if _plausible(as_gb18030) and (escape_forgotten or _mostly_chinese(as_gb18030)):
        return gb18030
    if first in _ASCII:
        latin_1 = "ISO 2022 IR 100" if len(terms) > 1 else "ISO_IR 100"
        reason = stated.reason or IS_LATIN_1
        return CharacterSet(stated.declared, "\\".join((latin_1, *terms[1:])), reason)
    return None


def _undeclared(
    stated: CharacterSet, terms: tuple[str, ...], everything: bytes
) -> CharacterSet | None:
    """UTF-8 or GB 18030, if all the text is in one of them, escape sequences put aside."""
    if _is_utf_8(everything):
        return CharacterSet(stated.declared, "ISO_IR 192", IS_UTF_8)
    as_gb18030 = everything.decode("gb18030", "replace")
    if _plausible(as_gb18030) and ("ISO 2022 IR 58" in terms or _mostly_chinese(as_gb18030)):
        return CharacterSet(stated.declared, "GB18030", IS_GB18030)
    return None


def _extension(
    stated: CharacterSet, terms: tuple[str, ...], escapes: set[str]
) -> CharacterSet | None:
    """The declared set, extended by those whose escape sequences occur undeclared."""
    if terms[0] in STAND_ALONE:
        return None
    missing = escapes - {term.rpartition(" ")[2] for term in terms} - {"6"}
    if not missing:
        return None
    first = terms[0].replace("ISO_IR", "ISO 2022 IR")  # as in C.12-3: with code extensions
    added = (f"ISO 2022 IR {number}" for number in sorted(missing, key=int))
    extended = (first, *terms[1:], *added)
    return CharacterSet(stated.declared, "\\".join(extended), UNDECLARED_ESCAPES)


def _contradicted(stated: CharacterSet, terms: tuple[str, ...], escapes: set[str]) -> CharacterSet:
    """The declared set; escape sequences in one that has none are passed over, and told of."""
    if terms[0] in STAND_ALONE and escapes and stated.reason is None:
        return CharacterSet(stated.declared, stated.used, UNDECLARED_ESCAPES)
    return stated


def _unescaped(texts: Sequence[bytes], names: Sequence[bytes]) -> bytes:
    """The 8-bit pieces that no escape sequence governs, one a line."""
    pieces: list[bytes] = []
    for values, delimiters in ((texts, _TEXT_DELIMITERS), (names, _NAME_DELIMITERS)):
        for value in values:
            # Without an escape a delimiter may be half of a GBK character: keep the value whole.
            parts = delimiters.split(value) if ESC in value else [value]
            pieces += (part for part in parts if ESC not in part and not part.isascii())
    return b"\n".join(pieces)


def _without_escapes(value: bytes) -> bytes:
    return _ESCAPE.sub(b"", value) if ESC in value else value


def _is_utf_8(value: bytes) -> bool:
    return not value.isascii() and _plausible(value.decode("utf_8", "replace"))


def _plausible(text: str) -> bool:
    """Whether hardly anything failed to decode: senders cut values in the midst of a character."""
    lost = text.count("\ufffd")
    return lost * 8 <= sum(not c.isascii() for c in text) - lost


def _two_byte_only(utf_8: bytes) -> bool:
    return all(c < "\u0800" for c in utf_8.decode("utf_8", "replace"))


def _in_gb2312(character: str, rows: range) -> bool:
    try:
        return character.encode("gb2312")[0] in rows
    except UnicodeEncodeError:
        return False


def _all_first_level(text: str) -> bool:
    """Whether all that is not ASCII is among the 3,755 common hanzi (GB 2312 rows 16-55), no
    Latin letter beside them: what GB text that happens to be UTF-8 looks like ("联通" does)."""
    common = all(c.isascii() or _in_gb2312(c, range(0xB0, 0xD8)) for c in text)
    return common and not _LETTER_AT_HANZI.search(text)


def _mostly_chinese(text: str) -> bool:
    """Whether text read as GB 18030 looks like Chinese and not like a European language.

    An accented Latin-1 letter takes the next letter with it ("Müller" reads M黮ler): a rare hanzi
    outside of GB 2312, in a word of Latin letters.
    """
    hanzi = common = letters = 0
    for word in re.findall(r"[^\W\d_]+", text):
        chinese = [c for c in word if "\u3400" <= c <= "\u9fff"]
        if chinese:
            hanzi += len(chinese)
            common += sum(_in_gb2312(c, range(0xB0, 0xF8)) for c in chinese)
            letters += sum(c.isascii() for c in word)
    return hanzi > 0 and hanzi >= letters and 2 * common >= hanzi


def _extended(value: bytes, first: str, delimiters: re.Pattern[bytes]) -> str:
    """Decode under ISO 2022 code extensions (PS3.5 6.1.2.5), replacing what does not fit."""
    initial = RIGHT_HALVES[first.rpartition(" ")[2]]
    left, right = "6", initial
    text: list[str] = []
    for run in _RUN.finditer(value):
        escape, high, low = run.groups()
        if escape:
            element, number = ESCAPES[escape]
            if element == "G0":
                left = number
            else:
                right = RIGHT_HALVES[number]
        elif high:
            text.append(high.decode(right or "ascii", "replace"))
        elif left in ("87", "159"):
            for pair, single in _PAIR.findall(low):
                if single in (b"\t", b"\n", b"\f", b"\r"):
                    left, right = "6", initial
                text.append(_japanese(pair, left) if pair else single.decode("ascii"))
        else:
            if delimiters.search(low):
                right = initial
            text.append("\ufffd" if low == ESC else low.decode("ascii"))
    return "".join(text)


def _japanese(pair: bytes, number: str) -> str:
    """One character of JIS X 0208 (87) or JIS X 0212 (159), from its two 7-bit bytes."""
    shifted = bytes(byte | 0x80 for byte in pair)
    return (shifted if number == "87" else b"\x8f" + shifted).decode("euc_jp", "replace")

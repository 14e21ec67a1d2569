"""Person names folded for searching: DICOM PN (PS3.5 section 6.2) in hanzi and in Latin letters.

Both sides of a comparison are folded by the same functions: what is kept with a patient, and what
somebody types. Width (full or half), case, accents, tone marks, spaces and the order of writing
``Wang^XiaoDong``, ``WANG XIAO DONG`` or ``王小东`` make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from pypinyin import Style, lazy_pinyin

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_NOISE = re.compile(r"[\s\-'’·.,，]+")

# Readings that differ when the character is a surname; pypinyin knows only the common reading.
_SURNAMES = {
    "单": "shan", "解": "xie", "仇": "qiu", "曾": "zeng", "区": "ou", "查": "zha", "朴": "piao",
    "任": "ren", "华": "hua", "盖": "ge", "乐": "yue", "种": "chong", "尉迟": "yuchi",
    "覃": "qin", "翟": "zhai", "万俟": "moqi", "员": "yun", "缪": "miao", "宓": "mi", "冼": "xian",
}  # fmt: skip
_U_UMLAUT = ("v", "u", "yu")
"""How ü is written where there is none: on keyboards, without its dots, in passports."""
_COMPOUND = frozenset(
    {"欧阳", "司马", "上官", "诸葛", "东方", "夏侯", "皇甫", "尉迟", "公孙", "慕容", "令狐", "司徒"}
    | {"宇文", "长孙", "端木", "万俟", "独孤", "南宫"}
)


@dataclass(frozen=True, slots=True)
class NameKeys:
    """The search keys of one name; each is folded. Full names stand with and without ``^``."""

    full: frozenset[str]
    family: frozenset[str]
    given: frozenset[str]


def fold(text: str) -> str:
    """`text` without width, case, accents, tone marks, spaces and punctuation; ``* ? %`` stay."""
    wide = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(c for c in wide if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", _NOISE.sub("", plain))


def pinyin(family: str, given: str) -> tuple[str, str]:
    """A name in hanzi as toneless pinyin, surnames in their reading as surnames."""
    first = _SURNAMES.get(family) or "".join(lazy_pinyin(family, style=Style.NORMAL))
    return fold(first), fold("".join(lazy_pinyin(given, style=Style.NORMAL)))


def split_hanzi(name: str) -> tuple[str, str]:
    """Family and given name of a name in hanzi written without a delimiter."""
    size = 2 if name[:2] in _COMPOUND and len(name) > 2 else 1
    return name[:size], name[size:]


def keys(name: str) -> NameKeys:
    """All search keys of a PN value with its three component groups."""
    full: set[str] = set()
    family: set[str] = set()
    given: set[str] = set()
    for group in name.split("=")[:3]:
        parts = [part.strip() for part in group.split("^")]
        last, first = parts[0], parts[1] if len(parts) > 1 else ""
        if not first and _HAN.match(last):
            last, first = split_hanzi(_NOISE.sub("", last))
        middle = parts[2] if len(parts) > 2 else ""
        spellings = [(last, first + middle)]
        if _HAN.search(group):
            latin = pinyin(last, first + middle)
            spellings += [(latin[0].replace("v", u), latin[1].replace("v", u)) for u in _U_UMLAUT]
        for one, other in spellings:
            one, other = fold(one), fold(other)
            full.update({one + other, other + one, f"{one}^{other}".strip("^")})
            family.add(one)
            given.add(other)
    return NameKeys(frozenset(full - {""}), frozenset(family - {""}), frozenset(given - {""}))


def asked(value: str) -> tuple[str, ...]:
    """The folded forms of a name as somebody asks for it, one for each component group given.

    As in `keys` the middle name belongs to the given name, and prefix and suffix are left out.
    """
    groups = []
    for group in value.split("=")[:3]:
        last, *rest = fold(group).split("^")
        groups.append(f"{last}^{''.join(rest[:2])}".rstrip("^"))
    return tuple(group for group in groups if group)

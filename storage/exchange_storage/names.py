"""Person names folded for searching: DICOM PN (PS3.5 section 6.2) in hanzi and in Latin letters.

Both sides of a comparison are folded by the same functions: what is kept with a patient, and what
somebody types. Width (full or half), case, accents, tone marks, spaces and the order of writing
``Wang^XiaoDong``, ``WANG XIAO DONG`` or ``王小东`` make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_NOISE = re.compile(r"[\s\-'’·.,，]+")

# Readings that differ when the character is a surname; pypinyin knows only the common reading.
_SURNAMES = {
    "单": "shan", "解": "xie", "仇": "qiu", "曾": "zeng", "区": "ou", "查": "zha", "朴": "piao",
    "任": "ren", "华": "hua", "盖": "ge", "乐": "yue", "种": "chong", "尉迟": "yuchi",
    "覃": "qin", "翟": "zhai", "万俟": "moqi", "员": "yun", "缪": "miao", "宓": "mi", "冼": "xian",
}  # fmt: skip
_TONE = re.compile(r"[a-z:][1-5]")
_SYLLABLE = (
    "(?:zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(?:[iu]ang|iong|[aeio]ng|uai|u?an|ian|iao|u:e?|ve?|[aeiu]n"
    "|ai|[euo]i|[aio]u|[ai]o|i[ae]|u[aoe]|er|[aoeiu])"
)
_NUMBERED = re.compile(f"(?:{_SYLLABLE}[1-5])+")
_CONFUSED = (
    *(("zh", "z"), ("ch", "c"), ("sh", "s"), ("n", "l"), ("f", "h")),
    *(("ang", "an"), ("eng", "en"), ("ing", "in")),
)
"""Sounds that speakers of Mandarin with an accent do not tell apart."""
_SOUNDS = {a: (a, b) for a, b in _CONFUSED} | {b: (b, a) for a, b in _CONFUSED}
_SOUND = re.compile("[aei]ng?|[zcs]h|.", re.DOTALL)
ALIKE = 64
"""Spellings that fuzzy matching looks for, at most."""
_U_UMLAUT = ("v", "u", "yu")
"""How ü is written where there is none: on keyboards, without its dots, in passports."""
_COMPOUND = frozenset(
    {"欧阳", "司马", "上官", "诸葛", "东方", "夏侯", "皇甫", "尉迟", "公孙", "慕容", "令狐", "司徒"}
    | {"宇文", "长孙", "端木", "万俟", "独孤", "南宫"}
)


@dataclass(frozen=True, slots=True)
class NameKeys:
    """The search keys of one name; each is folded.

    Full names stand in both orders without ``^``, and in their own with it; one that was sent in
    one piece ends with it.
    """

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
    read = _reading()
    first = _SURNAMES.get(family) or "".join(read(family))
    return fold(first), fold("".join(read(given)))


def prepare() -> None:
    """Load the dictionaries of pinyin now, instead of when the first name in hanzi comes."""
    _reading()


@cache
def _reading() -> Callable[[str], list[str]]:
    """What reads hanzi: imported when it is needed, for its dictionaries take 60 MB."""
    from pypinyin import Style, lazy_pinyin

    return partial(lazy_pinyin, style=Style.NORMAL)


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
            full.update({one + other, other + one, f"{one}^{other}".lstrip("^")})
            family.add(one)
            given.add(other)
        if middle:  # each given name by itself as well (FHIR R4: any of them)
            given.update(map(fold, (first, *middle.split(" "))))
    return NameKeys(frozenset(full - {""}), frozenset(family - {""}), frozenset(given - {""}))


def asked(value: str) -> tuple[str, ...]:
    """The folded forms of a name as somebody asks for it, one for each component group given.

    As in `keys` the middle name belongs to the given name, and prefix and suffix are left out.
    Pinyin with tone numbers (``Wang2^Xiao3Dong1``) is asked for without them too.
    """
    groups: list[str] = []
    for group in value.split("=")[:3]:
        folded = fold(group)
        for one in (folded, _without_tones(folded)) if _TONE.search(folded) else (folded,):
            last, *rest = one.split("^")
            groups.append(f"{last}^{''.join(rest[:2])}".rstrip("^"))
    found = tuple(dict.fromkeys(group for group in groups if group))
    # "*=王^小东" means 王小东 and not everybody: a group that matches all asks for nothing.
    return tuple(group for group in found if group.strip("*^")) or found[:1]


def whole(value: str) -> frozenset[str]:
    """The keys one of which a full name must have to be the one that somebody asks for."""
    return _whole(asked(value))


def alike_whole(value: str) -> frozenset[str]:
    """The same of names that sound like it."""
    return _whole(alike(value))


def _whole(spellings: Sequence[str]) -> frozenset[str]:
    # Who tells family from given name is also answered with who was sent in one piece.
    pieces = (one.replace("^", "") + "^" for one in spellings if "^" in one)
    return frozenset((*spellings, *pieces))


def alike(value: str) -> tuple[str, ...]:
    """The folded forms of names that sound like it, at most `ALIKE`: fuzzy semantic matching.

    Hanzi are also asked for by their reading, which finds homophones (王晓东 for 王小东), and
    pinyin by the syllables that accents confuse: zh and z, ch and c, sh and s, n and l, f and h,
    and final n and ng. Wildcards stay.
    """
    found: dict[str, None] = dict.fromkeys(asked(value))
    for group in value.split("=")[:3]:
        if _HAN.search(group):
            last, _, first = group.partition("^")
            if not first and not set(last) & set("*?"):
                last, first = split_hanzi(_NOISE.sub("", last))
            family, given = pinyin(last, first.replace("^", ""))
            found[f"{family}^{given}".rstrip("^")] = None
    for name in list(found):
        if not _HAN.search(name):
            found |= dict.fromkeys(_confused(name))
    return tuple(found)[:ALIKE]


def _without_tones(folded: str) -> str:
    """A name whose every part is pinyin with tone numbers, without the numbers; else as it is."""
    parts = re.split(r"[\^*? ]", folded)
    if all(not part or _NUMBERED.fullmatch(part) for part in parts):
        return re.sub(r"[1-5:]", "", folded.replace("u:", "v"))
    return folded


def _confused(name: str) -> list[str]:
    """The spellings of a folded Latin name in which one of each two confusable sounds stands for
    the other, up to `ALIKE`: nearest first."""
    found = [""]
    for piece in _SOUND.findall(name):
        others = _SOUNDS.get(piece, (piece,))
        found = [one + other for other in others for one in found][:ALIKE]
    return found

"""Three hospitals, the people, and who is registered where, with which number and which name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import NAMESPACE_OID, uuid5

import numpy as np

from .character_sets import is_in_gb2312
from .city import Hospital, Person, Record
from .identifiers import (
    AREA_CODES,
    first_generation,
    resident_id,
    uid,
    unified_social_credit_code,
)

TRAPS = {
    "namesake": "another person has the same name and birth date",
    "twin": "born the same day in the same family, with neighbouring card numbers",
    "same number": "another hospital gave the same patient number to another person",
    "no card": "registered without a resident ID card",
    "mistyped card": "the card number was mistyped and fails its check character",
    "old card": "registered with the 15-digit number of the first generation",
    "registered twice": "the same hospital gave this person two numbers",
    "no birth date": "the birth date is empty",
    "wrong birth date": "month and day were swapped at registration",
    "changed name": "registered under an earlier name",
    "name not in GB 2312": "the PACS cannot write the name in hanzi, so only pinyin is there",
    "name cuts bytes": "GB18030 writes a character of the name with a backslash as second byte",
    "upper case": "pinyin in capitals with the syllables apart",
    "hanzi only": "no pinyin: hanzi in the ideographic group alone",
    "hanzi first": "no pinyin: hanzi unsplit in the alphabetic group",
    "pinyin only": "no hanzi",
    "full-width": "pinyin typed in full-width letters",
    "padded name": "an ideographic space between family and given name",
}


def hospitals(seed: str) -> tuple[Hospital, ...]:
    """Beicheng writes UTF-8, Nanhu GB18030, Dongshan ISO 2022 IR 58."""
    return (
        Hospital(
            "BC",
            "北城医院",
            "Beicheng Hospital",
            unified_social_credit_code("219901", "70231605"),
            uid(seed, "issuer", "BC"),
            "BEICHENG",
            ("ISO_IR 192",),
            r"\d{10}",
        ),
        Hospital(
            "NH",
            "南湖医院",
            "Nanhu Hospital",
            unified_social_credit_code("219902", "41180927"),
            uid(seed, "issuer", "NH"),
            "NANHU",
            ("GB18030",),
            r"N\d{2}-\d{6}",
        ),
        Hospital(
            "DS",
            "东山医院",
            "Dongshan Hospital",
            unified_social_credit_code("219903", "MB0A7F42"),
            uid(seed, "issuer", "DS"),
            "DONGSHAN",
            ("", "ISO 2022 IR 58"),
            r"20\d{8}",
        ),
    )


@dataclass(frozen=True, slots=True)
class Life:
    """A line of the register below: `at` lists B, N, D, each with traps behind it."""

    name: str
    pinyin: str
    sex: str
    born: str
    at: str


# Trapped lives come first, so that the small city's few studies meet as many of them as possible.
_LIVES = tuple(
    Life(*(part.strip() for part in line.split("|")))
    for line in """
王 小东 | Wang^Xiao Dong | M | 1968-05-17 | B; N: upper case; D: hanzi only
欧阳 慧敏 | Ouyang^Hui Min | F | 1975-11-02 | N; B: old card
张 伟 | Zhang^Wei | M | 1978-03-12 | B: namesake; N: namesake
张 伟 | Zhang^Wei | M | 1978-03-12 | D: namesake
单 雪梅 | Shan^Xue Mei | F | 1959-08-30 | D; N: mistyped card
曾 国强 | Zeng^Guo Qiang | M | 1951-01-09 | B: same number; N: no card
李 晨曦 | Li^Chen Xi | M | 1996-06-21 | B: twin; D: twin
李 晨阳 | Li^Chen Yang | M | 1996-06-21 | B: twin; N: twin
解 玉兰 | Xie^Yu Lan | F | 1947-04-26 | D: same number; B: full-width
赵 喆 | Zhao^Zhe | M | 1988-12-05 | B; D: name not in GB 2312
林 誠 | Lin^Cheng | M | 1962-07-14 | N: name cuts bytes; B
上官 婉清 | Shangguan^Wan Qing | F | 1983-02-18 | B; N: hanzi first; D
刘 建国 | Liu^Jian Guo | M | 1949-10-01 | B, registered twice; B: no birth date, registered twice
吕 秀英 | Lv^Xiu Ying | F | 1955-03-08 | D: pinyin only; N
陈 思远 | Chen^Si Yuan | M | 2015-09-10 | B: no card
杨 丽娜 | Yang^Li Na | F | 1990-04-07 | N: wrong birth date; D
黄 志明 | Huang^Zhi Ming | M | 1971-06-30 | D: padded name; B: no birth date
仇 美玲 | Qiu^Mei Ling | F | 1966-12-24 | N: changed name; B
区 锦华 | Ou^Jin Hua | M | 1980-08-08 | B; D: upper case
诸葛 明亮 | Zhuge^Ming Liang | M | 1973-01-27 | N: full-width; D: hanzi first
孙 玥 | Sun^Yue | F | 2001-05-19 | B; D: name not in GB 2312
周 文博 | Zhou^Wen Bo | M | 1985-10-13 | N; B
吴 桂芳 | Wu^Gui Fang | F | 1944-02-11 | D: old card; N
司马 文娟 | Sima^Wen Juan | F | 1977-07-07 | B; N: hanzi only
徐 海涛 | Xu^Hai Tao | M | 1969-09-29 | D
马 俊杰 | Ma^Jun Jie | M | 1993-11-16 | B
朱 晓燕 | Zhu^Xiao Yan | F | 1982-03-25 | N
胡 德胜 | Hu^De Sheng | M | 1957-05-05 | D: no card
郭 春花 | Guo^Chun Hua | F | 1963-04-02 | B
何 家乐 | He^Jia Le | M | 2009-12-12 | N
高 翔 | Gao^Xiang | M | 1987-01-31 | D
罗 静怡 | Luo^Jing Yi | F | 1999-08-22 | B
任 重远 | Ren^Zhong Yuan | M | 1974-06-18 | N
华 安琪 | Hua^An Qi | F | 2004-10-09 | D
朴 成浩 | Piao^Cheng Hao | M | 1979-02-03 | B
查 良才 | Zha^Liang Cai | M | 1960-11-11 | N: pinyin only
盖 红霞 | Ge^Hong Xia | F | 1972-09-01 | D
宁 静 | Ning^Jing | F | 1995-07-28 | B
乐 天佑 | Yue^Tian You | M | 1953-12-30 | N
尉迟 昊 | Yuchi^Hao | M | 1991-03-03 | D
""".strip().splitlines()
)

_SURNAMES = (
    "王 Wang 李 Li 张 Zhang 刘 Liu 陈 Chen 杨 Yang 赵 Zhao 黄 Huang 周 Zhou 吴 Wu 孙 Sun 马 Ma"
)
_GIVEN = "志 Zhi 文 Wen 丽 Li 建 Jian 晓 Xiao 玉 Yu 海 Hai 春 Chun 明 Ming 华 Hua 平 Ping 红 Hong"
_SHARED_NUMBER = "2019004512"


def lives(number: int) -> Iterator[Life]:
    """The register above, then as many drawn names as it takes to reach `number`."""
    yield from _LIVES[:number]
    rng = np.random.default_rng(11643)
    surnames, given = _SURNAMES.split(), _GIVEN.split()
    for _ in range(number - len(_LIVES)):
        s, first, second = (2 * int(i) for i in rng.integers(0, 12, 3))
        born = date(1940, 1, 1) + timedelta(days=int(rng.integers(0, 30_000)))
        at = ("B", "N", "D", "B; N", "N; D", "B; D", "B; N; D")[int(rng.integers(0, 7))]
        yield Life(
            f"{surnames[s]} {given[first]}{given[second]}",
            f"{surnames[s + 1]}^{given[first + 1]} {given[second + 1]}",
            "MF"[int(rng.integers(0, 2))],
            born.isoformat(),
            at,
        )


def populate(number: int) -> tuple[tuple[Person, ...], tuple[Record, ...]]:
    """`number` people and all their registrations, in the order in which they fall ill."""
    people: list[Person] = []
    records: list[Record] = []
    for index, life in enumerate(lives(number)):
        born = date.fromisoformat(life.born)
        # Twins, and only they, share an area and have neighbouring sequence numbers.
        twin = "twin" in life.at
        sequence = (401 + 2 * index if twin else 17 + 23 * index) % 998
        sequence += (sequence % 2 == 0) == (life.sex == "M")
        area = AREA_CODES[0 if twin else index % len(AREA_CODES)]
        person = Person(
            f"P{index + 1:03d}",
            life.name.replace(" ", ""),
            life.pinyin.replace(" ", ""),
            born,
            life.sex,
            resident_id(area, born, sequence),
        )
        people.append(person)
        for order, where in enumerate(life.at.split(";")):
            letter, *traps = (part.strip() for part in re.split(r"[:,]", where))
            records.append(_registration(life, person, letter, index * 3 + order, tuple(traps)))
    return tuple(people), tuple(records)


def _registration(
    life: Life, person: Person, letter: str, serial: int, traps: tuple[str, ...]
) -> Record:
    hospital = {"B": "BC", "N": "NH", "D": "DS"}[letter]
    card: str | None = person.resident_id
    born: date | None = person.birth_date
    for trap in traps:
        match trap:
            case "no card":
                card = None
            case "mistyped card":
                # Two neighbouring digits changed places, which the check character finds.
                card = person.resident_id
                at = next(i for i in range(14, 5, -1) if card[i] != card[i + 1])
                card = card[:at] + card[at + 1] + card[at] + card[at + 2 :]
            case "old card":
                card = first_generation(person.resident_id)
            case "no birth date":
                born = None
            case "wrong birth date":
                born = person.birth_date.replace(
                    month=person.birth_date.day, day=person.birth_date.month
                )
    return Record(
        hospital,
        _SHARED_NUMBER if "same number" in traps else patient_number(hospital, serial),
        person.id,
        patient_name(life, hospital, traps),
        born,
        person.sex,
        card,
        traps,
    )


def patient_number(hospital: str, serial: int) -> str:
    """A number in the hospital's own format, without order or meaning."""
    scrambled = uuid5(NAMESPACE_OID, f"{hospital} {serial}").int % 90_000 + 10_000
    match hospital:
        case "BC":
            return f"{serial * 100_000 + scrambled:010d}"
        case "NH":
            return f"N{18 + serial % 9}-{scrambled * 10 + serial % 10:06d}"
        case _:
            return f"20{18 + serial % 9}{scrambled * 10 + serial % 10:06d}"


def patient_name(life: Life, hospital: str, traps: tuple[str, ...]) -> str:
    """The name as this hospital writes it (PS3.5 6.2.1): two component groups, or bad habits."""
    family, given = life.name.split()
    if "changed name" in traps:
        given = "小" + given[-1]
    pinyin = life.pinyin.replace(" ", "")
    hanzi = f"{family}^{given}"
    name = f"{pinyin}={hanzi}"
    for trap in traps:
        match trap:
            case "upper case":
                name = life.pinyin.upper()
            case "hanzi only":
                name = f"={hanzi}"
            case "hanzi first":
                name = family + given
            case "pinyin only" | "name not in GB 2312":
                name = pinyin
            case "full-width":
                wide = {c: c + 0xFEE0 for c in range(0x21, 0x7F) if chr(c) != "^"}
                name = f"{pinyin.translate(wide)}={hanzi}"
            case "padded name":
                name = f"{pinyin}={family}\u3000{given}"
            case "changed name":
                name = f"{family_pinyin(life)}^Xiao{life.pinyin.split()[-1]}={hanzi}"
    if hospital == "DS" and not is_in_gb2312(name):
        raise ValueError(f"Dongshan's PACS cannot write {name}")
    return name


def family_pinyin(life: Life) -> str:
    """The family name in pinyin; 单, 曾, 解 are read as names are: Shan, Zeng, Xie."""
    return life.pinyin.partition("^")[0]

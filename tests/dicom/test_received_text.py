"""Text as hospitals send it: kept byte for byte, found in any script, read in any character set.

PS3.3 C.12.1.1.2 and PS3.5 6.1.2: rightly declared, wrongly declared, not declared at all; in by
C-STORE and out by C-FIND, over sockets.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import pack

import pytest
from asking import ask
from caller import CT, EXPLICIT, STUDY_FIND, SUCCESS, calling, element, identifier
from pydicom import Dataset, dcmread
from pydicom.data import get_charset_files
from serving import Served, serving

from exchange_dicom.part10 import read_file_meta
from exchange_storage.records import Instance

NAME, DESCRIPTION, INSTITUTION = "Wang^XiaoDong=王^小东", "胸部平扫 Chest", "北城医院"
GB = b"\x1b$)A"
CANNOT_UNDERSTAND = 0xC000


def ir_58(text: str) -> bytes:
    """GB 2312 under code extensions, announced again behind every delimiter (PS3.5 K.2)."""
    written, fresh = b"", True
    for character in text:
        if character.isascii():
            written += character.encode()
            fresh = fresh or character in "^=\\"
        else:
            written += GB * fresh + character.encode("gb2312")
            fresh = False
    return written


def once(text: str) -> bytes:
    """The same announced only once, as some modalities do."""
    return ir_58(text).replace(GB, b"\0").replace(b"\0", GB, 1).replace(b"\0", b"")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a hospital's modality writes, and what it declares."""

    declared: str
    encode: Callable[[str], bytes]

    def data_set(self, number: int) -> bytes:
        """A CT slice of study 1.7.`number`."""
        return sliced(
            f"1.7.{number}",
            f"1.4.7.{number}",
            self.declared,
            (0x00080080, "LO", self.encode(INSTITUTION)),
            (0x00081030, "LO", self.encode(DESCRIPTION)),
            (0x00100010, "PN", self.encode(NAME)),
        )


def sliced(
    study: str, instance: str, declared: str, *more: tuple[int, str, bytes], raw: bytes = b""
) -> bytes:
    """A CT slice with what is told, and with `raw` between its patient and its study."""
    told: list[tuple[int, str, str | bytes]] = [
        (0x00080005, "CS", declared),
        (0x00080016, "UI", CT),
        (0x00080018, "UI", instance),
        (0x00080020, "DA", "20261101"),
        (0x00080060, "CS", "CT"),
        (0x00100020, "LO", f"T{study}"),
        *more,
    ]
    behind = ((0x0020000D, "UI", study), (0x0020000E, "UI", f"{study.strip()}.1"))
    pixels = element(0x7FE00010, "OW", bytes(64))
    head = b"".join(element(*one) for one in sorted(told) if one[2])
    return head + raw + b"".join(element(*one) for one in behind) + pixels


def codec(name: str) -> Callable[[str], bytes]:
    return lambda text: text.encode(name)


RIGHTLY = {
    "GB18030": Sent("GB18030", codec("gb18030")),
    "GBK": Sent("GBK", codec("gbk")),
    "UTF-8": Sent("ISO_IR 192", codec("utf-8")),
    "IR 58": Sent("\\ISO 2022 IR 58", ir_58),
    "IR 58 beside Latin-1": Sent("ISO 2022 IR 100\\ISO 2022 IR 58", ir_58),
}
WRONGLY = {
    f"{name}, declared as {declared or 'nothing'}": Sent(declared, encode)
    for name, encode, declarations in (
        ("GB18030", codec("gb18030"), ("", "ISO_IR 6", "ISO_IR 100", "ISO_IR 192", "KOI8",
                                       "\\ISO 2022 IR 58", "gb18030", "GB2312", "ISO_IR 58")),
        ("UTF-8", codec("utf-8"), ("", "ISO_IR 6", "ISO_IR 100", "GB18030", "GBK", "UTF-8",
                                   "\\ISO 2022 IR 58")),
        ("IR 58", ir_58, ("", "ISO_IR 6", "ISO_IR 100", "ISO 2022 IR 58", "GB18030", "GBK")),
        ("IR 58 announced once", once, ("\\ISO 2022 IR 58", "ISO 2022 IR 100\\ISO 2022 IR 58", "")),
    )
    for declared in declarations
}  # fmt: skip
ALL = {**RIGHTLY, **WRONGLY}
NUMBERS = {name: number for number, name in enumerate(ALL, 1)}


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node that has received an image of every kind in `ALL`."""
    with serving(tmp_path_factory.mktemp("text")) as made:
        with calling(made.port, (CT, (EXPLICIT,))) as pacs:
            for name, sent in ALL.items():
                answer = pacs.store(sent.data_set(NUMBERS[name]), f"1.4.7.{NUMBERS[name]}")
                assert answer.status == SUCCESS, (name, answer.error_comment)
        yield made


@pytest.mark.parametrize("kind", ALL)
def test_chinese_is_kept_as_sent_and_found_in_hanzi_and_pinyin(received: Served, kind: str) -> None:
    number = NUMBERS[kind]
    assert received.kept(f"1.4.7.{number}") == [ALL[kind].data_set(number)]
    for keys in (
        {"PatientName": "王小东"},
        {"PatientName": "wang^xiaodong"},
        {"PatientName": "wáng^xiǎodōng"},
        {"PatientName": "王*"},
        {"StudyDescription": "胸部*"},
        {"StudyDescription": DESCRIPTION},
    ):
        answers = ask(received.port, "STUDY", {"StudyInstanceUID": f"1.7.{number}"} | keys)
        assert answers.studies == [f"1.7.{number}"], keys
    series = {
        "StudyInstanceUID": f"1.7.{number}", "SeriesInstanceUID": "", "InstitutionName": "北城*",
    }  # fmt: skip
    assert len(ask(received.port, "SERIES", series).matches) == 1


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("asker", ["GB18030", "GBK", "ISO_IR 192", "ISO_IR 100", ""])
def test_chinese_is_read_back_rightly_in_the_asker_s_own_character_set(
    received: Served, kind: str, asker: str
) -> None:
    keys = {"StudyInstanceUID": f"1.7.{NUMBERS[kind]}", "PatientName": "", "StudyDescription": ""}
    (match,) = ask(received.port, "STUDY", keys, character_set=asker).matches
    assert match.SpecificCharacterSet == (asker if "GB" in asker else "ISO_IR 192")
    assert (match.PatientName, match.StudyDescription) == (NAME, DESCRIPTION)


@pytest.mark.parametrize("kind", ALL)
def test_an_asker_with_code_extensions_gets_them(received: Served, kind: str) -> None:
    keys = [
        (0x0020000D, "UI", f"1.7.{NUMBERS[kind]}"),
        (0x00100010, "PN", ""),
        (0x00081030, "LO", ""),
    ]
    declared = "ISO 2022 IR 6\\ISO 2022 IR 58"
    with calling(received.port, (STUDY_FIND, (EXPLICIT,))) as pacs:
        (_, body), _ = pacs.find(identifier((0x00080005, "CS", declared), *keys))
    # Not by pydicom, which does not read ISO 2022 IR 58: by what PS3.5 K.2 shows.
    assert element(0x00100010, "PN", ir_58(NAME)) in body
    assert element(0x00081030, "LO", ir_58(DESCRIPTION)) in body
    assert element(0x00080005, "CS", "\\ISO 2022 IR 58") in body


def test_the_index_says_what_was_repaired_and_only_that(received: Served) -> None:
    with received.city.exchange.database.reading() as session:
        repairs = {
            one.sop_instance_uid: one.character_set_repair for one in session.query(Instance)
        }
    repaired = {name for name in ALL if repairs[f"1.4.7.{NUMBERS[name]}"] is not None}
    assert repaired == set(WRONGLY) - {"GB18030, declared as gb18030"}  # which is clear enough


# Questions as they are asked


def questioned(served: Served, declared: str, *keys: tuple[int, str, bytes]) -> list[bytes]:
    """The answers to a Study Root question whose text is in whatever bytes."""
    told = [*keys, (0x00080005, "CS", declared.encode()), (0x00080052, "CS", b"STUDY")]
    question = b"".join(element(*one) for one in sorted(told) if one[2])
    with calling(served.port, (STUDY_FIND, (EXPLICIT,))) as pacs:
        *matches, (final, _) = pacs.find(question)
    assert final.status == SUCCESS
    return [body for _, body in matches]


@pytest.mark.parametrize(
    ("declared", "encoding", "answered"),
    [
        ("", "gb18030", "gb18030"),
        ("ISO_IR 6", "gb18030", "gb18030"),
        ("ISO_IR 100", "gb18030", "gb18030"),
        ("ISO_IR 192", "gb18030", "gb18030"),
        ("ISO_IR 100", "utf-8", "utf-8"),
        ("", "utf-8", "utf-8"),
        ("GBK", "utf-8", "utf-8"),
    ],
)
def test_a_question_in_another_set_than_it_declares_is_understood_and_answered_in_that(
    received: Served, declared: str, encoding: str, answered: str
) -> None:
    study = (0x0020000D, "UI", b"1.7.1")
    name = (0x00100010, "PN", "王^小东".encode(encoding))
    (body,) = questioned(received, declared, study, name)
    assert element(0x00100010, "PN", NAME.encode(answered)) in body


def test_bytes_of_hanzi_that_look_like_delimiters_delimit_nothing(received: Served) -> None:
    names = {"1": "王^誠乗", "2": "運^僞"}  # in GBK some of their second bytes are backslash and ^
    assert all(b"\\" in name.encode("gbk") for name in names.values())
    for number, name in names.items():
        uid = f"1.8.{number}"
        called = (0x00100010, "PN", name.encode("gbk"))
        sent = sliced(uid, f"1.4.8.{number}", "GBK", called)
        with calling(received.port, (CT, (EXPLICIT,))) as pacs:
            assert pacs.store(sent, f"1.4.8.{number}").status == SUCCESS
        (body,) = questioned(received, "GBK", called, (0x0020000D, "UI", uid.encode()))
        assert element(*called) in body
        keys = {"PatientName": name, "StudyInstanceUID": ""}
        assert ask(received.port, "STUDY", keys).studies == [uid]


# Bytes that no standard has, and that are kept all the same (PS3.5 6.2, 7.1)


def test_dates_and_times_in_their_old_form_are_found_as_others(tmp_path: Path) -> None:
    today = element(0x00080020, "DA", "20261101")
    old = element(0x00080020, "DA", "2026.11.01") + element(0x00080030, "TM", "10:15:30.5")
    sent = sliced("1.7.1", "1.4.7.1", "").replace(today, old)
    with serving(tmp_path) as served:
        with calling(served.port, (CT, (EXPLICIT,))) as pacs:
            assert pacs.store(sent, "1.4.7.1").status == SUCCESS
        for day in ("20261101", "20261031-20261102", "2026.11.01"):
            for at in ("1015", "10:15", "101530-", "-1016"):
                keys = {"StudyInstanceUID": "", "StudyDate": day, "StudyTime": at}
                (found,) = ask(served.port, "STUDY", keys).matches
                assert (found.StudyDate, found.StudyTime) == ("20261101", "101530.5")
        assert served.kept("1.4.7.1") == [sent]


def test_padding_odd_lengths_and_private_elements_are_no_reason_to_refuse(
    received: Served,
) -> None:
    odd = pack("<HH2sH", 0x0010, 0x4000, b"LT", 3) + b"odd"
    private = (
        element(0x00110001, "LO", "no creator")
        + element(0x00111001, "UN", bytes(5) + b"!")
        + element(0x00130010, "LO", "A CREATOR")
        + element(0x00131001, "FD", bytes(8))
    )
    sent = sliced("1.8.3 ", "1.4.8.3", "", raw=odd + private)
    with calling(received.port, (CT, (EXPLICIT,))) as pacs:
        assert pacs.store(sent, "1.4.8.3").status == SUCCESS
    assert received.kept("1.4.8.3") == [sent]
    for asked in ("1.8.3", "1.8.3\0", "1.8.3 "):
        assert len(questioned(received, "", (0x0020000D, "UI", asked.encode()))) == 1


# The character sets that pydicom brings


FILES = sorted(path for path in map(Path, get_charset_files()) if path.suffix == ".dcm")
WITHOUT_UIDS = {"chrSQEncoding.dcm", "chrSQEncoding1.dcm"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_file_of_any_character_set_is_found_by_every_group_of_its_name_and_read_by_all(
    served: Served, path: Path
) -> None:
    told = dcmread(path)
    reader = io.BytesIO(path.read_bytes())
    meta = read_file_meta(reader)
    sent = reader.read()
    sop_class, instance = str(told.get("SOPClassUID", CT)), str(told.get("SOPInstanceUID", "1.2"))
    with calling(served.port, (sop_class, (meta.transfer_syntax_uid,))) as pacs:
        answer = pacs.store(sent, instance, sop_class)
    if path.name in WITHOUT_UIDS:
        assert answer.status == CANNOT_UNDERSTAND
        return
    assert answer.status == SUCCESS
    assert served.kept(instance) == [sent]

    name, study = str(told.PatientName), str(told.StudyInstanceUID)
    own = "\\".join(terms(told))
    for asked in (name, *name.split("=")):
        keys = {"StudyInstanceUID": "", "PatientName": asked}
        assert ask(served.port, "STUDY", keys).studies == [study], asked
    assert (
        ask(served.port, "STUDY", {"StudyInstanceUID": "", "PatientName": "Nobody"}).studies == []
    )
    for asker in (own, "ISO_IR 192", "GB18030", "ISO_IR 100", ""):
        keys = {"StudyInstanceUID": study, "PatientName": name if asker == own else ""}
        (match,) = ask(served.port, "STUDY", keys, character_set=asker).matches
        assert match.PatientName == name, asker
        if asker == own:
            assert terms(match) == terms(told)


def terms(data_set: Dataset) -> list[str]:
    """The values of Specific Character Set; the first may be named or left empty (C.12.1.1.2)."""
    value = data_set.SpecificCharacterSet
    values = [value] if isinstance(value, str) else list(value)
    return ["" if one == "ISO 2022 IR 6" else one for one in values]

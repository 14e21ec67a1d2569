"""Names of patients, as hospitals send them and as the index must read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from exchange_dicom.character_sets import (
    ESC,
    IS_GB18030,
    IS_LATIN_1,
    IS_UTF_8,
    MISSPELT,
    UNDECLARED_ESCAPES,
    UNDECODABLE,
    UNKNOWN,
    determine,
)

WANG = "Wang^XiaoDong=王^小东"
GB = ESC + b"$)A"
TERMS = ["", "ISO_IR 6", "ISO_IR 100", "ISO_IR 144", "ISO_IR 192", "GB18030", "GBK", "KOI8"]
EXTENDED = ["\\ISO 2022 IR 58", "ISO 2022 IR 13\\ISO 2022 IR 87", "\\ISO 2022 IR 149", "a\\b\\\\c"]


def read_name(declared: str, name: bytes) -> tuple[str, str | None]:
    """The patient's name and why its character set is not the declared one."""
    found = determine(declared, (), (name,))
    return found.decode(name, name=True), found.reason


@pytest.mark.parametrize(
    ("declared", "name", "text"),
    [
        ("", b"Wang^XiaoDong", "Wang^XiaoDong"),
        ("ISO_IR 100", "Müller^Jürgen".encode("latin_1"), "Müller^Jürgen"),
        ("ISO_IR 101", "Wałęsa^Lech".encode("iso8859_2"), "Wałęsa^Lech"),
        ("ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
        ("ISO_IR 203", "Œuvre^Chloé".encode("iso8859_15"), "Œuvre^Chloé"),
        ("ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("ISO_IR 192", WANG.encode(), WANG),
        ("GB18030", WANG.encode("gb18030"), WANG),
        ("GBK", WANG.encode("gbk"), WANG),
        # PS3.5 K.2: every component of the ideographic group begins with its own escape.
        (
            "\\ISO 2022 IR 58",
            b"Zhang^XiaoDong=" + GB + b"\xd5\xc5^" + GB + b"\xd0\xa1\xb6\xab=",
            "Zhang^XiaoDong=张^小东=",
        ),
        # PS3.5 H.3.1 and H.3.2, I.2
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        ("\\ISO 2022 IR 159", b"\x1b$(D\x30\x21\x1b(B^X", "丂^X"),
        (
            "\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
            "Hong^Gildong=洪^吉洞",
        ),
        (
            "ISO 2022 IR 100\\ISO 2022 IR 144",
            b"J\xe9r\xf4me^\x1b-L\xbb\xee\xda",
            "Jérôme^Люк",
        ),
    ],
)
def test_a_name_sent_as_the_standard_says_is_read_as_declared(
    declared: str, name: bytes, text: str
) -> None:
    assert read_name(declared, name) == (text, None)


def test_the_second_byte_of_a_hanzi_is_no_delimiter() -> None:
    assert "誠乗".encode("gbk") == b"\xd5\x5c\x81\x5c"
    assert "運僞".encode("gbk") == b"\xdf\x5c\x83\x5e"
    for term in ("GB18030", "GBK"):
        assert read_name(term, "王^誠乗=運^僞".encode("gbk")) == ("王^誠乗=運^僞", None)
    assert read_name("ISO_IR 100", "李王^誠乗".encode("gbk")) == ("李王^誠乗", IS_GB18030)


@pytest.mark.parametrize("declared", ["", "ISO_IR 6", "ISO_IR 100", "KOI8", "\\ISO 2022 IR 58"])
def test_undeclared_chinese_is_found_out(declared: str) -> None:
    assert read_name(declared, WANG.encode("gb18030")) == (WANG, IS_GB18030)
    assert read_name(declared, WANG.encode()) == (WANG, IS_UTF_8)


def test_chinese_declared_as_the_other_chinese_set_is_found_out() -> None:
    assert read_name("GB18030", WANG.encode()) == (WANG, IS_UTF_8)
    assert read_name("ISO_IR 192", WANG.encode("gb18030")) == (WANG, IS_GB18030)


def test_gb_2312_without_all_its_escape_sequences_is_read_nevertheless() -> None:
    once = b"Wang^XiaoDong=" + GB + "王^小东".encode("gb2312")
    for declared in ("\\ISO 2022 IR 58", "ISO 2022 IR 100\\ISO 2022 IR 58"):
        assert read_name(declared, once) == (WANG, IS_GB18030)
    assert read_name("", GB + "王".encode("gb2312")) == ("王", UNDECLARED_ESCAPES)


@pytest.mark.parametrize(
    "name",
    ["Müller^Jürgen", "Größe^Ö", "Øy^Åge", "Épaule^né", "Strauß^Eva", "CRÉÉE^ÄÖ", "Peña^José"],
)
def test_a_european_name_is_not_taken_for_a_chinese_one(name: str) -> None:
    assert read_name("ISO_IR 100", name.encode("latin_1")) == (name, None)
    assert read_name("", name.encode("latin_1")) == (name, IS_LATIN_1)
    assert read_name("ISO_IR 100", name.encode()) == (name, IS_UTF_8)


def test_gb_text_that_happens_to_be_utf_8_stays_chinese() -> None:
    assert "联通".encode("gbk").decode("utf_8", "replace").count("\ufffd") < 4
    for declared in ("", "GB18030"):
        assert read_name(declared, "谢^通".encode("gbk"))[0] == "谢^通"


def test_one_decision_serves_the_whole_data_set() -> None:
    # The name alone would be too rare a character to tell.
    rare, ward = "誠".encode("gbk"), "胸部CT平扫".encode("gbk")
    assert determine("", (ward,), (rare,)).decode(rare, name=True) == "誠"


def test_a_value_cut_within_a_character_loses_that_character_only() -> None:
    sent = "沈阳市人民医院放射科" * 3
    for declared, codec in (("ISO_IR 192", "utf_8"), ("GB18030", "gb18030")):
        assert read_name(declared, sent.encode(codec)[:-1]) == (sent[:-1] + "\ufffd", UNDECODABLE)
    text, reason = read_name("", sent.encode("gb18030")[:-1])
    assert text == sent[:-1] + "\ufffd"
    assert reason == f"{IS_GB18030}; {UNDECODABLE}"


def test_an_equals_sign_ends_an_escape_in_a_name_but_not_in_a_description() -> None:
    value = GB + "李=王".encode("gb2312")
    found = determine("ISO 2022 IR 100\\ISO 2022 IR 58", (value,))
    assert (found.decode(value), found.reason) == ("李=王", None)
    assert found.decode(value, name=True) == "李=Íõ"


@pytest.mark.parametrize(
    ("declared", "used", "reason"),
    [
        ("", "ISO_IR 6", None),
        ("iso-ir 100", "ISO_IR 100", MISSPELT),
        ("ISO 2022 100", "ISO 2022 IR 100", MISSPELT),
        ("UTF-8", "ISO_IR 192", MISSPELT),
        ("ISO_IR 58", "GBK", MISSPELT),
        ("ISO 2022 IR 6\\GB18030", "GB18030", MISSPELT),
        ("KOI8", "ISO_IR 6", UNKNOWN),
        ("\\ISO 2022 IR 58", "ISO 2022 IR 6\\ISO 2022 IR 58", None),
    ],
)
def test_a_declaration_is_put_into_the_words_of_the_standard(
    declared: str, used: str, reason: str | None
) -> None:
    found = determine(declared, (b"CT",))
    assert (found.declared, found.used, found.reason) == (declared, used, reason)


@given(st.sampled_from(TERMS + EXTENDED), st.lists(st.binary(max_size=24)), st.binary())
def test_no_bytes_are_too_broken_to_be_read(declared: str, texts: list[bytes], name: bytes) -> None:
    found = determine(declared, texts, (name,))
    decoded = [found.decode(name, name=True), *map(found.decode, texts)]
    lost = any("\ufffd" in text for text in decoded)
    assert lost == (found.reason is not None and UNDECODABLE in found.reason)
    "".join(decoded).encode()  # no lone surrogates, which databases refuse


@pytest.mark.parametrize(
    ("name", "as_utf_8"),
    [("螫丁", 1), (bytes.fromhex("f0a1b0a1").decode("gb18030"), 1), ("缁乲", 2), ("缁乲缁乲", 4)],
)
def test_hanzi_whose_bytes_are_by_accident_utf_8_are_read_as_declared(
    name: str, as_utf_8: int
) -> None:
    assert len(name.encode("gb18030").decode()) == as_utf_8
    assert read_name("GB18030", name.encode("gb18030")) == (name, None)


@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1))
@example("螫丁")
@example("缁乲")
def test_any_chinese_name_declared_rightly_is_read_as_it_was_written(name: str) -> None:
    raw = name.encode("gb18030")
    assume(not re.search("[⺀-鿿]{2}", raw.decode(errors="replace")))  # as UTF-8 declared wrongly
    assert read_name("GB18030", raw)[0] == name
    assert read_name("ISO_IR 192", name.encode())[0] == name

"""A patient is found under whatever spelling of the name somebody types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange_storage import names

KNOWN = "Wang^XiaoDong=王^小东"


def finds(asked: str, known: str) -> bool:
    """Whether the spelling finds the name as a single value does: see `search`."""
    return not names.whole(asked).isdisjoint(names.keys(known).full)


@pytest.mark.parametrize(
    "spelling",
    [
        "Wang^XiaoDong",
        "WANG^XIAODONG",
        "wang^xiao dong",
        "Wang XiaoDong",
        "XiaoDong Wang",
        "Xiao Dong Wang",
        "Wang, Xiao-Dong",
        "WANG^XIAODONG^^^",
        "Wáng^Xiǎodōng",
        "Ｗａｎｇ^Ｘｉａｏ　Ｄｏｎｇ",
        "王^小东",
        "王小东",
        "王 小东",
        "王　小东",
        "=王^小东",
        "Wang^XiaoDong=王^小东=",
        "Wang^XiaoDong^^Dr.",
    ],
)
def test_a_patient_is_found_under_every_spelling_of_the_name(spelling: str) -> None:
    assert finds(spelling, KNOWN)


@pytest.mark.parametrize(
    "spelling",
    ["Wang^Xiao", "王^小", "Dong", "张^小东", "Wang^Xiaoding", "XiaoDong^Wang", "Wan^Gxiaodong"],
)
def test_another_name_does_not_find_the_patient(spelling: str) -> None:
    assert not finds(spelling, KNOWN)


@pytest.mark.parametrize("known", ["WANG XIAO DONG", "王小东", "Wang^Xiao^Dong", "王^小^东"])
def test_a_name_that_was_sent_in_one_piece_or_in_three_is_found_in_two(known: str) -> None:
    assert finds("王^小东" if known[0] == "王" else "Wang^XiaoDong", known)


@pytest.mark.parametrize(
    ("hanzi", "latin"),
    [
        ("单^雄信", "Shan^Xiongxin"),
        ("单雄信", "Shan^Xiongxin"),
        ("曾^国藩", "Zeng^Guofan"),
        ("解^缙", "Xie^Jin"),
        ("仇^英", "Qiu^Ying"),
        ("任^伯年", "Ren^Bonian"),
        ("欧阳^修", "Ouyang^Xiu"),
        ("欧阳修", "Ouyang^Xiu"),
        ("尉迟^恭", "Yuchi^Gong"),
        ("吕^布", "Lv^Bu"),
        ("吕^布", "Lü^Bu"),
        ("吕^布", "LYU^BU"),
    ],
)
def test_a_surname_is_read_as_a_surname(hanzi: str, latin: str) -> None:
    assert finds(latin, hanzi)
    assert names.fold(latin.partition("^")[0]) in names.keys(hanzi).family


def test_the_common_reading_of_a_surname_is_not_taken_for_the_name() -> None:
    assert not finds("Ceng^Guofan", "曾^国藩")


def test_family_and_given_name_are_told_apart() -> None:
    known = names.keys(KNOWN)

    assert known.family == {"wang", "王"}
    assert known.given == {"xiaodong", "小东"}


def test_prefix_suffix_and_an_empty_name_leave_no_key_of_their_own() -> None:
    assert names.keys("Adams^John Robert^Quincy^Rev.^B.A.").full == {
        "adamsjohnrobertquincy",
        "johnrobertquincyadams",
        "adams^johnrobertquincy",
    }
    assert names.keys("=WANG XIAO DONG").full == {"wangxiaodong", "wangxiaodong^"}
    for empty in ("", "^", "==", "^^^^", "= =", "."):
        assert names.keys(empty) == names.NameKeys(frozenset(), frozenset(), frozenset())
        assert names.asked(empty) == ()


def test_wildcards_and_delimiters_outlive_the_folding() -> None:
    assert names.asked("WÁNG^*=王^小？") == ("wang^*", "王^小?")


word = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="^=*?\\"),
    min_size=1,
    max_size=12,
)
han = st.text(st.sampled_from("王小东吕单曾解欧阳国张伟乐华"), min_size=1, max_size=4)


@given(st.one_of(word, han), st.one_of(word, han))
def test_every_name_is_found_as_it_was_sent_and_without_its_delimiter(
    family: str, first: str
) -> None:
    known = f"{family}^{first}"

    for spelling in (known, f"{family} {first}"):
        assert finds(spelling, known) or not names.asked(spelling)


@given(st.text(max_size=200))
def test_no_text_is_too_strange_to_be_folded(text: str) -> None:
    names.keys(text)
    names.asked(text)

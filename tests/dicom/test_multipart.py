"""The bodies in which hospitals send and get several images at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exchange.errors import TooLarge
from exchange_dicom import multipart
from exchange_dicom.multipart import MalformedMultipart

BOUNDARY = "gc0p4Jq0M2Yt08jU534c0p"

contents = st.one_of(
    st.binary(max_size=200),
    # What looks like a delimiter and is none.
    st.lists(
        st.sampled_from([b"\r\n", b"\r", b"\n", b"--", b"\r\n--", BOUNDARY[:-1].encode(), b"-x"])
    ).map(b"".join),
)


def body(
    parts: list[tuple[Mapping[str, str], bytes]], *, preamble: bytes = b"", epilogue: bytes = b""
) -> bytes:
    written = b"".join(multipart.head(fields, BOUNDARY) + content for fields, content in parts)
    if not preamble:
        written = written.removeprefix(b"\r\n")
    return preamble + written + multipart.tail(BOUNDARY).removesuffix(b"\r\n") + epilogue


def read(pieces: list[bytes], boundary: str = BOUNDARY) -> list[tuple[Mapping[str, str], bytes]]:
    return [(part.fields, b"".join(part.pieces)) for part in multipart.parts(pieces, boundary)]


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    ends = [*sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(
    st.lists(
        st.tuples(st.sampled_from([{}, {"content-type": "application/dicom"}]), contents),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([b"", b"This is a MIME message.", b"\r\n--", b"--\r\n"]),
    st.sampled_from([b"", b"\r\n", b"\r\nand so on"]),
    st.lists(st.integers(min_value=0), max_size=40),
)
def test_images_arrive_whole_however_the_network_cuts_them(
    parts: list[tuple[Mapping[str, str], bytes]],
    preamble: bytes,
    epilogue: bytes,
    places: list[int],
) -> None:
    # RFC 2046 5.1.1: a delimiter must not appear within a part.
    assume(not any(f"\r\n--{BOUNDARY}".encode() in b"\r\n" + content for _, content in parts))

    assert read(cut(body(parts, preamble=preamble, epilogue=epilogue), places)) == parts


@given(st.lists(st.integers(min_value=0), max_size=5), st.data())
def test_a_body_that_was_cut_off_is_never_taken_for_a_whole_one(
    places: list[int], data: st.DataObject
) -> None:
    whole = body([({"content-type": "application/dicom"}, b"first"), ({}, b"second\r\n")])
    end = data.draw(st.integers(0, len(whole) - 1))

    with pytest.raises(MalformedMultipart):
        read(cut(whole[:end], places))


def test_a_part_that_nobody_read_is_skipped() -> None:
    whole = body([({}, b"first"), ({}, b"second")])

    assert len(list(multipart.parts([whole], BOUNDARY))) == 2


def test_white_space_behind_a_delimiter_is_padding() -> None:
    assert read([b"--b \t \r\nContent-Type:\r\n application/dicom\r\n\r\nx\r\n--b--  "], "b") == [
        ({"content-type": "application/dicom"}, b"x")
    ]


@pytest.mark.parametrize(
    ("whole", "told"),
    [
        (b"", "without its closing delimiter"),
        (b"--b--", "no parts"),
        (b"--b\r\nContent-Type: x\r\n--b--\r\n\r\n", "no empty line"),
        (b"--bx\r\n\r\n1\r\n--b--", "more on it than the boundary"),
    ],
)
def test_what_is_no_multipart_body_is_refused_in_words(whole: bytes, told: str) -> None:
    with pytest.raises(MalformedMultipart, match=told):
        read([whole], "b")


@pytest.mark.parametrize("length", [1, 70, 73, 200])
def test_a_boundary_may_be_longer_than_rfc_2046_allows(length: int) -> None:
    """Orthanc's DICOMweb plug-in sends one of 73 characters."""
    boundary = "x" * length
    body = f"--{boundary}\r\n\r\nimage\r\n--{boundary}--".encode()
    assert read([body], boundary) == [({}, b"image")]


@pytest.mark.parametrize("boundary", ["", "x" * 201, "ends in a space ", "semi;colon", "汉"])
def test_a_boundary_that_is_none_of_rfc_2046_is_refused(boundary: str) -> None:
    with pytest.raises(MalformedMultipart, match="boundary"):
        read([b""], boundary)


def test_a_sender_cannot_fill_the_memory_with_a_header_or_with_parts() -> None:
    def endless() -> Iterator[bytes]:
        yield b"--b\r\nX: "
        while True:
            yield b"x" * 1000

    with pytest.raises(TooLarge, match="header"):
        list(multipart.parts(endless(), "b"))
    with pytest.raises(TooLarge, match="at most 2 parts"):
        list(multipart.parts([b"--b\r\n\r\n\r\n" * 3 + b"--b--"], "b", part_limit=2))


def test_a_large_image_is_handed_on_in_the_pieces_in_which_it_came() -> None:
    def long() -> Iterator[bytes]:
        yield b"--b\r\n\r\n"
        for _ in range(100):
            yield bytes(1 << 16)
        yield b"\r\n--b--"

    (part,) = (list(one.pieces) for one in multipart.parts(long(), "b"))

    assert sum(map(len, part)) == 100 << 16
    assert max(map(len, part)) <= (1 << 16) + 10

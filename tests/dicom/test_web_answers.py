"""Long answers: whole however their pieces come, and no further than the client stays."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from loops import in_a_loop
from starlette.types import Message

from exchange.errors import Unavailable
from exchange_dicom.web_answers import PIECE, SMALL, streamed


async def answered(pieces: Iterator[bytes], stays: int | None = None) -> list[Message]:
    """What a client gets of an answer, which it leaves after `stays` messages."""
    got: list[Message] = []
    left = asyncio.Event()

    async def send(message: Message) -> None:
        got.append(message)
        if stays is not None and len(got) >= stays:
            left.set()
        await asyncio.sleep(0)

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "asgi": {"spec_version": "2.3"}}
    await streamed(pieces, {"Content-Type": "application/dicom"})(scope, receive, send)
    return got


@pytest.mark.parametrize(
    "lengths",
    [
        [],
        [1],
        [SMALL - 1, SMALL, SMALL + 1],
        [150, PIECE, 150, PIECE, 40],
        [SMALL - 1] * 40,
        [3 * PIECE + 1, 1, 2 * PIECE],
        [0, PIECE - 1, 1, 0, 1],
    ],
)
def test_an_answer_is_whole_however_its_pieces_come(lengths: Sequence[int]) -> None:
    pieces = [bytes([number % 251]) * length for number, length in enumerate(lengths)]
    start, *body = in_a_loop(answered, iter(pieces))
    assert start["status"] == 200
    assert b"".join(one["body"] for one in body) == b"".join(pieces)
    assert [one.get("more_body", False) for one in body] == [True] * (len(body) - 1) + [False]
    assert max(len(one["body"]) for one in body) < PIECE + 2 * SMALL


def test_what_cannot_be_read_breaks_the_answer_off() -> None:
    def pieces() -> Iterator[bytes]:
        yield from [bytes(PIECE)] * 5
        raise Unavailable("the object is not as long as what was received")

    with pytest.raises(Unavailable):
        in_a_loop(answered, pieces())


def test_little_more_is_read_than_the_client_has_taken() -> None:
    read = 0

    def pieces() -> Iterator[bytes]:
        nonlocal read
        for _ in range(2000):
            read += 1
            yield bytes(PIECE)

    got = in_a_loop(answered, pieces(), 6)
    assert len(got) < 10
    assert read <= len(got) + 2

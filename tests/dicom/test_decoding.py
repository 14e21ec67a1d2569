"""Whatever a decoder does to its process, the exchange goes on, and the next frame is decoded."""

from __future__ import annotations

import os
import random
import resource
import signal
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import corpus
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames

from exchange_dicom import decoding
from exchange_dicom.decoding import Decoders, Undecodable, decoded_here

OPTIONS = {
    "rows": 64,
    "columns": 64,
    "number_of_frames": 1,
    "samples_per_pixel": 1,
    "bits_allocated": 16,
    "bits_stored": 16,
    "photometric_interpretation": "MONOCHROME2",
    "pixel_keyword": "PixelData",
    "pixel_representation": 1,
}
RLE = "1.2.840.10008.1.2.5"


def frame_of(name: str) -> tuple[str, bytes, dict[str, Any]]:
    """The first frame of one of pydicom's files: transfer syntax, bytes, and what they are."""
    found = dcmread(next(one.path for one in corpus.files() if one.path.name == name))
    options = {
        "rows": found.Rows,
        "columns": found.Columns,
        "samples_per_pixel": found.SamplesPerPixel,
        "bits_allocated": found.BitsAllocated,
        "bits_stored": found.BitsStored,
        "photometric_interpretation": found.PhotometricInterpretation,
        "pixel_representation": found.PixelRepresentation,
    }
    stored = next(generate_frames(found.PixelData, number_of_frames=1))
    return found.file_meta.TransferSyntaxUID, stored, OPTIONS | options


@contextmanager
def doing(what: str) -> Iterator[Decoders]:
    """Decoders that do something else: a function of the bytes, with the module's numbers."""
    script = f"""
    import ctypes, os, socket, sys
    import numpy as np
    from exchange_dicom import decoding

    kept = []
    def decoded_here(syntax, stored, options, *, rgb):
    {textwrap.indent(textwrap.dedent(what), "    ")}
        return np.array([[os.getpid()]])

    decoding.decoded_here = decoded_here
    decoding.CPU_SECONDS, decoding.FRAMES, decoding.GROWN = 0.3, 5, 64 << 20
    decoding.template(socket.socket(fileno=int(sys.argv[1])))
    """
    made = Decoders(("-c", textwrap.dedent(script)))
    try:
        yield made
    finally:
        made.close()


def decoder(decoders: Decoders, stored: bytes = b"") -> int:
    """The process that decoded a frame."""
    return int(decoders.decoded(RLE, stored, OPTIONS, rgb=False)[0, 0])


def test_a_frame_is_the_same_wherever_it_was_decoded() -> None:
    syntax, stored, options = frame_of("MR_small_RLE.dcm")
    here = decoded_here(syntax, stored, options, rgb=False)
    there = decoding.DECODERS.decoded(syntax, stored, options, rgb=False)

    assert there.dtype == here.dtype
    assert np.array_equal(there, here)


@pytest.mark.parametrize(
    "harm",
    [
        "if stored: os.abort()",
        "if stored: ctypes.string_at(0)",
        "if stored: os._exit(0)",
        "while stored: pass",
        "if stored: bytearray(4 << 30)",
        "if stored: raise RecursionError",
    ],
)
def test_what_harms_a_decoder_is_told_and_harms_no_other_frame(harm: str) -> None:
    with doing(harm) as decoders:
        assert decoder(decoders) != os.getpid()
        for _ in range(2):
            with pytest.raises(Undecodable):
                decoder(decoders, b"harm")
        assert decoder(decoders)


def test_a_decoder_that_has_grown_is_given_up() -> None:
    with doing("if stored: kept.append(b'x' * (80 << 20))") as decoders:
        first = decoder(decoders)
        assert decoder(decoders) == first
        assert decoder(decoders, b"grow") == first
        assert decoder(decoders) != first


def test_a_decoder_is_given_up_after_so_many_frames() -> None:
    with doing("pass") as decoders:
        processes = [decoder(decoders) for _ in range(11)]

    assert [processes.count(one) for one in dict.fromkeys(processes)] == [5, 5, 1]


def test_another_template_takes_the_place_of_one_that_was_killed() -> None:
    with doing("pass") as decoders:
        first = decoder(decoders)
        template = os.getpgid(first)  # which began their session
        for _ in range(4):
            assert decoder(decoders) == first  # the last that it decodes
        os.kill(template, signal.SIGKILL)
        assert decoder(decoders) != first


def test_many_ask_at_a_time() -> None:
    found: list[int] = []
    with doing("pass") as decoders:
        threads = [
            threading.Thread(target=lambda: found.append(decoder(decoders))) for _ in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 40


def test_large_frames_leave_no_memory_behind() -> None:
    with doing("return np.zeros((3000, 4000), np.uint16)") as decoders:
        frame = decoders.decoded(RLE, bytes(20 << 20), OPTIONS, rgb=False)
        assert (frame.shape, int(frame.sum())) == ((3000, 4000), 0)
        (idle,) = decoders._idle
        assert idle.memory.size == decoding.KEPT
        assert decoders.decoded(RLE, b"", OPTIONS, rgb=False).shape == (3000, 4000)


def test_damaged_frames_cost_the_exchange_no_memory() -> None:
    """pylibjpeg-libjpeg loses up to 136 KB for each frame that it gives up on."""
    syntax, stored, options = frame_of("JPEG-lossy.dcm")
    chance = random.Random(1)
    before = 0
    for number in range(600):
        damaged = bytearray(stored)
        for _ in range(4):
            damaged[chance.randrange(len(damaged) // 20, len(damaged))] = chance.randrange(256)
        with suppress(Undecodable):
            decoding.DECODERS.decoded(syntax, bytes(damaged), options, rgb=False)
        if number == 100:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10

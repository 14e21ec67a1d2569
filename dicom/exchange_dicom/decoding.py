"""Decoders in processes of their own: what a stranger compressed is decoded where it harms nobody.

Decoders are not written in Python. On damaged frames one of them loses memory, another runs for
minutes, and any may end the process that it is in. So a template, which has imported them once,
forks processes that decode frame after frame, each within limits of memory and time; one is given
up after so many frames, or when it has grown, and another forked in milliseconds. The frame goes
there and the samples come back in shared memory, which costs a tenth of a millisecond.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from exchange_dicom.codestream import UNREADABLE, coding

# Nothing else of the house: the template is to be ready in a fraction of a second.

PROCESSES = min(4, os.cpu_count() or 1)
"""Frames that one process has decoded at a time."""

CPU_SECONDS = 30.0
"""Of the processor's time for one frame."""

SECONDS = 300.0
"""That a frame may take on a machine that has other things to do."""

ROOM = 1 << 30
"""Bytes by which a decoder's address space may grow: four times the largest frame, since there are
its compressed form, its samples, what a codec makes of them, and the shared memory."""

FRAMES = 10_000
"""After which a decoder is given up, however well it is."""

GROWN = 192 << 20
"""Bytes of memory by which a decoder may have grown between two frames."""

LEAST = 1 << 20
"""Bytes of shared memory of a decoder, at least."""

KEPT = 16 << 20
"""Bytes of shared memory that are kept from one frame to the next."""

_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    # Memory of frames is used again (mallopt(3)): to have it from the kernel each time, and
    # cleared, takes three times as long as to decode a small frame.
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
}

_LENGTH = struct.Struct("<I")
_MESSAGE = 1 << 20

Frame = NDArray[Any]
Options = Mapping[str, Any]


class Undecodable(Exception):
    """There are no samples of this frame, or none within the limits."""


def decoded_here(syntax: str, stored: bytes, options: Options, *, rgb: bool) -> Frame:
    """A compressed frame as rows, columns and, of colour, samples, decoded in this process.

    `options` are pydicom's of one frame. May raise anything about bytes that cannot be read.
    """
    # Warnings are of a sender's odd values, which stay.
    with warnings.catch_warnings(action="ignore"), coding():
        found, _ = get_decoder(UID(syntax)).as_array(
            encapsulate([stored], has_bot=False), index=0, raw=not rgb, **options
        )
    return found


class Decoders:
    """The decoders of this process, started when the first is needed."""

    def __init__(self, template: Sequence[str] = ("-m", "exchange_dicom.decoding")) -> None:
        """`template` is what Python is told to run as one."""
        self._command = [sys.executable, *template]
        self._turns = threading.BoundedSemaphore(PROCESSES)
        self._idle: list[_Decoder] = []
        self._lock = threading.Lock()
        self._template: _Template | None = None

    def decoded(self, syntax: str, stored: bytes, options: Options, *, rgb: bool) -> Frame:
        """What `decoded_here` gives, from a process of its own. Raises Undecodable."""
        with self._turns:
            decoder = self._taken()
            try:
                frame, well = decoder.decoded(syntax, stored, options, rgb=rgb)
            except BaseException:
                decoder.close()
                raise
            if well:
                with self._lock:
                    self._idle.append(decoder)
            else:
                decoder.close()
            if isinstance(frame, str):
                raise Undecodable(frame)
            return frame

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            idle, self._idle = self._idle, []
            template, self._template = self._template, None
        for decoder in idle:
            decoder.close()
        if template is not None:
            template.close()

    def _taken(self) -> _Decoder:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            for _ in range(2):  # a template may have been killed
                if self._template is None:
                    self._template = _Template(self._command)
                try:
                    return self._template.forked()
                except OSError:
                    self._template.close()
                    self._template = None
        raise Undecodable("no process for decoding could be started")


class _Template:
    """A process that has imported the decoders, and forks one when it is asked to."""

    def __init__(self, command: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: what a terminal says to the exchange, it says to the exchange.
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **_ENVIRONMENT},
            )
        self._ours = ours
        ours.settimeout(SECONDS)

    def forked(self) -> _Decoder:
        """Another decoder. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            memory = os.memfd_create("frame")
            try:
                socket.send_fds(self._ours, [b"f"], [theirs.fileno(), memory])
                if self._ours.recv(1) != b"f":
                    raise ConnectionError("the template has ended")
            except BaseException:
                os.close(memory)
                ours.close()
                raise
        return _Decoder(ours, memory)

    def close(self) -> None:
        self._ours.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Decoder:
    """One process that decodes, seen from here."""

    def __init__(self, there: socket.socket, memory: int) -> None:
        self._there = there
        self.memory = _Memory(memory)
        there.settimeout(SECONDS)

    def decoded(
        self, syntax: str, stored: bytes, options: Options, *, rgb: bool
    ) -> tuple[Frame | str, bool]:
        """The frame, or why there is none; and whether the process goes on. Raises Undecodable."""
        asked = {"syntax": syntax, "length": len(stored), "options": {**options}, "rgb": rgb}
        try:
            self.memory.write(stored)
            _send(self._there, asked | {"size": self.memory.size})
            told = _received(self._there)
            if told is None:
                raise Undecodable("the decoder ended")
            if "error" in told:
                return str(told["error"]), bool(told["well"])
            self.memory.see(told["size"])
            shape, dtype = told["shape"], np.dtype(told["dtype"])
            size = math.prod(shape) * dtype.itemsize
            frame = np.frombuffer(self.memory.read(size), dtype).reshape(shape)
            self.memory.let_go()
        except (OSError, ValueError) as error:
            raise Undecodable("the decoder ended") from error
        return frame, bool(told["well"])

    def close(self) -> None:
        self._there.close()
        self.memory.close()


class _Memory:
    """Shared memory as one of the two processes has it mapped, from one frame to the next."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None
        self.size = 0

    def see(self, size: int) -> None:
        """Map it anew where the other end has made it another size."""
        if size != self.size:
            self._unmap()
            self._map = mmap.mmap(self._descriptor, size) if size else None
            self.size = size

    def write(self, content: Any) -> None:
        """Put `content` at its beginning; it grows where there is no room."""
        view = memoryview(content).cast("B")
        if len(view) > self.size:
            size = max(LEAST, 1 << (len(view) - 1).bit_length())
            os.ftruncate(self._descriptor, size)
            self.see(size)
        if self._map is not None:
            self._map[: len(view)] = view

    def read(self, size: int) -> bytes:
        """What is at its beginning. Raises ValueError where there is not so much."""
        if size > self.size:
            raise ValueError("there is no such memory")
        return b"" if self._map is None else self._map[:size]

    def let_go(self) -> None:
        """Keep no more than `KEPT` bytes of it."""
        if self.size > KEPT:
            self._unmap()
            os.ftruncate(self._descriptor, KEPT)
            self.see(KEPT)

    def close(self) -> None:
        """Of it nothing is left once both processes have closed it."""
        self._unmap()
        os.close(self._descriptor)

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
        self._map, self.size = None, 0


def _send(there: socket.socket, told: Any) -> None:
    message = orjson.dumps(told)
    there.sendall(_LENGTH.pack(len(message)) + message)


def _received(there: socket.socket) -> Any:
    """The next message; None where there is no other."""
    head = _exactly(there, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > _MESSAGE:
        raise ValueError("no message is so long")
    body = _exactly(there, length)
    return None if body is None else orjson.loads(body)


def _exactly(there: socket.socket, count: int) -> bytes | None:
    found = b""
    while len(found) < count:
        piece = there.recv(count - len(found))
        if not piece:
            return None
        found += piece
    return found


# What runs in the processes.


def template(control: socket.socket) -> None:
    """Fork a decoder for each pair of a socket and memory that comes, until no more are wanted."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a decoder that has ended
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), 2
            )  # what a decoder says of a stranger's bytes
            with contextlib.suppress(OSError, ValueError):
                _decode_until_told(socket.socket(fileno=descriptors[0]), descriptors[1])
            os._exit(0)
        for one in descriptors:
            os.close(one)
        control.sendall(b"f")


def _decode_until_told(here: socket.socket, descriptor: int) -> None:
    memory = _Memory(descriptor)
    told_by = os.open("/proc/self/statm", os.O_RDONLY)
    size, at_first = _size(told_by)
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(1, FRAMES + 1):
        asked = _received(here)
        if asked is None:
            return
        # The signal is not caught: the kernel ends what is in the midst of a decoder, too.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        told = _answer(asked, memory)
        signal.setitimer(signal.ITIMER_PROF, 0)
        well = number < FRAMES and _size(told_by)[1] - at_first - memory.size < GROWN
        _send(here, told | {"size": memory.size, "well": well})
        if not well:
            return


def _answer(asked: Mapping[str, Any], memory: _Memory) -> dict[str, Any]:
    try:
        memory.see(asked["size"])
        stored = memory.read(asked["length"])
        frame = np.ascontiguousarray(
            decoded_here(asked["syntax"], stored, asked["options"], rgb=asked["rgb"])
        )
        memory.write(frame)
    except Exception as error:
        if isinstance(error, MemoryError):
            return {"error": "it is too large for a decoder"}
        return {"error": UNREADABLE}
    return {"shape": frame.shape, "dtype": frame.dtype.str}


def _size(statm: int) -> tuple[int, int]:
    """Bytes of the address space of this process, and of its memory."""
    size, resident, *_ = map(int, os.pread(statm, 200, 0).split())
    return size * mmap.PAGESIZE, resident * mmap.PAGESIZE


DECODERS = Decoders()
atexit.register(DECODERS.close)


if __name__ == "__main__":
    template(socket.socket(fileno=int(sys.argv[1])))

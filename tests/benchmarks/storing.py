"""Associations that store without a pause: the load of the other benchmarks, each in a process.

What is sent is a CT of 526 KB, or an object of 5 KB, of new studies of 50 instances each.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from caller import CT, EXPLICIT, Caller, element

PIXELS = {"ct": 512 * 512 * 2, "tiny": 4096}
"""Bytes of the pixels, by kind of object."""

STUDY = 50
"""Instances of one study, all in one series."""


def instance(study: str, uid: str, patient: str, number: int, pixels: bytes) -> bytes:
    """A data set in Explicit VR Little Endian."""
    return b"".join(
        (
            element(0x00080016, "UI", CT),
            element(0x00080018, "UI", uid),
            element(0x00080020, "DA", "20261120"),
            element(0x00080060, "CS", "CT"),
            element(0x00100010, "PN", "Wang^XiaoDong"),
            element(0x00100020, "LO", patient),
            element(0x0020000D, "UI", study),
            element(0x0020000E, "UI", f"{study}.1"),
            element(0x00200013, "IS", str(number)),
            element(0x7FE00010, "OW", pixels),
        )
    )


def send(port: int, kind: str, count: int, told: Connection) -> None:
    """Store `count` instances, 0 for as many as go until the process is ended."""
    root = f"2.25.{int.from_bytes(os.urandom(8), 'big')}"
    pixels = bytes(range(256)) * (PIXELS[kind] // 256)
    with Caller(port, (CT, (EXPLICIT,)), calling="BEICHENG") as pacs:
        told.send("ready")
        told.recv()
        sent = 0
        while not count or sent < count:
            study = f"{root}.{sent // STUDY}"
            uid = f"{study}.1.{sent}"
            data = instance(study, uid, f"B{root[-6:]}-{sent // STUDY}", sent % STUDY + 1, pixels)
            status = pacs.store(data, uid).status
            assert status == 0, f"{status:04X}"
            sent += 1
        told.send("done")
        pacs.release()


@contextmanager
def associations(
    port: int, number: int, *, kind: str = "ct", count: int = 0
) -> Iterator[list[Connection]]:
    """`number` associations that store; each tells over its connection when it is done."""
    context = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    processes = []
    try:
        for _ in range(number):
            here, there = context.Pipe()
            process = context.Process(target=send, args=(port, kind, count, there))
            process.start()
            processes.append(process)
            ends.append(here)
        for end in ends:
            end.recv()
        for end in ends:
            end.send("go")
        yield ends
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()


def rate(port: int, number: int, *, kind: str, count: int) -> float:
    """Instances a second of `number` associations that store `count` each, at the same time."""
    with associations(port, number, kind=kind, count=count) as ends:
        began = time.perf_counter()
        for end in ends:
            end.recv()
        return number * count / (time.perf_counter() - began)

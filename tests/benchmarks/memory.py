"""The memory of a DICOM node while it receives: a huge object, many associations, many instances.

    python tests/benchmarks/memory.py
    python tests/benchmarks/memory.py --gigabytes 0 --instances 10000 --database postgresql

The node is a process of its own, as `exchange node` starts it, on a new index and a new object
store below `--folder`. After a warm-up each load is told with the memory of the node before it, at
its highest, and after it, in MB, and `grown`: the highest less what it was after the warm-up. Ends
with status 1 if one of them is more than `ALLOWED`.

Memory is what the process has made itself. Pages of files that it has mapped, the index of SQLite
above all, are the kernel's cache of these files, which it takes back when it needs room.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support")]

from caller import CT, EXPLICIT, FRAGMENT, SUCCESS, Caller, element, image  # noqa: E402
from real_parts import postgresql  # noqa: E402
from roles import Role, small_exchange  # noqa: E402

ALLOWED = 50.0
"""MB that the node may grow beyond what it had after the warm-up."""

WARM_UP = 300
"""Instances, over as many associations as there will be."""

SERIES = 500
"""Instances of one series."""

FRAME = 512 * 512 * 2
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Load:
    """What was received, and the memory of the node, in MB."""

    name: str
    before: float
    highest: float
    after: float
    grown: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.name:34} {self.before:8.1f} {self.highest:8.1f} {self.after:8.1f} "
            f"{self.grown:8.1f} {self.seconds:8.0f}"
        )


@dataclass(slots=True)
class Receiving:
    """A node, and what its memory was when it had warmed up."""

    node: Role
    port: int
    floor: float = 0.0

    def measured(self, name: str, work: Callable[[], None]) -> Load:
        """Do the work, and tell what it took."""
        assert self.node.process is not None
        process = Path(f"/proc/{self.node.process.pid}")
        (process / "clear_refs").write_text("5")  # forgets how high it was, see proc(5)
        before, _ = _memory(process)
        began = time.monotonic()
        work()
        after, highest = _memory(process)
        seconds = time.monotonic() - began
        return Load(name, before, highest, after, highest - (self.floor or before), seconds)

    def associations(self, count: int, each: int, root: str) -> None:
        """`count` associations at a time, each of which stores `each` tiny instances."""
        together = threading.Barrier(count)

        def associate(number: int) -> None:
            with Caller(self.port, (CT, (EXPLICIT,))) as pacs:
                together.wait(60)  # all of them are open before the first one sends
                _store(pacs, range(each), f"{root}.{number}")
                together.wait(600)

        with ThreadPoolExecutor(count) as senders:
            list(senders.map(associate, range(count)))

    def instances(self, count: int, root: str) -> None:
        """So many tiny instances in a row, over one association."""
        with Caller(self.port, (CT, (EXPLICIT,))) as pacs:
            _store(pacs, range(count), root)
            pacs.release()

    def multiframe(self, size: int) -> None:
        """One object of `size` bytes of pixels, in frames of 512 x 512."""
        frames = size // FRAME
        told = element(0x00280008, "IS", str(frames)) + element(0x00280010, "US", b"\0\2")
        pixels = element(0x7FE00010, "OW", b"")[:-4] + (frames * FRAME).to_bytes(4, "little")
        uid = "1.2.840.99.9.1"
        head = image(told, instance=uid, study="1.2.840.99.9", series=uid, pixels=pixels)
        piece = bytes(range(256)) * (FRAGMENT // 256)
        body = (head, *(piece for _ in range(frames * FRAME // FRAGMENT)))
        with Caller(self.port, (CT, (EXPLICIT,))) as pacs:
            assert pacs.store(iter(body), uid).status == SUCCESS
            pacs.release()


def _store(pacs: Caller, numbers: range, root: str) -> None:
    for number in numbers:
        study = f"{root}.{number // SERIES}"
        uid = f"{study}.1.{number}"
        answer = pacs.store(image(instance=uid, study=study, series=f"{study}.1"), uid)
        assert answer.status == SUCCESS, f"{answer.status:04X}"


def _memory(process: Path) -> tuple[float, float]:
    """MB that a process has, and the most that it had, without its mapped files.

    The kernel keeps the highest of both together only. Mapped files grow while a load runs, so the
    most may be told too low by what they grew in one load, never by more.
    """
    status = (process / "status").read_text()
    now, most, files = (
        int(status.partition(name)[2].split()[0]) for name in ("RssAnon:", "VmHWM:", "RssFile:")
    )
    return now / 1024, (most - files) / 1024


@contextlib.contextmanager
def receiving(folder: Path, database: str) -> Iterator[Receiving]:
    """A node on a new index and store below `folder`."""
    with contextlib.ExitStack() as stack:
        settings = {}
        if database == "postgresql":
            server = stack.enter_context(postgresql())
            settings["EXCHANGE_DATABASE_URL"] = server.create_database()
        exchange = small_exchange(folder, settings)
        node = Role(exchange, "node")
        stack.callback(node.stop)
        node.start()
        yield Receiving(node, exchange.dimse_port)


def loads(
    received: Receiving, *, bytes_of_pixels: int, associations: int, instances: int
) -> Iterator[Load]:
    """Warm up, then receive: an object, associations at a time, instances in a row."""
    each = -(-WARM_UP // associations)
    yield received.measured(
        "warm-up", lambda: received.associations(associations, each, "1.2.840.99.1")
    )
    assert received.node.process is not None
    received.floor, _ = _memory(Path(f"/proc/{received.node.process.pid}"))
    if bytes_of_pixels:
        yield received.measured(
            f"one object of {bytes_of_pixels >> 20} MB",
            lambda: received.multiframe(bytes_of_pixels),
        )
    yield received.measured(
        f"{associations} associations, 20 instances each",
        lambda: received.associations(associations, 20, "1.2.840.99.2"),
    )
    tenth = max(1, instances // 10)
    for done in range(0, instances, tenth):
        yield received.measured(
            f"instances {done + 1} to {min(instances, done + tenth)}",
            lambda done=done: received.instances(  # type: ignore[misc]
                min(tenth, instances - done), f"1.2.840.99.3.{done}"
            ),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--associations", type=int, default=50)
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--folder", type=Path, help="on a disk with room; removed afterwards")
    given = parser.parse_args(arguments)
    worst = 0.0
    with (
        tempfile.TemporaryDirectory(prefix="exchange-memory-", dir=given.folder) as folder,
        receiving(Path(folder), given.database) as received,
    ):
        print(f"{'MB':34} {'before':>8} {'highest':>8} {'after':>8} {'grown':>8} {'seconds':>8}")
        for load in loads(
            received,
            bytes_of_pixels=int(given.gigabytes * (1 << 30)),
            associations=given.associations,
            instances=given.instances,
        ):
            print(load, flush=True)
            if load.name != "warm-up":
                worst = max(worst, load.grown)
    print(f"grown by {worst:.1f} MB at most, {ALLOWED:.0f} allowed")
    return 0 if worst <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())

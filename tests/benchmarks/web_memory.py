"""The memory of a web server while many retrieve a large study at once by WADO-RS.

    python tests/benchmarks/web_memory.py --folder /var/tmp
    python tests/benchmarks/web_memory.py --gigabytes 0.2 --clients 4

A study of so many gigabytes, in objects of `OBJECT` bytes, is stored; then so many clients retrieve
all of it at the same time, some of them slowly. Told are the rate, and the memory that the process
has made itself (RssAnon) before, at its highest, and after. Ends with status 1 if it has grown by
more than `ALLOWED`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support")]

from caller import CT, EXPLICIT, FRAGMENT, SUCCESS, Caller, element, image  # noqa: E402
from real_parts import LOOPBACK  # noqa: E402
from roles import Role, small_exchange  # noqa: E402
from running import RunningExchange  # noqa: E402

ALLOWED = 50.0
"""MB that the server may grow beyond what it had after one retrieval."""

OBJECT = 32 << 20
"""Bytes of pixels of each object."""

STUDY = "1.2.840.99.1"
WANTED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def stored(exchange: RunningExchange, objects: int) -> None:
    """Have the node of the exchange store the study."""
    node = Role(exchange, "node")
    node.start()
    try:
        piece = bytes(range(256)) * (FRAGMENT // 256)
        pixels = element(0x7FE00010, "OW", b"")[:-4] + OBJECT.to_bytes(4, "little")
        with Caller(exchange.dimse_port, (CT, (EXPLICIT,))) as pacs:
            for number in range(objects):
                uid = f"{STUDY}.1.{number}"
                head = image(instance=uid, study=STUDY, series=f"{STUDY}.1", pixels=pixels)
                body = (head, *(piece for _ in range(OBJECT // FRAGMENT)))
                assert pacs.store(iter(body), uid).status == SUCCESS
            pacs.release()
    finally:
        node.stop()


def retrieved(port: int, token: str, *, pause: float = 0.0) -> int:
    """Retrieve the study, waiting `pause` seconds after each MB; returns its bytes."""
    connection = HTTPConnection(LOOPBACK, port, timeout=600)
    headers = {"Authorization": f"Bearer {token}", "Accept": WANTED}
    connection.request("GET", f"/dicom-web/studies/{STUDY}", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    size = 0
    buffer = bytearray(1 << 20)
    while read := answer.readinto(buffer):
        size += read
        if pause:
            time.sleep(pause)
    connection.close()
    return size


def memory(web: Role) -> float:
    """MB that the process has made itself."""
    assert web.process is not None
    status = Path(f"/proc/{web.process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="on a disk with room; removed afterwards")
    given = parser.parse_args(arguments)
    objects = max(1, int(given.gigabytes * (1 << 30)) // OBJECT)
    with tempfile.TemporaryDirectory(prefix="exchange-retrieving-", dir=given.folder) as folder:
        exchange = small_exchange(Path(folder), {})
        stored(exchange, objects)
        web = Role(exchange, "web")
        web.start()
        try:
            token = exchange.token("dr.beicheng")
            size = retrieved(exchange.http_port, token)
            before = highest = memory(web)
            over = threading.Event()

            def watch() -> None:
                nonlocal highest
                while not over.wait(0.02):
                    highest = max(highest, memory(web))

            watching = threading.Thread(target=watch)
            watching.start()
            began = time.monotonic()
            with ThreadPoolExecutor(given.clients) as clients:
                sizes = clients.map(
                    lambda number: retrieved(
                        exchange.http_port, token, pause=0.002 if number % 4 == 0 else 0.0
                    ),
                    range(given.clients),
                )
                assert set(sizes) == {size}
            seconds = time.monotonic() - began
            over.set()
            watching.join()
            after = memory(web)
        finally:
            web.stop()
    rate = size * given.clients / 1e6 / seconds
    print(f"{size / 1e6:.0f} MB to {given.clients} clients in {seconds:.1f} s, {rate:.0f} MB/s")
    print(f"RssAnon {before:.1f} MB before, {highest:.1f} at its highest, {after:.1f} after")
    return 0 if highest - before <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())

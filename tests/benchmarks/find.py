"""How long a C-FIND takes, among many studies: over a socket, of a node in a process of its own.

    python tests/benchmarks/find.py --studies 2000 20000 1000000 --databases sqlite postgresql
    python tests/benchmarks/find.py --studies 20000 --databases sqlite --storing 4

The index is seeded (see `seed.py`), the exchange started as a user would, and one association asks
one question after another. For each kind of question: the median and the 95th percentile of the
time from the request to the last response, and the CPU time of the exchange's processes for one.
With `--storing` a few kinds are asked, in turns at rest and while so many associations store: how
many times as long it takes then. That takes less than two minutes on one database.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

from caller import EXPLICIT, STUDY_FIND, Caller, element  # noqa: E402
from real_parts import postgresql  # noqa: E402
from region import Region  # noqa: E402
from running import RunningExchange  # noqa: E402
from seed import PREFIX, accession, seed  # noqa: E402
from sqlalchemy import select  # noqa: E402
from storing import associations  # noqa: E402

from exchange_storage.records import Patient  # noqa: E402

RETURNED = (
    (0x00080020, "DA"), (0x00080030, "TM"), (0x00080050, "SH"), (0x00081030, "LO"),
    (0x00100010, "PN"), (0x00100020, "LO"), (0x00100030, "DA"), (0x00100040, "CS"),
    (0x0020000D, "UI"),
)  # fmt: skip
SUMMED = ((0x00080061, "CS"), (0x00201206, "IS"), (0x00201208, "IS"))
"""What has to be looked up among the instances: modalities and numbers."""

Keys = dict[int, str]

Asked = tuple[float, int]
"""Milliseconds that one question took, and its matches."""

ASKED = ("patient number", "patient number, with counts", "accession number")
"""The kinds that are asked beside associations that store: what a PACS asks all day."""

TURNS = 3


def question(keys: Keys, *, summed: bool = False) -> bytes:
    """A study-level identifier: `keys` to match, and what a PACS shows in its list."""
    wanted = dict(RETURNED) | (dict(SUMMED) if summed else {}) | {0x00080052: "CS"}
    told = keys | {0x00080052: "STUDY", 0x00080005: "ISO_IR 192"}
    wanted[0x00080005] = "CS"
    return b"".join(element(tag, vr, told.get(tag, "")) for tag, vr in sorted(wanted.items()))


def questions(exchange: RunningExchange, studies: int) -> dict[str, Callable[[], bytes]]:
    """The kinds of question, each as what makes one of them."""
    chance = random.Random(11)
    with exchange.opened() as opened, opened.database.reading() as session:
        rows = session.execute(
            select(Patient.patient_id, Patient.name).where(Patient.organization_id == 1).limit(2000)
        ).all()

    def someone() -> tuple[str, str]:
        one = chance.choice(rows)
        return one.patient_id, one.name

    def study() -> int:
        return chance.randint(1, studies)

    hanzi: Callable[[], str] = lambda: someone()[1].partition("=")[2]  # noqa: E731
    return {
        "patient number": lambda: question({0x00100020: someone()[0]}),
        "patient number, with counts": lambda: question({0x00100020: someone()[0]}, summed=True),
        "number that nobody has": lambda: question({0x00100020: f"X{study()}"}),
        "accession number": lambda: question({0x00080050: accession(study())}),
        "Study Instance UID": lambda: question({0x0020000D: f"{PREFIX}.{study()}"}),
        "name in pinyin, one day": lambda: question(
            {0x00100010: someone()[1].partition("=")[0], 0x00080020: "20261020"}
        ),
        "name in hanzi, one month": lambda: question(
            {0x00100010: hanzi(), 0x00080020: "20261001-20261031"}
        ),
        "surname*, one day": lambda: question({0x00100010: "Deng^*", 0x00080020: "20261020"}),
        "birth date": lambda: question({0x00100030: f"1950{chance.randint(1, 12):02}15"}),
    }


def cpu(processes: list[int]) -> float:
    """Seconds of CPU that the processes have used, children that ended not counted."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(OSError):
            told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(told[11]) + int(told[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def ask(exchange: RunningExchange, make: Callable[[], bytes], repeat: int) -> list[Asked]:
    """Ask so many questions of one kind over one association, after a few that do not count."""
    asked = []
    with Caller(exchange.dimse_port, (STUDY_FIND, (EXPLICIT,)), calling="BEICHENG") as pacs:
        for number in range(-10, repeat):
            wanted = make()
            began = time.perf_counter()
            answers = pacs.find(wanted)
            took = (time.perf_counter() - began) * 1e3
            assert answers[-1][0].status == 0, answers[-1][0]
            if number >= 0:
                asked.append((took, len(answers) - 1))
        pacs.release()
    return asked


def beside(exchange: RunningExchange, studies: int, repeat: int, storing: int) -> Iterator[str]:
    """A line for each of a few kinds: medians at rest and while `storing` store, and the ratio.

    Both are asked in turns, so that whatever else the machine does meets both alike.
    """
    kinds = {kind: make for kind, make in questions(exchange, studies).items() if kind in ASKED}
    rest: dict[str, list[float]] = {kind: [] for kind in kinds}
    loaded: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(TURNS):
        for kind, make in kinds.items():
            rest[kind] += [took for took, _ in ask(exchange, make, repeat // TURNS)]
        with associations(exchange.dimse_port, storing):
            for kind, make in kinds.items():
                loaded[kind] += [took for took, _ in ask(exchange, make, repeat // TURNS)]
    for kind in kinds:
        calm, busy = statistics.median(rest[kind]), statistics.median(loaded[kind])
        yield (
            f"{kind:30} p50 at rest {calm:7.2f} ms  while {storing} store {busy:7.2f} ms  "
            f"ratio {busy / calm:5.2f}"
        )


def measure(exchange: RunningExchange, studies: int, repeat: int) -> Iterator[str]:
    """A line for each kind of question."""
    for kind, make in questions(exchange, studies).items():
        before = cpu(exchange.processes())
        asked = ask(exchange, make, repeat)
        used = (cpu(exchange.processes()) - before) / (repeat + 10) * 1e3
        times, matches = sorted(took for took, _ in asked), [many for _, many in asked]
        yield (
            f"{kind:30} p50 {statistics.median(times):7.2f} ms  "
            f"p95 {times[int(len(times) * 0.95)]:7.2f} ms  CPU {used:6.2f} ms  "
            f"{statistics.mean(matches):6.1f} matches"
        )


@contextlib.contextmanager
def exchange_with(studies: int, kind: str, home: Path) -> Iterator[RunningExchange]:
    """A running exchange among so many studies of three hospitals, on a database of `kind`."""
    with contextlib.ExitStack() as stack:
        home.mkdir(parents=True)
        settings = {"EXCHANGE_SCRUB_DAYS": "0"}  # there are no objects that could be read again
        if kind == "postgresql":
            settings["EXCHANGE_DATABASE_URL"] = stack.enter_context(postgresql()).create_database()
        exchange = RunningExchange(home, settings)
        exchange.run("init", "--password-stdin", given="a password of many words\n")
        with exchange.opened() as opened:
            city = Region(opened)
            for code in ("beicheng", "nanhu", "dongshan"):
                city.register(code)
            began = time.monotonic()
            patients = seed(opened.database, studies) if studies else 0
            took = time.monotonic() - began
        print(f"\n{kind}: {studies} studies of {patients} patient records, seeded in {took:.0f} s")
        exchange.start()
        stack.callback(exchange.stop)
        yield exchange


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--repeat", type=int, default=300)
    parser.add_argument("--storing", type=int, default=0, help="associations that store meanwhile")
    given = parser.parse_args()
    for database in given.databases:
        for count in given.studies:
            with (
                tempfile.TemporaryDirectory(prefix="exchange-find-") as place,
                exchange_with(count, database, Path(place) / "home") as running,
            ):
                lines = (
                    beside(running, count, given.repeat, given.storing)
                    if given.storing
                    else measure(running, count, given.repeat)
                )
                for line in lines:
                    print(line, flush=True)

"""How long the FHIR door takes among many resources: read, search, includes, chains, transactions.

    python tests/benchmarks/clinical.py --patients 100000 --databases sqlite postgresql
    python tests/benchmarks/clinical.py --patients 100000 --databases sqlite --home /var/tmp/filled

Patients and studies are seeded as in `seed.py`, what hospitals wrote as in `seed_clinical.py`: ten
resources for each patient. The exchange is started as a user would, and a clinician asks over one
connection, with token, policy and audit; the kinds of question take turns, so that what else the
machine does falls on all of them. For each the least, the median and the 95th percentile of the
time until the whole answer is there. The median of the processor time of the exchange's own
processes is of further turns: to look at it takes a millisecond or two, after which the next
question finds the caches cold and takes one longer. With `--apart` each kind is asked by itself,
one question after another: what the others leave in caches counts no more. An exchange in `--home`
that was filled before is asked again, not filled anew; with `--database` the index is in that
PostgreSQL, else in one of its own, which is gone afterwards.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

from real_parts import postgresql  # noqa: E402
from region import Region  # noqa: E402
from running import PASSWORD, RunningExchange  # noqa: E402
from seed import STUDIES_A_PATIENT, number, seed  # noqa: E402
from seed_clinical import CODES, DOCTORS, fill, resources  # noqa: E402
from sqlalchemy import func, select  # noqa: E402

from exchange_fhir import json_format  # noqa: E402
from exchange_storage.records import Patient, Resource  # noqa: E402

UNCOUNTED = 8
"""Turns that do not count: what is done for the first time."""

HOSPITALS = ("beicheng", "nanhu", "dongshan")
CACHED = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 4 >> 20}MB"
"""A quarter of the machine's memory for PostgreSQL's cache, as its manual has it (19.4.1)."""


def questions(chance: random.Random, patients: int) -> dict[str, Callable[[], str]]:
    """What is asked, each as what makes one question."""

    def one() -> int:
        return chance.randrange(1, patients + 1)

    return {
        "read": lambda: f"Observation/o{one()}-3",
        "Patient by identifier": lambda: f"Patient?identifier={number(one())}",
        "Patient by name": lambda: f"Patient?name=王{chance.choice('伟芳娜敏')}&_count=20",
        "ImagingStudy by patient, include": lambda: (
            f"ImagingStudy?patient={one()}&_include=ImagingStudy:endpoint"
        ),
        "Observation by patient and code": lambda: (
            f"Observation?patient={one()}&code={chance.choice(CODES)}"
        ),
        "chain: by the patient's number": lambda: (
            f"Observation?patient.identifier={number(one())}&status=final"
        ),
        "chain: code and patient's name": lambda: (
            f"Observation?code={chance.choice(CODES)}&patient.name=王伟&_count=20"
        ),
        "chain: performer's name and code": lambda: (
            f"Observation?performer:Practitioner.identifier=S{chance.randrange(DOCTORS)}"
            f"&code={chance.choice(CODES)}&_count=20"
        ),
        "_has: patients of a diagnosis": lambda: (
            f"Patient?_has:Condition:patient:code=J{chance.randrange(90)}&birthdate=1960&_count=20"
        ),
        "broad: newest final": lambda: "Observation?status=final&_count=50",
        "report with its results": lambda: (
            f"DiagnosticReport?patient={one()}&_include=DiagnosticReport:result"
        ),
    }


def transaction(chance: random.Random, patient: int) -> bytes:
    """Fifty Observations of a patient."""
    entries: list[dict[str, Any]] = []
    while len(entries) < 50:
        for told in resources(chance, patient):
            if told["resourceType"] == "Observation" and len(entries) < 50:
                for name in ("id", "encounter", "performer"):
                    del told[name]
                request = {"method": "POST", "url": "Observation"}
                entries.append({"resource": told, "request": request})
    return json_format.serialize(
        {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    )


class Asker:
    """Someone who asks over one connection."""

    def __init__(self, exchange: RunningExchange, name: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", exchange.http_port, timeout=120)
        self._headers = {"Authorization": f"Bearer {exchange.token(name)}"}
        self.connect()

    def connect(self) -> None:
        """Begin a connection, and end the one before, which the exchange ends once it is idle."""
        self._connection.close()
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path: str, content: bytes | None = None) -> float:
        """Milliseconds until the whole answer is there."""
        told = {"Content-Type": "application/fhir+json"} if content is not None else {}
        began = time.perf_counter()
        method = "GET" if content is None else "POST"
        self._connection.request(
            method, f"/fhir/{quote(path, safe='/?&=:_')}", content, self._headers | told
        )
        answer = self._connection.getresponse()
        body = answer.read()
        taken = time.perf_counter() - began
        assert answer.status == 200, (path, body)
        return taken * 1000


def measure(exchange: RunningExchange, patients: int, times: int, *, apart: bool) -> None:
    """Ask each kind of question so often, in turns or `apart`, and print how long it took."""
    chance = random.Random(5)
    with exchange.opened() as opened, opened.database.reading() as session:
        own = session.scalars(select(Patient.id).where(Patient.organization_id == 1)).all()
    clinician, system = Asker(exchange, "dr"), Asker(exchange, "his")
    acts: dict[str, Callable[[], float]] = {
        told: partial(_asked, clinician, make) for told, make in questions(chance, patients).items()
    }
    acts["transaction of 50 Observations"] = lambda: system.ask(
        "", transaction(chance, chance.choice(own))
    )
    taken: dict[str, list[float]] = {told: [] for told in acts}
    used: dict[str, list[float]] = {told: [] for told in acts}
    turns = ordered(chance, [*acts], times + UNCOUNTED, apart=apart)
    looked = ordered(chance, [*acts], max(times // 5, 5), apart=apart)
    for to, (turn, told) in chain(zip(repeat(taken), turns), zip(repeat(used), looked)):
        if turn == 0:
            clinician.connect()
            system.connect()
        before = cpu(exchange) if to is used else 0.0
        one_took = acts[told]()
        if to is used:
            used[told].append(cpu(exchange) - before)
        elif turn >= UNCOUNTED:
            taken[told].append(one_took)
    print(f"  load average {os.getloadavg()[0]:.1f}")
    for told, all_of_them in taken.items():
        most = sorted(all_of_them)[int(len(all_of_them) * 0.95)]
        print(f"  {told:36s} least {min(all_of_them):6.1f} ms  "
              f"p50 {statistics.median(all_of_them):6.1f} ms  p95 {most:6.1f} ms  "
              f"CPU {statistics.median(used[told]):6.1f} ms")  # fmt: skip
    sys.stdout.flush()


def ordered(
    chance: random.Random, kinds: list[str], turns: int, *, apart: bool
) -> Iterator[tuple[int, str]]:
    """What is asked when: each kind once a turn, or all turns of one kind after another."""
    if apart:
        return ((turn, told) for told in kinds for turn in range(turns))
    # In another order each turn: what follows a transaction finds its work still going on.
    return ((turn, told) for turn in range(turns) for told in chance.sample(kinds, len(kinds)))


def cpu(exchange: RunningExchange) -> float:
    """Milliseconds that the threads of the exchange have run so far."""
    total = 0
    for process in exchange.processes():
        for thread in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with suppress(OSError):
                total += int(thread.read_text().split()[0])
    return total / 1e6


def _asked(asker: Asker, make: Callable[[], str]) -> float:
    return asker.ask(make())


def filled(exchange: RunningExchange, patients: int) -> int:
    """See to it that there is something to be found; returns how many patients there are."""
    if not (exchange.home / "exchange").exists():
        exchange.run("init", "--password-stdin", given=f"{PASSWORD}\n")
    with exchange.opened() as opened:
        with opened.database.reading() as session:
            held = session.scalar(select(func.count()).select_from(Patient)) or 0
        if not held:
            city = Region(opened)
            for code in HOSPITALS:
                city.register(code)
            began = time.perf_counter()
            held = seed(opened.database, int(patients * STUDIES_A_PATIENT))
            count = fill(opened.database, held)
            print(f"{count} resources filled in within {time.perf_counter() - began:.0f} s")
            for name, role in (("dr", "clinician"), ("his", "system")):
                told = ("--role", role, "--organization", "beicheng", "--password-stdin")
                exchange.run("user", "add", name, *told, given=f"{PASSWORD}\n")
        with opened.database.reading() as session:
            count = session.scalar(select(func.count()).select_from(Resource)) or 0
    print(f"{opened.database.dialect}: {held} patients, {count} resources", flush=True)
    return held


@contextmanager
def exchange_on(database: str, home: Path | None, url: str) -> Iterator[RunningExchange]:
    """An exchange that is not running yet; the database is gone afterwards if it is its own."""
    with ExitStack() as stack:
        place = home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        settings = {"EXCHANGE_SCRUB_DAYS": "0"}  # there are no objects that could be read again
        if database == "postgresql":
            url = url or stack.enter_context(postgresql(shared_buffers=CACHED)).create_database()
            settings["EXCHANGE_DATABASE_URL"] = url
        exchange = RunningExchange(place, settings)
        stack.callback(exchange.stop)
        yield exchange


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--home", type=Path, help="where the exchange stays")
    parser.add_argument("--database", default="", help="the URL of a PostgreSQL database")
    parser.add_argument("--apart", action="store_true", help="each kind of question by itself")
    asked = parser.parse_args()
    for database in asked.databases:
        with exchange_on(database, asked.home, asked.database) as exchange:
            held = filled(exchange, asked.patients)
            exchange.start()
            measure(exchange, held, asked.times, apart=asked.apart)


if __name__ == "__main__":
    main()

"""How fast resources are exported, and in how much memory: $export on PostgreSQL.

    python tests/benchmarks/export.py --resources 1000000

Two hospitals that share, Observations of their patients written straight into the tables, files in
a folder. The system of one of them asks, and gets its own: half of them. Each resource is decided,
each page recorded.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

from fhir_door import BASE, KEY, SHANGHAI  # noqa: E402
from real_parts import postgresql  # noqa: E402
from region import WORKER, Region, region  # noqa: E402
from sqlalchemy import text  # noqa: E402

from exchange import bulk, jobs  # noqa: E402
from exchange.bulk import Direction, State  # noqa: E402
from exchange.errors import NotAuthenticated  # noqa: E402
from exchange_fhir.bulk import go_on  # noqa: E402
from exchange_fhir.bulk_export import Wanted, kinds  # noqa: E402
from exchange_fhir.bundle import Pages  # noqa: E402
from exchange_fhir.serving import Conduct, Serving  # noqa: E402
from exchange_storage.filesystem import FilesystemStore  # noqa: E402

PATIENTS = 40

_RESOURCES = """
    INSERT INTO resource (kind, logical_id, version, organization_id, patient_id, changed,
                          is_directory, has_others, deleted)
    SELECT 'Observation', 'b' || n, 1, p.organization_id, p.id, now(), false, false, false
    FROM generate_series(1, :count) AS n JOIN patient AS p ON p.id = 1 + n % :patients
"""
_REVISIONS = """
    INSERT INTO revision (resource_id, kind, version, interaction, content, recorded, elsewhere)
    SELECT id, kind, 1, 'create', convert_to(
        '{"resourceType":"Observation","id":"' || logical_id || '","meta":{"versionId":"1",'
        '"lastUpdated":"2026-11-26T10:00:00.000000Z"},"status":"final","code":{"coding":[{'
        '"system":"http://loinc.org","code":"29463-7","display":"Body weight"}]},"subject":{'
        '"reference":"Patient/' || patient_id || '"},"effectiveDateTime":"2026-11-20T08:30:00'
        '+08:00","valueQuantity":{"value":72.5,"unit":"kg","system":"http://unitsofmeasure.org",'
        '"code":"kg"},"note":[{"text":"' || repeat('体重', 60) || '"}]}', 'UTF8'), changed, false
    FROM resource WHERE kind = 'Observation'
"""


def fill(city: Region, count: int) -> None:
    """Patients of two hospitals, and what was observed of them."""
    for number in range(1, PATIENTS + 1):
        code = ("beicheng", "nanhu")[number % 2]
        study, instance = f"1.2.{number}", f"1.4.{number}"
        city.send(code, patient=f"N{number}", study=study, instance=instance)
    city.identify()
    with city.exchange.database.writing() as session:
        session.execute(text(_RESOURCES), {"count": count, "patients": PATIENTS})
        session.connection().exec_driver_sql(_REVISIONS)
    with city.exchange.database.writing() as session:
        for table in ("resource", "revision", "patient"):
            session.execute(text(f"ANALYZE {table}"))


def nobody(_: object) -> None:
    """A worker is asked by nobody."""
    raise NotAuthenticated("sign in first")


def measured(city: Region) -> tuple[int, float]:
    """Resources, and seconds from the request to the last file."""
    serving = Serving(
        exchange=city.exchange,
        identify=nobody,  # type: ignore[arg-type]
        pages=Pages(KEY),
        base_url=None,
        dicomweb="/dicom-web",
        timezone=SHANGHAI,
        conduct=Conduct(),
    )
    wanted = Wanted(base=BASE, kinds=kinds(of_patients=False), since=None)
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        job = bulk.ask(access, Direction.EXPORT, request=f"{BASE}/$export", asked=wanted.told())
    began = time.perf_counter()
    state = State.WORKING
    while state == State.WORKING:
        with suppress(jobs.Later):
            go_on(city.exchange, WORKER, job.id, serving)
        with city.exchange.on_behalf_of(city.system("beicheng")) as access:
            held = bulk.of(access, job.token)
            state, done = State(held.state), held.done
    return done, time.perf_counter() - began


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resources", type=int, nargs="+", default=[100_000, 1_000_000])
    for count in parser.parse_args().resources:
        with (
            tempfile.TemporaryDirectory() as folder,
            postgresql() as server,
            region(server.create_schema(), FilesystemStore(Path(folder) / "objects")) as city,
        ):
            fill(city, count)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            done, seconds = measured(city)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"{datetime.now(UTC):%H:%M} {done} resources in {seconds:.1f} s: "
            f"{done / seconds:.0f}/s; memory grew by {grown / 1024:.0f} MiB"
        )


if __name__ == "__main__":
    main()

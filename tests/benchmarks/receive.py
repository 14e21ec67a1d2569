"""Whether receiving slows down as the archive grows: instances a second, empty and among many.

    python tests/benchmarks/receive.py --studies 0 1000000 --databases sqlite postgresql

Each index is seeded (see `seed.py`) and its exchange started as a user would; then they take turns,
so that what slows the machine down slows all of them down. The rate is told as the median of the
rounds, and as a ratio to the first index.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

from find import exchange_with  # noqa: E402
from storing import rate  # noqa: E402

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, nargs="+", default=[0, 1_000_000])
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--kind", choices=["ct", "tiny"], default="ct")
    parser.add_argument("--count", type=int, default=200, help="instances of an association")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for database in given.databases:
        with (
            tempfile.TemporaryDirectory(prefix="exchange-receive-") as place,
            contextlib.ExitStack() as stack,
        ):
            running = [
                stack.enter_context(exchange_with(studies, database, Path(place) / str(studies)))
                for studies in given.studies
            ]
            for associations in given.associations:
                rates: list[list[float]] = [[] for _ in running]
                for turn in range(given.rounds + 1):
                    for one, exchange in zip(rates, running, strict=True):
                        reached = rate(
                            exchange.dimse_port, associations, kind=given.kind, count=given.count
                        )
                        one += [reached] if turn else []  # the first warms up
                medians = [statistics.median(one) for one in rates]
                for studies, median in zip(given.studies, medians, strict=True):
                    print(
                        f"{database:10} {studies:9} studies  {associations} associations  "
                        f"{median:6.0f} instances/s  ratio {median / medians[0]:.2f}",
                        flush=True,
                    )

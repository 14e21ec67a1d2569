"""What is observed of a running exchange: one list, read by logs, metrics (Prometheus) and health.

An observation holds no patient data: numbers, names of ours, and classes of errors. Whatever a
library logs goes through the same form, without the message of an exception: SQL and DICOM
libraries put values into theirs.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from exchange import jobs, scrub
from exchange.access import translated
from exchange.errors import ExchangeError
from exchange.policy import Requester, Role
from exchange_server.readiness import SILENT, Readiness
from exchange_server.throttle import Throttle
from exchange_storage.objects import ObjectStoreError, StoreFull, StoreUnavailable
from exchange_storage.spool import SpooledStore

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the directory in which processes of one `serve` share their metrics."""


ROOM = {"counter": 1 << 18, "histogram": 1 << 21}
"""Bytes for all that one process counts, and for all that it times: several thousand series."""

COUNTED_AGO = 60.0
"""Seconds for which a count of the spool serves: each lists it, and scrapes come more often."""


class Kind(StrEnum):
    """What its metric is."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    """Seconds."""
    GAUGE = "gauge"
    """Read when metrics are asked for; never logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Something that is observed: `name` in the log, ``exchange_<name>`` among the metrics."""

    name: str
    help: str
    kind: Kind = Kind.COUNTER
    labels: tuple[str, ...] = ()
    level: int = logging.INFO


ROLE_READY = Observation(
    name="role_ready", help="Processes that became ready to serve", labels=("role",)
)
ROLE_STOPPED = Observation(name="role_stopped", help="Processes that ended", labels=("role",))
ROLE_CRASHED = Observation(
    name="role_crashed",
    help="Processes that ended without being asked, and were started again",
    labels=("role",),
    level=logging.ERROR,
)
REQUEST = Observation(
    name="http_request_seconds",
    help="HTTP requests, to the end of the answer",
    kind=Kind.HISTOGRAM,
    labels=("method", "route", "status"),
)
SIGNED_IN = Observation(name="tokens_issued", help="Access tokens issued")
SIGN_IN_REFUSED = Observation(
    name="tokens_refused",
    help="Token requests refused",
    labels=("reason",),
    level=logging.WARNING,
)
SESSION_BEGUN = Observation(name="sessions_begun", help="Users who signed in at a browser")
SESSION_REFUSED = Observation(
    name="sessions_refused",
    help="Sign-ins at a browser that were refused",
    labels=("reason",),
    level=logging.WARNING,
)
JOB = Observation(
    name="job_seconds",
    help="Jobs of the outbox, done or failed",
    kind=Kind.HISTOGRAM,
    labels=("kind", "outcome"),
    level=logging.DEBUG,
)
JOB_FAILED = Observation(
    name="job_failures", help="Jobs that failed", labels=("kind",), level=logging.WARNING
)
SPOOL_MOVED = Observation(
    name="spool_objects_moved",
    help="Objects moved from the spool to the remote store",
    level=logging.DEBUG,
)
SPOOL_STUCK = Observation(
    name="spool_stuck",
    help="Times that the spool could not be emptied",
    labels=("reason",),
    level=logging.WARNING,
)
CARRIED_MOVED = Observation(
    name="carried_objects_moved",
    help="Small objects moved from the index to the object store",
    level=logging.DEBUG,
)
CARRIED_STUCK = Observation(
    name="carried_stuck",
    help="Times that small objects could not be moved from the index to the object store",
    labels=("reason",),
    level=logging.WARNING,
)
WORKER_STALLED = Observation(
    name="worker_stalled",
    help="Times that a worker could not look for jobs",
    level=logging.ERROR,
)
DAMAGE_FOUND = Observation(
    name="damage_found",
    help="Objects that a scrub found damaged or missing; `exchange scrub --list` names them",
    level=logging.ERROR,
)
DAMAGED = Observation(
    name="damaged_objects",
    help="Objects that are known to be damaged or missing",
    kind=Kind.GAUGE,
)
JOBS = Observation(
    name="jobs",
    help="Jobs in the outbox: waiting, and given up",
    kind=Kind.GAUGE,
    labels=("kind", "state"),
)
SPOOLED = Observation(
    name="spool_objects", help="Objects in the spool, not yet in the remote store", kind=Kind.GAUGE
)
CARRIED = Observation(
    name="carried_objects",
    help="Small objects in the index, not yet in the object store",
    kind=Kind.GAUGE,
)
FREE = Observation(
    name="free_bytes",
    help="Bytes free on the disk of this machine on which a part lies",
    kind=Kind.GAUGE,
    labels=("part",),
)
DIMSE_RESPONSE = Observation(
    name="dimse_responses",
    help="DIMSE operations that were answered, by service, status type and status (PS3.7 C)",
    labels=("service", "type", "status"),
)
PART_READY = Observation(
    name="part_ready", help="Whether a part answers: 1 or 0", kind=Kind.GAUGE, labels=("part",)
)

OBSERVATIONS = (
    ROLE_READY,
    ROLE_STOPPED,
    ROLE_CRASHED,
    REQUEST,
    SIGNED_IN,
    SIGN_IN_REFUSED,
    SESSION_BEGUN,
    SESSION_REFUSED,
    JOB,
    JOB_FAILED,
    SPOOL_MOVED,
    SPOOL_STUCK,
    CARRIED_MOVED,
    CARRIED_STUCK,
    WORKER_STALLED,
    DAMAGE_FOUND,
    DAMAGED,
    JOBS,
    SPOOLED,
    CARRIED,
    FREE,
    DIMSE_RESPONSE,
    PART_READY,
)

_OPERATOR = Requester(name="observer", role=Role.EXCHANGE, organization=None, purpose=None)


def observe(
    observation: Observation, value: float = 1, *, also: dict[str, Any] | None = None, **labels: str
) -> None:
    """Count or time `observation`, and log it; `also` is for the log only."""
    metric = _metrics()[observation.name]
    child = metric.labels(**labels) if observation.labels else metric
    if observation.kind is Kind.HISTOGRAM:
        child.observe(value)
        told: dict[str, Any] = {"seconds": round(value, 6)}
    else:
        child.inc(value)
        told = {"count": value} if value != 1 else {}
    log = structlog.get_logger("exchange")
    log.log(observation.level, observation.name, **labels, **told, **(also or {}))


def counter(observation: Observation, *labels: str) -> Callable[[], None]:
    """What counts one more of `observation`, without a log line: for what comes by the hundreds a
    second. `labels`: their values, in its order."""
    increment: Callable[[], None] = _metrics()[observation.name].labels(*labels).inc
    return increment


_MAKING = threading.Lock()


def _metrics() -> Mapping[str, Any]:
    with _MAKING:  # each can be registered once only
        return _made()


@cache
def _made() -> Mapping[str, Any]:
    # Imported late: the library decides by SHARED, when it is imported, where its numbers lie.
    from prometheus_client import Counter, Histogram

    made: dict[str, Counter | Histogram] = {}
    for one in OBSERVATIONS:
        match one.kind:
            case Kind.COUNTER:
                made[one.name] = Counter(f"exchange_{one.name}", one.help, one.labels)
            case Kind.HISTOGRAM:
                made[one.name] = Histogram(f"exchange_{one.name}", one.help, one.labels)
            case Kind.GAUGE:
                pass  # see _Gauges
    return made


def reserve() -> None:
    """Have room on the disk for what this process will count, among processes that share metrics.

    Theirs lie in mapped files: where a page has no room on a full disk, to write to it is SIGBUS,
    and the end of the process (mmap(2)). Of processes that ended only the used part is kept.
    Raises OSError.
    """
    if SHARED not in os.environ:
        return
    shared = Path(os.environ[SHARED])
    for one in shared.glob("*.db"):
        if not Path(f"/proc/{one.stem.rpartition('_')[2]}").exists():
            with one.open("r+b") as numbers:
                used = int.from_bytes(numbers.read(4), sys.byteorder)
                numbers.truncate(max(used, 8))
    for kind, size in ROOM.items():
        with (shared / f"{kind}_{os.getpid()}.db").open("ab") as numbers:
            os.posix_fallocate(numbers.fileno(), 0, size)


def exposition(readiness: Readiness) -> tuple[bytes, str]:
    """All metrics in the text format of Prometheus, and its media type.

    Under `exchange serve`, those of all its processes. Gauges are read now.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    _metrics()  # so that they are all there, at 0, before anything happened
    counted: CollectorRegistry = REGISTRY
    if SHARED in os.environ:
        counted = CollectorRegistry()
        MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    now = CollectorRegistry()
    now.register(_Gauges(readiness))
    return generate_latest(counted) + generate_latest(now), CONTENT_TYPE_LATEST


@dataclass(frozen=True, slots=True)
class _Gauges:
    """What is so at this moment, as a collector of Prometheus' library."""

    readiness: Readiness

    def collect(self) -> Iterator[GaugeMetricFamily]:
        from prometheus_client.core import GaugeMetricFamily

        def gauge(one: Observation) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"exchange_{one.name}", one.help, labels=one.labels)

        exchange, wrong = self.readiness.exchange, self.readiness.parts()
        ready = gauge(PART_READY)
        for part, error in wrong.items():
            ready.add_metric([part], 0 if error else 1)
        yield ready
        free = gauge(FREE)
        for part, look in (("index", exchange.database.free), ("reception", exchange.objects.free)):
            with suppress(OSError, ObjectStoreError):
                if wrong[part] != SILENT and (told := look()) is not None:
                    free.add_metric([part], told)
        yield free
        if isinstance(exchange.objects.store, SpooledStore) and wrong["reception"] != SILENT:
            spooled = gauge(SPOOLED)
            spooled.add_metric([], exchange.objects.store.waiting(COUNTED_AGO))
            yield spooled
        if wrong["index"] == SILENT:  # whoever asked it for numbers would wait with it
            return
        waiting = gauge(JOBS)
        # That the index does not answer is told by its part.
        with suppress(ExchangeError), exchange.on_behalf_of(_OPERATOR) as access:
            for (kind, dead), count in jobs.backlog(access.session).items():
                waiting.add_metric([kind, "given up" if dead else "waiting"], count)
        yield waiting
        damaged = gauge(DAMAGED)
        with suppress(ExchangeError), exchange.on_behalf_of(_OPERATOR) as access:
            damaged.add_metric([], scrub.known_damages(access))
        yield damaged
        carried = gauge(CARRIED)
        with suppress(ExchangeError), translated():
            carried.add_metric([], exchange.objects.waiting())
        yield carried


def place(error: BaseException) -> str:
    """What was raised, and where; never its message, unless it is one of ours.

    What a store says of itself is, and says why where it is the cause of another.
    """
    name = type(error).__name__
    if isinstance(error, ExchangeError | StoreUnavailable | StoreFull):
        cause = error.__cause__
        why = f" ({cause})" if isinstance(cause, StoreUnavailable | StoreFull) else ""
        return f"{name}: {error}{why}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return name
    module = frames[-1].filename.rpartition("/")[2]
    return f"{name} at {module}:{frames[-1].lineno}"


def log_to_stderr(*, level: str, form: str, role: str) -> None:
    """Log to stderr, one event a line: JSON, or coloured for a person; libraries' logs too."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _told_by(role),
        _without_messages,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    handler.addFilter(Throttle(place))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for loud in ("pydicom", "pynetdicom", "alembic", "asyncio"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    # Its warnings of a retry hold the path: an object's key, and so the study's UID.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def _told_by(role: str) -> structlog.typing.Processor:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("role", role)
        event["pid"] = os.getpid()
        return event

    return add


def _without_messages(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception as its class and the lines that it went through: no message, no values."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, tuple):
        raised = raised[1]
    if isinstance(raised, BaseException):
        event["error"] = place(raised)
        event["stack"] = [
            f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(raised.__traceback__)
        ]
    return event

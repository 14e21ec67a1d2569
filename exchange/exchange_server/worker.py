"""The worker: does the later work that the outbox holds, puts down what the index carries, and
empties the spool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from exchange import jobs, turns
from exchange.access import Exchange
from exchange.policy import Requester, Role
from exchange_server.observability import (
    CARRIED_MOVED,
    CARRIED_STUCK,
    JOB,
    JOB_FAILED,
    SPOOL_MOVED,
    SPOOL_STUCK,
    WORKER_STALLED,
    Observation,
    observe,
    place,
)
from exchange_storage.spool import SpooledStore

Handler = Callable[[Exchange, str], None]
"""Does one job, given its subject. May run twice, and may raise: then it is tried again."""

Together = Callable[[Exchange, Sequence[str]], None]
"""Does several jobs of one kind, given their subjects. Where it raises, each is done by itself."""

IDLE = 0.2
"""Seconds between two looks for jobs when there were none."""

STALLED = 2.0
"""Seconds before the next look when the last one failed."""

CARRIED_IDLE = 1.0
"""Seconds between two looks for small objects that the index carries."""

CLAIMED = 16
"""Jobs taken at a time, of which those of one kind may share a commit: no more, since a stop waits
for them and a crash holds them for a lease."""

CHECKPOINT_SECONDS = 60.0

RECURRING: Mapping[str, tuple[str, float]] = {
    jobs.CHECKPOINT: ("trail", CHECKPOINT_SECONDS),
    jobs.COUNT: ("traffic", 60.0),
    jobs.SCRUB: ("objects", 3600.0),
    jobs.RETAIN: ("expired", 3600.0),
    jobs.TIDY: ("worklist", 3600.0),
}
"""What a worker asks for by itself: the subject, and seconds from one time to the next."""

ASIDE: Mapping[tuple[str, ...], int] = {
    **{(kind,): 2 * calling.silent for kind, calling in jobs.CALLED.items()},
    (jobs.TELL,): 2 * turns.IN_DOUBT,
    (jobs.BULK,): 1,
    (jobs.SCRUB, jobs.RETAIN, jobs.DESTROY, jobs.TIDY): 1,
    (jobs.COUNT,): 1,
    (jobs.REINDEX,): 1,
    (jobs.DESCRIBE,): 1,
}
"""Kinds that wait for somebody else, or take long, and on how many threads of their own they do:
a study must not wait for its index because another hospital's node does not answer."""

ASIDE_IDLE = 1.0
"""Seconds between two looks for such jobs when there were none."""

WORKER = Requester(
    name="worker", role=Role.EXCHANGE, organization=None, purpose=None, door="worker"
)


class Worker:
    """One worker; any number of them, in any number of processes, share the work."""

    def __init__(
        self,
        exchange: Exchange,
        handlers: Mapping[str, Handler],
        together: Mapping[str, Together] | None = None,
    ) -> None:
        """What does each kind of job; with what does several `together`, if anything does."""
        self._exchange = exchange
        self._handlers = handlers
        self._together = together or {}
        self._next = dict.fromkeys(RECURRING, 0.0)
        self._taken: set[int] = set()
        self._counting = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; what was taken is finished first."""
        aside = {kind for kinds in ASIDE for kind in kinds}
        here = [kind for kind in self._handlers if kind not in aside]
        ended = threading.Event()
        leases = threading.Thread(target=self._renew_leases, args=(ended,), name="leases")
        threads = [
            threading.Thread(target=self._empty_spool, args=(stop,), name="spool"),
            threading.Thread(target=self._put_down, args=(stop,), name="carried"),
        ]
        for all_kinds, number in ASIDE.items():
            kinds = [kind for kind in all_kinds if kind in self._handlers]
            work = (stop, kinds, 1, ASIDE_IDLE)
            threads += [
                threading.Thread(target=self._work, args=work, name=kinds[0])
                for _ in range(number if kinds else 0)
            ]
        leases.start()
        for thread in threads:
            thread.start()
        self._work(stop, here, CLAIMED, IDLE)
        for thread in threads:
            thread.join()
        ended.set()  # only now: what is still being finished must not become another worker's
        leases.join()

    def run_once(self) -> int:
        """Do the jobs that are due, up to `CLAIMED`, images arrive or not; returns how many.

        A job that fails is noted and tried again later; only the outbox itself raises, and only
        when every job that was taken has had its turn: the others would wait for a whole lease.
        """
        self._ask_for_recurring()
        return self._do_some(list(self._handlers), CLAIMED, patient=False)

    def _work(self, stop: threading.Event, kinds: Sequence[str], some: int, idle: float) -> None:
        while not stop.is_set():
            try:
                self._ask_for_recurring()
                pause = 0.0 if self._do_some(kinds, some, patient=True) else idle
            except Exception as error:  # the index does not answer, whatever its driver calls it
                observe(WORKER_STALLED, also={"error": place(error)})
                pause = STALLED
            stop.wait(pause)

    def _do_some(self, kinds: Sequence[str], some: int, *, patient: bool) -> int:
        claimed = jobs.claim(self._exchange.database, kinds, some, patient=patient)
        with self._counting:
            self._taken.update(job.id for job in claimed)
        unnoted: Exception | None = None
        done: list[jobs.Claim] = []
        try:
            done += self._do_together(claimed)
            for job in claimed:
                if job in done:
                    continue
                try:
                    if self._do(job):
                        done.append(job)
                except Exception as error:
                    unnoted = unnoted or error
            jobs.finish(self._exchange.database, done)
        finally:
            with self._counting:
                self._taken.difference_update(job.id for job in claimed)
        if unnoted is not None:
            raise unnoted
        return len(claimed)

    def empty_spool_once(self, stop: threading.Event | None = None) -> None:
        """Move what is in the spool now to the remote store: all of it, or until `stop` is set."""
        store = self._exchange.objects.store
        if not isinstance(store, SpooledStore):
            return

        def proceed(moved: int) -> bool:
            if moved:
                observe(SPOOL_MOVED, moved)
            return stop is None or not stop.is_set()

        drained = store.drain(proceed=proceed)
        if drained.differing:
            # Not retried in haste: a person has to look at them, and the log says which.
            observe(SPOOL_STUCK, reason="differs", also={"keys": list(drained.differing[:8])})
        if drained.stopped_by is not None:
            self._stuck(SPOOL_STUCK, drained.stopped_by)

    def put_down_once(self, stop: threading.Event | None = None) -> None:
        """Put the small objects that the index carries now into the store, or until `stop` is set.

        Raises StoreUnavailable, StoreFull, and what a database raises; they are carried on.
        """
        put = self._exchange.objects.put_down(proceed=lambda: stop is None or not stop.is_set())
        if put.moved:
            observe(CARRIED_MOVED, put.moved)
        if put.differing:
            observe(CARRIED_STUCK, reason="differs", also={"keys": list(put.differing[:8])})

    def _stuck(self, what: Observation, error: Exception) -> None:
        observe(what, reason=type(error).__name__, also={"error": place(error)})

    def _do_together(self, claimed: Sequence[jobs.Claim]) -> list[jobs.Claim]:
        """Do what can be done together; returns which jobs are done by that."""
        done: list[jobs.Claim] = []
        for kind, do in self._together.items():
            some = [job for job in claimed if job.kind == kind]
            if len(some) < 2:
                continue
            began = time.perf_counter()
            try:
                do(self._exchange, [job.subject for job in some])
            except Exception:  # whose fault it is shows, and is noted, when each is done by itself
                observe(JOB, time.perf_counter() - began, kind=kind, outcome="parted")
                continue
            each = (time.perf_counter() - began) / len(some)
            for _ in some:
                observe(JOB, each, kind=kind, outcome="done")
            done += some
        return done

    def _do(self, job: jobs.Claim) -> bool:
        """Whether it is done; what failed or goes on later is noted."""
        began = time.perf_counter()
        try:
            self._handlers[job.kind](self._exchange, job.subject)
        except jobs.Later as later:
            jobs.postpone(self._exchange.database, job, later.seconds)
            observe(JOB, time.perf_counter() - began, kind=job.kind, outcome="postponed")
        except Exception as error:
            observe(JOB, time.perf_counter() - began, kind=job.kind, outcome="failed")
            told = {"subject": job.subject, "attempt": job.attempts + 1, "error": place(error)}
            observe(JOB_FAILED, kind=job.kind, also=told)
            jobs.fail(self._exchange.database, job, place(error))
        else:
            observe(JOB, time.perf_counter() - began, kind=job.kind, outcome="done")
            return True
        return False

    def _ask_for_recurring(self) -> None:
        """When it is time; what waits already stays as it is, what was given up begins anew."""
        now = time.monotonic()
        for kind, (subject, seconds) in RECURRING.items():
            if kind in self._handlers and now >= self._next[kind]:
                self._next[kind] = now + seconds
                with self._exchange.database.writing() as session:
                    jobs.ask(session, kind, subject, datetime.now(UTC))

    def _renew_leases(self, ended: threading.Event) -> None:
        """What takes long stays ours; what a process had that died is free after a lease."""
        while not ended.wait(jobs.LEASE.total_seconds() / 4):
            with self._counting:
                taken = list(self._taken)
            if taken:
                try:
                    jobs.renew(self._exchange.database, taken)
                except Exception as error:
                    observe(WORKER_STALLED, also={"error": place(error)})

    def _put_down(self, stop: threading.Event) -> None:
        while not stop.wait(CARRIED_IDLE):
            try:
                if not self._exchange.objects.gathers():
                    self.put_down_once(stop)
            except Exception as error:
                self._stuck(CARRIED_STUCK, error)

    def _empty_spool(self, stop: threading.Event) -> None:
        # On a thread of its own: an upload of some gigabytes must not keep a study from its index.
        while not stop.is_set():
            try:
                self.empty_spool_once(stop)
            except Exception as error:
                self._stuck(SPOOL_STUCK, error)
            stop.wait(STALLED)

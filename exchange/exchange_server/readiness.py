"""Whether an exchange can serve: what is wrong with each part that it stands on.

Load balancers and Prometheus ask every few seconds, and give up soon. So each part is looked at by
a thread of its own, one at a time: whoever asks shares the look that is under way, and one that
takes too long says that the part is silent. What hangs holds one thread for each part, however
often it is asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exchange.access import Exchange
from exchange_storage.objects import ObjectNotFound, ObjectStoreError

SECONDS = 2.0
"""How long a part may take to answer."""

ROOM = 32 << 20
"""Bytes that must be free where instances come in, and where the index is: less is full. Such a
disk takes small instances still, and refuses the next large one."""

SILENT = "does not answer"
"""What is wrong with a part that took longer."""

NEEDED = frozenset({"index", "reception"})
"""The parts without which a process is not ready: it would have to refuse what is sent to it."""


@dataclass(slots=True, eq=False)
class _Look:
    """One look at a part, and what was wrong with it: "" for nothing, once it is `done`."""

    began: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    wrong: str = ""


class Readiness:
    """Looks at the parts of `exchange`, for many threads that ask."""

    def __init__(self, exchange: Exchange, *, seconds: float = SECONDS) -> None:
        self.exchange = exchange
        self._seconds = seconds
        self._lock = threading.Lock()
        self._looks: dict[str, _Look] = {}
        self._parts: Mapping[str, Callable[[], None]] = {
            "index": self._current,
            "reception": self._receives,
            "objects": self._reachable,
        }

    def parts(self) -> dict[str, str]:
        """What is wrong with each part; "" where it answers.

        ``index`` (it is of this release, and has room), ``reception`` (an instance could be
        received now) and ``objects`` (what is held can be read). With a spool, reception does not
        need the remote store. Takes `seconds` at most.
        """
        looks = {part: self._look(part) for part in self._parts}
        return {part: self._told(look) for part, look in looks.items()}

    def _look(self, part: str) -> _Look:
        """The look at `part` that is under way, or a new one."""
        with self._lock:
            look = self._looks.get(part)
            if look is None or look.done.is_set():
                look = _Look()
                threading.Thread(
                    target=self._run, args=(part, look), name=f"look at {part}", daemon=True
                ).start()
                self._looks[part] = look
            return look

    def _run(self, part: str, look: _Look) -> None:
        try:
            look.wrong = _wrong(self._parts[part])
        finally:
            look.done.set()

    def _told(self, look: _Look) -> str:
        left = look.began + self._seconds - time.monotonic()
        return look.wrong if look.done.wait(max(0.0, left)) else SILENT

    def _current(self) -> None:
        found, wanted = self.exchange.database.revision()
        if found != wanted:
            raise RuntimeError("the schema is not this release's; run `exchange serve` or `init`")
        _has_room(self.exchange.database.free())

    def _receives(self) -> None:
        _has_room(self.exchange.objects.free())
        self.exchange.objects.try_out()

    def _reachable(self) -> None:
        try:
            self.exchange.objects.stat("ready/probe")
        except ObjectNotFound:
            return  # an answer


def _has_room(free: int | None) -> None:
    if free is not None and free < ROOM:
        raise RuntimeError("its disk is full, or may not be written to")


def _wrong(look: Callable[[], None]) -> str:
    try:
        look()
    except (RuntimeError, ObjectStoreError) as error:
        return str(error)
    except Exception as error:  # a driver's own: its text may hold an address or a password
        return type(error).__name__
    return ""

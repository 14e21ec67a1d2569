"""The supervisor: starts the roles, says when all are ready, restarts what crashes, stops them all.

Each process is watched by its pidfd (pidfd_open(2)) and tells that it is ready by sd_notify(3).
Nothing is polled, and no process is named but by the supervisor that started it.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from exchange_server.forking import Process, Start
from exchange_server.observability import ROLE_CRASHED, observe
from exchange_server.roles import STOP
from exchange_server.settings import SUPERVISOR

START_SECONDS = 120.0
"""How long all roles together may take until they are ready."""

FIRST_PAUSE = 0.5
"""Seconds before what crashed is started again; doubled each time it crashes soon after that."""
LONGEST_PAUSE = 30.0
STEADY = 60.0
"""Seconds of life after which a crash counts as the first."""

AFTER_DEADLINE = 5.0
"""Seconds that a process has beyond the deadline it was given itself, before it is killed."""

PREFIX, NOTIFY = "exchange-", "notify"
"""Names of the directory, among temporary ones, in which children tell that they are ready."""


@dataclass(slots=True)
class _Child:
    """One process of a role, in its present life."""

    role: str
    pause: float = 0.0
    """Seconds that it waited before its last restart."""
    process: Process = field(init=False)
    pidfd: int = -1
    """-1 while it does not run."""
    started: float = 0.0
    restart_at: float | None = None
    ready: bool = False


@dataclass(slots=True)
class Supervisor:
    """Runs so many processes of each role, as `start` starts them."""

    roles: Mapping[str, int]
    start: Start
    stop_seconds: float
    on_ready: Callable[[], None]
    """Called once, when every process is ready."""
    on_stop: Callable[[], None] = lambda: None
    """Called before the processes are told to end, once they were ready."""
    _children: list[_Child] = field(default_factory=list, init=False)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector, init=False)
    _signals: socket.socket = field(init=False)
    _notices: socket.socket = field(init=False)
    _environment: dict[str, str] = field(init=False)

    def run(self) -> int:
        """Supervise until SIGTERM, SIGINT or SIGHUP; returns the exit status.

        1 when a role did not become ready at all, or had to be killed; else 0.
        """
        # Below /tmp and not in the data directory: the path of a socket has at most 107 bytes.
        _clear_up()
        directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._signals, woken = socket.socketpair()
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        previous = {
            number: signal.signal(number, lambda *_: None) for number in (*STOP, signal.SIGHUP)
        }
        try:
            woken.setblocking(False)
            signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
            self._notices.bind(str(directory / NOTIFY))
            self._environment = {
                SUPERVISOR: str(os.getpid()),
                "NOTIFY_SOCKET": str(directory / NOTIFY),
            }
            for watched in (self._signals, self._notices):
                watched.setblocking(False)
                self._selector.register(watched, selectors.EVENT_READ)
            self._children = [
                _Child(role) for role, count in self.roles.items() for _ in range(count)
            ]
            return self._supervise()
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._selector.close()
            for one in (self._signals, woken, self._notices):
                one.close()
            shutil.rmtree(directory)

    def _supervise(self) -> int:
        began = time.monotonic()
        announced = failed = False
        try:
            for child in self._children:
                self._start(child)
            while True:
                ended, told_to_stop = self._wait(None if announced else began + START_SECONDS)
                if told_to_stop:
                    break
                if not announced:
                    if ended or time.monotonic() > began + START_SECONDS:
                        failed = True
                        break
                    if all(child.ready for child in self._children):
                        announced = True
                        self.on_ready()
                for child in ended:
                    self._crashed(child)
                for child in self._children:
                    if child.restart_at is not None and child.restart_at <= time.monotonic():
                        self._start(child)
        finally:
            try:
                if announced:
                    self.on_stop()
            finally:
                killed = self._stop()
        return 1 if failed or killed else 0

    def _start(self, child: _Child) -> None:
        child.process = self.start(child.role, self._environment)
        child.pidfd = os.pidfd_open(child.process.pid)
        child.started = time.monotonic()
        child.restart_at = None
        child.ready = False
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def _crashed(self, child: _Child) -> None:
        lived = time.monotonic() - child.started
        longer = 0.0 if lived > STEADY else min(2 * child.pause, LONGEST_PAUSE)
        child.pause = max(FIRST_PAUSE, longer)
        child.restart_at = time.monotonic() + child.pause
        told = {"status": child.process.returncode, "again_in": child.pause}
        observe(ROLE_CRASHED, role=child.role, also=told)

    def _wait(self, deadline: float | None) -> tuple[list[_Child], bool]:
        """Wait for something to happen: the children that ended, and whether a signal came."""
        due = [child.restart_at for child in self._children if child.restart_at is not None]
        if deadline is not None:
            due.append(deadline)
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        ended: list[_Child] = []
        told_to_stop = False
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._signals:
                self._signals.recv(64)
                told_to_stop = True
            elif key.fileobj is self._notices:
                self._read_notice(self._notices.recv(4096))
            else:
                child: _Child = key.data
                self._reap(child)
                ended.append(child)
        return ended, told_to_stop

    def _read_notice(self, notice: bytes) -> None:
        told = dict(
            line.split("=", 1)
            for line in notice.decode(errors="replace").splitlines()
            if "=" in line
        )
        for child in self._children:
            if child.pidfd >= 0 and told.get("MAINPID") == str(child.process.pid):
                child.ready = child.ready or told.get("READY") == "1"

    def _reap(self, child: _Child) -> None:
        child.process.wait()
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        child.pidfd = -1

    def _stop(self) -> bool:
        """End all children: politely, until the deadline or a second signal; then by force.

        Returns whether force was needed.
        """
        deadline = time.monotonic() + self.stop_seconds + AFTER_DEADLINE
        living = [child for child in self._children if child.pidfd >= 0]
        for child in self._children:
            child.restart_at = None
        for child in living:
            child.process.terminate()
        while living and time.monotonic() < deadline:
            ended, again = self._wait(deadline)
            living = [child for child in living if child not in ended]
            if again:
                break
        for child in living:
            child.process.kill()
            self._reap(child)
        return bool(living)


def _clear_up() -> None:
    """Remove the directories of supervisors that were killed: those to whose socket nobody listens.

    Another user's is left alone, as is all in which there is no such socket.
    """
    for address in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{NOTIFY}"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
            if address.parent.lstat().st_uid != os.getuid():
                continue
            try:
                caller.connect(str(address))
            except ConnectionRefusedError:
                shutil.rmtree(address.parent)

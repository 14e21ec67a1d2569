"""Processes forked from one that has imported everything: ready sooner, and sharing what is alike.

To import what a role needs takes a second of processor time and a hundred megabytes, for each
process anew. A fork has both already (fork(2)); what it changes afterwards it has for itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

_PR_SET_NAME = 15


class Process(Protocol):
    """A child process, as of `subprocess`."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def returncode(self) -> int | None:
        """Its exit status, or the signal that ended it, less than 0; None before `wait`."""

    def wait(self) -> int:
        """Wait for its end; returns `returncode`."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


Start = Callable[[str, Mapping[str, str]], Process]
"""Starts a process of a role, with variables beside those of this one."""


@dataclass(slots=True)
class Forked:
    """A fork of this process."""

    pid: int
    returncode: int | None = field(default=None, init=False)

    def wait(self) -> int:
        """Wait for its end; returns its exit status, or the signal that ended it, less than 0."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM, unless `wait` has seen its end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless `wait` has seen its end."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.returncode is None:  # until it is waited for, the number is nobody else's
            os.kill(self.pid, number)


def forks(be: Callable[[str], None]) -> Start:
    """Forks of this process, which must have one thread only; each is `be(role)` and ends then.

    A fork has nothing open but what is standard, the usual signal handlers, and a process group
    of its own, so that a Ctrl-C in the terminal is not for it.
    """

    def start(role: str, variables: Mapping[str, str]) -> Process:
        sys.stdout.flush()
        sys.stderr.flush()
        # What comes for the fork waits until its handlers are its own.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            return Forked(pid)
        status = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                if callable(signal.getsignal(number)) and number != signal.SIGINT:
                    signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _let_go()
            os.environ.update(variables)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            be(role)
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        raise AssertionError  # a fork does not come back

    return start


def _let_go() -> None:
    """Have every descriptor but the standard ones lead nowhere, so that what is locked or listened
    to by this process's parent is its parent's alone; none is closed, for objects know them."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in [int(one.name) for one in Path("/dev/fd").iterdir()]:
        if number > 2 and number != nowhere:
            with suppress(OSError):  # that with which they were listed
                os.dup2(nowhere, number, inheritable=False)
    os.close(nowhere)


def named(name: str) -> None:
    """Have `ps` show this process by a name of at most 15 bytes (prctl(2), Linux only)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)

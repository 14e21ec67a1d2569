"""Processes of the exchange, forked from one that has imported it: `exchange` with any arguments.

To import what a role or a command needs takes a second of processor time or two, for hundreds of
them. They are processes like others: with arguments, variables, files and an end of their own. What
starts them is this file, run as a program: it has one thread, and does nothing but fork.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import IO

from real_parts import Process, ends_with_us

LONGEST = 1 << 17
"""Bytes of arguments and variables, at most."""

_PR_SET_PDEATHSIG = 1


class Forked:
    """A process that was started: as `subprocess.Popen` tells of it."""

    def __init__(self, args: Sequence[str], pid: int, ended: socket.socket) -> None:
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """Its exit status, or the signal that ended it, less than 0; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises TimeoutExpired."""
        if self.returncode is None:
            self._ended.settimeout(timeout)
            try:
                told = self._ended.recv(16)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self.returncode = int(told or -signal.SIGKILL)  # it has ended with what forked it
            self._ended.close()
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)


def started(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    directory: Path | None = None,
    stdin: IO[bytes] | None = None,
    output: tuple[IO[bytes], IO[bytes]],
) -> Process:
    """`exchange` with these arguments, in a process group of its own; it ends when we end.

    `output` is where it writes, as it should be and what is wrong. It is forked within `forking`,
    and else started as an operator starts it.
    """
    if not _forking:
        return subprocess.Popen(
            ends_with_us(sys.executable, "-m", "exchange_server", *arguments),
            env=environment,
            cwd=directory,
            stdin=stdin or subprocess.DEVNULL,
            stdout=output[0],
            stderr=output[1],
            process_group=0,
        )
    told = json.dumps([list(arguments), dict(environment), str(directory or Path.cwd())]).encode()
    with _TURN, Path(os.devnull).open("rb") as nothing:
        ours, theirs = socket.socketpair()
        with theirs:
            files = [(stdin or nothing).fileno(), *(one.fileno() for one in output)]
            socket.send_fds(_forker(), [told], [*files, theirs.fileno()])
        return Forked(["exchange", *arguments], int(_forker().recv(16)), ours)


def run(
    arguments: Sequence[str], environment: Mapping[str, str], *, given: str = "", timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `exchange` to its end. Raises TimeoutExpired."""
    with TemporaryFile() as asked, TemporaryFile() as said, TemporaryFile() as wrong:
        asked.write(given.encode())
        asked.seek(0)
        process = started(arguments, environment, stdin=asked, output=(said, wrong))
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        told = []
        for one in (said, wrong):
            one.seek(0)
            told.append(one.read().decode())
        return subprocess.CompletedProcess(["exchange", *arguments], status, *told)


@contextmanager
def forking() -> Iterator[None]:
    """Within it processes are forked."""
    global _forking
    before, _forking = _forking, True
    try:
        yield
    finally:
        _forking = before


_forking = False
_TURN = Lock()


@cache
def _forker() -> socket.socket:
    """Where this process asks its own for a fork."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            ends_with_us(sys.executable, __file__, str(theirs.fileno())),
            env=os.environ | {"EXCHANGE_LANGUAGE": "en", "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            process_group=0,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# -- The process that forks -----------------------------------------------------------------------


def _serve(asked: socket.socket) -> None:
    """Fork for who asks, and tell of ends; returns in each fork, and never else."""
    selector = selectors.DefaultSelector()
    selector.register(asked, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                if _forks(asked, selector):
                    return
                continue
            pid, ended = key.data
            _, status = os.waitpid(pid, 0)
            with suppress(OSError):  # nobody waits for it any more
                ended.send(str(os.waitstatus_to_exitcode(status)).encode())
            ended.close()
            selector.unregister(key.fd)
            os.close(key.fd)


def _forks(asked: socket.socket, selector: selectors.BaseSelector) -> bool:
    """Whether this is a fork, ready to be the exchange."""
    told, files, _, _ = socket.recv_fds(asked, LONGEST, 4)
    if not told:
        os._exit(0)  # whoever asks has ended
    forker = os.getpid()
    pid = os.fork()
    if pid:
        asked.send(str(pid).encode())
        *standard, ended = files
        for one in standard:
            os.close(one)
        watched = os.pidfd_open(pid)
        selector.register(watched, selectors.EVENT_READ, (pid, socket.socket(fileno=ended)))
        return False
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != forker:
        os._exit(1)
    os.setpgid(0, 0)
    for number, one in enumerate(files[:3]):
        os.dup2(one, number)
    os.closerange(3, max(int(one.name) for one in Path("/dev/fd").iterdir()) + 1)
    arguments, environment, directory = json.loads(told)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    time.tzset()
    sys.argv = ["exchange", *arguments]
    return True


def _import() -> None:
    """All that a role or a command imports, but what looks at variables as it is imported."""
    from exchange_server import roles
    from exchange_storage import names

    for module in ("exchange_server.cli", "alembic.command", *roles._IMPORTED):
        if module != "prometheus_client":
            import_module(module)
    names.prepare()


if __name__ == "__main__":
    from exchange_server.starting import imported_for_good

    with imported_for_good():
        _import()
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        _serve(asking)
        asking.detach()
    from exchange_server.__main__ import main

    main()

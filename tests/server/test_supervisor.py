"""Processes: started together, started again when they crash, stopped together, none left over."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import pytest
import ready
import urllib3
from real_parts import PATIENCE, ends_with_us, free_port, free_ports

from exchange_server.forking import forks
from exchange_server.roles import notify
from exchange_server.supervisor import Supervisor

EXCHANGE = (sys.executable, "-m", "exchange_server")
READY = """
    import os, signal, socket, sys, time
    from pathlib import Path
    def ready():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(f"READY=1\\nMAINPID={os.getpid()}".encode(), os.environ["NOTIFY_SOCKET"])
"""


def supervisor(script: str, tmp_path: Path, **how: Any) -> Supervisor:
    """One for processes of a Python script, told to stop when all are ready; or as `how` says."""
    source = textwrap.dedent(READY) + textwrap.dedent(script)
    usual: dict[str, Any] = {
        "roles": {"child": 1},
        "start": lambda _, variables: subprocess.Popen(
            [sys.executable, "-c", source, str(tmp_path)], env=os.environ | variables
        ),
        "stop_seconds": 30,
        "on_ready": lambda: os.kill(os.getpid(), signal.SIGTERM),
    }
    return Supervisor(**usual | how)


def test_when_all_are_ready_it_is_said_and_all_stop_when_told(tmp_path: Path) -> None:
    script = """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        ready()
        signal.sigwait({signal.SIGTERM})
        Path(sys.argv[1], str(os.getpid())).touch()
    """
    assert supervisor(script, tmp_path, roles={"child": 3}).run() == 0
    assert len(list(tmp_path.iterdir())) == 3


def test_one_that_cannot_start_ends_the_start(tmp_path: Path) -> None:
    assert supervisor("sys.exit(3)", tmp_path).run() == 1


def test_one_that_does_not_stop_is_killed_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange_server.supervisor.AFTER_DEADLINE", 0.0)
    script = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ready()
        while True: signal.pause()
    """
    assert supervisor(script, tmp_path, stop_seconds=0.2).run() == 1


def test_one_that_crashes_is_started_again(tmp_path: Path) -> None:
    script = """
        lives = Path(sys.argv[1], "lives")
        lives.write_text(lives.read_text() + "x" if lives.exists() else "x")
        ready()
        time.sleep(0.5)  # the first life must be seen ready, or it was a failure to start
        if len(lives.read_text()) < 3: os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()
    """
    announced: list[str] = []
    one = supervisor(script, tmp_path, on_ready=lambda: announced.append("ready"))
    assert one.run() == 0
    assert (tmp_path / "lives").read_text() == "xxx"
    assert announced == ["ready"]


def test_what_one_that_was_killed_has_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, alive, other = (tmp_path / f"exchange-{name}" for name in ("killed", "alive", "other"))
    for one in (left, alive, other):
        one.mkdir()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        gone.bind(str(left / "notify"))
        gone.close()
        listening.bind(str(alive / "notify"))
        assert supervisor("ready(); signal.pause()", tmp_path).run() == 0
    assert sorted(tmp_path.iterdir()) == [alive, other]


# -- The whole exchange ---------------------------------------------------------------------------


@dataclass(slots=True)
class Served:
    """A running `exchange serve`."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    password: str
    ready_file: Path

    @property
    def url(self) -> str:
        return str(json.loads(self.ready_file.read_text())["http"][0])

    def children(self) -> dict[str, int]:
        """Process numbers by role."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = {}
        for pid in task.read_text().split():
            with suppress(OSError):  # gone meanwhile
                found[Path(f"/proc/{pid}/comm").read_text().split()[-1]] = int(pid)
        return found

    def request(self, method: str, path: str, **fields: str) -> urllib3.BaseHTTPResponse:
        with urllib3.PoolManager(retries=False, timeout=PATIENCE) as http:
            if not fields:
                return http.request(method, self.url + path)
            return http.request_encode_body(
                method, self.url + path, fields=fields, encode_multipart=False
            )


def wait_until(what: str, holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def environment_of(place: Path, **settings: str) -> dict[str, str]:
    """The variables of an exchange that keeps all below `place`, where an index is ready."""
    http, dimse = free_ports(2)
    ready.sqlite(place / "data" / "index.sqlite")
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "EXCHANGE_DATA": str(place / "data"),
        "EXCHANGE_HTTP_ADDRESSES": "127.0.0.1",
        "EXCHANGE_DIMSE_ADDRESSES": "127.0.0.1",
        "EXCHANGE_HTTP_PORT": str(http),
        "EXCHANGE_DIMSE_PORT": str(dimse),
        "EXCHANGE_STOP_SECONDS": "20",
        "EXCHANGE_LANGUAGE": "en",
        **settings,
    }


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    environment = environment_of(tmp_path)
    made = forked.run(["init"], environment, timeout=PATIENCE)
    ready_file = tmp_path / "ready.json"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ends_with_us(*EXCHANGE, "serve", "--ready-file", str(ready_file)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    one = Served(process, environment, made.stdout.split("\t")[1].strip(), ready_file)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # what a script waits for
        assert line.startswith("READY\thttp://127.0.0.1:"), (tmp_path / "log").read_text()
        yield one
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_an_exchange_is_set_up_served_crashes_goes_on_and_stops(served: Served) -> None:
    assert served.request("GET", "/ready").json()["status"] == "ready"
    form = {"grant_type": "client_credentials", "client_id": "admin"}
    answer = served.request("POST", "/oauth/token", client_secret=served.password, **form)
    assert answer.json()["token_type"] == "Bearer"

    before = served.children()
    assert set(before) == {"desk", "node", "web", "worker"}
    os.kill(before["worker"], signal.SIGKILL)
    wait_until(
        "another worker is ready",
        lambda: (
            served.children().get("worker", before["worker"]) != before["worker"]
            and b'role_ready_total{role="worker"} 2.0' in served.request("GET", "/metrics").data
        ),
    )
    told = served.request("GET", "/metrics").data.decode()
    assert 'exchange_role_crashed_total{role="worker"} 1.0' in told
    assert "exchange_tokens_issued_total 1.0" in told

    second = subprocess.run(
        [*EXCHANGE, "serve"], env=served.environment, capture_output=True, text=True, check=False
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert "another `exchange serve`" in second.stderr

    children = list(served.children().values())
    served.process.terminate()
    assert served.process.wait(PATIENCE) == 0
    assert not served.ready_file.exists()
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_when_the_supervisor_is_killed_its_processes_end_too(served: Served) -> None:
    ends = [os.pidfd_open(pid) for pid in served.children().values()]
    assert len(ends) == 4
    try:
        served.process.kill()
        for end in ends:
            assert select.select([end], [], [], PATIENCE)[0]
    finally:
        for end in ends:
            os.close(end)


@pytest.mark.parametrize("left", [True, False])
def test_who_is_ready_when_its_supervisor_was_killed_says_so_to_nobody_and_does_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, left: bool
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    if left:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
            gone.bind(str(tmp_path / "notify"))
    notify("READY=1")


def listens_for_its_end(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM (proc(5))."""
    with suppress(OSError):
        told = re.search(
            r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
        )
        return told is not None and bool(int(told[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_one_that_is_told_to_stop_while_it_starts_stops(tmp_path: Path) -> None:
    environment = environment_of(tmp_path)
    assert forked.run(["init"], environment, timeout=PATIENCE).returncode == 0
    process = subprocess.Popen(ends_with_us(*EXCHANGE, "web"), env=environment)
    try:
        wait_until("it listens for signals", lambda: listens_for_its_end(process.pid))
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("role", ["desk", "node", "worker"])
def test_a_role_that_runs_alone_shows_its_metrics_to_the_networks_that_are_set(
    tmp_path: Path, role: str
) -> None:
    port = free_port()
    environment = environment_of(
        tmp_path,
        EXCHANGE_METRICS_PORT=str(port),
        EXCHANGE_METRICS_FROM="127.0.0.1",
        NOTIFY_SOCKET=str(tmp_path / "notify"),
    )
    assert forked.run(["init"], environment, timeout=PATIENCE).returncode == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(PATIENCE)
        process = subprocess.Popen(ends_with_us(*EXCHANGE, role), env=environment)
        try:
            assert b"READY=1" in told.recv(4096)
            door = f"http://127.0.0.1:{port}"
            shown = urllib3.request("GET", f"{door}/metrics").data.decode()
            assert f'exchange_role_ready_total{{role="{role}"}} 1.0' in shown
            assert 'exchange_part_ready{part="index"} 1.0' in shown
            assert urllib3.request("GET", f"{door}/ready").status == 404
            with (
                urllib3.HTTPConnectionPool(
                    "127.0.0.1", port, source_address=("127.0.0.2", 0), retries=False
                ) as stranger,
                pytest.raises(urllib3.exceptions.ProtocolError),
            ):
                stranger.request("GET", "/metrics")
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0


def fork(be: Callable[[str], None]) -> int:
    """The exit status of a fork."""
    return forks(be)("web", {"EXCHANGE_TOLD": "beside"}).wait()


def test_a_fork_ends_as_what_it_was_to_be_ends() -> None:
    def refuse(_: str) -> None:
        raise SystemExit(3)

    assert fork(lambda _: None) == 0
    assert fork(refuse) == 3
    assert fork(lambda _: os.kill(os.getpid(), signal.SIGKILL)) == -signal.SIGKILL


def test_a_fork_that_fails_says_why_and_does_not_come_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(_: str) -> None:
        raise ZeroDivisionError

    assert fork(fail) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_fork_has_no_file_signal_or_terminal_of_who_started_it(tmp_path: Path) -> None:
    held = (tmp_path / "held").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    found = tmp_path / "found"

    def look(role: str) -> None:
        handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
        usual = handlers == [signal.SIG_DFL, signal.default_int_handler]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        own_group = os.getpgid(0) == os.getpid()
        own = os.fstat(held.fileno()).st_rdev == Path(os.devnull).stat().st_rdev
        told = [role, os.environ["EXCHANGE_TOLD"], own, usual, own_group, signal.SIGTERM in blocked]
        found.write_text(repr(told))

    try:
        assert fork(look) == 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        held.close()
    assert found.read_text() == "['web', 'beside', True, True, True, False]"
    assert "EXCHANGE_TOLD" not in os.environ


def test_what_forks_has_one_thread_and_imported_what_its_forks_need(served: Served) -> None:
    """Other threads would not be there in a fork, and whatever they held would stay held."""
    assert len(list(Path(f"/proc/{served.process.pid}/task").iterdir())) == 1
    own = [
        sum(int(line.split()[1]) for line in told.splitlines() if line.startswith("Private_Dirty"))
        for told in (
            Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in served.children().values()
        )
    ]
    assert max(own) < 120 << 10  # each alone takes 150 MB and more

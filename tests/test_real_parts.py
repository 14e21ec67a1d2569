"""Runs of the tests leave nothing behind, do not get into each other's way, and lose no answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from associating import PATIENCE, VERIFICATION, Archive, accepting
from pausing import Checkpoint
from pynetdicom import AE
from pynetdicom.dimse import DIMSEServiceProvider
from real_parts import LOOPBACK, free_ports

SUPPORT = Path(__file__).parent / "support"

STARTS = """
import sys
from real_parts import postgresql
with postgresql() as server:
    print(server.port, server.directory, flush=True)
    sys.stdin.read()
"""

CLAIMS = """
import sys
from real_parts import free_ports
print(*free_ports(100), flush=True)
sys.stdin.read()
"""


def started(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SUPPORT)!r}){script}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_a_run_has_started_ends_with_it_also_when_it_is_killed(tmp_path: Path) -> None:
    with started(STARTS) as run:
        assert run.stdout is not None
        port, directory = run.stdout.readline().split()
        where = {"host": LOOPBACK, "port": int(port), "user": "postgres"}
        with psycopg.connect(**where, connect_timeout=20) as open_until_then:  # type: ignore[arg-type]
            run.kill()
            run.wait()
            with pytest.raises(psycopg.OperationalError):
                open_until_then.execute("SELECT pg_sleep(60)")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**where)  # type: ignore[arg-type]
    subprocess.run(["rm", "-r", directory], check=True)


def test_a_run_of_several_processes_that_is_killed_leaves_none_behind(tmp_path: Path) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    (tmp_path / "test_long.py").write_text(
        f"import time\n\ndef test_long():\n    held = open({str(held)!r}, 'w'); time.sleep(3600)\n"
    )
    (tmp_path / "conftest.py").write_text("from conftest_of_all import pytest_configure\n")
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path / "conftest_of_all.py")
    paths = [tmp_path, SUPPORT, Path(__file__).parents[1] / "sample_data"]
    with (
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-n",
                "1",
                "-p",
                "no:cacheprovider",
                str(tmp_path),
            ],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
            stdout=subprocess.DEVNULL,
            cwd=tmp_path,
        ) as run,
        held.open() as end,
    ):  # the test has begun
        run.kill()
        assert end.read() == ""  # and its process is gone: nobody has the other end any more


def test_no_two_runs_mean_to_listen_on_one_port() -> None:
    own = set(free_ports(100))
    with started(CLAIMS) as run:
        assert run.stdout is not None
        assert run.stdin is not None
        others = set(map(int, run.stdout.readline().split()))
        own |= set(free_ports(100))
        run.stdin.close()
    assert len(own) == 200
    assert len(others) == 100
    assert not own & others


def test_who_sends_with_pynetdicom_gets_the_answer_though_both_its_threads_are_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One was let through before the other sends, and looks when that has not yet: for an answer
    that has come meanwhile."""
    waits, on_the_way = Checkpoint.wait, threading.Event()
    sends = DIMSEServiceProvider.send_msg

    def let_through(checkpoint: Checkpoint) -> None:
        waits(checkpoint)
        on_the_way.set()
        time.sleep(0.1)

    def send(*message: Any) -> None:
        sends(*message)
        time.sleep(0.3)

    monkeypatch.setattr(Checkpoint, "wait", let_through)
    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", send)
    entity = AE("HOSPITAL_A")
    entity.dimse_timeout = 5
    entity.add_requested_context(VERIFICATION)
    with accepting(Archive()) as acceptor:
        association = entity.associate(*acceptor.addresses[0][:2])
        assert on_the_way.wait(PATIENCE)
        assert "Status" in association.send_c_echo()
        association.release()

"""An exchange as its users meet it: processes of its own, real sockets, the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forked
import httpx2
import pytest
import ready
from dicomweb_client import DICOMwebClient
from real_parts import Process, free_ports

from exchange.access import Exchange
from exchange_server import composition, settings

START_SECONDS = 180
STOP_SECONDS = 180

PASSWORD = "a password of many words"
"""Of every user in the tests."""

DICOM_JSON = "application/dicom+json"
DICOM_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@dataclass(slots=True)
class RunningExchange:
    """An exchange in a directory of its own; `settings` are EXCHANGE_… variables."""

    home: Path
    settings: Mapping[str, str]
    http_port: int = field(init=False)
    dimse_port: int = field(init=False)
    process: Process | None = field(default=None, init=False)
    _tokens: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.http_port, self.dimse_port = free_ports(2)

    @property
    def environment(self) -> dict[str, str]:
        """What its commands are started with."""
        inherited = dict(os.environ)
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # or every start compiles everything anew
        return {
            **inherited,
            "EXCHANGE_DATA": str(self.home / "exchange"),
            "EXCHANGE_HTTP_ADDRESSES": "127.0.0.1",
            "EXCHANGE_HTTP_PORT": str(self.http_port),
            "EXCHANGE_DIMSE_ADDRESSES": "127.0.0.1",
            "EXCHANGE_DIMSE_PORT": str(self.dimse_port),
            "EXCHANGE_LANGUAGE": "en",
            "EXCHANGE_WEB_PROCESSES": "1",  # several where that is what a test is about
            "EXCHANGE_WEB_REHEARSAL": "false",  # a second for each of hundreds
            "EXCHANGE_LOG_LEVEL": "warning",
            "EXCHANGE_LOG_FORMAT": "json",
            **self.settings,
        }

    @property
    def url(self) -> str:
        """Its HTTP origin."""
        return f"http://127.0.0.1:{self.http_port}"

    def run(
        self, *arguments: str, given: str = "", status: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run `exchange` with `arguments`; with `status` it must end with that exit status."""
        done = forked.run(arguments, self.environment, given=given, timeout=300)
        if status is not None:
            assert done.returncode == status, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def start(self) -> None:
        """Start `exchange serve`, and return when it is ready."""
        ready = self.home / "ready.json"
        ready.unlink(missing_ok=True)
        with (self.home / "exchange.log").open("ab") as log:
            command = ["serve", "--ready-file", str(ready)]
            self.process = forked.started(command, self.environment, output=(log, log))
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the exchange did not start:\n{self.log()}")
            time.sleep(0.02)

    def stop(self) -> int:
        """Stop it as an operator does; returns its exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self.process = None

    def kill(self) -> None:
        """kill -9 of all its processes at once."""
        if self.process is None:
            return
        pids = _tree(self.process.pid)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        self.process = None
        for pid in pids[1:]:
            _wait_until_gone(pid)

    def processes(self) -> list[int]:
        """The supervisor, and the roles that it started."""
        return [] if self.process is None else _tree(self.process.pid)

    def log(self) -> str:
        """What it has logged."""
        return (self.home / "exchange.log").read_text(errors="replace")

    @contextmanager
    def opened(self) -> Iterator[Exchange]:
        """The exchange, opened in this process with the same settings: what a command does."""
        data = self.home / "exchange"
        if not data.exists() and "EXCHANGE_DATABASE_URL" not in self.settings:
            data.mkdir(mode=0o700)
            ready.sqlite(data / "index.sqlite")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            exchange = composition.initialise(settings.load())
        try:
            yield exchange
        finally:
            exchange.close()

    def token(self, name: str) -> str:
        """An access token of the user, signed in by HTTP."""
        if name not in self._tokens:
            answer = httpx2.post(
                f"{self.url}/oauth/token",
                data={"grant_type": "client_credentials"},
                auth=(name, PASSWORD),
                timeout=180,
            )
            assert answer.status_code == 200, answer.text
            self._tokens[name] = answer.json()["access_token"]
        return self._tokens[name]

    def web(self, name: str) -> httpx2.Client:
        """An HTTP client that has signed in as the user; to be closed."""
        return httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token(name)}"}, timeout=180
        )

    def dicomweb(self, name: str) -> DICOMwebClient:
        """dicomweb-client, signed in as the user."""
        return DICOMwebClient(
            url=f"{self.url}/dicom-web", headers={"Authorization": f"Bearer {self.token(name)}"}
        )

    def storescu(self, calling: str, *paths: Path) -> subprocess.CompletedProcess[str]:
        """Send files with DCMTK, as they are (+C would convert)."""
        return _dcmtk(
            ["storescu", "-v", "-R", "-xs", "+sd", "+r", "-aet", calling, "-aec", "EXCHANGE"],
            [*self._peer, *map(str, paths)],
        )

    def dcmsend(self, calling: str, *paths: Path) -> subprocess.CompletedProcess[str]:
        """Send folders with DCMTK, each file in the transfer syntax that it has."""
        return _dcmtk(
            ["dcmsend", "-v", "-dn", "+sd", "+r", "-aet", calling, "-aec", "EXCHANGE"],
            [*self._peer, *map(str, paths)],
        )

    def findscu(self, calling: str, level: str, *keys: str) -> list[dict[str, str]]:
        """Ask with DCMTK; the answers as attribute names (dcmdump's) and values."""
        wanted = [word for key in (f"QueryRetrieveLevel={level}", *keys) for word in ("-k", key)]
        done = _dcmtk(
            ["findscu", "-v", "-S", "+sr", "-aet", calling, "-aec", "EXCHANGE", *wanted],
            [*self._peer],
        )
        assert done.returncode == 0, done.stderr
        return _answers(done.stdout + done.stderr)

    def retrieved(
        self, tool: str, calling: str, folder: Path, *more: str, level: str = "PATIENT"
    ) -> subprocess.CompletedProcess[str]:
        """Fetch what the key after the options `more` names, with DCMTK's movescu or getscu."""
        folder.mkdir(exist_ok=True)
        model = "-P" if level == "PATIENT" else "-S"
        *options, key = more
        return _dcmtk(
            [tool, "-v", model, "-aet", calling, "-aec", "EXCHANGE", "-od", str(folder), *options,
             "-k", f"QueryRetrieveLevel={level}", "-k", key],
            [*self._peer],
        )  # fmt: skip

    @property
    def _peer(self) -> tuple[str, str]:
        return "127.0.0.1", str(self.dimse_port)


def fhir(client: httpx2.Client, path: str, **query: str) -> list[dict[str, Any]]:
    """The resources of a FHIR search, all pages."""
    found: list[dict[str, Any]] = []
    answer = client.get(f"/fhir/{path}", params=query)
    while True:
        assert answer.status_code == 200, answer.text
        bundle = answer.json()
        found += [entry["resource"] for entry in bundle.get("entry", ())]
        following = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
        if not following:
            return found
        answer = client.get(following[0])


def parts(body: bytes, content_type: str) -> list[bytes]:
    """The bodies of the parts of a multipart/related answer."""
    boundary = content_type.split("boundary=")[1].split(";")[0].strip('"').encode()
    sections = body.split(b"--" + boundary)[1:-1]
    return [section.split(b"\r\n\r\n", 1)[1][:-2] for section in sections]


def _dcmtk(command: Sequence[str], rest: Sequence[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*command, *rest],
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        timeout=300,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args,
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )


def _answers(output: str) -> list[dict[str, str]]:
    """Read what findscu -v prints: a block for each response, a line for each attribute."""
    answers: list[dict[str, str]] = []
    for line in output.splitlines():
        text = line.removeprefix("I: ").strip()
        if text.startswith("Find Response:"):
            answers.append({})
        elif text.startswith("(") and answers and " #" in text:
            head, _, name = text.rpartition(" ")
            value = head.split("[", 1)[1].rsplit("]", 1)[0].strip() if "[" in head else ""
            value = value.rstrip("\0")
            answers[-1][name] = value
    return [answer for answer in answers if answer]


def _tree(root: int) -> list[int]:
    """A process and all below it, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, ())
    return found


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            ended = ") Z " in Path(f"/proc/{pid}/stat").read_text()
            # Its sockets are open until the last of its threads has gone too.
            if ended and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1:
                return
        except OSError:
            return
        time.sleep(0.005)

"""The real parts that tests run against, on loopback: an S3 server and PostgreSQL."""

from __future__ import annotations

import base64
import ctypes
import fcntl
import itertools
import json
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Protocol, Self

import psycopg
import urllib3

LOOPBACK = "127.0.0.1"
PATIENCE = 180.0
"""Seconds within which a part must be up. Not a measurement: only the end of waiting."""


def free_port() -> int:
    """A TCP port on loopback that is nobody else's as long as this process lives."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """`count` different such ports.

    Below those that the kernel gives to whoever calls out, and claimed by a locked file: of several
    test runs at a time none takes what another means to listen on.
    """
    _CLAIMS.mkdir(exist_ok=True)
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, _lowest_of_the_kernel())
        with suppress(OSError), ExitStack() as claiming:
            claim = claiming.enter_context((_CLAIMS / str(port)).open("w"))
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind((LOOPBACK, port))
            claiming.pop_all()
            _claimed.append(claim)
            found.append(port)
    return found


_CLAIMS = Path(tempfile.gettempdir()) / "exchange-test-ports"
_claimed: list[IO[str]] = []
"""Open, and so locked, until this process ends."""


@cache
def _lowest_of_the_kernel() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def ends_with_us(*command: str) -> list[str]:
    """The command as a process that is killed when this one ends, however that comes about.

    To be started from a thread that stays: it is the end of that which counts (prctl(2)).
    """
    return ["setpriv", "--pdeathsig", "KILL", "--", *command]


def end_with_parent() -> None:
    """Be killed when the process ends that has started this one (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


class Process(Protocol):
    """One that was started, as `subprocess.Popen` tells of it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Part:
    """A server process of ours: started, stopped, killed and started again where it was."""

    stop_within = 5.0
    """Seconds between the polite signal and SIGKILL."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: Process | None = None
        self._log = directory / "log"

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def answers(self) -> bool:
        """Whether the part can be used now."""
        raise NotImplementedError

    def launch(self, log: IO[bytes]) -> Process:
        """Start its process, which writes to `log` and ends when we end."""
        return subprocess.Popen(
            ends_with_us(*self.command()),
            stdout=log,
            stderr=log,
            env=self.environment(),
            cwd=self.directory,
        )

    def start(self) -> Self:
        """Start, and return when it answers. Raises RuntimeError with the end of its log."""
        with self._log.open("ab") as log:
            self.process = self.launch(log)
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(
                    f"did not start: {self._log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Ask it to stop; kill it where it takes too long. Harmless when it is down."""
        if self.process is not None:
            self.ask_to_stop(self.process)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(self.stop_within)
            self.kill()

    def ask_to_stop(self, process: Process) -> None:
        process.terminate()

    def kill(self) -> None:
        """What a power cut does to it (SIGKILL), and wait for its end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where an S3 server listens (``host:port``, no TLS) and who may do everything there."""

    endpoint: str
    access_key: str
    secret_key: str


class SeaweedFS(Part):
    """SeaweedFS with its S3 door: master, volume, filer and S3 in one process."""

    stop_within = 3.0  # it takes up to 18 s by itself, and survives a kill

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._ports = free_ports(8)
        self.address = S3Address(f"{LOOPBACK}:{self._ports[6]}", "exchange", secrets.token_hex(16))
        self._sse_key = base64.b64encode(secrets.token_bytes(32)).decode()

    def command(self) -> Sequence[str]:
        address = self.address
        credentials = {"accessKey": address.access_key, "secretKey": address.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "exchange", "credentials": [credentials], "actions": actions}
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self.directory / "data").mkdir(exist_ok=True)
        names = ("master", "volume", "filer", "s3")
        doors = [f"-{name}.port{kind}" for name in names for kind in ("", ".grpc")]
        return [
            str(Path(sys.executable).with_name("weed")),
            "server",
            f"-dir={self.directory / 'data'}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            *(f"{door}={port}" for door, port in zip(doors, self._ports, strict=True)),
            "-filer",
            "-s3",
            f"-s3.config={self.directory / 's3.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.allowDeleteBucketNotEmpty=false",
            "-master.volumeSizeLimitMB=256",
            "-master.volumePreallocate=false",
            "-master.electionTimeout=1s",
            "-master.telemetry=false",
            "-volume.max=50",
            "-volume.preStopSeconds=1",
        ]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.directory), "WEED_S3_SSE_KEY": self._sse_key}

    def answers(self) -> bool:
        """Whether an object can be written: the S3 door opens before a volume can be assigned."""
        assign = f"http://{LOOPBACK}:{self._ports[0]}/dir/assign"
        door = f"http://{self.address.endpoint}/"
        with urllib3.PoolManager(retries=False, timeout=2) as http:
            try:
                return "fid" in http.request("GET", assign).json() and bool(
                    http.request("GET", door)
                )
            except (urllib3.exceptions.HTTPError, ValueError):
                return False


class PostgreSQL(Part):
    """Debian's PostgreSQL with a data directory of its own, trusting everybody on loopback."""

    def __init__(self, directory: Path, **settings: str) -> None:
        """Initialise a cluster below `directory`, which user postgres must be able to reach."""
        super().__init__(directory)
        self._settings = settings
        newest = max(Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name))
        self._bin = newest / "bin"
        self.port = free_port()
        self._data = directory / "data"
        self._sockets = directory / "sockets"
        self._names = itertools.count(1)
        for path in (self._data, self._sockets):
            path.mkdir(mode=0o700)
            if os.geteuid() == 0:
                owner = pwd.getpwnam("postgres")
                os.chown(path, owner.pw_uid, owner.pw_gid)
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]
        initdb = [*self._as_postgres(), str(self._bin / "initdb"), "-D", str(self._data), *options]
        subprocess.run(initdb, check=True, capture_output=True, cwd=directory)

    def command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self._sockets),
            # What is killed here is a process, not the machine: the page cache outlives it.
            "fsync": "off",
            "full_page_writes": "off",
            **self._settings,
        }
        given = itertools.chain.from_iterable(("-c", f"{k}={v}") for k, v in settings.items())
        return [*self._as_postgres(), str(self._bin / "postgres"), "-D", str(self._data), *given]

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of `database`."""
        return f"postgresql+psycopg://postgres@{LOOPBACK}:{self.port}/{database}"

    def create_database(self, template: str = "template1") -> str:
        """The SQLAlchemy URL of a new database: empty, or as the template is."""
        name = f"exchange_{next(self._names)}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def create_schema(self) -> str:
        """The SQLAlchemy URL of a new, empty schema: to its user a database, and far cheaper."""
        name = f"exchange_{next(self._names)}"
        with self._connect() as connection:
            connection.execute(f"CREATE ROLE {name} SUPERUSER LOGIN")
            connection.execute(f"CREATE SCHEMA {name}")  # a role works in the schema of its name
        return self.url().replace("postgres@", f"{name}@")

    def answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def ask_to_stop(self, process: Process) -> None:
        os.kill(process.pid, signal.SIGINT)  # "fast": it does not wait for its clients to leave

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=LOOPBACK, port=self.port, user="postgres", autocommit=True, connect_timeout=2
        )

    @staticmethod
    def _as_postgres() -> list[str]:
        """The server refuses to run as root; setpriv execs, so its pid is the server's own."""
        if os.geteuid() != 0:
            return []
        # Who changes its user is no longer bound to us, and is so anew.
        user = ["--reuid=postgres", "--regid=postgres", "--init-groups"]
        return ["setpriv", *user, "--pdeathsig", "KILL", "--"]


@contextmanager
def seaweedfs(directory: Path) -> Iterator[S3Address]:
    """A running SeaweedFS with its data below `directory`."""
    server = SeaweedFS(directory)
    try:
        yield server.start().address
    finally:
        server.stop()


def memory() -> Path | None:
    """Where files are in memory, swept of what killed runs have left; None where room is short."""
    place = Path("/dev/shm")
    try:
        for left in place.glob(f"{_CLAIMED}*"):
            with suppress(OSError), (left / "claim").open("w") as claim:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - left.stat().st_mtime > 60:  # it is not just being made
                    shutil.rmtree(left, ignore_errors=True)
        return place if shutil.disk_usage(place).free > 4 << 30 else None
    except OSError:
        return None


_CLAIMED = "exchange-tests-"


@contextmanager
def claimed(place: Path | None = None) -> Iterator[Path]:
    """A new directory below `place`, removed afterwards; by `memory`, where this run is killed."""
    directory = Path(tempfile.mkdtemp(prefix=_CLAIMED, dir=place))
    try:
        with (directory / "claim").open("w") as claim:
            fcntl.flock(claim, fcntl.LOCK_EX)
            yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def postgresql(place: Path | None = None, **settings: str) -> Iterator[PostgreSQL]:
    """A running PostgreSQL in a directory of its own, which is removed afterwards."""
    # Not below pytest's directories, which user postgres may not enter.
    with claimed(place) as directory:
        directory.chmod(0o755)
        server = PostgreSQL(directory, **settings)
        try:
            yield server.start()
        finally:
            server.stop()


class Orthanc(Part):
    """Orthanc with one peer, the exchange; its DICOM port and its REST port on loopback."""

    def __init__(
        self,
        directory: Path,
        *,
        title: str,
        peer: tuple[str, int],
        login: tuple[str, str] | None = None,
        tls: tuple[Path, Path, Path] | None = None,
    ) -> None:
        """`peer` is AE title and port of the exchange; with a `login` it asks who calls by HTTP.

        With `tls`, certificate, key and CA, it speaks DICOM over TLS only.
        """
        super().__init__(directory)
        self._tls = tls
        self.title = title
        self.dicom_port, self.http_port = free_ports(2)
        self._peer = peer
        self._login = login

    @property
    def dicomweb(self) -> str:
        """Where its DICOMweb service is."""
        return f"http://{LOOPBACK}:{self.http_port}/dicom-web"

    def command(self) -> Sequence[str]:
        title, port = self._peer
        configuration = {
            "Name": "test",
            "StorageDirectory": str(self.directory / "storage"),
            "IndexDirectory": str(self.directory / "storage"),
            "DicomAet": self.title,
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": self._login is not None,
            "RegisteredUsers": dict([self._login] if self._login is not None else []),
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DefaultEncoding": "Utf8",
            "DicomModalities": {"exchange": self.modality(title, port)},
            "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        }
        if self._tls is not None:
            certificate, key, ca = self._tls
            configuration |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(certificate),
                "DicomTlsPrivateKey": str(key),
                "DicomTlsTrustedCertificates": str(ca),
            }
        file = self.directory / "orthanc.json"
        file.write_text(json.dumps(configuration))
        return [shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(file)]

    def modality(self, title: str, port: int) -> dict[str, object]:
        """What Orthanc has to know of another node."""
        return {
            "AET": title,
            "Host": LOOPBACK,
            "Port": port,
            "AllowStorageCommitment": True,
            "AllowMove": True,
            "UseDicomTls": self._tls is not None,
        }

    def environment(self) -> dict[str, str]:
        return os.environ | {"TCP_NODELAY": "1"}

    def answers(self) -> bool:
        """Whether it says that it has started: its doors open before its plug-ins know of that."""
        return "Orthanc has started" in self._said().rpartition("Orthanc version")[2]

    def _said(self) -> str:
        return self._log.read_text(errors="replace")

    def rest(self, method: str, path: str, body: object = None) -> Any:
        """What its REST interface answers."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        answer = urllib3.request(
            method,
            f"http://{LOOPBACK}:{self.http_port}{path}",
            body=data,
            headers=urllib3.make_headers(basic_auth=":".join(self._login)) if self._login else {},
            timeout=180.0,
        )
        assert answer.status == 200, f"{answer.data!r}\n{self._said()[-2000:]}"
        return answer.json() if answer.data else None

"""The commands that talk to another DICOM node: echo, send, query, move and get."""

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from exchange.errors import Invalid
from exchange_server import terminal
from exchange_server.words import say
from exchange_storage.search import Level

if TYPE_CHECKING:
    from exchange_dicom.scu import Progress
    from exchange_dicom.transport_security import Contexts

network_commands = typer.Typer()

_Called = Annotated[str, typer.Option(help=say("对方的 AE Title", "AE title of the other node"))]
_Calling = Annotated[str, typer.Option(help=say("本方的 AE Title", "AE title of ours"))]
_NodeAddress = Annotated[
    str, typer.Argument(metavar="HOST:PORT", help=say("对方节点", "The other node"))
]
_CA = Annotated[
    Path | None,
    typer.Option(
        exists=True, help=say("经 TLS：信任的 CA 证书", "Over TLS: the CA that is trusted")
    ),
]
_Certificate = Annotated[
    Path | None, typer.Option(exists=True, help=say("本方证书", "Our certificate"))
]
_Key = Annotated[Path | None, typer.Option(exists=True, help=say("本方私钥", "Its private key"))]
_LevelOption = Annotated[str, typer.Option(help=say("层级", "patient, study, series or image"))]
_KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key", "-k", metavar="KEYWORD[=VALUE]", help=say("匹配或返回键", "Key to match or return")
    ),
]


@network_commands.command(help=say("用 C-ECHO 检查对方节点", "Verify a node by C-ECHO"))
def echo(
    address: _NodeAddress,
    called: _Called = "EXCHANGE",
    calling: _Calling = "SENDER",
    tls_ca: _CA = None,
    tls_certificate: _Certificate = None,
    tls_key: _Key = None,
) -> None:
    from exchange_dicom import scu

    tls = _tls(tls_ca, tls_certificate, tls_key)
    scu.echo(scu.Node.parse(address, called=called, calling=calling, tls=tls))
    terminal.done("对方节点应答正常", "The node answers")


@network_commands.command(help=say("用 C-STORE 发送 DICOM 文件", "Send DICOM files by C-STORE"))
def send(
    address: _NodeAddress,
    paths: Annotated[
        list[Path], typer.Argument(exists=True, help=say("文件或目录", "Files or folders"))
    ],
    called: _Called = "EXCHANGE",
    calling: _Calling = "SENDER",
    tls_ca: _CA = None,
    tls_certificate: _Certificate = None,
    tls_key: _Key = None,
) -> None:
    from exchange_dicom import scu

    tls = _tls(tls_ca, tls_certificate, tls_key)
    target = scu.Node.parse(address, called=called, calling=calling, tls=tls)
    found = list(scu.files(paths))
    wanted = [one for one in found if isinstance(one, scu.File)]
    # In a folder anything may lie; a file that was named should have been one of DICOM.
    done = failed = 0
    for path in found:
        if path in paths:
            failed += 1
            typer.echo(f"{path}\t{say('不是 DICOM 文件', 'is not a DICOM file')}")
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    if not (wanted or failed):
        raise Invalid("there is no DICOM file")
    with terminal.progress(*columns) as progress:
        task = progress.add_task("", total=sum(one.size for one in wanted))
        for sent in scu.send(target, wanted):
            progress.advance(task, sent.file.size)
            if sent.stored:
                done += 1
            else:
                failed += 1
                terminal.line(progress, str(sent.file.path), sent.answer)
    terminal.done(f"已发送 {done} 个，失败 {failed} 个", f"{done} sent, {failed} failed")
    if failed:
        raise typer.Exit(1)


@network_commands.command(help=say("用 C-FIND 查询", "Ask by C-FIND"))
def query(
    address: _NodeAddress,
    level: _LevelOption = "study",
    key: _KeyOption = None,
    called: _Called = "EXCHANGE",
    calling: _Calling = "SENDER",
    tls_ca: _CA = None,
    tls_certificate: _Certificate = None,
    tls_key: _Key = None,
) -> None:
    from exchange_dicom import scu

    tls = _tls(tls_ca, tls_certificate, tls_key)
    target = scu.Node.parse(address, called=called, calling=calling, tls=tls)
    asked, keys = _level(level), _keys(key)
    columns = list(dict.fromkeys((*(keyword for keyword, _ in keys), *scu.RETURN_KEYS[asked])))
    terminal.table(
        columns,
        [
            [str(match.get(column, "")) for column in columns]
            for match in scu.find(target, asked, keys)
        ],
    )


@network_commands.command(
    help=say("用 C-MOVE 让对方把影像发往某节点", "Have a node send images to another, by C-MOVE")
)
def move(
    address: _NodeAddress,
    destination: Annotated[
        str, typer.Option("--to", help=say("目的 AE Title", "AE title of the destination"))
    ],
    level: _LevelOption = "study",
    key: _KeyOption = None,
    called: _Called = "EXCHANGE",
    calling: _Calling = "SENDER",
    tls_ca: _CA = None,
    tls_certificate: _Certificate = None,
    tls_key: _Key = None,
) -> None:
    from exchange_dicom import scu

    tls = _tls(tls_ca, tls_certificate, tls_key)
    target = scu.Node.parse(address, called=called, calling=calling, tls=tls)
    _follow(scu.move(target, _level(level), _keys(key), destination))


@network_commands.command(
    help=say("用 C-GET 取回影像到文件夹", "Fetch images into a folder, by C-GET")
)
def get(
    address: _NodeAddress,
    folder: Annotated[
        Path, typer.Argument(file_okay=False, exists=True, help=say("文件夹", "The folder"))
    ],
    level: _LevelOption = "study",
    key: _KeyOption = None,
    called: _Called = "EXCHANGE",
    calling: _Calling = "SENDER",
    tls_ca: _CA = None,
    tls_certificate: _Certificate = None,
    tls_key: _Key = None,
) -> None:
    from exchange_dicom import scu

    tls = _tls(tls_ca, tls_certificate, tls_key)
    target = scu.Node.parse(address, called=called, calling=calling, tls=tls)
    _follow(scu.get(target, _level(level), _keys(key), folder))


@network_commands.command(
    help=say("请求对方承诺保存（Storage Commitment）", "Ask a node to answer for files it was sent")
)
def commit(
    address: _NodeAddress,
    paths: Annotated[
        list[Path], typer.Argument(exists=True, help=say("文件或目录", "Files or folders"))
    ],
    listen: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help=say("接收报告的本地端口", "Port at which the report comes")
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0.1, help=say("等待秒数", "Seconds to wait for it"))
    ] = 120.0,
    called: _Called = "EXCHANGE",
    calling: _Calling = "SENDER",
    tls_ca: _CA = None,
    tls_certificate: _Certificate = None,
    tls_key: _Key = None,
) -> None:
    from exchange.commitment import FAILURES
    from exchange_dicom import scu, scu_commitment

    tls = _tls(tls_ca, tls_certificate, tls_key)
    target = scu.Node.parse(address, called=called, calling=calling, tls=tls)
    wanted = [
        (one.sop_class, one.instance) for one in scu.files(paths) if isinstance(one, scu.File)
    ]
    if not wanted:
        raise Invalid("there is no DICOM file")
    told = scu_commitment.ask_commitment(
        target,
        wanted,
        listen=listen,
        seconds=wait,
        listening_tls=(
            _listening_tls(tls_ca, tls_certificate, tls_key) if listen is not None else None
        ),
    )
    for (_, instance), reason in told.failed:
        typer.echo(f"{instance}\t{reason:04X} {FAILURES.get(reason, '')}".rstrip())
    done, failed = len(told.committed), len(told.failed)
    terminal.done(f"已承诺 {done} 个，失败 {failed} 个", f"{done} committed, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _follow(progress: "Iterable[Progress]") -> None:
    last = None
    with terminal.progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=None)
        for last in progress:
            counts = last.counts
            done = counts.completed + counts.failed + counts.warning
            bar.update(task, completed=done, total=done + (counts.remaining or 0))
    if last is None:
        return
    for instance in last.failed:
        typer.echo(f"{instance}\t{last.answer}")
    if last.answer and not last.failed:
        typer.echo(last.answer)
    counts = last.counts
    done, failed = counts.completed + counts.warning, counts.failed
    terminal.done(f"已完成 {done} 个，失败 {failed} 个", f"{done} done, {failed} failed")
    if failed or counts.remaining:
        raise typer.Exit(1)


def _level(text: str) -> Level:
    level = Level.__members__.get(text.upper())
    if level is None:
        raise Invalid("the level is patient, study, series or image")
    return level


def _keys(given: list[str] | None) -> list[tuple[str, str]]:
    split = [one.partition("=") for one in given or ()]
    if not all(keyword for keyword, _, _ in split):
        raise Invalid("a key is written KEYWORD or KEYWORD=VALUE")
    return [(keyword, value) for keyword, _, value in split]


def _tls(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if ca is None:
        if certificate is not None or key is not None:
            raise Invalid("--tls-certificate wants --tls-ca: whom to trust")
        return None
    from exchange_dicom import transport_security

    with _read(certificate, key):
        return transport_security.requestor(certificate, key, ca)


def _listening_tls(
    ca: Path | None, certificate: Path | None, key: Path | None
) -> "Contexts | None":
    """For reports that come on an association of their own: over TLS where the request went so."""
    if ca is None:
        return None
    if certificate is None:
        raise Invalid("--listen over TLS wants --tls-certificate and --tls-key")
    from exchange_dicom import transport_security

    with _read(certificate, key):
        return transport_security.acceptor(certificate, key, ca)


@contextmanager
def _read(certificate: Path | None, key: Path | None) -> Iterator[None]:
    """What TLS cannot read of the files of the options, in words. Raises Invalid."""
    try:
        yield
    except ssl.SSLError as error:
        if error.reason == "NO_CERTIFICATE_OR_CRL_FOUND" or certificate is None:
            raise Invalid("--tls-ca is not a file of certificates in PEM") from error
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Invalid(
                "--tls-key is not the key of --tls-certificate: name the one that belongs to it"
            ) from error
        if key is None:
            raise Invalid(
                "--tls-certificate has no private key in it: --tls-key names the file that has"
            ) from error
        raise Invalid(
            "--tls-certificate and --tls-key are a certificate and its key, in PEM"
        ) from error
    except OSError as error:
        raise Invalid(f"the certificates cannot be read: {error.strerror}") from error

"""The viewer at the command line: OHIF's release is prepared to be served."""

from pathlib import Path
from typing import Annotated

import typer

from exchange_server import settings
from exchange_server.viewer import installation
from exchange_server.words import say

viewer_commands = typer.Typer(
    no_args_is_help=True, help=say("影像浏览器（OHIF）", "The viewer (OHIF)")
)


@viewer_commands.callback()
def viewer() -> None:
    """So that there is a name for what is done with it."""


@viewer_commands.command("install", help=say("安装浏览器", "Prepare the viewer to be served"))
def install(
    tarball: Annotated[
        Path,
        typer.Argument(
            help=say("npm pack 取得的软件包", "The package, as `npm pack` fetches it")
            + f": {installation.PACKAGE}@{installation.VERSION}"
        ),
    ],
    to: Annotated[
        Path | None, typer.Option(help=say("安装目录", "Where; else as the settings say"))
    ] = None,
    esbuild: Annotated[
        Path | None,
        typer.Option(
            help=say(
                "npm pack 取得的 esbuild：压缩脚本，打开更快",
                "The package of esbuild, by which scripts are made small, and so open sooner",
            )
            + f": {(installation.minifier() or ('—',))[0]}"
        ),
    ] = None,
) -> None:
    place = to if to is not None else settings.load().viewer_files
    ready = installation.install(tarball, place.absolute(), esbuild=esbuild)
    size = sum(one.size for one in ready.files.values())
    typer.echo(
        say(
            f"已安装 {installation.RELEASE}：{len(ready.files)} 个文件，{size / 1e6:.0f} MB",
            f"installed {installation.RELEASE}: {len(ready.files)} files, {size / 1e6:.0f} MB",
        )
        + f", {place}"
    )

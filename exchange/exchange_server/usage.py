"""What the parser of the command line says, in the reader's language: it speaks English alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer import rich_utils
from typer.core import TyperCommand, TyperGroup

from exchange_server.words import chinese, told

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of all that is wrong with a command line; where it lives differs between versions of Typer."""

HEADINGS = {
    "ARGUMENTS_PANEL_TITLE": "参数",
    "OPTIONS_PANEL_TITLE": "选项",
    "COMMANDS_PANEL_TITLE": "命令",
    "ERRORS_PANEL_TITLE": "错误",
    "DEFAULT_STRING": "[默认：{}]",
    "REQUIRED_LONG_STRING": "[必填]",
    "ABORTED_TEXT": "已中止。",
    "RICH_HELP": "运行 [blue]'{command_path} {help_option}'[/] 查看帮助。",
}


def speak() -> None:
    """Have the headings of help and errors, and what --help says of itself, in the reader's
    language."""
    TyperCommand.get_help_option = _help_of_command  # type: ignore[assignment, method-assign]
    TyperGroup.get_help_option = _help_of_group  # type: ignore[assignment, method-assign]
    if chinese():
        for name, text in HEADINGS.items():
            setattr(rich_utils, name, text)


def _spoken(asked: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def help_option(command: Any, context: Any) -> Any:
        option = asked(command, context)
        if option is not None:
            option.help = told(option.help)
        return option

    return help_option


_help_of_command = _spoken(TyperCommand.get_help_option)
_help_of_group = _spoken(TyperGroup.get_help_option)


class Spoken(TyperGroup):
    """The command line as a whole, what is wrong with it told in the reader's language."""

    def make_context(self, *given: Any, **named: Any) -> Any:
        """Read the options before the command."""
        with _told():
            return super().make_context(*given, **named)

    def invoke(self, ctx: Any) -> Any:
        """Read the command's own, and run it."""
        with _told():
            return super().invoke(ctx)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        english: str = error.format_message()  # type: ignore[attr-defined]
        error.format_message = lambda: told(english)  # type: ignore[attr-defined]
        raise

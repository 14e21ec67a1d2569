"""What people read in the terminal: Chinese, or English where EXCHANGE_LANGUAGE or LANG says so."""

from __future__ import annotations

import os

from exchange_server.chinese import translated


def chinese() -> bool:
    """Whether to speak Chinese; EXCHANGE_LANGUAGE decides, then the locale (POSIX 8.2)."""
    for variable in ("EXCHANGE_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if language := os.environ.get(variable, ""):
            return not language.lower().startswith("en")
    return True


def say(in_chinese: str, in_english: str) -> str:
    """The one of the two that the reader understands."""
    return in_chinese if chinese() else in_english


def told(message: str) -> str:
    """What the exchange answers, in the language of the reader."""
    return translated(message) if chinese() else message

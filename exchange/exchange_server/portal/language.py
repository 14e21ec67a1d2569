"""In which language a page speaks: Chinese, unless the reader has chosen English."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fastapi import Request, Response

from exchange_server.chinese import translated

COOKIE = "exchange_language"

KEPT = 365 * 24 * 3600
"""Seconds for which a browser remembers the choice."""


class Language(StrEnum):
    """A language of the pages, by its tag (RFC 5646)."""

    CHINESE = "zh-CN"
    ENGLISH = "en"


@dataclass(frozen=True, slots=True)
class Words:
    """What a page says, in the language of its reader."""

    language: Language

    def say(self, in_chinese: str, in_english: str) -> str:
        """The one of the two that the reader has chosen."""
        return in_chinese if self.language is Language.CHINESE else in_english

    def told(self, message: str) -> str:
        """What the exchange answers, in the language of the reader."""
        return translated(message) if self.language is Language.CHINESE else message


def spoken(request: Request) -> Words:
    """The words for the reader of this request."""
    chosen = request.cookies.get(COOKIE, "")
    return Words(Language.ENGLISH if chosen == Language.ENGLISH else Language.CHINESE)


def remember(request: Request, response: Response, language: str) -> None:
    """Have the browser keep the choice; what is no language of ours is Chinese."""
    chosen = Language.ENGLISH if language == Language.ENGLISH else Language.CHINESE
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, chosen, max_age=KEPT, path="/", secure=secure, samesite="lax")

"""Coroutines of a test."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio


def in_a_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run it to its end; on another thread, since in this one a browser's loop may be running."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(anyio.run, function, *arguments).result()

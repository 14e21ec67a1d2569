"""Debian's Chromium, driven by Playwright; no page may ask another host than the one it is of."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

CHROMIUM = "/usr/bin/chromium"

OPTIONS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # WebGL without a graphics card.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)

PATIENCE = 180_000
"""Milliseconds that anything on a page may take, on a machine that does much else."""


DRAWN = """() => {
    const canvas = document.querySelector('.cornerstone-canvas');
    if (!canvas || !canvas.width) return false;
    const { data } = canvas.getContext('2d').getImageData(canvas.width / 2, 0, 1, canvas.height);
    const grays = new Set(data.filter((_, at) => at % 4 === 0));
    return grays.size > 8 && performance.now();
}"""
"""Whether the viewer has drawn something that is not one gray alone; since when, in ms."""


@dataclass(slots=True)
class Seen:
    """What a page did that nobody on it sees."""

    outside: list[str] = field(default_factory=list)
    """Requests to other hosts."""
    failed: list[str] = field(default_factory=list)
    """Status and address of answers that were refusals or errors."""
    errors: list[str] = field(default_factory=list)
    """Errors of scripts that nobody caught, and what the Content-Security-Policy has forbidden."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without any history."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visitor(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """Somebody new to the site at `url`, who reads Chinese."""
    made = browser.new_context(
        locale="zh-CN", viewport={"width": 1280, "height": 800}, base_url=url
    )
    made.set_default_timeout(PATIENCE)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def opened(reader: BrowserContext, url: str) -> Iterator[tuple[Page, Seen]]:
    """A page of theirs, and what it does."""
    page, seen = reader.new_page(), Seen()

    def answered(response: Response) -> None:
        if response.status >= 400:
            seen.failed.append(f"{response.status} {response.url.removeprefix(url)}")

    def asked(request: Request) -> None:
        # Others are the page's own (blob), or the browser's, which shows documents by an extension.
        network = request.url.startswith(("http:", "https:", "ws:", "wss:"))
        if network and not request.url.startswith(f"{url}/"):
            seen.outside.append(request.url)

    page.on("request", asked)
    page.on("response", answered)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on(
        "console",
        lambda one: seen.errors.append(one.text) if "Content Security Policy" in one.text else None,
    )
    try:
        yield page, seen
    finally:
        page.close()


def sign_in(page: Page, name: str, password: str) -> None:
    """Fill in the page for that, which is open."""
    page.fill("#name", name)
    page.fill("#password", password)
    page.click("button.main")


def picture(content: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A picture as gray values from 0 to 255."""
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(opened.convert("L"), dtype=np.float64)


def enlarged(content: bytes, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A square picture as gray values, scaled to `size` rows as a viewport does."""
    with Image.open(io.BytesIO(content)) as opened:
        scaled = opened.convert("L").resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(scaled, dtype=np.float64)

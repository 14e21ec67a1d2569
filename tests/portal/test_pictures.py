"""The README's pictures are of pages as they are: its script finds its way to each of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import screenshots
from PIL import Image
from playwright.sync_api import Browser
from portal_city import PortalCity

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", screenshots.PICTURES)
def test_every_picture_can_be_taken_anew_and_stands_in_the_readme(
    browser: Browser,
    city: PortalCity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(screenshots, "FOLDER", tmp_path)

    screenshots.take(browser, city, name)

    with Image.open(tmp_path / f"{name}.png") as taken:
        with Image.open(ROOT / f"deploy/pictures/{name}.png") as kept:
            assert taken.size == kept.size
        assert len(taken.getcolors() or ()) > 8  # and it shows something
    assert f"deploy/pictures/{name}.png" in (ROOT / "README.md").read_text("utf-8")

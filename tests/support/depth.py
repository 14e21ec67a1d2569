"""How much is tried where more finds more: little in every run, much where somebody asks for it.

HYPOTHESIS_PROFILE=deep .venv/bin/pytest tests/journeys/test_durability.py
"""

from __future__ import annotations

import os

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
"""Whether this is a long run."""

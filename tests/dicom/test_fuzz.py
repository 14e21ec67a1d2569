"""Whatever arrives is read or refused: a share of `tests/fuzz`, other inputs each day.

A million inputs are for `python tests/fuzz/fuzz.py`, by hand.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from asked import Doors, asked_targets
from fuzz import feed, watched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import converse
from target import Target
from targets import Wire, targets

INPUTS = 250
"""Of each target."""

IMAGES = 700
"""That are sent or shown, in all transfer syntaxes together."""

FUZZ = str(Path(__file__).parents[1] / "fuzz" / "fuzz.py")

CONVERSATIONS = 240

ASKED = 80
"""Requests of each kind."""

MEMORY = 24 << 20
"""Bytes that no input may take: the largest is 128 KB, a deflated one may say a thousandfold."""

SEED = dt.datetime.now(dt.UTC).toordinal()


@pytest.fixture(scope="module")
def everything() -> Iterator[list[Target]]:
    with Wire() as wire:
        yield targets(wire)


def test_damaged_bytes_are_read_or_refused_in_time_and_in_little_memory(
    everything: list[Target],
) -> None:
    tracemalloc.start()
    try:
        with watched() as arm:
            outcomes = [feed(target, SEED, range(INPUTS), arm) for target in everything]
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert [str(one) for outcome in outcomes for one in outcome.found] == [], f"seed {SEED}"
    for outcome in outcomes:  # or it would not be the readers that are tested
        assert outcome.read, outcome
        assert outcome.refused, outcome


@pytest.mark.parametrize("what", ["sent", "shown"])
def test_damaged_images_are_sent_and_shown_or_not(what: str) -> None:
    """In a process of its own, since decoders are not written in Python."""
    command = [sys.executable, FUZZ, "--only", what, "--inputs", str(IMAGES), "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@given(st.data(), st.binary(max_size=400))
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_noise_is_read_or_refused_by_everything_that_listens(
    everything: list[Target], data: st.DataObject, noise: bytes
) -> None:
    target = data.draw(st.sampled_from(everything))
    try:
        target.read(noise)
    except target.declared:
        return


def test_a_node_is_as_well_as_ever_after_hundreds_of_damaged_conversations(
    tmp_path: Path,
) -> None:
    found = converse(tmp_path, CONVERSATIONS, SEED, lambda _: None)
    assert [str(one) for one in found] == [], f"seed {SEED}"


def test_the_web_doors_fail_at_nothing_that_is_damaged() -> None:
    with Doors() as doors, watched() as arm:
        outcomes = [feed(one, SEED, range(ASKED), arm) for one in asked_targets(doors)]
    assert [str(one) for outcome in outcomes for one in outcome.found] == [], f"seed {SEED}"
    for outcome in outcomes:
        assert outcome.refused, outcome

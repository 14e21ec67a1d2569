"""Body parts: every term has its regions, every region its terms."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from exchange.body_parts import REGIONS, Region, regions

UNCOMMON = {
    "BoneOfLowerLimb", "BoneOfUpperLimb", "MuscleOfLowerLimb", "MuscleOfUpperLimb", "Phantom",
    "SesamoidBonesOfFoot",
}  # fmt: skip
"""Of CID 4031, what no region is named for."""


def told_of(name: str) -> list[tuple[str, ...]]:
    """Meanings of a concept, each first in its tuple."""
    terms: Any = concepts["SCT"][name]
    return [*terms.values()]


def test_every_region_is_that_of_some_term() -> None:
    assert set().union(*REGIONS.values()) == set(Region)


def test_the_common_anatomic_regions_of_the_standard_are_known_by_their_meanings() -> None:
    names = set(cid_concepts[4031]["SCT"]) - UNCOMMON
    meanings = {name: told[0] for name in names for told in told_of(name)}
    assert sorted(name for name, told in meanings.items() if not regions(told)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("LUNG", "CHEST"),
        ("Thorax", "chest"),
        ("肺", "CHEST"),
        ("左膝关节", "KNEE"),
        ("头颅", "BRAIN"),
    ],
)
def test_words_for_one_region_agree(one: str, other: str) -> None:
    assert regions(one) == regions(other) != frozenset()


@pytest.mark.parametrize(("one", "other"), [("颈椎", "颈部"), ("WRIST", "SHOULDER"), ("", "CHEST")])
def test_words_for_different_regions_do_not(one: str, other: str) -> None:
    assert not regions(one) & regions(other)

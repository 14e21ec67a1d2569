"""Anatomic regions by their codes: the terms that Body Part Examined has for them."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from exchange.anatomic_regions import TERMS, body_part
from exchange.body_parts import REGIONS, regions

CHEST = "816094009"


def meanings(code: str) -> set[str]:
    """What the standard calls a concept, in whatever context."""
    sct: Any = concepts["SCT"]
    return {told[code][0] for told in sct.values() if code in told}


def test_every_term_is_a_known_body_part() -> None:
    assert set(TERMS.values()) <= set(REGIONS)


def test_every_code_means_a_part_of_the_region_that_its_term_names() -> None:
    """By the name that the standard gives it, as far as that is understood by itself."""
    for code, term in TERMS.items():
        sct = code if code.isdigit() else mapping["SRT"][code]
        named = meanings(sct)
        understood = {one for one in named if regions(one)}
        assert named, code
        assert not understood or any(REGIONS[term] & regions(one) for one in understood), code


def test_both_identifiers_of_a_concept_have_the_same_term() -> None:
    for code, term in TERMS.items():
        if code in mapping["SCT"]:
            assert TERMS[mapping["SCT"][code]] == term, code
        if not code.isdigit():
            assert TERMS[mapping["SRT"][code]] == term, code


def test_the_common_regions_of_the_standard_lie_somewhere_by_code_or_by_meaning() -> None:
    sct: Any = concepts["SCT"]
    common = {name: sct[name].items() for name in cid_concepts[4031]["SCT"]}
    unknown = {
        name
        for name, told in common.items()
        if not all(regions(body_part(code, "SCT", meaning)) for code, (meaning, *_) in told)
    }
    assert unknown == {
        "BoneOfLowerLimb", "BoneOfUpperLimb", "MuscleOfLowerLimb", "MuscleOfUpperLimb", "Phantom",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "scheme", "meaning", "term"),
    [
        (CHEST, "SCT", "Thorax", "CHEST"),
        ("51185008", "SCT", "Chest", "CHEST"),  # before 2023
        ("T-D3000", "SRT", "Chest", "CHEST"),  # before 2019
        ("T-D3000", "99SDM", "Chest", "CHEST"),
        (CHEST, "99LOCAL", "胸部", "胸部"),  # a hospital's own number, of something else
        ("122972007", "SCT", "Pulmonary vein", "Pulmonary vein"),
        ("", "", "", ""),
    ],
)
def test_a_region_is_called_by_its_term_or_else_as_it_is_called(
    code: str, scheme: str, meaning: str, term: str
) -> None:
    assert body_part(code, scheme, meaning) == term

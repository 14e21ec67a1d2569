"""Of what a hospital stores, people look at some, read some, and see nothing of the rest."""

from __future__ import annotations

import pytest
from pydicom._uid_dict import UID_dictionary

from exchange import sop_classes

STORAGE = "1.2.840.10008.5.1.4.1.1."
PIXELS = ("Standalone", "DICOS", "RT Dose", "Volume Storage", "Segmentation", "Map Storage")
"""In the names of what has pixels, and is not called an image."""


def test_what_the_standard_calls_an_image_is_counted_as_one() -> None:
    for uid, (name, kind, *_) in UID_dictionary.items():
        if uid.startswith(STORAGE) and kind == "SOP Class" and "Image" in name:
            assert sop_classes.is_image(uid), name


def test_what_is_no_image_by_its_name_has_pixels_or_is_not_counted() -> None:
    for uid, (name, kind, *_) in UID_dictionary.items():
        if uid.startswith(STORAGE) and kind == "SOP Class" and name and "Image" not in name:
            counted = sop_classes.is_image(uid)
            assert not counted or any(one in name for one in PIXELS), name


@pytest.mark.parametrize("number", ["88.11", "88.22", "88.33", "88.34", "104.1", "104.2"])
def test_reports_and_documents_are_read(number: str) -> None:
    assert sop_classes.is_report(STORAGE + number)
    assert not sop_classes.is_image(STORAGE + number)


@pytest.mark.parametrize("number", ["88.59", "88.67", "11.1", "9.1.1", "104.3", "66.1", "481.5"])
def test_key_objects_doses_states_and_plans_are_neither(number: str) -> None:
    assert not sop_classes.is_report(STORAGE + number)
    assert not sop_classes.is_image(STORAGE + number)

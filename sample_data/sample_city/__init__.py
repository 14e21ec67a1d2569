"""A fictional city: three hospitals, forty people and their images, made wherever it is needed."""

from .city import City, Hospital, Person, Record, Series, Study
from .generation import SIZES, generate

__all__ = ["SIZES", "City", "Hospital", "Person", "Record", "Series", "Study", "generate"]

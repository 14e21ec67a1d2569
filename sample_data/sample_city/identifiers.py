"""Made-up identifiers that pass every check: GB 11643 cards, GB 32100 codes, PS3.5 B.2 UIDs."""

import re
from datetime import date
from uuid import NAMESPACE_OID, uuid5

RESIDENT_ID_SYSTEM = "2.16.156.10011.1.3"
"""The OID under which health records in China carry the resident ID card number."""

# Liaoning's 21 with a city code, 99, that GB/T 2260 assigns to nobody: checks of the province pass,
# and no real person is met.
AREA_CODES = ("219901", "219902", "219903", "219911", "219981")

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = "10X98765432"
_ORGANISATION_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def resident_id(area: str, birth_date: date, sequence: int) -> str:
    """The 18 characters: an odd `sequence` (0 to 999) is a man's, an even one a woman's."""
    body = f"{area}{birth_date:%Y%m%d}{sequence:03d}"
    return body + resident_id_check(body)


def resident_id_check(body: str) -> str:
    """The ISO 7064 MOD 11-2 character behind 17 digits."""
    return _ID_CHECKS[sum(int(d) * w for d, w in zip(body, _ID_WEIGHTS, strict=True)) % 11]


def resident_id_is_valid(card: str) -> bool:
    """Whether an 18-character number has a real birth date and the right check character."""
    if not re.fullmatch(r"\d{17}[\dX]", card):
        return False
    try:
        date(int(card[6:10]), int(card[10:12]), int(card[12:14]))
    except ValueError:
        return False
    return card[-1] == resident_id_check(card[:17])


def first_generation(card: str) -> str:
    """The 15-digit number of the cards issued before 1999: no century, no check character."""
    return card[:6] + card[8:17]


def unified_social_credit_code(area: str, organisation: str) -> str:
    """18 characters of a public institution (12): area, GB 11714 code, check character."""
    weights = (3, 7, 9, 10, 5, 8, 4, 2)
    values = [_ORGANISATION_ALPHABET.index(c) for c in organisation]
    own = 11 - sum(v * w for v, w in zip(values, weights, strict=True)) % 11
    body = f"12{area}{organisation}{'0' if own == 11 else 'X' if own == 10 else own}"
    return body + social_credit_check(body)


def social_credit_check(body: str) -> str:
    """The MOD 31 character of GB 32100 behind 17 characters."""
    total = sum(_ORGANISATION_ALPHABET.index(c) * pow(3, i, 31) for i, c in enumerate(body))
    return _ORGANISATION_ALPHABET[-total % 31]


def uid(seed: str, *names: str | int) -> str:
    """A UUID-derived UID under 2.25: the same names under the same seed give the same UID."""
    return f"2.25.{uuid5(uuid5(NAMESPACE_OID, seed), '/'.join(map(str, names))).int}"

"""Body parts as they are written, and the regions of the body in which they lie.

Whoever compares two examinations compares regions: a CT of the LUNG tells of a CHEST. Terms are
those of Body Part Examined (DICOM PS3.16 annex L, Table L-1, and the meanings of CID 4031), what
devices write instead (THORAX, C_SPINE), and hospitals' own words in Chinese.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache


class Region(StrEnum):
    """A region of the body; large enough that an image of it shows what lies there."""

    HEAD = "head"
    FACE = "face"
    NECK = "neck"
    CHEST = "chest"
    BREAST = "breast"
    ABDOMEN = "abdomen"
    PELVIS = "pelvis"
    CERVICAL_SPINE = "cervical spine"
    THORACIC_SPINE = "thoracic spine"
    LUMBAR_SPINE = "lumbar spine"
    SACRUM = "sacrum"
    SHOULDER = "shoulder"
    UPPER_ARM = "upper arm"
    ELBOW = "elbow"
    FOREARM = "forearm"
    HAND = "hand"
    HIP = "hip"
    THIGH = "thigh"
    KNEE = "knee"
    LOWER_LEG = "lower leg"
    FOOT = "foot"


_SPINE = (Region.CERVICAL_SPINE, Region.THORACIC_SPINE, Region.LUMBAR_SPINE, Region.SACRUM)
_UPPER_LIMB = (Region.SHOULDER, Region.UPPER_ARM, Region.ELBOW, Region.FOREARM, Region.HAND)
_LOWER_LIMB = (Region.HIP, Region.THIGH, Region.KNEE, Region.LOWER_LEG, Region.FOOT)

_TERMS: tuple[tuple[tuple[Region, ...], str], ...] = (
    (
        (Region.HEAD,),
        "HEAD BRAIN SKULL CEREBELLUM CIRCLEOFWILLIS SCALP CRANIUM SELLATURCICA IAC "
        "MASTOIDBONE INTERNALAUDITORYCANAL",
    ),
    ((Region.HEAD, Region.FACE), "EAR EYE ORBIT ORBITALSTRUCTURE OPTICCANAL NASOPHARYNX"),
    (
        (Region.FACE,),
        "FACE FACIALBONES JAW MAXILLA MANDIBLE MOUTH NOSE NASALBONE SINUS PARANASALSINUS CHEEK "
        "EYELID CORNEA SCLERA TMJ TEMPOROMANDIBULARJOINT TONGUE ZYGOMA PAROTID TEETH",
    ),
    ((Region.NECK,), "NECK CAROTID LARYNX PHARYNX THYROID SUBMANDIBULAR PARATHYROID"),
    ((Region.NECK, Region.CHEST), "TRACHEA ESOPHAGUS"),
    (
        (Region.CHEST,),
        "CHEST THORAX LUNG LUNGS BRONCHUS MEDIASTINUM HEART CORONARYARTERY RIB RIBS STERNUM THYMUS "
        "PLEURA APEXOFLUNG CARDIAC",
    ),
    ((Region.CHEST, Region.ABDOMEN), "AORTA"),
    ((Region.BREAST,), "BREAST"),
    (
        (Region.ABDOMEN,),
        "ABDOMEN ADRENAL DUODENUM GALLBLADDER BILEDUCT BILIARYTRACT COMMONBILEDUCT ILEUM "
        "JEJUNUM KIDNEY LIVER "
        "PANCREAS PANCREATICDUCT PANCREATIC SPLEEN STOMACH SMALLINTESTINE UPPERURINARYTRACT",
    ),
    ((Region.ABDOMEN, Region.PELVIS), "COLON URETER LARGEINTESTINE"),
    (
        (Region.PELVIS,),
        "PELVIS BLADDER CERVIX OVARY PENIS PROSTATE RECTUM SCROTUM TESTIS URETHRA UTERUS VAGINA "
        "VULVA ANUS BUTTOCK",
    ),
    ((Region.PELVIS, Region.HIP), "ILIUM"),
    ((Region.PELVIS, Region.SACRUM), "SACROILIACJOINT SIJOINT"),
    (_SPINE, "SPINE BACK WHOLESPINE"),
    ((Region.CERVICAL_SPINE,), "CSPINE CERVICALSPINE"),
    ((Region.CERVICAL_SPINE, Region.THORACIC_SPINE), "CTSPINE"),
    ((Region.THORACIC_SPINE,), "TSPINE THORACICSPINE"),
    ((Region.THORACIC_SPINE, Region.LUMBAR_SPINE), "TLSPINE"),
    ((Region.LUMBAR_SPINE,), "LSPINE LUMBARSPINE"),
    ((Region.LUMBAR_SPINE, Region.SACRUM), "LSSPINE LUMBOSACRALSPINE"),
    ((Region.SACRUM,), "SSPINE SACRUM COCCYX"),
    (
        (Region.SHOULDER,),
        "SHOULDER CLAVICLE SCAPULA AXILLA ACJOINT ACROMIOCLAVICULARJOINT STERNOCLAVICULARJOINT",
    ),
    ((Region.SHOULDER, Region.UPPER_ARM, Region.ELBOW), "HUMERUS UPPERARM"),
    ((Region.UPPER_ARM, Region.ELBOW, Region.FOREARM), "ARM"),
    ((Region.ELBOW,), "ELBOW"),
    ((Region.ELBOW, Region.FOREARM, Region.HAND), "FOREARM RADIUS ULNA"),
    ((Region.HAND,), "HAND WRIST FINGER THUMB"),
    (_UPPER_LIMB, "UPPERLIMB UPPEREXTREMITY"),
    ((Region.HIP,), "HIP"),
    ((Region.HIP, Region.THIGH, Region.KNEE), "FEMUR THIGH"),
    ((Region.KNEE,), "KNEE PATELLA"),
    ((Region.KNEE, Region.LOWER_LEG, Region.FOOT), "LEG LOWERLEG TIBIA FIBULA CALF"),
    ((Region.FOOT,), "FOOT ANKLE CALCANEUS TOE TARSALJOINT"),
    (_LOWER_LIMB, "LOWERLIMB LOWEREXTREMITY"),
    ((*_UPPER_LIMB, *_LOWER_LIMB), "EXTREMITY"),
    (tuple(Region), "WHOLEBODY ENTIREBODY"),
    ((Region.HEAD, Region.NECK), "HEADNECK"),
    ((Region.NECK, Region.CHEST), "NECKCHEST"),
    ((Region.NECK, Region.CHEST, Region.ABDOMEN), "NECKCHESTABDOMEN"),
    ((Region.NECK, Region.CHEST, Region.ABDOMEN, Region.PELVIS), "NECKCHESTABDPELV"),
    ((Region.CHEST, Region.ABDOMEN), "CHESTABDOMEN"),
    ((Region.CHEST, Region.ABDOMEN, Region.PELVIS), "CHESTABDPELVIS"),
    ((Region.ABDOMEN, Region.PELVIS), "ABDOMENPELVIS"),
)

REGIONS: Mapping[str, frozenset[Region]] = {
    word: frozenset(regions) for regions, words in _TERMS for word in words.split()
}
"""By term, in capitals and without spaces or punctuation."""

_IN_CHINESE: tuple[tuple[tuple[Region, ...], str], ...] = (
    (_SPINE, "脊柱"),
    ((Region.CERVICAL_SPINE,), "颈椎"),
    ((Region.THORACIC_SPINE,), "胸椎"),
    ((Region.LUMBAR_SPINE,), "腰椎"),
    ((Region.SACRUM,), "骶 尾椎 尾骨"),
    (_UPPER_LIMB, "上肢"),
    (_LOWER_LIMB, "下肢"),
    (tuple(Region), "全身"),
    ((Region.HEAD,), "头 颅 脑 垂体"),
    ((Region.FACE,), "面部 颌 鼻 眼 眶 口腔"),
    ((Region.HEAD, Region.FACE), "耳"),
    ((Region.NECK,), "颈 甲状腺 咽 喉"),
    ((Region.NECK, Region.CHEST), "食管 气管"),
    ((Region.BREAST,), "乳腺 乳房"),
    ((Region.CHEST,), "胸 肺 心脏 冠脉 冠状动脉 纵隔 肋"),
    ((Region.ABDOMEN,), "腹 肝 胆 胰 脾 肾 胃"),
    ((Region.ABDOMEN, Region.PELVIS), "肠 输尿管"),
    ((Region.PELVIS,), "盆 膀胱 前列腺 子宫 卵巢"),
    ((Region.SHOULDER,), "肩 锁骨"),
    ((Region.SHOULDER, Region.UPPER_ARM, Region.ELBOW), "肱 上臂"),
    ((Region.ELBOW,), "肘"),
    ((Region.ELBOW, Region.FOREARM, Region.HAND), "前臂 尺桡"),
    ((Region.HAND,), "手 腕"),
    ((Region.HIP,), "髋"),
    ((Region.HIP, Region.THIGH, Region.KNEE), "股骨 大腿"),
    ((Region.KNEE,), "膝 髌"),
    ((Region.KNEE, Region.LOWER_LEG, Region.FOOT), "小腿 胫"),
    ((Region.FOOT,), "足 踝 跟骨"),
)
_WORDS = {word: frozenset(regions) for regions, words in _IN_CHINESE for word in words.split()}
_CHINESE = re.compile("|".join(sorted(map(re.escape, _WORDS), key=len, reverse=True)))
"""The longest first: 胸椎 is no 胸."""

_SEPARATORS = re.compile(r"[\W_]+")


def folded(part: str) -> str:
    """A body part without case, spaces and punctuation."""
    return _SEPARATORS.sub("", part).upper()


@lru_cache(1024)
def regions(part: str) -> frozenset[Region]:
    """The regions in which a body part lies as it is written; none where that is not known."""
    if known := REGIONS.get(folded(part)):
        return known
    words = [one.upper() for one in _SEPARATORS.split(part)]
    found = [REGIONS.get(one, frozenset()) for one in words]
    found += [_WORDS[one] for one in _CHINESE.findall(part)]
    return frozenset().union(*found)


def alike(one: str, other: str) -> bool:
    """Whether two body parts are the same, or lie in a region that both share: an image of the
    THORAX shows a LUNG. Where the regions of one are not known, whether they are written alike."""
    if not folded(one) or not folded(other):
        return False
    return folded(one) == folded(other) or not regions(one).isdisjoint(regions(other))

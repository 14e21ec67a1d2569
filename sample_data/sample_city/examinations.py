"""What the hospitals do for a patient: examinations, their series, and what is reported."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from . import images
from .images import Image, Subject


@dataclass(frozen=True, slots=True)
class Acquisition:
    """One series: how many pictures at which size of city, and how to make them."""

    description: str
    modality: str
    make: Callable[[int, Subject], Iterator[Image]]
    small: int
    usual: int
    frames: bool = False
    """Whether the number counts the frames of one instance."""

    def instances(self, size: str) -> int:
        """How many instances the series has."""
        return 1 if self.frames else self.pictures(size)

    def pictures(self, size: str) -> int:
        """How many slices, views or frames to make."""
        return self.small if size == "small" else self.usual


@dataclass(frozen=True, slots=True)
class Reading:
    """What a radiologist says: findings and impression, and the size (mm) of what was measured."""

    findings: str
    impression: str
    lesion: bool = False
    diameter: float | None = None


@dataclass(frozen=True, slots=True)
class Examination:
    """A kind of study; `share` is how many of sixty studies are of this kind."""

    description: str
    body_part: str
    share: int
    acquisitions: tuple[Acquisition, ...]
    readings: tuple[Reading, ...]


def _ct(contrast: str) -> Callable[[int, Subject], Iterator[Image]]:
    return partial(images.ct, contrast)


def _borrowed(name: str) -> Callable[[int, Subject], Iterator[Image]]:
    return lambda count, _: images.borrowed([name] * count)


_CHEST = (
    Reading(
        "右肺中叶见一实性结节,直径约12mm,边缘光滑,未见毛刺及胸膜牵拉。\r\n余肺野清晰,气管及主支气管通畅。\r\n"
        "纵隔内未见肿大淋巴结。心影不大,双侧胸腔未见积液。",
        "右肺中叶实性结节(12mm),建议3个月后复查CT。",
        lesion=True,
        diameter=12.0,
    ),
    Reading(
        "双肺纹理清晰,未见实变及占位。\r\n气管及主支气管通畅,纵隔居中,未见肿大淋巴结。\r\n"
        "心影大小正常,双侧胸腔未见积液。",
        "胸部CT未见明显异常。",
    ),
)
_HEAD = (
    Reading(
        "左侧基底节区见小片状低密度影,直径约10mm,边界清。\r\n脑室系统未见扩大,中线结构居中。\r\n颅骨未见骨折。",
        "左侧基底节区腔隙性脑梗死。",
        lesion=True,
        diameter=10.0,
    ),
    Reading(
        "脑实质密度未见异常,灰白质分界清。\r\n脑室系统未见扩大,中线结构居中。\r\n颅骨未见骨折。",
        "颅脑CT平扫未见明显异常。",
    ),
)
_BRAIN = (
    Reading(
        "脑实质信号未见异常,灰白质分界清。\r\n脑室、脑池、脑沟大小形态正常,中线结构居中。",
        "颅脑MR平扫未见明显异常。",
    ),
    Reading(
        "左侧基底节区见类圆形长T1长T2信号,直径约9mm。\r\n脑室系统未见扩大,中线结构居中。",
        "左侧基底节区陈旧性腔隙灶。",
        lesion=True,
        diameter=9.0,
    ),
)
_RADIOGRAPH = (
    Reading(
        "胸廓对称,双肺纹理清晰,肺门影不大。\r\n心影大小形态正常,双侧膈面光滑,肋膈角锐利。",
        "心肺膈未见明显异常。",
    ),
    Reading(
        "双肺纹理稍增多,未见实变。\r\n主动脉结稍突出,心影不大,双侧肋膈角锐利。",
        "双肺纹理增多;主动脉硬化可能。",
    ),
)
_LIVER = (
    Reading(
        "肝脏大小正常,包膜光滑,实质回声均匀。\r\n胆囊内见强回声团,后方伴声影。\r\n门静脉血流通畅,右肾未见异常。",
        "胆囊结石。",
        lesion=True,
    ),
    Reading(
        "肝脏大小正常,包膜光滑,实质回声均匀。\r\n胆囊壁光滑,腔内未见异常回声。\r\n门静脉血流通畅,右肾未见异常。",
        "肝、胆、右肾超声未见明显异常。",
    ),
)
_HEART = (
    Reading(
        "各房室腔大小正常,瓣膜启闭良好。\r\n室壁运动协调,左室射血分数64%。",
        "静息状态下心脏结构及功能未见明显异常。",
    ),
)
_SMALL_PARTS = (
    Reading(
        "腺体回声均匀,未见明确占位。\r\nCDFI: 血流信号分布正常。", "浅表器官超声未见明显异常。"
    ),
)

EXAMINATIONS: Mapping[str, Examination] = {
    "chest ct": Examination(
        "胸部CT平扫", "CHEST", 9, (Acquisition("平扫 5mm 肺窗", "CT", _ct("chest"), 8, 40),), _CHEST
    ),
    "chest dx": Examination(
        "胸部正位DR", "CHEST", 5, (Acquisition("胸部后前位", "DX", images.dx, 1, 1),), _RADIOGRAPH
    ),
    "liver us": Examination(
        "肝胆彩色多普勒超声",
        "ABDOMEN",
        5,
        (
            Acquisition("动态", "US", images.us_cine, 3, 8, frames=True),
            Acquisition("静态", "US", images.us_still, 1, 3),
        ),
        _LIVER,
    ),
    "brain mr": Examination(
        "颅脑MR平扫",
        "BRAIN",
        14,
        (
            Acquisition("定位像", "MR", images.mr_localizer, 1, 3),
            Acquisition("T1WI 横断位", "MR", partial(images.mr, "T1"), 5, 24),
            Acquisition("T2WI 横断位", "MR", partial(images.mr, "T2"), 5, 24),
        ),
        _BRAIN,
    ),
    "head ct": Examination(
        "颅脑CT平扫", "HEAD", 8, (Acquisition("平扫 4.5mm 脑窗", "CT", _ct("head"), 6, 28),), _HEAD
    ),
    "heart us": Examination(
        "超声心动图",
        "HEART",
        6,
        (Acquisition("动态", "US", _borrowed("examples_ybr_color.dcm"), 1, 1),),
        _HEART,
    ),
    "chest cr": Examination(
        "胸部正位CR", "CHEST", 4, (Acquisition("胸部后前位", "CR", images.cr, 1, 1),), _RADIOGRAPH
    ),
    "small parts us": Examination(
        "浅表器官超声",
        "NECK",
        7,
        (Acquisition("静态", "US", _borrowed("examples_jpeg2k.dcm"), 1, 1),),
        _SMALL_PARTS,
    ),
    "chest ct contrast": Examination(
        "胸部CT平扫+增强",
        "CHEST",
        2,
        (
            Acquisition("平扫 5mm 肺窗", "CT", _ct("chest"), 8, 40),
            Acquisition("静脉期 5mm 纵隔窗", "CT", _ct("chest contrast"), 8, 40),
        ),
        _CHEST,
    ),
}
"""The first eight make the small city: they bring every modality and every transfer syntax."""


def schedule(studies: int) -> list[str]:
    """Which examination each study is: every kind once, then evenly mixed by its share."""
    kinds = list(EXAMINATIONS)
    rounds = -(-studies // sum(examination.share for examination in EXAMINATIONS.values()))
    turns = []
    for order, kind in enumerate(kinds):
        share = EXAMINATIONS[kind].share * rounds
        turns += [
            (turn > 0, (turn + 0.5) / share if turn else order, kind) for turn in range(share)
        ]
    return [kind for _, _, kind in sorted(turns)][:studies]

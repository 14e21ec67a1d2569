"""How pages write what DICOM holds: person names, dates, times, sex, modalities, body parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from exchange import sop_classes
from exchange.audit import Outcome
from exchange.ledger import Missing
from exchange.orders import Status
from exchange.people import Basis
from exchange.query import Listed
from exchange.secret_links import State
from exchange_server.portal.language import Language, Words

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

MODALITIES: Mapping[str, str] = {
    "CR": "计算机X线摄影",
    "CT": "计算机断层",
    "DX": "数字X线摄影",
    "ES": "内镜",
    "KO": "关键对象",
    "MG": "乳腺X线",
    "MR": "磁共振",
    "NM": "核医学",
    "OT": "其他",
    "PR": "呈现状态",
    "PT": "正电子发射断层",
    "RF": "X线透视",
    "SEG": "分割",
    "SR": "结构化报告",
    "US": "超声",
    "XA": "X线血管造影",
    "DOC": "文档",
    "SM": "病理切片",
    "ECG": "心电图",
}
"""Chinese for the defined terms of Modality (PS3.3 C.7.3.1.1.1) that hospitals send."""

BODY_PARTS: Mapping[str, str] = {
    "ABDOMEN": "腹部",
    "ANKLE": "踝",
    "BRAIN": "脑",
    "BREAST": "乳腺",
    "CHEST": "胸部",
    "CSPINE": "颈椎",
    "ELBOW": "肘",
    "FOOT": "足",
    "HAND": "手",
    "HEAD": "头部",
    "HEART": "心脏",
    "HIP": "髋",
    "KIDNEY": "肾",
    "KNEE": "膝",
    "LIVER": "肝",
    "LSPINE": "腰椎",
    "LUNG": "肺",
    "NECK": "颈部",
    "PELVIS": "骨盆",
    "SHOULDER": "肩",
    "SPINE": "脊柱",
    "THYROID": "甲状腺",
    "TSPINE": "胸椎",
    "WRIST": "腕",
}
"""Chinese for the defined terms of Body Part Examined (PS3.16 annex L) that hospitals send."""

BASES: Mapping[Basis, tuple[str, str]] = {
    Basis.RESIDENT_ID: ("身份证号相符", "ID card"),
    Basis.NUMBER: ("患者号相符", "Patient number"),
    Basis.IDENTIFIER: ("其他证件号相符", "Another number"),
    Basis.NAME: ("姓名相符", "Name"),
    Basis.ALIKE: ("姓名读音相近", "Name sounds alike"),
    Basis.BIRTH_DATE: ("出生日期相符", "Birth date"),
}
"""On what a match rests, in Chinese and English."""

STATUSES: Mapping[Status, tuple[str, str]] = {
    Status.SCHEDULED: ("已预约", "Scheduled"),
    Status.IN_PROGRESS: ("检查中", "In progress"),
    Status.COMPLETED: ("已完成", "Completed"),
    Status.DISCONTINUED: ("已中断", "Discontinued"),
    Status.CANCELED: ("已取消", "Canceled"),
}
"""Where an order stands, in Chinese and English."""

KINDS: Mapping[str, tuple[str, str]] = {
    "DiagnosticReport": ("报告", "Report"),
    "Observation": ("检验与观察", "Observation"),
    "Condition": ("诊断", "Condition"),
    "Procedure": ("操作", "Procedure"),
    "Encounter": ("就诊", "Encounter"),
    "Immunization": ("免疫接种", "Immunization"),
    "AllergyIntolerance": ("过敏", "Allergy"),
    "MedicationRequest": ("处方", "Prescription"),
    "MedicationStatement": ("用药", "Medication"),
    "DocumentReference": ("文档", "Document"),
    "ServiceRequest": ("申请", "Request"),
    "CarePlan": ("照护计划", "Care plan"),
    "FamilyMemberHistory": ("家族史", "Family history"),
    "ClinicalImpression": ("临床印象", "Impression"),
}
"""Clinical resources of a timeline, in Chinese and English."""

MISSING: Mapping[Missing, tuple[str, str]] = {
    Missing.BEGINNING: ("已预约，未开始", "Ordered, not begun"),
    Missing.INSTANCE: ("已宣布，未收到", "Announced, not received"),
    Missing.VERIFICATION: ("已收到，未校验", "Received, not verified yet"),
    Missing.COUNT: ("少于院方计数", "Fewer than counted"),
}
"""What is missing by the ledger, in Chinese and English."""

PARTS: Mapping[str, tuple[str, str]] = {
    "index": ("索引", "Index"),
    "reception": ("接收", "Reception"),
    "objects": ("对象存储", "Object store"),
}
"""The parts that the exchange stands on, in Chinese and English."""

OUTCOMES: Mapping[Outcome, tuple[str, str]] = {
    Outcome.SUCCESS: ("成功", "done"),
    Outcome.REFUSED: ("拒绝", "refused"),
    Outcome.FAILED: ("失败", "failed"),
}
"""How an act ended, in Chinese and English."""

LINKS: Mapping[State, tuple[str, str]] = {
    State.OPEN: ("有效", "Open"),
    State.REVOKED: ("已撤回", "Taken back"),
    State.EXPIRED: ("已过期", "Expired"),
    State.USED_UP: ("次数已用完", "Used up"),
    State.LOCKED: ("已锁定：验证码错误过多", "Locked: too many wrong codes"),
}
"""What has become of a link, in Chinese and English."""

SEXES: Mapping[str, tuple[str, str]] = {
    "M": ("男", "male"),
    "F": ("女", "female"),
    "O": ("其他", "other"),
}


CONCEPTS: Mapping[str, str] = {
    "11528-7": "放射学报告",
    "18748-4": "影像诊断报告",
    "121060": "病史",
    "121062": "检查申请",
    "121064": "检查方法",
    "121066": "既往检查",
    "121068": "与既往比较",
    "121070": "检查所见",
    "121071": "所见",
    "121072": "诊断意见",
    "121073": "意见",
    "121074": "建议",
    "121075": "建议",
    "121076": "结论",
    "121077": "结论",
    "121008": "报告人",
    "121005": "报告人类型",
    "121049": "语言",
    "81827009": "直径",
    "410668003": "长度",
}
"""Chinese for concept names of reports, by code value (PS3.16 CID 7001, 7002, TID 2000)."""


def concept(code: str, meaning: str, words: Words) -> str:
    """The name of a content item of a report, in the reader's language where we know it."""
    if words.language is Language.CHINESE:
        return CONCEPTS.get(code, meaning)
    return meaning


def person_name(name: str) -> str:
    """A person name (PS3.5 6.2) as people write it: in hanzi where it has them."""
    groups = [group.strip() for group in name.split("=")]
    ideographic = groups[1] if len(groups) > 1 else ""
    if not ideographic and _HAN.search(groups[0]):
        ideographic = groups[0]
    if ideographic:
        return ideographic.replace("^", "").strip()
    return " ".join(part for part in groups[0].split("^") if part)


def best_name(names: Iterable[str]) -> str:
    """Of what hospitals call a person the name in hanzi, or the first that is any."""
    known = [name for name in names if name.strip("^= ")]
    return next((name for name in known if _HAN.search(name)), known[0] if known else "")


def latin_name(name: str) -> str:
    """The same in Latin letters, where the name has both."""
    groups = name.split("=")
    if len(groups) < 2 or not groups[1].strip():
        return ""
    return " ".join(part for part in groups[0].split("^") if part)


def modality(term: str, words: Words) -> str:
    """A modality by its term, and in Chinese what that means."""
    chinese = MODALITIES.get(term, "")
    return f"{term} {chinese}" if chinese and words.language is Language.CHINESE else term


def body_part(term: str, words: Words) -> str:
    """A body part in the reader's language, where it is a defined term."""
    chinese = BODY_PARTS.get(term.upper(), "")
    if words.language is Language.CHINESE:
        return chinese or term
    return term.capitalize() if chinese else term


def sex(term: str, words: Words) -> str:
    """A patient's sex in words; "" where it is not known."""
    return words.say(*SEXES[term]) if term in SEXES else ""


def held(images: int, reports: int, words: Words, series: int = 0) -> str:
    """How many images, in so many series where that is said, and how many reports there are."""
    told = []
    if images and series:
        told.append(words.say(f"{series} 个序列", f"{series} series"))
    if images:
        told.append(words.say(f"{images} 幅图像", f"{images} image{'s' * (images != 1)}"))
    if reports:
        told.append(words.say(f"{reports} 份报告", f"{reports} report{'s' * (reports != 1)}"))
    if not told:
        return words.say("没有图像", "no images")
    return words.say("，", ", ").join(told)


def kinds(instances: Iterable[Listed]) -> tuple[int, int]:
    """How many of them are images, and how many reports."""
    classes = [one.sop_class_uid for one in instances]
    return sum(map(sop_classes.is_image, classes)), sum(map(sop_classes.is_report, classes))


def clock(time: str) -> str:
    """A DICOM time (PS3.5 6.2, TM) to the minute."""
    return f"{time[:2]}:{time[2:4]}" if time[:4].isdigit() and len(time) >= 4 else ""

"""How pages name what FHIR resources hold: elements, statuses, interpretations (FHIR R4)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from exchange_server.portal.language import Language, Words

ELEMENTS: Mapping[str, str] = {
    "abatement": "缓解",
    "activity": "活动",
    "asserter": "陈述者",
    "attachment": "附件",
    "author": "作者",
    "authoredOn": "开立时间",
    "authenticator": "审核者",
    "basedOn": "依据申请",
    "bodySite": "部位",
    "category": "类别",
    "class": "就诊类型",
    "clinicalStatus": "临床状态",
    "code": "项目",
    "component": "分项",
    "complication": "并发症",
    "conclusion": "结论",
    "conclusionCode": "结论编码",
    "condition": "诊断",
    "content": "内容",
    "context": "背景",
    "created": "创建时间",
    "criticality": "危险程度",
    "custodian": "保管机构",
    "dataAbsentReason": "无结果原因",
    "date": "日期",
    "description": "说明",
    "device": "设备",
    "diagnosis": "诊断",
    "dispenseRequest": "发药要求",
    "docStatus": "文档状态",
    "doNotPerform": "不执行",
    "dosage": "用法用量",
    "dosageInstruction": "用法用量",
    "doseQuantity": "剂量",
    "effective": "时间",
    "encounter": "就诊",
    "evidence": "依据",
    "expirationDate": "有效期",
    "finding": "所见",
    "format": "格式",
    "followUp": "随访",
    "goal": "目标",
    "hospitalization": "住院",
    "imagingStudy": "影像检查",
    "intent": "意图",
    "interpretation": "判读",
    "issued": "发布时间",
    "location": "地点",
    "lotNumber": "批号",
    "manufacturer": "生产者",
    "media": "图像",
    "medication": "药品",
    "method": "方法",
    "note": "备注",
    "occurrence": "时间",
    "onset": "起病",
    "outcome": "结果",
    "partOf": "属于",
    "participant": "参与者",
    "performed": "时间",
    "performer": "执行者",
    "performerType": "执行者类型",
    "period": "时段",
    "presentedForm": "报告文件",
    "primarySource": "原始记录",
    "priority": "优先级",
    "protocolApplied": "接种程序",
    "reaction": "反应",
    "reasonCode": "原因",
    "reasonReference": "原因",
    "recordedDate": "记录时间",
    "recorder": "记录者",
    "related": "相关资料",
    "recorded": "记录时间",
    "referenceRange": "参考范围",
    "relatesTo": "相关文档",
    "relationship": "关系",
    "reported": "来源",
    "requester": "申请者",
    "requisition": "申请单号",
    "result": "结果",
    "resultsInterpreter": "报告医生",
    "route": "途径",
    "serviceProvider": "就诊机构",
    "serviceType": "服务",
    "severity": "严重程度",
    "site": "部位",
    "specimen": "标本",
    "stage": "分期",
    "statusReason": "状态原因",
    "substitution": "替代",
    "summary": "摘要",
    "supportingInfo": "补充信息",
    "title": "标题",
    "type": "类型",
    "usedCode": "使用物品",
    "vaccineCode": "疫苗",
    "value": "结果",
    "verificationStatus": "核实状态",
    "derivedFrom": "来源",
    "hasMember": "包含",
    "target": "对象",
}
"""Chinese for elements of clinical resources, a choice of types by its first part."""

_CHOICE = re.compile(
    "(abatement|age|born|deceased|effective|estimatedAge|medication|occurrence|onset|performed"
    "|product|reported|scheduled|timing|value)"
    "(Age|Boolean|CodeableConcept|Date|DateTime|Integer|Period|Quantity|Range|Ratio|Reference"
    "|SampledData|String|Time|Timing)"
)

CODES: Mapping[str, tuple[str, str]] = {
    "active": ("有效", "Active"),
    "amended": ("已修订", "Amended"),
    "appended": ("已补充", "Appended"),
    "arrived": ("已到达", "Arrived"),
    "asap": ("尽快", "As soon as possible"),
    "cancelled": ("已取消", "Cancelled"),
    "completed": ("已完成", "Completed"),
    "confirmed": ("已确认", "Confirmed"),
    "corrected": ("已更正", "Corrected"),
    "current": ("当前", "Current"),
    "differential": ("鉴别诊断", "Differential"),
    "directive": ("指令", "Directive"),
    "draft": ("草稿", "Draft"),
    "entered-in-error": ("误录", "Entered in error"),
    "false": ("否", "No"),
    "final": ("正式", "Final"),
    "finished": ("已结束", "Finished"),
    "high": ("高", "High"),
    "in-progress": ("进行中", "In progress"),
    "inactive": ("无效", "Inactive"),
    "intended": ("计划", "Intended"),
    "low": ("低", "Low"),
    "mild": ("轻度", "Mild"),
    "moderate": ("中度", "Moderate"),
    "not-done": ("未执行", "Not done"),
    "not-taken": ("未服用", "Not taken"),
    "on-hold": ("暂停", "On hold"),
    "onleave": ("请假", "On leave"),
    "order": ("医嘱", "Order"),
    "partial": ("部分", "Partial"),
    "plan": ("计划", "Plan"),
    "planned": ("已计划", "Planned"),
    "preliminary": ("初步", "Preliminary"),
    "preparation": ("准备中", "In preparation"),
    "proposal": ("建议", "Proposal"),
    "provisional": ("疑似", "Provisional"),
    "recurrence": ("复发", "Recurrence"),
    "refuted": ("已排除", "Refuted"),
    "registered": ("已登记", "Registered"),
    "relapse": ("复发", "Relapse"),
    "remission": ("缓解", "Remission"),
    "resolved": ("已痊愈", "Resolved"),
    "revoked": ("已撤销", "Revoked"),
    "routine": ("常规", "Routine"),
    "severe": ("重度", "Severe"),
    "stat": ("立即", "At once"),
    "stopped": ("已停止", "Stopped"),
    "superseded": ("已被取代", "Superseded"),
    "triaged": ("已分诊", "Triaged"),
    "true": ("是", "Yes"),
    "unconfirmed": ("未确认", "Unconfirmed"),
    "unknown": ("不详", "Unknown"),
    "urgent": ("紧急", "Urgent"),
}
"""Codes that stand alone where people read, in Chinese and English."""

NEGATING = frozenset({"entered-in-error", "not-done", "not-taken", "refuted", "cancelled"})
"""Statuses that turn around what the rest of a record says."""

INTERPRETATIONS: Mapping[str, tuple[str, str]] = {
    "A": ("异常", "Abnormal"),
    "AA": ("危急异常", "Critically abnormal"),
    "H": ("偏高", "High"),
    "HH": ("危急偏高", "Critically high"),
    "HU": ("显著偏高", "Significantly high"),
    "I": ("中介", "Intermediate"),
    "L": ("偏低", "Low"),
    "LL": ("危急偏低", "Critically low"),
    "LU": ("显著偏低", "Significantly low"),
    "N": ("正常", "Normal"),
    "NEG": ("阴性", "Negative"),
    "POS": ("阳性", "Positive"),
    "R": ("耐药", "Resistant"),
    "S": ("敏感", "Susceptible"),
}
"""What a result means (v3 ObservationInterpretation), in Chinese and English."""

CRITICAL = frozenset({"A", "AA", "H", "HH", "HU", "L", "LL", "LU", "POS", "R"})
"""Interpretations that are pointed out."""


def element(name: str, words: Words) -> str:
    """An element's name as people read it."""
    choice = _CHOICE.fullmatch(name)
    plain = choice[1] if choice else name
    if words.language is Language.CHINESE and plain in ELEMENTS:
        return ELEMENTS[plain]
    apart = re.sub("([a-z])([A-Z])", lambda found: f"{found[1]} {found[2].lower()}", plain)
    return apart[:1].upper() + apart[1:]


def code(text: str, words: Words) -> str:
    """A status or another code that stands alone, in words; other text as it is."""
    return words.say(*CODES[text]) if text in CODES else text


def interpretation(of_code: str, shown: str, words: Words) -> str:
    """What a result means, in words."""
    return words.say(*INTERPRETATIONS[of_code]) if of_code in INTERPRETATIONS else shown

"""Chinese for what the exchange answers an operator: the texts of errors, by their English.

The floors below speak English only, as their doors do. ``{}`` stands for what differs from one
message to the next; a test finds every message of a command that is not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from exchange_server.chinese_commands import COMMANDS

TEXTS: Mapping[str, str] = {
    # The gate and the store
    "this can only be done on behalf of an organization": "只能以医院的名义进行",
    "a rehearsal changes nothing": "预演不做任何更改",
    "that hospital was deactivated; `exchange organization activate` comes first": (
        "该医院已停用，请先运行 `exchange organization activate`"
    ),
    "the object store is full; nothing was kept": "对象存储已满，未保存任何内容",
    "the index has no room: its disk is full": "索引没有空间：其磁盘已满",
    "the object store does not answer; try again later": "对象存储没有应答，请稍后重试",
    "an object is missing from the store; the operators must look": (
        "存储中缺少一个对象，请运维人员检查：exchange check"
    ),
    "the object store failed; the operators' log has details": "对象存储出错，详见运维日志",
    "a value holds what the index cannot keep or compare": "某个值含有索引无法保存或比较的字符",
    "the index does not answer; try again later": "索引数据库没有应答，请稍后重试",
    "the question takes too long: ask for less of it": "查询耗时过长，请缩小范围",
    "the commit was interrupted; try again": "提交被中断，请重试",
    "the head of the audit trail is missing: nothing can be recorded": (
        "审计链的链头缺失，无法记录任何操作"
    ),
    "the head of the audit trail has moved: nothing can be recorded": (
        "审计链的链头已被移动，无法记录任何操作"
    ),
    # The viewer
    "the viewer is not installed: exchange viewer install": (
        "影像浏览器尚未安装，请运维人员运行：exchange viewer install"
    ),
    "the viewer cannot be prepared at {}: {}": "无法在 {} 安装影像浏览器：{}",
    "the viewer at {} was changed meanwhile": "{} 处的影像浏览器被同时改动",
    "{} is not {}: its {} digest is another": "{} 不是 {}：其 {} 摘要不符",
    "esbuild is used on Linux alone, on x86-64 and ARM: leave it out": (
        "esbuild 只用于 x86-64 和 ARM 的 Linux：请去掉 --esbuild"
    ),
    "esbuild cannot make {} smaller: install without it": "esbuild 无法压缩 {}：请去掉 --esbuild",
    "this is no release of {}: {}": "这不是 {} 的发布包：{}",
    "this is no release of {}: it has {} main bundles": "这不是 {} 的发布包：有 {} 个主脚本",
    "this is no release of {} as it is known here: {}": "这不是本平台所识别的 {} 发布包：{}",
    "key images cannot be shown alone: leave out keyImagesOnly": (
        "不能只显示关键图像：请去掉 keyImagesOnly"
    ),
    "requestType is STUDY or PATIENT": "requestType 为 STUDY 或 PATIENT",
    "a STUDY is named by studyUID or by accessionNumber": (
        "requestType=STUDY 时须给出 studyUID 或 accessionNumber 之一"
    ),
    "from 1 to {} studies can be opened at once": "一次可打开 1 至 {} 个检查",
    "studyUID is a UID, or several with commas between them": (
        "studyUID 为一个 UID，或以逗号分隔的多个 UID"
    ),
    "a PATIENT is named by patientID, a number or ID^^^&OID&ISO": (
        "requestType=PATIENT 时须给出 patientID：患者号，或 患者号^^^&OID&ISO"
    ),
    "a launch names what it means: without wildcards": "调阅参数须写明确切的值，不能用通配符",
    "a date is 2026-11-01, a moment 2026-11-01T08:00:00": (
        "日期写作 2026-11-01，时刻写作 2026-11-01T08:00:00"
    ),
    "mostRecentResults is a number from 0 to {}": "mostRecentResults 为 0 至 {} 的数",
    "a launch has the parameters of RAD-106, each once": "调阅参数须为 RAD-106 所列，每个一次",
    "no study that you may see matches this launch": "没有符合此调阅且您有权查看的检查",
    # Hospitals, users, patients
    "a code has 1 to 32 lower-case letters, digits and hyphens": (
        "代码为 1 至 32 个小写字母、数字或连字符"
    ),
    "an organization needs a name": "医院需要名称：--name",
    "not a unified social credit code: 18 characters with a check digit": (
        "不是有效的统一社会信用代码（18 位，含校验位）"
    ),
    "the issuer of patient numbers must be an OID of at most 64 characters": (
        "患者号发行者须为 OID，至多 64 个字符"
    ),
    "the code, credit code or issuer is that of {}": "代码、信用代码或发行者已属于 {}",
    "no organization has this code; `exchange organization list` shows them": (
        "没有此代码的医院；用 `exchange organization list` 查看"
    ),
    "no organization of yours has this code; `exchange organization list` shows them": (
        "没有此代码的医院；用 `exchange organization list` 查看"
    ),
    "an application entity is written TITLE@address[:port][#certificate SHA-256]": (
        "应用实体写作 TITLE@地址[:端口][#证书SHA-256]"
    ),
    "an AE title has 1 to 16 printable characters without a backslash": (
        "AE Title 为 1 至 16 个可打印字符，不含反斜杠"
    ),
    "a certificate fingerprint is a SHA-256 of 64 hex digits": (
        "证书指纹是 64 位十六进制的 SHA-256"
    ),
    "this certificate is that of another hospital's application entity": (
        "此证书已属于另一家医院的应用实体"
    ),
    "an address is an IP address, a network such as 10.1.0.0/16, or a host name": (
        "地址为 IP 地址、网段（如 10.1.0.0/16）或主机名"
    ),
    "{} at that address is registered already; `exchange organization add-ae --replace` changes "
    "it": ("该地址的 {} 已登记；用 `exchange organization add-ae --replace` 更改"),
    "{} at {} is that of {}: `exchange organization remove-ae {} {}@{}` comes first": (
        "{}（{}）属于 {}：请先 `exchange organization remove-ae {} {}@{}`"
    ),
    "{} at {} is another hospital's; ask who runs the exchange": (
        "{}（{}）属于另一家医院；请联系平台管理员"
    ),
    "{} at {} could not be told from the one of another hospital at {}": (
        "{}（{}）与另一家医院位于 {} 的同名实体无法区分"
    ),
    "this hospital has no such application entity at this address": (
        "该医院在此地址没有这个应用实体；用 `exchange organization list` 查看"
    ),
    "routes lead there: {}; `exchange route remove` comes first": (
        "有转发规则指向它：{}；请先 `exchange route remove`"
    ),
    "this hospital is in this agreement already": "该医院已加入该协议",
    "this hospital is not in this agreement": "该医院未加入该协议",
    "the name of an issuer has 1 to 64 characters without backslash, * and ?, and all of them {}": (
        "发行者名称为 1 至 64 个字符，不含反斜杠、* 和 ?，合计至多 {} 个字符"
    ),
    "another hospital has one of these as its code or issuer": "其中之一是另一医院的代码或发行者",
    "a limit is a number from 1 to 999999": "限制须为 1 至 999999 的数",
    "a user name has 1 to 64 printable characters": "用户名为 1 至 64 个可打印字符",
    "nobody signs in as the exchange itself, or as a guest": "不能以平台自身或访客的角色登录",
    "a {} looks at no images, in use or rejected": "角色 {} 不查看影像，无论在用或已停用",
    "a {} belongs to an organization": "角色 {} 须属于一家医院：--organization",
    "the user name or the password is wrong": "用户名或密码错误",
    "too many wrong passwords; wait a minute": "密码错误次数过多，请一分钟后再试",
    "too many are signing in; try again in a moment": "正在登录的人过多，请稍后再试",
    "a hospital's system does not sign in at a browser": "医院系统的账号不能在浏览器中登录",
    "sign in first": "请先登录",
    "nobody asks a worker": "后台进程不接受请求",
    "a birth date is written YYYYMMDD": "出生日期写作 YYYYMMDD",
    "a date is written YYYYMMDD": "日期写作 YYYYMMDD",
    "what is looked for has at most {} characters": "查找内容至多 {} 个字符",
    "give a name, a number or a birth date": "请输入姓名、号码或出生日期",
    "no such patient record": "没有这份患者记录",
    "the hospital has no record of the number by which this one is replaced: register that one"
    " first": "本院没有取代此记录的那个患者号：请先登记该患者",
    "this is not a report": "这不是报告",
    "no such record of the trail": "审计日志中没有这条记录",
    "a link lasts 1 to {} days, and is opened 1 to {} times": (
        "链接有效 1 至 {} 天，可打开 1 至 {} 次"
    ),
    "a note has at most {} characters": "说明至多 {} 个字符",
    "studies are shared with colleagues for treatment only": "只为诊疗目的与同事分享检查",
    "no colleague has this name": "没有这位同事",
    "this link is not for you, or there is no such link": "此链接不是给您的，或没有此链接",
    "the link has ended; ask your colleague for another": "链接已失效，请同事重新分享",
    "you have shared nothing under this number": "您没有此编号的分享",
    "your colleague may not see it: {}": "您的同事无权查看：{}",
    "the link does not lead there": "此链接不包含该内容",
    "the link is not known, or not complete": "没有此链接，或链接不完整",
    "the link has ended; ask the hospital for another": "链接已失效，请向医院重新索取",
    "the code is wrong": "验证码不正确",
    "this code was used; take the next one": "此验证码已用过，请用下一个",
    "too many wrong codes; wait a minute": "验证码错误次数过多，请一分钟后再试",
    "the link has ended; open it with another code": "链接已失效；请用另一个验证码打开",
    "your hospital has no study with these two numbers": "本院没有同时符合这两个号码的检查",
    "several studies have these two numbers: a clinician makes the link": (
        "有多项检查符合这两个号码：请由医生生成链接"
    ),
    "you have made no link of this number": "您没有发出过此编号的链接",
    "only who has a link opens it": "只有持链接者可以打开",
    "only users of the exchange have links to give or to open": "只有平台用户可以发出和打开链接",
    "say for how many days, and how often it may be opened": "请填写有效天数和可打开次数",
    "choose a colleague, and say for how long and how often": (
        "请选择同事，并填写有效天数和可打开次数"
    ),
    "only the exchange itself counts traffic": "只有平台自身统计流量",
    "there is no such page": "没有这个页面",
    "no such resource": "没有这份记录",
    "no such version": "没有这个版本",
    "the resource was deleted": "这份记录已被医院删除",
    "this record is about no patient whom you may see": "这份记录不属于您可以查看的患者",
    "this record has no such document": "这份记录没有此文档",
    "this document lies with another system": "此文档在其他系统中，本平台不代取",
    "the document cannot be read": "文档无法读取",
    "the document is too large to be shown": "文档过大，无法在页面中显示",
    "this is not a CDA document": "这不是 CDA 文档",
    "this is not well-formed XML": "XML 格式不正确",
    "a document type is not taken": "不接受带文档类型声明（DTD）的文件",
    "the body of the document cannot be read": "文档正文无法读取",
    "a version is a number from 1 on": "版本为不小于 1 的数",
    "it is not in the directory": "它不在目录中",
    "it is another organization's subscription": "这是另一家医院的订阅",
    "it is somebody else's subscription": "这是他人的订阅",
    "it is not a subscription": "这不是订阅",
    "only its owner changes a subscription: switch it off, or delete it": (
        "只有订阅者本人可以修改订阅；请停用或删除"
    ),
    "only who wrote it may change it": "只有书写它的医院可以修改",
    "another organization's own: it is about no patient": "这是另一家医院自己的内容，不涉及患者",
    "up to {} studies can be seen side by side": "一次至多并排查看 {} 项检查",
    "a UID in the path has at most 64 digits and dots": "地址中的 UID 至多 64 位数字和点",
    "the instance is damaged in the archive; its hospital has to send it again": (
        "该实例在存储中已损坏，须由所属医院重新发送"
    ),
    "no such series": "没有这个序列",
    "no such instance in the study": "该检查中没有这个实例",
    "the instance was taken out of use, or deleted by rule": "该实例已停用或按规定删除",
    "all of it was taken out of use, or deleted by rule": "其全部内容已停用或按规定删除",
    "you have asked for no such files": "您没有请求过这些文件",
    "no such study": "没有这项检查",
    "too many labels are in use: ask of one type, or of one resource": (
        "使用中的标签过多，请只查询一种资源类型或一个资源"
    ),
    "too many resources bear labels: ask of one type, or of one resource": (
        "带有标签的资源过多，请只查询一种资源类型或一个资源"
    ),
    "too many patient numbers match: ask for fewer of them": "匹配的患者号过多，请缩小范围",
    "the matches cannot be put in this order": "结果不能按此排序",
    # Decisions of the policy, where a page tells why
    # What somebody is, and does, in these
    "clinician": "医生",
    "system": "系统",
    "administrator": "管理员",
    "guest": "访客",
    "authenticate": "登录",
    "store": "存储",
    "search": "查询",
    "retrieve": "调阅",
    "audit": "查看审计",
    "administer": "管理",
    "link": "关联患者",
    "commit": "存储承诺",
    "order": "申请",
    "perform": "执行检查",
    "forward": "转发",
    "destroy": "删除",
    "verify": "校验",
    "look up": "查名录",
    "reject": "停用",
    "review": "审核",
    "record": "书写记录",
    "publish": "发布名录",
    "schedule": "排程",
    "work": "处理工作项",
    "share": "分享",
    "hand out": "给患者链接",
    "export": "导出",
    "export a group": "导出患者组",
    "subscribe": "订阅",
    "the role {} may not {}": "角色 {} 不能执行 {}",
    "what is about a patient is no subscription": "与患者有关的内容不是订阅",
    "a {} without an organization may not {}": "角色 {} 不属于任何医院，不能执行 {}",
    "the asking organization has not joined the sharing agreement": "本院未加入共享协议",
    "the owning organization has not joined the sharing agreement": "该医院未加入共享协议",
    "records of other organizations are shared for treatment only": (
        "其他医院的记录只为诊疗目的共享"
    ),
    "what is about a patient is not in the directory": "涉及患者的内容不在目录中",
    "a hospital may not {} what is another hospital's": "医院不能对其他医院的内容执行 {}",
    "what a hospital has rejected only that hospital looks at": (
        "医院已拒绝的内容只有该医院自己可以查看"
    ),
    "the patient has not consented to sharing": "患者不同意共享",
    "only the region's own administrators do this": "只有平台管理员可以这样做",
    "this hospital has no such study": "该医院没有此检查",
    "a conflict is promoted, kept or discarded": "冲突须启用、保留或丢弃",
    "this form is not of a page of this site": "该表单不是来自本站页面",
    "a password has {} to {} characters": "密码须为 {} 至 {} 个字符",
    "this user name is taken": "用户名已被使用",
    "no user has this name": "没有此用户",
    "no export or import has this number; `exchange export list`": (
        "没有此编号的导出或导入；请见 `exchange export list`"
    ),
    "such resources are not exported: {}": "此类资源不能导出：{}",
    "the export did not end well: {}": "导出未能完成：{}",
    "no active user has this name": "没有此名的在用用户",
    "a patient is named by a number of the hospital": "请以该医院的患者号指明患者",
    "this hospital has no patient with this number": "该医院没有此患者号",
    # Orders and the ledger
    "an order that is {} cannot become {}": "状态为 {} 的申请不能变为 {}",
    "more than {} entries: add a selective key": "超过 {} 条，请增加查询条件",
    "{} is one line without a backslash, which would divide it": (
        "{}须为一行，且不含反斜杠（反斜杠会把它分成两个值）"
    ),
    "{} is at most {} characters long": "{}至多 {} 个字符",
    "{} is a day of the calendar, written YYYYMMDD, such as 20261130": (
        "{}须为真实日期，写作 YYYYMMDD，如 20261130"
    ),
    "{} is a time of the day, written HHMMSS, such as 093000": (
        "{}须为一天中的时刻，写作 HHMMSS，如 093000"
    ),
    "{} is capital letters and digits, such as CT, MR or DX": "{}为大写字母和数字，如 CT、MR、DX",
    "{} is M, F or O; leave it out where it is not known": "{}为 M、F 或 O；不详时请省略",
    "{} is letters, digits and signs of ASCII, such as CT1": "{}为 ASCII 字母、数字和符号，如 CT1",
    "the patient number": "患者号",
    "the patient's name": "患者姓名",
    "the birth date": "出生日期",
    "the sex": "性别",
    "the accession number": "检查号",
    "the step id": "步骤号",
    "the requested procedure id": "申请步骤号",
    "the modality": "设备类型",
    "the body part": "部位",
    "the description": "检查项目",
    "the station's AE title": "设备 AE Title",
    "the scheduled date": "检查日期",
    "the scheduled time": "检查时间",
    "study_instance_uid is not a UID": "检查 UID 不是有效的 UID",
    "priority is one of {}": "优先级须为其中之一：{}",
    "this hospital has no such order; `exchange order list` shows them": (
        "该医院没有此申请；用 `exchange order list` 查看"
    ),
    "{} is too long": "{} 过长",
    "an order needs {}": "申请缺少 {}",
    "the accession number is that of another patient's order": "该检查号属于另一位患者的申请",
    "the order is {} and cannot be changed": "申请状态为 {}，不能修改",
    "not a resident ID card number: 18 digits with a birth date and check digit": (
        "不是有效的居民身份证号（18 位，含出生日期和校验位）"
    ),
    "a ledger spans 1 to {} days": "台账一次可查 1 至 {} 天",
    "a source has 1 to 64 characters": "计数来源为 1 至 64 个字符",
    "a count is a number from 0 on": "计数须为不小于 0 的数",
    "whose count is it? name one organization": "请指明一家医院：--organization",
    "a count of studies, of instances, or of both": "请给出检查数、实例数或两者",
    "a day is written YYYYMMDD": "日期写作 YYYYMMDD",
    "studies: {} of {}": "检查：收到 {}，院方计 {}",
    "instances: {} of {}": "实例：收到 {}，院方计 {}",
    # Routes
    "a route has a name of 1 to 64 characters": "规则名为 1 至 64 个字符",
    "hours are written HH:MM-HH:MM, and end at another time than they begin": (
        "时段写作 HH:MM-HH:MM，起止不能相同"
    ),
    "a route leads to an application entity or to a DICOMweb service": (
        "请给出目的节点 --to 或 DICOMweb 地址 --url，二者之一"
    ),
    "the base of a DICOMweb service is an http or https URL without a login": (
        "DICOMweb 地址须为 http 或 https URL，不含用户名密码（见 EXCHANGE_DICOMWEB_NETRC）"
    ),
    "a condition has at most {} values and 255 characters": "一个条件至多 {} 个值、255 个字符",
    "the hospital has no application entity of this title that listens at one address; "
    "`exchange organization add-ae CODE TITLE@ADDRESS:PORT` registers one": (
        "该医院没有以此名称在固定地址监听的应用实体；"
        "请用 `exchange organization add-ae 代码 TITLE@地址:端口` 登记"
    ),
    "no route leads to a link-local, multicast or reserved address": (
        "规则不得指向链路本地、组播或保留地址"
    ),
    "this hospital has a route of this name already": "该医院已有同名规则",
    "this hospital has no route of this name; `exchange route list`": (
        "该医院没有此规则；用 `exchange route list` 查看"
    ),
    "no delivery of this number has failed; `exchange route waiting`": (
        "没有此编号的失败转发；用 `exchange route waiting` 查看"
    ),
    "Unanswered: {}": "无应答：{}",
    "Rejected: {}": "被拒绝：{}",
    "Unavailable: {}": "{}",
    "{} does not answer: {}": "{} 没有应答：{}",
    "{} instances were not taken: {}": "{} 个实例未被接受：{}",
    "the logins of DICOMweb services cannot be read: {}": "DICOMweb 登录文件无法读取：{}",
    # Subscriptions
    "a hospital may have {} subscriptions": "一家医院最多有 {} 个订阅",
    "this host is not registered for the hospital's notifications; its administrator allows it:"
    " exchange subscription allow": (
        "此主机未登记为该医院的通知地址；请管理员运行：exchange subscription allow"
    ),
    "a patient that it refers to is not known": "所引用的患者不存在",
    "a header's value is given anew where the endpoint is another": (
        "更换通知地址时须重新给出请求头的值"
    ),
    "nobody is told by this subscription: it was written before any were told": (
        "此订阅不会通知任何人：它写入时平台尚无通知功能"
    ),
    "no subscription of this number has failed; exchange subscription list": (
        "没有此编号的失败订阅；请查看 exchange subscription list"
    ),
    "a hospital has at most {} such hosts": "一家医院最多登记 {} 个通知主机",
    "this hospital is not notified at this host": "该医院没有登记此通知主机",
    "a host is written NAME, ADDRESS or either with :PORT, an IPv6 address in brackets": (
        "主机写作 名称 或 地址，可带 :端口；IPv6 地址加方括号"
    ),
    "only the exchange itself notifies subscribers": "只有平台自身可以通知订阅者",
    "its owner may not sign in any more": "其所有者已不能登录",
    "its owner has another hospital or role": "其所有者已换医院或角色",
    "its host is not registered for the hospital's notifications any more": (
        "其主机已不再登记为该医院的通知地址"
    ),
    "no handshake: {}": "握手失败：{}",
    "the endpoint answers HTTP {}": "通知地址应答 HTTP {}",
    "the endpoint does not answer: {}": "通知地址没有应答：{}",
    "the endpoint does not answer in time": "通知地址未及时应答",
    "the endpoint is not called over https": "通知地址不是 https",
    "the certificate of the endpoint is not trusted, or is not the host's;"
    " EXCHANGE_HOOK_CA names the CA of private ones": (
        "通知地址的证书不受信任，或不属于该主机；私有证书的 CA 由 EXCHANGE_HOOK_CA 指定"
    ),
    "the certificates that EXCHANGE_HOOK_CA names cannot be read": (
        "无法读取 EXCHANGE_HOOK_CA 指定的证书"
    ),
    "the address of the endpoint is none": "通知地址无效",
    "the host of the endpoint is not known": "通知地址的主机名无法解析",
    "the host of the endpoint is at an address that is not called": (
        "通知地址的主机位于不允许连接的网络"
    ),
    # Conflicts, rejection, retention, scrub
    "no image of this key is known to be damaged; `exchange scrub --list`": (
        "此路径没有已知损坏的影像；用 `exchange scrub --list` 查看"
    ),
    "it is in use: its hospital sends it again, or it is rejected": (
        "该影像正在使用：请其医院重新发送，或予以停用"
    ),
    "another instance has this SOP Instance UID": "此 SOP Instance UID 已属于另一个实例",
    "the hospital has rejected this instance": "该医院已停用此实例",
    "the series belongs to another study": "该序列属于另一个检查",
    "the study belongs to another organization": "该检查属于另一家医院",
    "the study belongs to another patient": "该检查属于另一位患者",
    "{}: keep or discard it": "{}；请选择 keep 或 discard",
    "{}: keep or discard it; its hospital corrects the patient and sends it again, or, if the "
    "study is the wrong one, rejects that and sends it anew under new UIDs": (
        "{}；请选择 keep 或 discard：由医院更正患者后重发；若错的是该检查，停用后以新 UID 重发"
    ),
    "no conflict of this number waits; `exchange conflict list` shows them": (
        "没有此编号的待审核冲突；用 `exchange conflict list` 查看"
    ),
    "no discrepancy of this number waits; `exchange discrepancy list` shows them": (
        "没有此编号的待审核不符；用 `exchange discrepancy list` 查看"
    ),
    "the patient is the same or another one": "患者须为同一人（same）或另一人（another）",
    "images that say so are in use under this patient's number: `exchange reject` comes first, and "
    "their hospital sends them anew, under new UIDs and the right number": (
        "此类影像仍以此患者号在用：请先 `exchange reject`，再由医院以新 UID 和正确患者号重发"
    ),
    "this was found to be of another person than the patient of that number: its hospital sends it "
    "anew, under new UIDs and the right number; or, if it is the patient after all, `exchange "
    "discrepancy same {}` comes first": (
        "已确认此影像不属于该患者号的患者，而另有其人：由医院以新 UID 和正确的患者号重发；"
        "若确系该患者，请先 `exchange discrepancy same {}`"
    ),
    "the hospital has rejected this instance; `exchange restore` comes first": (
        "该医院已停用此实例；请先 `exchange restore`"
    ),
    "the instance in its place is another hospital's: keep or discard it": (
        "现用实例属于另一家医院；请选择 keep 或 discard"
    ),
    "it claims another study or series than the instance in its place: keep or discard it": (
        "它声称的检查或序列与现用实例不同；请选择 keep 或 discard"
    ),
    "the study is under a legal hold: nothing of it is deleted; `exchange hold list`": (
        "该检查处于法律保全，不得删除；用 `exchange hold list` 查看"
    ),
    "not a code of a rejection note": "不是停用说明的原因代码",
    "a reference has another SOP class or study: nothing was rejected ({})": (
        "有一处引用的 SOP 类或检查与实例不符：未停用任何实例（{}）"
    ),
    "a rejection note names at most {} instances": "一份停用说明至多 {} 个实例",
    "the code is one of {}": "原因代码须为其中之一：{}",
    "name either instances, or a study, or a series": "请指明实例、检查或序列，三者之一",
    "at most {} instances at a time": "一次至多 {} 个实例",
    "name either instances or a study": "请指明实例或检查，二者之一",
    "these are {}: only that one can reject them": "这些属于{}，只有该医院可以停用",
    "at most {} instances at a time: reject them by series": "一次至多 {} 个实例，请按序列停用",
    "nothing is in use under this name; nothing was rejected": (
        "该名称下没有在用的内容，未停用任何内容"
    ),
    "this hospital has nothing in use under {}; nothing was rejected": (
        "该医院没有在用的 {}；未停用任何实例"
    ),
    "this hospital has not rejected such an instance; `exchange rejected` lists them": (
        "该医院没有停用过这样的实例；用 `exchange rejected` 查看"
    ),
    "what was rejected for patient safety comes back only with a --reason": (
        "因患者安全停用的实例，恢复时须说明理由：--reason"
    ),
    "it was deleted; the hospital has to send it again": "已删除，须由医院重新发送",
    "another instance has this UID now: it would have to be rejected first": (
        "另一个实例已使用此 UID，须先将其停用"
    ),
    "a study is kept 1 to {} days": "保存天数为 1 至 {} 天",
    "a modality has at most 16 characters": "设备类型至多 16 个字符",
    "a Study Instance UID has 1 to 64 digits and dots": "检查 UID 由 1 至 64 个数字和点组成",
    "a hold needs a reason of at most 4096 characters: --reason": (
        "保全须说明理由（至多 4096 个字符）：--reason"
    ),
    "this hospital has no such rule; `exchange retention list` shows them": (
        "该医院没有此规则；用 `exchange retention list` 查看"
    ),
    "there is no hold on this study; `exchange hold list` shows them": (
        "该检查没有保全；用 `exchange hold list` 查看"
    ),
    "missing": "缺失",
    "not the bytes that were received": "内容与接收时不同",
    "cannot be read": "无法读取",
    **COMMANDS,
}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """The texts with something in them, those with most words of their own first."""
    varying = sorted((one for one in TEXTS if "{}" in one), key=len, reverse=True)
    return tuple(
        (re.compile("(.+?)".join(map(re.escape, one.split("{}"))), re.DOTALL), TEXTS[one])
        for one in varying
    )


def translated(text: str) -> str:
    """A message in Chinese, and what it quotes; as it is where that is not known."""
    if text in TEXTS:
        return TEXTS[text]
    for pattern, chinese in _patterns():
        found = pattern.fullmatch(text)
        if found is not None:
            return chinese.format(*map(translated, found.groups()))
    return text

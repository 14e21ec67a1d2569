"""Chinese for what commands, settings, the DICOM client and the parser of the command line say."""

from __future__ import annotations

from collections.abc import Mapping

COMMANDS: Mapping[str, str] = {
    # Commands and settings
    "--organization and --patient go together": "--organization 与 --patient 须同时给出",
    "no job that was given up has this number; `exchange job list` shows them": (
        "没有此编号的已放弃任务；用 `exchange job list` 查看"
    ),
    "{} is set up already; `exchange user add` makes users": (
        "{} 已建立；用 `exchange user add` 添加用户"
    ),
    "another `exchange serve` runs on this data directory": (
        "此数据目录上已有另一个 `exchange serve` 在运行"
    ),
    "cannot write to {}: {}": "无法写入 {}：{}",
    "the index does not answer ({})": "索引数据库没有应答（{}）",
    "the index is of a newer release than this program": "索引的版本比本程序新",
    "EXCHANGE_DATABASE_URL is not a URL of SQLite or PostgreSQL": (
        "EXCHANGE_DATABASE_URL 不是 SQLite 或 PostgreSQL 的 URL"
    ),
    "the object store cannot be opened: {}": "无法打开对象存储：{}",
    "cannot listen on port {} of {}: {}": "无法监听端口 {}（{}）：{}",
    "cannot listen on port {}: {}": "无法监听端口 {}：{}",
    "cannot listen on {}: {}": "无法监听 {}：{}",
    "the certificates of the node cannot be read: {}": "无法读取节点证书：{}",
    "the certificates of the node, or their revocation lists, cannot be read: {}": (
        "无法读取节点证书或其吊销列表：{}"
    ),
    "the settings of the S3 store are not valid: {}": "S3 存储的设置无效：{}",
    "EXCHANGE_FONT: {} is no typeface": "EXCHANGE_FONT 指向的 {} 不是字体文件",
    "the audit key is not an Ed25519 key": "审计密钥不是 Ed25519 密钥",
    "there are no keys in {}; run `exchange init`": "{} 中没有密钥；请运行 `exchange init`",
    "the audit key cannot be read: {}": "无法读取审计密钥：{}",
    "{} cannot be read; run `exchange init`": "无法读取 {}；请运行 `exchange init`",
    "there is no key to sign tokens with; run `exchange init`": (
        "没有签发令牌的密钥；请运行 `exchange init`"
    ),
    "a token key cannot be read: {}": "无法读取令牌密钥：{}",
    "the supervisor has ended meanwhile": "主管进程已结束",
    "EXCHANGE_CONFIG names {}, which is not a file": "EXCHANGE_CONFIG 指向的 {} 不是文件",
    "{}: {}: make room on that disk": "{}：{}：请在该磁盘上腾出空间",
    "the settings cannot be read: {}": "无法读取设置：{}",
    # The DICOM client
    "the certificates cannot be read: {}": "无法读取证书：{}",
    "--tls-ca is not a file of certificates in PEM": "--tls-ca 须为 PEM 格式的证书文件",
    "--tls-certificate has no private key in it: --tls-key names the file that has": (
        "--tls-certificate 文件中没有私钥：请用 --tls-key 指明私钥文件"
    ),
    "--tls-key is not the key of --tls-certificate: name the one that belongs to it": (
        "--tls-key 不是 --tls-certificate 的私钥：请指明与之对应的私钥"
    ),
    "--tls-certificate and --tls-key are a certificate and its key, in PEM": (
        "--tls-certificate 和 --tls-key 须为 PEM 格式的证书及其私钥"
    ),
    "there is no DICOM file": "没有 DICOM 文件",
    "the level is patient, study, series or image": "层级为 patient、study、series 或 image",
    "--tls-certificate wants --tls-ca: whom to trust": (
        "使用 --tls-certificate 时须用 --tls-ca 指明信任的 CA"
    ),
    "--listen over TLS wants --tls-certificate and --tls-key": (
        "经 TLS 接收报告时须给出 --tls-certificate 和 --tls-key"
    ),
    "the node released the association in the middle of the retrieval": (
        "对方节点在取回过程中释放了连接"
    ),
    "the node does not offer {}": "对方节点不提供 {}",
    "a node is written host:port, an IPv6 address as [::1]:port": (
        "节点写作 主机:端口，IPv6 写作 [::1]:端口"
    ),
    "the node answered {}": "对方节点应答 {}",
    "the node has taken the request, and brought no report over the same association; it may bring "
    "it to a port that it has registered for us: --listen PORT waits there": (
        "对方节点已接受请求，但未在同一连接上送回报告；"
        "对方可能送到其为本方登记的端口：请用 --listen 端口 等待"
    ),
    "the node has taken the request, and brought no report to port {}; it has to have our AE title "
    "registered with this machine's address and that port, and may bring it later: --wait SECONDS "
    "waits longer": (
        "对方节点已接受请求，但未向端口 {} 送回报告；对方须以本机地址和该端口登记本方的 AE Title，"
        "也可能稍后送达：用 --wait 秒数 延长等待"
    ),
    "the node rejected the association ({}, by its {}): {}": "对方节点拒绝了连接（{}，由{}）：{}",
    "permanent": "永久",
    "transient": "暂时",
    "service-user": "应用（service-user）",
    "service-provider (ACSE)": "协议层（service-provider, ACSE）",
    "service-provider (Presentation)": "协议层（service-provider, Presentation）",
    "no reason given": "未说明原因",
    "application context name not supported": "不支持该应用上下文",
    "calling AE title not recognized; ours has to be registered there": (
        "不认识主叫 AE Title；请对方登记本方的 AE Title"
    ),
    "called AE title not recognized; the node has another than it was called by": (
        "不认识被叫 AE Title；对方用的是另一个，请核对"
    ),
    "protocol version not supported": "不支持该协议版本",
    "temporary congestion": "暂时拥塞",
    "local limit exceeded": "连接数已达上限",
    "the association was lost: {}; it may want TLS": "连接中断：{}；对方可能要求 TLS",
    "the association was lost: {}; it may not accept our certificate": (
        "连接中断：{}；对方可能不接受本方证书"
    ),
    "the association was lost: {}": "连接中断：{}",
    "connection lost: {}": "{}",
    "the peer took too long": "对方应答超时",
    "the peer aborted the association": "对方中止了连接",
    "the peer aborted instead of answering": "对方未应答即中止",
    "what answers does not speak DICOM": "应答方不使用 DICOM 协议",
    "{} cannot be written into: {}": "无法写入 {}：{}",
    "a key is written KEYWORD or KEYWORD=VALUE": "键写作 关键字 或 关键字=值",
    "calling AE title not recognized; ours has to be registered there; --calling says who we are, "
    "as the node knows us at this address": (
        "不认识主叫 AE Title；请对方登记本方的 AE Title，或用 --calling 给出对方为本机地址登记的"
    ),
    "called AE title not recognized; the node has another than it was called by; --called says "
    "whom we mean": "不认识被叫 AE Title；对方用的是另一个，用 --called 给出",
    "{} is not a keyword of PS3.6": "{} 不是 PS3.6 的关键字",
    "this is not a value of {}": "这不是 {} 的有效值",
    # The parser of the command line
    "Show this message and exit.": "显示此帮助。",
    "Missing command.": "缺少命令。",
    "Missing argument {}.": "缺少参数 {}。",
    "Missing argument {}. {}": "缺少参数 {}。{}",
    "Missing option {}.": "缺少选项 {}。",
    "Missing option {}. {}": "缺少选项 {}。{}",
    "Choose from:{}": "可选：{}",
    "No such command {}.": "没有命令 {}。",
    "No such command {}. Did you mean {}?": "没有命令 {}。是否为 {}？",
    "No such option: {}": "没有选项 {}",
    "No such option: {} (Possible options: {})": "没有选项 {}（可用：{}）",
    "No such option: {} Did you mean {}?": "没有选项 {}。是否为 {}？",
    "Got unexpected extra argument(s) ({})": "多余的参数：{}",
    "Got unexpected extra argument ({})": "多余的参数：{}",
    "Got unexpected extra arguments ({})": "多余的参数：{}",
    "Option {} does not take a value.": "选项 {} 不带值。",
    "Option {} requires an argument.": "选项 {} 须带值。",
    "Invalid value for {}: {}": "{} 的值无效：{}",
    "Value error, {} is not one of {}.": "{} 不在可选值之列：{}。",
    "Input should be a valid integer, unable to parse string as an integer": "须为整数",
    "Input should be a valid number, unable to parse string as a number": "须为数字",
    # … and pydantic, of a setting that is wrong
    "EXCHANGE_{}: {}": "EXCHANGE_{}：{}",
    "{}; EXCHANGE_{}: {}": "{}；EXCHANGE_{}：{}",
    "Value error, {}": "{}",
    "Input should be a valid integer": "须为整数",
    "Input should be a valid number": "须为数字",
    "Input should be a valid boolean": "须为 true 或 false",
    "Input should be a valid boolean, unable to interpret input": "须为 true 或 false",
    "Input should be a valid string": "须为字符串",
    "Input should be a valid tuple": "须为列表",
    "Input should be a finite number": "须为有限的数",
    "Input should be a valid URL, {}": "须为有效的 URL，如 https://images.example.cn：{}",
    "input is empty": "未填",
    "relative URL without a base": "缺少协议",
    "empty host": "缺少主机",
    "invalid port number": "端口无效",
    "Extra inputs are not permitted": "没有这个设置",
    "Input should be {} or {}": "须为 {} 或 {}",
    "URL scheme should be {}": "URL 的协议须为 {}",
    "String should match pattern {}": "须符合格式 {}",
    "{} does not appear to be an IPv4 or IPv6 network": "{} 不是 IPv4 或 IPv6 网段",
    "an origin as browsers write it: scheme, host in small letters and port, such as "
    "https://app.example.cn": (
        "来源写作浏览器所写的形式：协议、小写主机名和端口，如 https://app.example.cn"
    ),
    "no time zone of the IANA database has this name": "IANA 时区库中没有此名称",
    "only scheme, host and port, such as https://images.example.cn": (
        "只写协议、主机和端口，如 https://images.example.cn"
    ),
    "an S3 store needs {}": "S3 存储须设置 {}",
    "{} is empty": "{} 为空",
    "{} and {} belong together": "{} 与 {} 须一并设置",
    "{} needs dimse_tls_certificate": "{} 须与 dimse_tls_certificate 一并设置",
    "dimse_tls_crl needs dimse_tls_client_ca, whose lists it has": (
        "dimse_tls_crl 须与签发吊销列表的 dimse_tls_client_ca 一并设置"
    ),
    "dimse_tls_certificate needs dimse_tls_client_ca, or else dimse_tls_anonymous: nobody is "
    "asked for a certificate then": (
        "dimse_tls_certificate 须与 dimse_tls_client_ca 一并设置；否则设置 dimse_tls_anonymous，"
        "即不索取对方证书"
    ),
    "dimse_tls_anonymous is for TLS without dimse_tls_client_ca": (
        "dimse_tls_anonymous 仅用于未设置 dimse_tls_client_ca 的 TLS"
    ),
    "Input should be greater than {}": "须大于 {}",
    "Input should be greater than or equal to {}": "不得小于 {}",
    "Input should be less than or equal to {}": "不得大于 {}",
    "path {} does not exist.": "路径 {} 不存在。",
    "file {} does not exist.": "文件 {} 不存在。",
    "dir {} does not exist.": "文件夹 {} 不存在。",
    "dir {} is a file.": "{} 是文件，不是文件夹。",
}

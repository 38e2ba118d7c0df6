"""What a provider's refusal means: one table of codes, one of words, one of statuses.

A code decides before the words, and the words before the status, because providers use one status
for many things: 403 for an empty balance or a flagged prompt, 429 for a rate limit or a used-up
quota, 200 for anything. Sources of the codes: platform.openai.com/docs/guides/error-codes,
openrouter.ai/docs/api-reference/errors, docs.siliconflow.cn/cn/faqs/error-code,
help.aliyun.com/zh/model-studio/developer-reference/error-code, docs.z.ai/api-reference/api-code,
platform.kimi.com/docs/api/errors, www.volcengine.com/docs/82379/1299023,
cloud.baidu.com/doc/qianfan-api/s/Om9b4yj3w, api-docs.deepseek.com/quick_start/error_codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a failed request means, and what it ends."""

    KEY = "the key was refused"
    """Ends the run, as do the next four."""
    BALANCE = "the balance is used up"
    QUOTA = "the quota is used up"
    MODEL = "the model is not available"
    ADDRESS = "the address is not that of an API"
    MODERATED = "the content filter refused this dialogue"
    """Ends the dialogue, as do the next two."""
    CONTEXT = "the dialogue is too long for the model"
    BAD_REQUEST = "the request was refused"
    RATE = "too many requests"
    """Repeated after a pause of all requests."""
    OVERLOAD = "the endpoint cannot answer now"
    """Repeated after a pause of this request."""


_CODES = {
    Kind.BALANCE: """
        insufficient_quota insufficient_user_quota insufficient_balance insufficient_credits
        insufficient_funds billing_hard_limit_reached billing_not_active arrearage payment_required
        accountoverdueerror account_overdue operationdenied.serviceoverdue overdue_payment
        exceeded_current_quota_error pre_consume_token_quota_failed 1113 30001 2103
        allocationquota.freetieronly base_resp.1008""",
    Kind.QUOTA: "quotaexceeded setlimitexceeded quota_exceeded daily_limit_exceeded "
    "1304 1308 1309 1310",
    Kind.KEY: """
        invalid_api_key invalidapikey api_key_invalid incorrect_api_key_error
        invalid_authentication_error authentication_error authenticationerror unauthorized
        invalid_iam_token iam_certification_failed account_deactivated invalid_token
        access_terminated access_terminated_error 1000 1001 1002 1003 1004 1110 1111 1112 1121 2101
        base_resp.1004 base_resp.2049""",
    Kind.MODERATED: """
        content_filter content_policy_violation contentfilter data_inspection_failed
        datainspectionfailed sensitivecontentdetected inputtextsensitivecontentdetected
        outputtextsensitivecontentdetected inputtextriskdetection outputtextriskdetection
        sensitive_words_detected prompt_blocked moderation_blocked responsibleaipolicyviolation
        unsafe_request err_safety_breach 1301 base_resp.1026 base_resp.1027""",
    Kind.RATE: """
        rate_limit_exceeded rate_limit_error rate_limit_reached_error ratelimitexceeded throttling
        throttlingexception too_many_requests toomanyrequests resource_exhausted limit_requests
        limit_burst_rate requests_limit_exceeded rpm_rate_limit_exceeded tpm_rate_limit_exceeded
        accountratelimitexceeded modelaccountrpmratelimitexceeded modelaccounttpmratelimitexceeded
        modelaccountipmratelimitexceeded 1302 1303 1305 base_resp.1002 base_resp.1039""",
    Kind.MODEL: """
        model_not_found modelnotfound invalid_model unknown_model unsupported_model no_such_model
        invalidendpointormodel invalidendpoint modelnotopen accessdenied.unpurchased
        model_access_denied resource_not_found_error model_price_error 20012 1211 1212 1221 1222""",
    Kind.CONTEXT: """
        context_length_exceeded context_window_exceeded tokens_too_long characters_too_long
        string_above_max_length prompt_too_long request_too_large 1261 base_resp.1039001""",
    Kind.OVERLOAD: """
        server_overloaded serveroverloaded engine_overloaded_error overloaded_error overloaded
        model_overloaded server_error internal_error internalerror internalserviceerror
        internal_server_error serviceunavailable service_unavailable unavailable
        get_channel_failed do_request_failed bad_response bad_response_status_code empty_response
        upstream_error insufficient_system_resource 50501 50505 50603 1120 1200 1230 1234 1312
        base_resp.1000 base_resp.1001""",
}
_KIND_OF_CODE = {code: kind for kind, codes in _CODES.items() for code in codes.split()}

_WORDS = (
    (
        Kind.QUOTA,
        r"free-models-per-day|daily (?:\w+ )?(?:limit|quota)|per[- ]day (?:limit|quota)|usage limit"
        r"|quota (?:has been |is )?(?:exhausted|used up)|(?:每日|当日|今日|当天|本月).{0,12}"
        r"(?:上限|限额|额度|次数)|配额.{0,8}(?:用完|用尽|耗尽|不足)",
    ),
    (
        Kind.RATE,
        r"rate.?limit|too many requests|requests? limit|concurren|\b[RT]PM\b|限流|限速"
        r"|频率|并发|过于频繁|请求数过多",
    ),
    (
        Kind.BALANCE,
        r"余额|欠费|充值|额度.{0,4}(?:不足|用尽|耗尽|用完)"
        r"|insufficient.{0,20}(?:balance|credit|funds|quota)"
        r"|balance.{0,30}(?:insufficient|not enough|too low|negative|overdue)"
        r"|(?:more|enough|out of|no) credits|credit balance|exceeded your current quota|overdue"
        r"|arrears|in good standing|payment (?:is )?required|billing (?:hard )?limit|recharge",
    ),
    (
        Kind.MODERATED,
        r"moderation|flagged|content (?:policy|filter|management|exists risk)|inappropriate"
        r"|sensitive (?:content|info|word|data)|unsafe (?:or|content|prompt)"
        r"|safety (?:system|policy|filter|reasons)|high risk"
        r"|敏感|违规|不合规|内容审核|安全审核|不当内容|涉政",
    ),
    (
        Kind.KEY,
        r"\b(?:invalid|incorrect|wrong|missing|no|expired|malformed)\b.{0,12}(?:api.?key|credential"
        r"|\bauth(?:entication|orization)?\b|access token)"
        r"|api.?key.{0,40}(?:invalid|incorrect|not valid|not found|expired|disabled|missing"
        r"|required|无效|错误|不正确|过期|不存在)"
        r"|authentication fail|unauthori[sz]ed"
        r"|(?:令牌|密钥|鉴权|认证|身份验证).{0,12}(?:无效|失败|错误|过期|未通过|不存在|禁用)"
        r"|无效的(?:令牌|密钥|api)",
    ),
    (
        Kind.CONTEXT,
        r"context.{0,4}(?:length|window)|maximum context|token limit|(?:input|prompt|request)"
        r".{0,30}(?<!took )too (?:long|large)"
        r"|上下文.{0,12}(?:过长|超)|(?:输入|内容|请求).{0,8}(?:过长|太长)"
        r"|超(?:过|出).{0,16}(?:长度|token|上下文)",
    ),
    (Kind.OVERLOAD, r"temporar|overload|at capacity|系统繁忙|服务繁忙"),
    (
        Kind.ADDRESS,
        r"invalid url|unexpected endpoint|(?:unknown|no such|invalid) (?:endpoint|route|path|url)"
        r"|cannot post /",
    ),
    (
        Kind.MODEL,
        r"model.{0,80}(?:not (?:exist|found|supported|available|open|activated|a valid)"
        r"|n[o']t exist)|no such model|unknown model|invalid model|not a valid model"
        r"|no endpoints found|no available channel"
        r"|模型.{0,40}(?:不存在|未找到|不可用|未开通|无权)|无可用渠道",
    ),
    (
        Kind.OVERLOAD,
        r"overload|capacity|high (?:demand|load)|\bbusy\b|temporarily|try again|timed? ?out"
        r"|upstream|internal (?:server |service )?error|bad gateway|service unavailable"
        r"|繁忙|过载|负载|稍后|超时|内部错误",
    ),
)
_PATTERNS = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _WORDS]

_RUN_OR_PROMPT = {Kind.BALANCE, Kind.QUOTA, Kind.MODERATED, Kind.CONTEXT}
_BELIEVED = {
    401: {Kind.BALANCE, Kind.QUOTA, Kind.MODEL},
    402: set(),
    408: set(),
    429: {Kind.BALANCE, Kind.QUOTA, Kind.OVERLOAD},
}
"""Kinds that words can mean at a status; of a 5xx, only those of ``_RUN_OR_PROMPT``."""
_BY_STATUS = {
    401: Kind.KEY,
    402: Kind.BALANCE,
    403: Kind.KEY,
    405: Kind.ADDRESS,
    408: Kind.OVERLOAD,
    409: Kind.OVERLOAD,
    413: Kind.CONTEXT,
    424: Kind.OVERLOAD,
    425: Kind.OVERLOAD,
    429: Kind.RATE,
    451: Kind.MODERATED,
}
_NOT_FOUND = re.compile(
    r"\W*(?:404 )?(?:page |path |url |route )?not found\W*\Z|no route", re.IGNORECASE
)
_MAX_DEPTH = 4


def kind_of(status: int, code: str, words: str) -> Kind:
    """What a refusal means.

    Args:
        status: HTTP status, or the status in a body that was sent with 200.
        code: Code of the provider; empty if there is none.
        words: Message of the provider; empty if there is none.
    """
    coded = next((kind for part in code.split() if (kind := _of_code(part))), None)
    if coded is Kind.OVERLOAD:  # gateways also use these codes for what upstream refused
        coded = next((k for k, p in _PATTERNS if k in _RUN_OR_PROMPT and p.search(words)), coded)
    if coded is not None:
        return Kind.RATE if coded is Kind.OVERLOAD and status == 429 else coded
    believed = _RUN_OR_PROMPT if status >= 500 else _BELIEVED.get(status)
    for kind, pattern in _PATTERNS:
        if pattern.search(words) and (believed is None or kind in believed):
            return Kind.RATE if kind is Kind.OVERLOAD and status == 429 else kind
    if status == 404 and (not words or _NOT_FOUND.search(words)):
        return Kind.ADDRESS
    return Kind.OVERLOAD if status >= 500 else _BY_STATUS.get(status, Kind.BAD_REQUEST)


def error_in(body: Any) -> tuple[str, str, int | None] | None:
    """The codes, the message and the status that a body reports in place of an answer.

    Understands OpenAI and OpenRouter (``error``), SiliconFlow and DashScope (``code``,
    ``message``), Baidu (``error_code``, ``error_msg``), MiniMax (``base_resp``), Ollama (``error``
    as text) and FastAPI (``detail``).

    Returns:
        Codes separated by spaces, the message, and the status if a code is one; None if the body
        reports no error.
    """
    if isinstance(body, list) and len(body) == 1:  # Gemini
        body = body[0]
    if not isinstance(body, Mapping):
        return None
    reply = body.get("base_resp")
    if isinstance(reply, Mapping) and reply.get("status_code"):
        return f"base_resp.{reply['status_code']}", str(reply.get("status_msg") or ""), None
    if not _has_error(body):
        return None
    codes = list(dict.fromkeys(_codes(body, 0)))
    status = next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), None)
    return " ".join(codes), _message(body, 0), status


def _has_error(body: Mapping[str, Any]) -> bool:
    if body.get("error") or body.get("detail") or body.get("errors") or body.get("error_code"):
        return True
    return not body.get("choices") and bool(body.get("message") or body.get("msg"))


def _of_code(code: str) -> Kind | None:
    """The kind of a code or of the family that it belongs to, as in ``Throttling.RateQuota``."""
    name = code.lower()
    while name:
        if name in _KIND_OF_CODE:
            return _KIND_OF_CODE[name]
        name = name.rpartition(".")[0]
    return None


def _codes(value: Any, depth: int) -> Iterator[str]:
    """Codes in an error, the most telling first."""
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        return
    for name in ("code", "error_code", "errorCode"):
        if isinstance(value.get(name), str | int) and not isinstance(value[name], bool):
            yield from str(value[name]).split()[:1]
    for name in ("error", "errors", "detail", "innererror", "metadata"):
        yield from _codes(value.get(name), depth + 1)
    for name in ("type", "status", "error_type"):
        if isinstance(value.get(name), str):
            yield from str(value[name]).split()[:1]


def _message(value: Any, depth: int) -> str:
    """The words in an error."""
    if depth > _MAX_DEPTH or value is None:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_message(each, depth + 1) for each in value[:3])))
    if not isinstance(value, Mapping):
        return str(value)
    for name in ("message", "error_msg", "msg", "error", "errors", "detail", "error_description"):
        if words := _message(value.get(name), depth + 1):
            return words
    return ""

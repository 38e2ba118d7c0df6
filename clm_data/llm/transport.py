"""Requests to an endpoint: one POST, read within limits, with every failure as one of our errors.

Redirects are not followed: a key and a prompt go to the address that the user chose and to no
other. Proxies come from ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clm_data.errors import (
    ChatError,
    ConfigError,
    CredentialsError,
    ModeratedError,
    PermanentError,
    RateLimitError,
    TransientError,
    UserError,
)
from clm_data.llm.address import Address, shown_target
from clm_data.llm.failures import Kind, error_in, kind_of
from clm_data.text import mask

if TYPE_CHECKING:
    import aiohttp

MAX_BODY = 32 * 2**20
"""Bytes of a response, after decompression; the longest answers of models are about 1 MB."""
_LONGEST_PAUSE = 10 * 365 * 86_400.0
"""Seconds; what an endpoint asks for beyond this is not a date."""
_CHUNK = 2**16
_MAX_MESSAGE = 300
"""Maximum characters of an endpoint's message that are shown to the user."""
_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body)", re.IGNORECASE)


@dataclass(frozen=True)
class Endpoint:
    """Address and key of an API.

    Attributes:
        provider: Its name, for messages.
        address: The checked base_url.
        key: Sent only as a bearer token; None if no key is needed.
        key_variable: Environment variable of the key, named in error messages.
    """

    provider: str
    address: Address
    key: str | None = field(repr=False)
    key_variable: str | None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may contain."""
        return (*((self.key,) if self.key else ()), *self.address.secrets)


class Transport:
    """Sends requests to one endpoint, over connections that it keeps open.

    Args:
        endpoint: The endpoint.
        timeout: Seconds until the last byte of a response.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._proxy = _proxy_for(endpoint.address)
        self._answered = False

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a request and decode the response.

        Raises:
            RateLimitError: Too many requests, with the requested pause.
            TransientError: A timeout, a broken connection, an overload, or an incomplete body.
            PermanentError: The endpoint refuses this request.
            UserError: The endpoint refuses every request: the key, balance, model or address.
        """
        try:
            async with asyncio.timeout(self._timeout):
                status, headers, content = await self._exchange(path, body)
        except TimeoutError as error:
            raise TransientError(f"no answer within {self._timeout:g} s") from error
        except OSError as error:
            raise self._no_connection(error) from error
        return self._decoded(status, headers, content)

    async def close(self) -> None:
        """Close all connections; a later request opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def failure(
        self, status: int, code: str, words: str, headers: Mapping[str, str] | None = None
    ) -> ChatError | UserError:
        """The error for a refusal, with the provider's words."""
        kind = kind_of(status, code, words)
        return self._error(kind, self._reason(status, code, words), (headers or {}))

    def safe(self, message: str) -> str:
        """A message as one line of limited length, without secrets."""
        secrets = [*self._endpoint.secrets, *_proxy_secrets(self._proxy)]
        return mask(" ".join(message.split()), secrets)[:_MAX_MESSAGE]

    async def _exchange(
        self, path: str, body: Mapping[str, Any]
    ) -> tuple[int, Mapping[str, str], bytes]:
        import aiohttp
        from yarl import URL

        headers = {"Authorization": f"Bearer {self._endpoint.key}"} if self._endpoint.key else {}
        try:
            async with self._opened().post(
                URL(self._endpoint.address.url(path), encoded=True),
                data=json.dumps(body, ensure_ascii=True).encode(),
                headers={"Content-Type": "application/json", "Accept": "application/json"}
                | headers,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                return response.status, dict(response.headers), await self._read(response)
        # `from None`: the representation of aiohttp's errors contains the headers, so the key.
        except (aiohttp.ContentTypeError, aiohttp.ClientPayloadError) as error:
            raise TransientError(f"the response cannot be read: {self.safe(str(error))}") from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.InvalidURL) as error:
            reason = self.safe(str(error))
            raise ConfigError(f"{self._where} cannot be connected to: {reason}") from None
        except aiohttp.ClientHttpProxyError as error:
            raise self._proxy_refusal(error.status) from None
        except (aiohttp.ClientError, ValueError) as error:
            raise self._no_connection(error) from None

    def _no_connection(self, error: Exception) -> TransientError:
        through = " through the proxy of the environment" if self._proxy else ""
        reason = self.safe(str(error) or type(error).__name__)
        return TransientError(
            f"connection to {self._endpoint.address.shown}{through} failed: {reason}"
        )

    @staticmethod
    def _proxy_refusal(status: int) -> TransientError | ConfigError:
        reason = f"the proxy of the environment refused the connection (HTTP {status})"
        if status >= 500 or status == 429:
            return TransientError(reason)
        return ConfigError(f"{reason}; check HTTPS_PROXY and HTTP_PROXY, or set NO_PROXY")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            import ssl

            import aiohttp
            import certifi

            context = ssl.create_default_context()
            context.load_verify_locations(certifi.where())
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=context),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "clm-data"},
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, as far as the limit."""
        content = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            content += chunk
            if len(content) > MAX_BODY:
                response.close()
                raise PermanentError(f"the response is larger than {MAX_BODY // 2**20} MB")
        return bytes(content)

    def _decoded(self, status: int, headers: Mapping[str, str], content: bytes) -> Any:
        named = {name.lower(): value for name, value in headers.items()}
        if status == 407:
            raise self._proxy_refusal(status)
        if 300 <= status < 400:
            target = shown_target(named.get("location", ""), self._endpoint.address.url())
            raise ConfigError(
                f"{self._where} redirects to {self.safe(target)} (HTTP {status}), which was not "
                "followed; if you trust that address, set it as base_url"
            )
        if _HTML.match(content) or "text/html" in named.get("content-type", "").lower():
            raise self._web_page(status, content)
        try:
            body = json.loads(content)
        except RecursionError as error:
            raise PermanentError("the response is nested too deeply to be read") from error
        except ValueError as error:
            if status < 400:
                raise self._not_json(named, content) from error
            body = {"error": content[:2000].decode(errors="replace")}
        found = error_in(body)
        if found is not None and not (status < 400 and _has_answer(body)):
            code, words, inner = found
            raise self.failure(inner or status if status < 400 else status, code, words, named)
        if status >= 400:
            raise self.failure(status, "", content[:2000].decode(errors="replace"), named)
        self._answered = True
        return body

    def _web_page(self, status: int, content: bytes) -> ChatError | UserError:
        """A gateway's passing error, or an address that is not that of an API."""
        title = re.search(rb"<title[^>]*>([^<]{1,200})", content[:5000], re.IGNORECASE)
        name = f" '{self.safe(title[1].decode(errors='replace'))}'" if title else ""
        what = f"the endpoint answered with a web page{name} (HTTP {status}, text/html), not JSON"
        if status >= 500 or self._answered or status in (408, 429):
            return TransientError(what)
        if status in (401, 402, 403):
            return self._error(Kind.KEY, f"{what}; it may block this network", {})
        return ConfigError(
            f"{self._where}: {what}; base_url may lack /v1, or not be the address of an API"
        )

    def _not_json(self, headers: Mapping[str, str], content: bytes) -> ChatError:
        kind = headers.get("content-type", "no content type").partition(";")[0].strip()
        if not content.strip():
            return TransientError("the response is empty")
        if kind == "text/event-stream" or content.lstrip()[:6] in (b"data: ", b"event:"):
            return PermanentError(
                "the endpoint answered with a stream (text/event-stream), which was not asked for; "
                "turn off forced streaming at the gateway"
            )
        start = self.safe(content[:200].decode(errors="replace"))
        return TransientError(f"the answer is not complete JSON ({kind}): {start}")

    @property
    def _where(self) -> str:
        return f"{self._endpoint.provider} ({self._endpoint.address.shown})"

    def _reason(self, status: int, code: str, words: str) -> str:
        said = self.safe(words) or "no message"
        name = next((part for part in code.split() if part != str(status)), "")
        return f"HTTP {status}: {said}" + (f"; code {self.safe(name)}" if name else "")

    def _error(self, kind: Kind, reason: str, headers: Mapping[str, str]) -> ChatError | UserError:
        provider = self._endpoint.provider
        match kind:
            case Kind.RATE:
                return RateLimitError(reason, retry_after(headers.get("retry-after")))
            case Kind.OVERLOAD:
                pause = retry_after(headers.get("retry-after"))
                return TransientError(reason) if pause is None else RateLimitError(reason, pause)
            case Kind.MODERATED:
                return ModeratedError(f"{kind.value} ({reason})")
            case Kind.CONTEXT:
                return PermanentError(f"{kind.value} ({reason})")
            case Kind.BAD_REQUEST:
                return PermanentError(reason)
            case Kind.KEY:
                variable = self._endpoint.key_variable
                fix = (
                    f"check {variable}"
                    if variable
                    else "it requires a key: use --provider custom and set CLM_DATA_API_KEY"
                )
                return CredentialsError(f"{self._where} refused access; {fix} ({reason})")
            case Kind.BALANCE:
                return UserError(
                    f"{provider}: {kind.value}; top it up, then run the command again ({reason})"
                )
            case Kind.QUOTA:
                return UserError(
                    f"{provider}: {kind.value}; raise it or wait until it is renewed, then run the "
                    f"command again ({reason})"
                )
            case Kind.MODEL:
                return ConfigError(
                    f"{provider}: {kind.value}; set another with --model or 'model:' in clm.yaml "
                    f"({reason})"
                )
            case Kind.ADDRESS:
                return ConfigError(
                    f"{self._where}: no API at this address; base_url may lack /v1 ({reason})"
                )


def retry_after(value: str | None) -> float | None:
    """Parse a ``Retry-After`` header, a number or an HTTP date (RFC 9110, 10.2.3), to seconds.

    Returns:
        The seconds, at least 0; None if there is no header or it cannot be parsed.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), _LONGEST_PAUSE) if seconds < float("inf") else None


def _has_answer(body: Any) -> bool:
    """Whether a body with an answer reports no error next to it."""
    if not isinstance(body, dict) or not (body.get("choices") or body.get("data")):
        return False
    found = error_in({"error": body["error"]}) if body.get("error") else None
    return found is None or not found[1]


def _proxy_for(address: Address) -> str | None:
    """The proxy for an address by the environment.

    Raises:
        ConfigError: The proxy is not an HTTP proxy.
    """
    # Not exported by typeshed: getproxies() also asks the system's settings, and is not pure.
    request: Any = import_module("urllib.request")
    proxies = request.getproxies_environment()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    host = f"{address.host}:{address.port}"
    if not proxy or request.proxy_bypass_environment(host, proxies):
        return None
    url = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(
            f"the proxy of the environment is a {urlsplit(url).scheme} proxy; only HTTP proxies "
            f"are supported: set {address.scheme.upper()}_PROXY to one, or NO_PROXY={address.host}"
        )
    return url


def _proxy_secrets(proxy: str | None) -> tuple[str, ...]:
    parts = urlsplit(proxy or "")
    return (parts.netloc.rpartition("@")[0], *filter(None, (parts.password,)))
